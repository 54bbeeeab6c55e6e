"""What a dbt invocation becomes in a store: its words in ours, batches as intervals, once and in order."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integrations.dbt_files import DAILY, MICROBATCH, ORDERS, SHA, daily, node, result, write_dbt

from seeknal.errors import ConfigurationError, IntervalError, SchemaVersionError, TransferError
from seeknal.integrations.dbt import import_dbt, preview_dbt, read_dbt
from seeknal.integrations.dbt.mapping import node_id_of
from seeknal.model.ids import MAX_ID_BYTES, check_id
from seeknal.state.backend import create_state_backend

REAL = Path(__file__).parent / "dbt_1_11"


def at(day, hour=0, minute=0, second=0, us=0):
    return datetime(2024, 1, day, hour, minute, second, us, tzinfo=UTC)


@pytest.fixture
def backend():
    with create_state_backend("memory") as store:
        store.initialize()
        yield store


def completed(backend, node_id=DAILY):
    return [(each.start, each.end) for each in backend.get_completed_intervals(node_id)]


def test_files_of_dbt_become_a_run_with_a_state_of_each_node(backend):
    report = import_dbt(backend, REAL)
    run = backend.get_run("dbt_d112e228-a743-4b63-871c-a19be6e4444d")
    assert (report.run_id, report.is_new, run.status) == (run.run_id, True, "failed")
    assert (run.started_at, run.finished_at) == (
        datetime(2026, 11, 27, 18, 26, 38, 868829, tzinfo=UTC),
        datetime(2026, 11, 27, 18, 26, 50, 256776, tzinfo=UTC),
    )
    assert run.config["command"] == "build"
    states = {node_id: state.status.value for node_id, state in backend.get_all_node_states(run.run_id).items()}
    assert states == {
        "seed.shop.raw_orders": "success",
        "unit_test.shop.orders.a unit test with spaces": "success",
        "model.shop.orders": "success",
        "model.shop.broken": "failed",
        "model.shop.daily": "failed",
        "model.shop.after": "skipped",
        "exposure.shop.board": "skipped",
    }
    seed = backend.get_node_state(run.run_id, "seed.shop.raw_orders")
    assert (seed.row_count, seed.fingerprint[:17]) == (3, "dbt-sha256:ad8b07")
    assert "missing_column" in backend.get_node_state(run.run_id, "model.shop.broken").error_message
    # Two of the three batches went well.
    assert completed(backend) == [(at(1), at(3))]


def test_a_result_says_when_how_long_how_many_rows_and_what_it_was_made_of(backend, tmp_path):
    known = node(ORDERS, tags=["hourly"], depends_on={"macros": ["m"], "nodes": ["seed.shop.raw"]})
    import_dbt(
        backend,
        write_dbt(tmp_path, result(adapter_response={"rows_affected": 7}, message="INSERT 7"), nodes={ORDERS: known}),
    )
    state = backend.get_node_state("dbt_a1", ORDERS)
    assert (state.status, state.started_at, state.finished_at) == (
        "success",
        at(10, 12, 0, 1),
        at(10, 12, 0, 3),
    )
    assert (state.duration_ms, state.row_count, state.error_message) == (2001, 7, None)
    assert state.fingerprint == f"dbt-sha256:{SHA}"
    assert state.metadata == {
        "dbt_status": "success",
        "message": "INSERT 7",
        "relation_name": '"shop"."main"."orders"',
        "resource_type": "model",
        "tags": ["hourly"],
        "depends_on": ["seed.shop.raw"],
        "original_file_path": "models/orders.sql",
    }


def test_a_run_says_when_it_was_and_keeps_no_variables(backend, tmp_path):
    import_dbt(backend, write_dbt(tmp_path, result(), args={"select": ["orders"], "target": "prod"}))
    run = backend.get_run("dbt_a1")
    assert (run.status, run.started_at, run.finished_at) == ("success", at(10, 12), at(10, 12, 0, 5))
    assert run.config == {"command": "run", "select": ["orders"], "target": "prod"}
    assert "s3cret" not in str(run)
    assert (run.metadata["dbt_version"], run.metadata["project_name"]) == ("1.11.16", "shop")


def test_results_of_an_older_schema_begin_as_long_before_their_end_as_they_took(backend, tmp_path):
    import_dbt(backend, write_dbt(tmp_path, result(), run_results_version=4, manifest_version=9))
    assert backend.get_run("dbt_a1").started_at == at(10, 12, 0, 1)


@pytest.mark.parametrize(
    ("theirs", "ours", "whole"),
    [
        ("success", "success", "success"),
        ("pass", "success", "success"),
        ("warn", "success", "success"),
        ("error", "failed", "failed"),
        ("fail", "failed", "failed"),
        ("runtime error", "failed", "failed"),
        ("partial success", "failed", "failed"),
        ("skipped", "skipped", "success"),
        ("no-op", "skipped", "success"),
        ("reused", "cached", "success"),
    ],
)
def test_every_status_of_dbt_has_one_of_ours(backend, tmp_path, theirs, ours, whole):
    import_dbt(backend, write_dbt(tmp_path, result(status=theirs, message="said", failures=2)))
    state = backend.get_node_state("dbt_a1", ORDERS)
    assert (state.status, backend.get_run("dbt_a1").status) == (ours, whole)
    assert (state.metadata["dbt_status"], state.metadata["failures"]) == (theirs, 2)
    assert (state.error_message, state.metadata.get("message")) == (
        ("said", None) if ours == "failed" else (None, "said")
    )


def test_an_unknown_status_is_refused_by_name(tmp_path):
    with pytest.raises(TransferError, match=r"'model.shop.orders' has the status 'resting'"):
        read_dbt(write_dbt(tmp_path, result(status="resting")))


def test_two_results_of_one_node_are_refused_since_one_would_hide_the_other(tmp_path):
    with pytest.raises(TransferError, match=r"'model\.shop\.orders' has more than one result"):
        read_dbt(write_dbt(tmp_path, result(status="error"), result()))


def test_a_failure_without_a_message_has_its_status_for_one(backend, tmp_path):
    import_dbt(backend, write_dbt(tmp_path, result(status="fail")))
    assert backend.get_node_state("dbt_a1", ORDERS).error_message == "fail"


def test_a_skipped_node_has_no_beginning_and_ends_with_the_invocation(backend, tmp_path):
    import_dbt(backend, write_dbt(tmp_path, result(status="skipped")))
    state = backend.get_node_state("dbt_a1", ORDERS)
    assert (state.started_at, state.finished_at, state.duration_ms) == (None, at(10, 12, 0, 5), None)


@pytest.mark.parametrize("rows", [-1, None, "7", True, 1.5])
def test_a_number_of_rows_that_is_none_is_left_out(backend, tmp_path, rows):
    import_dbt(backend, write_dbt(tmp_path, result(adapter_response={"rows_affected": rows})))
    assert backend.get_node_state("dbt_a1", ORDERS).row_count is None


@pytest.mark.parametrize(
    "checksum",
    [{"name": "path", "checksum": "seeds/large.csv"}, {"name": "none", "checksum": ""}, "b4b2def6", None],
)
def test_a_checksum_that_is_not_of_the_content_makes_no_fingerprint(tmp_path, checksum):
    run = read_dbt(write_dbt(tmp_path, result(), nodes={ORDERS: node(ORDERS, checksum=checksum)}))
    assert run.nodes[0].fingerprint is None


def test_an_id_that_is_too_long_is_shortened_and_kept_whole_in_metadata(backend, tmp_path):
    long = "test.shop.accepted_values_orders_" + "ä" * 200 + ".9a2906e726"
    other = long.replace("9a2906e726", "9a2906e727")
    import_dbt(backend, write_dbt(tmp_path, result(long, "pass"), result(other, "pass")))
    states = backend.get_all_node_states("dbt_a1")
    assert {state.metadata["unique_id"] for state in states.values()} == {long, other}
    assert all(each.startswith("test.shop.accepted_values_orders_ä") for each in states)


@pytest.mark.parametrize("name", ["a" * 191, "unit_test.shop.m.two\nlines", "ä" * 96, "\x7f" * 300])
def test_every_shortened_id_is_an_id_and_the_same_each_time(name):
    short = node_id_of(name)
    assert check_id(short, "node_id") == node_id_of(name) == short
    assert short != name


@pytest.mark.parametrize("name", ["a" * MAX_ID_BYTES, "unit_test.shop.m.some words", "model.shop.orders.v2"])
def test_an_id_that_is_one_stays_as_it_is(name):
    assert node_id_of(name) == name


# ---- batches ----


def test_successful_batches_are_completed_and_failed_ones_are_missing(backend, tmp_path):
    good, bad = [("2024-01-01", "2024-01-02"), ("2024-01-03", "2024-01-04")], [("2024-01-02", "2024-01-03")]
    report = import_dbt(backend, write_dbt(tmp_path, daily(good, bad)))
    assert completed(backend) == [(at(1), at(2)), (at(3), at(4))]
    missing = backend.get_missing_intervals(DAILY, at(1), at(4), schedule="@daily")
    assert [(each.start, each.end) for each in missing] == [(at(2), at(3))]
    assert [(each.start, each.end) for each in report.completed] == [(at(1), at(2)), (at(3), at(4))]
    assert backend.get_node_state("dbt_a1", DAILY).status == "failed"


def test_a_batch_that_was_not_over_when_it_was_run_is_not_completed(backend, tmp_path):
    days = [("2024-01-09", "2024-01-10"), ("2024-01-10", "2024-01-11")]
    report = import_dbt(backend, write_dbt(tmp_path, daily(days)))
    assert completed(backend) == [(at(9), at(10))]
    assert [(each.start, each.end) for each in report.open] == [(at(10), at(11))]


def test_the_last_batch_of_a_retry_is_open_since_nobody_knows_when_it_was_run_first(backend, tmp_path):
    days = [("2024-01-07", "2024-01-08"), ("2024-01-08", "2024-01-09")]
    told = {"which": "build", "invocation_command": "dbt --quiet retry"}
    report = import_dbt(backend, write_dbt(tmp_path, daily(days), args=told))
    assert completed(backend) == [(at(7), at(8))]
    assert [(each.start, each.end) for each in report.open] == [(at(8), at(9))]


def test_the_last_batch_of_a_retry_may_have_failed_again(backend, tmp_path):
    told = {"invocation_command": "dbt retry"}
    import_dbt(
        backend, write_dbt(tmp_path, daily([("2024-01-07", "2024-01-08")], [("2024-01-08", "2024-01-09")]), args=told)
    )
    assert completed(backend) == [(at(7), at(8))]


def test_a_retry_of_a_span_that_was_named_completes_all_of_it(backend, tmp_path):
    told = {"invocation_command": "dbt retry", "event_time_end": "2024-01-03T00:00:00"}
    days = [("2024-01-02", "2024-01-03"), ("2024-01-01", "2024-01-02")]
    import_dbt(backend, write_dbt(tmp_path, daily(days), args=told))
    assert completed(backend) == [(at(1), at(3))]


def done(backend, first, last):
    backend.create_run("before")
    backend.add_completed_interval("before", DAILY, at(first), at(last))


@pytest.mark.parametrize(("option", "config", "left"), [(True, None, []), (False, True, []), (True, False, [1, 3])])
def test_what_is_refreshed_in_full_forgets_what_was_completed(backend, tmp_path, option, config, left):
    done(backend, 1, 3)
    known = {DAILY: node(DAILY, config=MICROBATCH | {"full_refresh": config})}
    files = write_dbt(tmp_path, daily([("2024-01-05", "2024-01-06")]), args={"full_refresh": option}, nodes=known)
    import_dbt(backend, files)
    assert completed(backend) == [*([(at(left[0]), at(left[1]))] if left else []), (at(5), at(6))]
    reasons = [change.reason for change in backend.list_changes(action="restate")]
    assert reasons == ([] if left else ["dbt_a1 wrote it anew"])


def test_a_full_refresh_that_built_nothing_forgets_nothing(backend, tmp_path):
    done(backend, 1, 3)
    import_dbt(backend, write_dbt(tmp_path, daily([], [("2024-01-01", "2024-01-02")]), args={"full_refresh": True}))
    assert completed(backend) == [(at(1), at(3))]


@pytest.mark.parametrize("option", [{"empty": True}, {"sample": {"start": "2024-01-01", "end": "2024-01-03"}}])
def test_batches_that_were_written_without_their_rows_are_no_longer_completed(backend, tmp_path, option):
    done(backend, 1, 5)
    files = write_dbt(tmp_path, daily([("2024-01-01", "2024-01-02"), ("2024-01-02", "2024-01-03")]), args=option)
    report = import_dbt(backend, files)
    assert completed(backend) == [(at(3), at(5))]
    assert [(each.start, each.end) for each in report.restated] == [(at(1), at(3))]
    # What was built without rows must not pass for what the code makes.
    assert backend.get_node_state("dbt_a1", DAILY).fingerprint is None


def test_batches_without_their_rows_that_were_never_completed_are_not_told_of(backend, tmp_path):
    done(backend, 3, 5)
    report = import_dbt(backend, write_dbt(tmp_path, daily([("2024-01-01", "2024-01-02")]), args={"empty": True}))
    assert (report.restated, backend.list_changes(action="restate")) == ([], [])


def test_a_full_refresh_without_rows_forgets_everything(backend, tmp_path):
    done(backend, 1, 5)
    told = {"empty": True, "full_refresh": True}
    import_dbt(backend, write_dbt(tmp_path, daily([("2024-01-01", "2024-01-02")]), args=told))
    assert completed(backend) == []


def test_batches_of_a_model_that_is_not_configured_by_batches_are_no_intervals(backend, tmp_path):
    known = {DAILY: node(DAILY, config=MICROBATCH | {"event_time": None})}
    import_dbt(backend, write_dbt(tmp_path, daily([("2024-01-01", "2024-01-02")]), nodes=known))
    assert completed(backend) == []


def test_a_batch_that_runs_backwards_is_refused_and_nothing_is_written(backend, tmp_path):
    with pytest.raises(IntervalError):
        import_dbt(backend, write_dbt(tmp_path, daily([("2024-01-02", "2024-01-01")])))
    assert backend.list_runs() == []


# ---- once, and in order ----


def test_the_same_results_again_change_nothing(backend, tmp_path):
    files = write_dbt(tmp_path, daily([("2024-01-01", "2024-01-02")]))
    import_dbt(backend, files)
    backend.restate_intervals(DAILY, at(1), at(2))
    before = backend.get_run("dbt_a1")
    # Another layout of the same, and another manifest beside it.
    path = files / "run_results.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
    report = import_dbt(backend, files)
    assert (report.is_new, report.completed, backend.get_run("dbt_a1")) == (False, [], before)
    assert completed(backend) == []


def test_other_results_of_the_same_invocation_are_refused(backend, tmp_path):
    import_dbt(backend, write_dbt(tmp_path, result()))
    with pytest.raises(TransferError, match="not of these results"):
        import_dbt(backend, write_dbt(tmp_path, result(status="error")))
    assert backend.get_node_state("dbt_a1", ORDERS).status == "success"


def test_a_run_of_the_same_name_that_was_not_imported_is_not_taken_for_one(backend, tmp_path):
    backend.create_run("dbt_a1")
    with pytest.raises(TransferError, match="not of these results"):
        import_dbt(backend, write_dbt(tmp_path, result()))


def test_what_is_older_is_not_put_before_what_is_there(backend, tmp_path):
    import_dbt(backend, write_dbt(tmp_path / "b", result(), invocation_id="b"))
    older = result(timing=[{"name": "execute", "started_at": "2024-01-09T12:00:00Z", "completed_at": None}])
    older["timing"][0]["completed_at"] = "2024-01-09T12:00:01Z"
    files = write_dbt(tmp_path / "a", older, invocation_id="a", generated_at="2024-01-09T12:00:05Z")
    with pytest.raises(TransferError, match=r"later state of 'model.shop.orders', of run 'dbt_b'"):
        import_dbt(backend, files)
    with pytest.raises(TransferError, match="later state"):
        preview_dbt(backend, read_dbt(files))
    assert backend.list_runs() == ["dbt_b"]


def test_an_import_that_is_refused_in_its_middle_leaves_nothing(backend, tmp_path):
    files = write_dbt(tmp_path, result(), result(DAILY, execution_time=-1.0))
    with pytest.raises(ValueError, match="duration_ms"):
        import_dbt(backend, files)
    assert backend.list_runs() == []


def test_of_two_imports_at_once_one_is_new(tmp_path):
    files = write_dbt(tmp_path / "target", *(result(f"model.shop.m{i}") for i in range(50)))
    ready = threading.Barrier(4)
    reports = []

    def take():
        with create_state_backend("database", db_path=tmp_path / "state.db") as store:
            store.initialize()
            ready.wait()
            reports.append(import_dbt(store, files))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.is_new for report in reports) == [False, False, False, True]


def test_a_preview_says_what_an_import_does_and_writes_nothing(backend, tmp_path):
    done(backend, 1, 3)
    files = write_dbt(tmp_path, daily([("2024-01-05", "2024-01-06")]), args={"full_refresh": True})
    foreseen = preview_dbt(backend, read_dbt(files))
    assert backend.list_runs() == ["before"]
    assert import_dbt(backend, files) == foreseen


# ---- files that cannot be taken ----


def test_a_directory_that_is_none_is_wrong_usage(tmp_path):
    with pytest.raises(ConfigurationError, match="is not a directory"):
        read_dbt(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["run_results.json", "manifest.json"])
def test_a_missing_file_is_named(tmp_path, name):
    files = write_dbt(tmp_path, result())
    (files / name).unlink()
    with pytest.raises(TransferError, match=f"holds no {name}"):
        read_dbt(files)


@pytest.mark.parametrize("name", ["run_results.json", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b'{"metadata": {', b"\xff\xfe", b'{"metadata": {}} and more'])
def test_a_file_that_is_no_json_is_named(tmp_path, name, content):
    files = write_dbt(tmp_path, result())
    (files / name).write_bytes(content)
    with pytest.raises(TransferError, match=rf"{name} is no(t what dbt writes| JSON)"):
        read_dbt(files)


def test_a_field_that_is_missing_is_named(tmp_path):
    nameless = result()
    del nameless["unique_id"]
    with pytest.raises(TransferError, match=r"missing required field `unique_id` - at `\$\.results\[0\]`"):
        read_dbt(write_dbt(tmp_path, nameless))


@pytest.mark.parametrize("version", [3, 7])
def test_results_of_an_unknown_schema_are_refused(tmp_path, version):
    with pytest.raises(SchemaVersionError, match="reads 4 to 6") as caught:
        read_dbt(write_dbt(tmp_path, result(), run_results_version=version))
    assert (caught.value.found, caught.value.wanted) == (str(version), "4 to 6")


@pytest.mark.parametrize("version", [8, 13])
def test_a_manifest_of_an_unknown_schema_is_refused(tmp_path, version):
    with pytest.raises(SchemaVersionError, match="reads 9 to 12"):
        read_dbt(write_dbt(tmp_path, result(), manifest_version=version))


def test_a_file_of_another_kind_under_the_name_is_refused(tmp_path):
    files = write_dbt(tmp_path, result())
    (files / "manifest.json").replace(files / "run_results.json")
    with pytest.raises(TransferError, match="not of dbt/run-results"):
        read_dbt(files)


@pytest.mark.parametrize("command", ["compile", "show", "generate", "run-operation", "clone", None])
def test_results_of_a_command_that_builds_nothing_are_refused(tmp_path, command):
    with pytest.raises(TransferError, match=r"builds and tests nothing|does not say"):
        read_dbt(write_dbt(tmp_path, result(), args={"which": command}))


def other_manifest(files):
    path = files / "manifest.json"
    found = json.loads(path.read_text())
    found["metadata"]["invocation_id"] = "another"
    path.write_text(json.dumps(found))
    return files


def test_a_manifest_of_another_invocation_is_refused(tmp_path):
    with pytest.raises(TransferError, match=r"dbt invocation a1, and manifest.json beside it of another"):
        read_dbt(other_manifest(write_dbt(tmp_path, result())))


def test_results_alone_have_no_fingerprints_and_complete_nothing(backend, tmp_path):
    files = other_manifest(write_dbt(tmp_path, daily([("2024-01-01", "2024-01-02")])))
    import_dbt(backend, files, use_manifest=False)
    state = backend.get_node_state("dbt_a1", DAILY)
    assert (state.status, state.fingerprint, completed(backend)) == ("success", None, [])
    assert "project_name" not in backend.get_run("dbt_a1").metadata
