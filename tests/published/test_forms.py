"""Each form in which the published platform keeps state, taken in: every field has a place, nothing is there twice."""

from __future__ import annotations

import copy
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.published.build import HERE, database, document, folder, write

from seeknal.errors import CorruptStateError, SchemaVersionError
from seeknal.model.status import NodeStatus
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import IntervalCompleted, IntervalRestated, PartitionCompleted
from seeknal.state.published.directory import take
from seeknal.state.published.records import joined

NOW = datetime(2026, 4, 1, tzinfo=UTC)
FIRST, SECOND = "20260301_060005", "20260302_060005"


@pytest.fixture(autouse=True)
def in_jakarta(monkeypatch):
    """The platform writes local time; this test must not pass just because the machine is in UTC."""
    import time

    monkeypatch.setenv("TZ", "Asia/Jakarta")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def second():
    return document("schema_2/run_state.json")


def first():
    return document("schema_2/run_state.json.bak.20260302_060005")


def taken_from(directory):
    taken = take(directory, NOW)
    assert taken is not None
    return taken, joined(taken.batches)


def nodes_of(batch, run_id):
    return {state.node_id: state for state in batch.nodes if state.run_id == run_id}


def leaves(value):
    """Yield every leaf of a JSON value that says something; instants all in one form."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif value not in (None, ""):
        yield instant(value)


def instant(value):
    if isinstance(value, str) and value[:2] == "20" and len(value) >= 10 and value[4] == "-":
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if len(value) == 10 else moment.astimezone(UTC)
    return value


def found_leaves(batch):
    for run in batch.runs:
        yield from leaves(msgspec.to_builtins(run))
    for state in batch.nodes:
        yield from leaves(msgspec.to_builtins(state))
    for change in batch.work:
        if isinstance(change, IntervalCompleted | IntervalRestated):
            yield from (change.start, change.end)
            # A naive bound is UTC, which the other leaves of this test are not.
            yield from (bound.replace(tzinfo=None).astimezone(UTC) for bound in (change.start, change.end))
        elif isinstance(change, PartitionCompleted):
            yield change.state.partition


def test_every_value_of_schema_2_is_found_again(tmp_path):
    write(tmp_path / "run_state.json", second())
    _, batch = taken_from(tmp_path)
    assert set(leaves(second())) - set(found_leaves(batch)) == set()
    assert {state.node_id for state in batch.nodes} == set(second()["nodes"])


def test_every_value_of_schema_1_is_found_again(tmp_path):
    shutil.copy(HERE / "schema_1" / "run_state.json", tmp_path)
    taken, batch = taken_from(tmp_path)
    assert set(leaves(document("schema_1/run_state.json"))) - set(found_leaves(batch)) == set()
    (run,) = batch.runs
    assert (run.status, run.metadata) == ("failed", {"schema_version": "1.0.0", "seeknal_version": "2.0.0"})
    assert (run.started_at, run.finished_at) == (
        datetime(2025, 11, 9, 16, 30, tzinfo=UTC),
        datetime(2025, 11, 9, 16, 31, 9, tzinfo=UTC),
    )
    assert nodes_of(batch, run.run_id)["model.churn"].error_message == "out of memory"
    assert taken.forms[0].what == "the latest run, schema 1.0.0"


def test_every_value_of_a_database_is_found_again(tmp_path):
    run = second()
    run.pop("environment")  # the tables have no columns for what is not known
    for node in run["nodes"].values():
        node.pop("engine_hint", None)
        node.pop("lineage", None)
    path = database(tmp_path / "state.db", first(), run)
    before = path.read_bytes()
    taken, batch = taken_from(tmp_path)
    assert {*leaves(first()), *leaves(run)} - set(found_leaves(batch)) == set()
    assert [each.run_id for each in batch.runs] == [FIRST, SECOND]
    assert all({"created_at", "updated_at"} <= state.metadata.keys() for state in batch.nodes)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state.db"]
    assert taken.counts() == {"runs": 2, "node_states": 20, "intervals": 3, "partitions": 2}


def test_every_value_of_an_execution_state_is_found_again(tmp_path):
    shutil.copytree(HERE / "execution", tmp_path, dirs_exist_ok=True)
    _, batch = taken_from(tmp_path)
    source = document("execution/state/execution_state.json")
    assert [run.run_id for run in batch.runs] == ["execution_state"]
    states = nodes_of(batch, "execution_state")
    assert states.keys() == source.keys()
    for node_id, found in source.items():
        state = states[node_id]
        assert (state.status, state.row_count, state.duration_ms) == (
            "success",
            found["row_count"],
            found["duration"] * 1000,
        )
        assert state.finished_at == datetime.fromtimestamp(found["last_run"], UTC)
        assert state.started_at == state.finished_at - timedelta(seconds=found["duration"])
    assert batch.runs[0].started_at == min(state.started_at for state in states.values())


def test_what_the_fields_become(tmp_path):
    write(tmp_path / "run_state.json", second())
    _, batch = taken_from(tmp_path)
    (run,) = batch.runs
    assert (run.run_id, run.status, run.version) == (SECOND, "failed", 1)
    assert run.started_at == datetime(2026, 3, 1, 23, 0, 5, 500_000, tzinfo=UTC), (
        "local time, as the platform writes it"
    )
    assert run.config == second()["config"]
    assert run.metadata == {"schema_version": "2.0", "seeknal_version": "2.4.0", "environment": "prod"}
    states = nodes_of(batch, SECOND)
    orders = states["source.orders"]
    source = second()["nodes"]["source.orders"]
    assert orders.fingerprint == source["hash"]
    assert orders.finished_at - orders.started_at == timedelta(milliseconds=source["duration_ms"])
    assert orders.metadata == source["metadata"] | {
        "node_version": 1,
        "fingerprint_parts": source["fingerprint"],
        "iceberg_snapshot_id": "8123456789012345678",
        "iceberg_snapshot_timestamp": "2026-03-02T05:59:58+00:00",
        "iceberg_table_ref": "atlas.ecommerce.orders",
        "iceberg_schema_version": 3,
        "restatement_intervals": [["2026-02-28", "2026-03-01"]],
    }
    customers = states["source.customers"]
    assert (customers.status, customers.fingerprint) == (
        NodeStatus.CACHED,
        customers.metadata["fingerprint_parts"]["content_hash"],
    )
    failed = states["transform.enriched"]
    assert (
        failed.error_message == failed.metadata["error"] == second()["nodes"]["transform.enriched"]["metadata"]["error"]
    )
    waiting = states["model.churn"]
    assert (waiting.status, waiting.started_at, waiting.finished_at) == ("pending", None, None)
    assert waiting.metadata["last_run"] == second()["nodes"]["model.churn"]["last_run"]
    assert states["exposure.report/csv"].metadata["lineage"] == {"columns": ["a", "b"]}


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["success", "cached", "skipped"], "success"),
        (["success", "failed", "running"], "failed"),
        (["success", "running"], "cancelled"),
        (["success", "pending"], "cancelled"),
        ([], "success"),
    ],
)
def test_the_status_of_a_run_is_that_of_its_nodes(tmp_path, statuses, status):
    nodes = {str(number): {"hash": "h", "last_run": "", "status": each} for number, each in enumerate(statuses)}
    write(tmp_path / "run_state.json", {"schema_version": "2.0", "run_id": "r", "nodes": nodes})
    assert taken_from(tmp_path)[1].runs[0].status == status


def test_a_name_that_metadata_has_already_is_kept_beside(tmp_path):
    node = {"hash": "h", "last_run": "2026-01-01T00:00:00", "status": "success", "iceberg_table_ref": "new"}
    node["metadata"] = {"iceberg_table_ref": "old"}
    write(tmp_path / "run_state.json", {"schema_version": "2.0", "run_id": "r", "nodes": {"n": node}})
    (state,) = taken_from(tmp_path)[1].nodes
    assert state.metadata == {"iceberg_table_ref": "old", "published.iceberg_table_ref": "new"}


def test_folders_know_the_real_ids_of_their_nodes(tmp_path):
    folder(tmp_path, first())
    folder(tmp_path, second())
    (tmp_path / "cache" / "source").mkdir(parents=True)
    write(tmp_path / "run_state" / "nodes" / "n.json", {"node_id": "n", "intervals": []})
    taken, batch = taken_from(tmp_path)
    assert [(form.path, form.runs, form.node_states) for form in taken.forms] == [(FIRST, 1, 10), (SECOND, 1, 10)]
    assert [run.run_id for run in batch.runs] == [FIRST, SECOND]
    assert nodes_of(batch, SECOND).keys() == second()["nodes"].keys()


def test_a_folder_of_nodes_alone_is_a_run(tmp_path):
    folder(tmp_path, first()).unlink()
    _, batch = taken_from(tmp_path)
    assert [run.run_id for run in batch.runs] == [FIRST]
    assert len(batch.nodes) == 10


def test_several_forms_are_merged_and_the_newest_wins(tmp_path):
    latest = second()
    write(tmp_path / "run_state.json", latest)
    shutil.copy(HERE / "schema_2" / "run_state.json.bak.20260302_060005", tmp_path)
    older, newer = copy.deepcopy(latest), copy.deepcopy(latest)
    older["nodes"]["source.orders"] |= {"last_run": "2026-03-02T05:00:00", "row_count": 1}
    older["config"] = {"only": "older"}
    older["last_run"] = "2026-03-02T05:00:00"
    folder(tmp_path, older)
    newer["nodes"]["model.churn"] |= {"last_run": "2026-03-02T09:00:00", "status": "success", "row_count": 77}
    newer["nodes"] = {
        "model.churn": newer["nodes"]["model.churn"],
        "transform.enriched": older["nodes"]["transform.enriched"],
    }
    newer["config"] = {"only": "the database"}
    database(tmp_path / "state.db", newer)
    taken, batch = taken_from(tmp_path)
    assert [form.path for form in taken.forms] == ["run_state.json", f"run_state.json.bak.{SECOND}", SECOND, "state.db"]
    assert [run.run_id for run in batch.runs] == [FIRST, SECOND]
    assert len(batch.nodes) == 20
    states = nodes_of(batch, SECOND)
    assert states["source.orders"].row_count == 1000, "the folder is older"
    assert (states["model.churn"].row_count, states["model.churn"].status) == (77, "success"), "the database is newer"
    assert batch.runs[1].config == latest["config"], "of equally old copies, that of run_state.json"


def test_what_the_platform_has_moved_out_of_an_execution_state_is_there_once(tmp_path):
    """The platform turns the file into run_state.json, with its times as text, and leaves it where it is."""
    shutil.copytree(HERE / "execution", tmp_path, dirs_exist_ok=True)
    source = document("execution/state/execution_state.json")
    nodes = {
        node_id: {"hash": "", "last_run": str(node["last_run"]), "status": "success", "duration_ms": 1, "row_count": 2}
        for node_id, node in source.items()
    }
    run = {"schema_version": "2.0", "last_run": "2026-03-02T06:00:00", "run_id": SECOND, "nodes": nodes}
    write(tmp_path / "run_state.json", run)
    _, batch = taken_from(tmp_path)
    assert [each.run_id for each in batch.runs] == [SECOND]
    del nodes["model.churn"]
    write(tmp_path / "run_state.json", run)
    _, batch = taken_from(tmp_path)
    assert [each.run_id for each in batch.runs] == ["execution_state", SECOND]
    assert nodes_of(batch, "execution_state").keys() == {"model.churn"}


def test_our_own_files_and_others_are_not_taken_for_the_platforms(tmp_path):
    with create_state_backend("file", base_path=str(tmp_path)) as store:
        store.initialize()
        store.create_run("r")
        store.set_node_state("r", "n", status="success", metadata={"hash": "x"})
    with create_state_backend("database", db_path=str(tmp_path / "state.db")) as store:
        store.initialize()
    write(tmp_path / "state" / "execution_state.json", {"cells": [], "metadata": {}})
    write(tmp_path / "a" / "nodes" / "x.json", {"id": 1})
    assert take(tmp_path, NOW) is None
    (tmp_path / "state.db").unlink()
    (tmp_path / "state.db").write_bytes(b"no database at all")
    assert take(tmp_path, NOW) is None


# ---- damage ----


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "exploded"}, "status"),
        ({"row_count": -4}, "row_count"),
        ({"row_count": "many"}, "row_count"),
        ({"last_run": "yesterday"}, "last_run"),
        ({"completed_intervals": [["2026-01-02", "2026-01-01"]]}, "2026-01-02"),
        ({"completed_intervals": [["2026-01-02"]]}, "completed_intervals|unpack"),
        ({"completed_partitions": [7]}, "partition"),
        ({"metadata": "text"}, "metadata|dictionary"),
        ({"hash": 7}, "fingerprint"),
    ],
)
def test_a_value_that_cannot_be_understood_names_its_file_and_node(tmp_path, change, named):
    run = second()
    run["nodes"]["source.kurse_täglich"] |= change
    path = write(tmp_path / "run_state.json", run)
    with pytest.raises(CorruptStateError, match=named) as caught:
        take(tmp_path, NOW)
    assert str(path) in caught.value.location
    assert "kurse_t" in caught.value.location
    assert caught.value.hint


@pytest.mark.parametrize("name", ["run_state.json", f"{SECOND}/run_state.json", f"{SECOND}/nodes/model.churn.json"])
def test_a_file_that_is_cut_off_is_named(tmp_path, name):
    folder(tmp_path, second())
    write(tmp_path / "run_state.json", second())
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptStateError) as caught:
        take(tmp_path, NOW)
    assert caught.value.location == str(path)


def test_a_damaged_database_is_named(tmp_path):
    path = database(tmp_path / "state.db", first(), second())
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(CorruptStateError, match="damaged") as caught:
        take(tmp_path, NOW)
    assert caught.value.location == str(path)


def test_a_log_beside_the_database_is_read_and_not_merged(tmp_path):
    import sqlite3
    from contextlib import closing

    path = database(tmp_path / "elsewhere.db", first())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE run_state SET seeknal_version = 'in the log'")
        connection.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"state.db{suffix}")
    before = [(tmp_path / name).read_bytes() for name in ("state.db", "state.db-wal")]
    _, batch = taken_from(tmp_path)
    assert batch.runs[0].metadata["seeknal_version"] == "in the log"
    assert [(tmp_path / name).read_bytes() for name in ("state.db", "state.db-wal")] == before


def test_a_column_that_is_not_json_is_named(tmp_path):
    import sqlite3
    from contextlib import closing

    path = database(tmp_path / "state.db", first())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE node_state SET metadata_json = '{' WHERE node_id = 'model.churn'")
        connection.commit()
    with pytest.raises(CorruptStateError, match="column metadata_json"):
        take(tmp_path, NOW)


def test_a_newer_schema_is_refused(tmp_path):
    write(tmp_path / "run_state.json", second() | {"schema_version": "3.0"})
    with pytest.raises(SchemaVersionError) as caught:
        take(tmp_path, NOW)
    assert (caught.value.found, caught.value.wanted) == ("3.0", "2.0")


# ---- into a store ----


@pytest.mark.parametrize("form", ["run_state.json", "folders", "database"])
def test_a_new_file_store_takes_it_in(tmp_path, form):
    if form == "run_state.json":
        shutil.copytree(HERE / "schema_2", tmp_path, dirs_exist_ok=True)
    elif form == "folders":
        folder(tmp_path, first())
        folder(tmp_path, second())
    else:
        database(tmp_path / "state.db", first(), second())
    originals = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for _ in range(2):
        with create_state_backend("file", base_path=str(tmp_path)) as store:
            store.initialize()
            assert store.list_runs() == [FIRST, SECOND]
            assert store.get_latest_node_state("source.orders").run_id == SECOND
            day = lambda month, day: datetime(2026, month, day, tzinfo=UTC)  # noqa: E731
            missing = store.get_missing_intervals("source.orders", day(2, 26), day(3, 3))
            assert [(each.start, each.end) for each in missing] == [
                (day(2, 26), day(2, 27)),
                (day(2, 28), day(3, 1)),  # to be restated
                (day(3, 2), day(3, 3)),
            ]
            (revenue,) = store.get_completed_intervals("aggregation.daily_revenue")
            assert revenue.start == datetime(2026, 2, 19, 17, tzinfo=UTC), "a bound with an offset means what it says"
            partitions = store.list_partitions("source.orders")
            assert [(each.partition, each.run_id) for each in partitions] == [
                ("region=EU", SECOND),
                ("region=ID", SECOND),
            ]
    for path, content in originals.items():
        kept = (
            path
            if path.name != "run_state.json" or path.parent != tmp_path
            else path.with_name("run_state.json.published")
        )
        assert kept.read_bytes() == content
