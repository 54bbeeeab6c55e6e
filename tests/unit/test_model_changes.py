"""How one record follows from another."""

from datetime import UTC, datetime, timedelta

import pytest

from seeknal.errors import ConcurrencyError, InvalidFieldError, InvalidIdError, StaleVersionError
from seeknal.model.changes import check_unwritten, check_version, new_partition, new_run, patched_run, written_node
from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus, as_status
from seeknal.state.testing.factories import BAD_IDS, BAD_NODE_FIELDS, BAD_RUN_FIELDS

NOW = datetime(2024, 1, 10, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=90)


def node(**fields):
    return written_node(None, "r", "n", NOW, None, fields)


@pytest.mark.parametrize(("field", "bad"), BAD_NODE_FIELDS, ids=lambda value: ascii(value)[:40])
def test_bad_node_fields_are_named(field, bad):
    with pytest.raises(InvalidFieldError) as caught:
        node(**{field: bad})
    assert caught.value.field == field
    assert caught.value.hint


@pytest.mark.parametrize(("field", "bad"), BAD_RUN_FIELDS, ids=lambda value: ascii(value)[:40])
def test_bad_run_fields_are_named(field, bad):
    with pytest.raises(InvalidFieldError) as caught:
        patched_run(new_run("r", NOW), NOW, {field: bad})
    assert caught.value.field == field


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
def test_bad_ids_are_named(bad):
    with pytest.raises(InvalidIdError):
        new_run(bad, NOW)
    for ids in ((bad, "n", "p"), ("r", bad, "p"), ("r", "n", bad)):
        with pytest.raises(InvalidIdError):
            new_partition(*ids, NOW)


@pytest.mark.parametrize(
    ("typed", "meant"), [("sucess", "success"), ("runing", "running"), ("canceled", "cancelled"), ("fail", "failed")]
)
def test_the_nearest_status_is_proposed(typed, meant):
    with pytest.raises(InvalidFieldError) as caught:
        as_status(RunStatus, typed)
    assert f"Did you mean {meant}?" in caught.value.hint


def test_the_nearest_field_is_proposed():
    with pytest.raises(InvalidFieldError) as caught:
        node(rowcount=1)
    assert "Did you mean row_count?" in caught.value.hint


@pytest.mark.parametrize("status", RunStatus)
def test_final_runs(status):
    assert status.is_final is (status in ("success", "failed", "cancelled"))
    assert (new_run("r", NOW, status=status).finished_at is not None) is status.is_final


@pytest.mark.parametrize("status", NodeStatus)
def test_final_nodes(status):
    assert status.is_final is (status in ("success", "failed", "skipped", "cached"))
    assert (node(status=status).finished_at is not None) is status.is_final


def test_a_patch_leaves_the_record_it_started_from():
    before = node(metadata={"a": 1})
    after = written_node(before, "r", "n", LATER, None, {"metadata": {"b": 2}})
    assert (before.metadata, before.version) == ({"a": 1}, 1)
    assert (after.metadata, after.version) == ({"a": 1, "b": 2}, 2)


@pytest.mark.parametrize(
    ("fields", "duration_ms"),
    [
        ({}, 90_000),
        ({"duration_ms": 5}, 5),
        ({"duration_ms": None}, None),
        ({"finished_at": NOW + timedelta(microseconds=1500)}, 2),
        ({"finished_at": NOW - timedelta(days=1)}, 0),
        ({"finished_at": None}, None),
        ({"started_at": None}, None),
    ],
)
def test_duration(fields, duration_ms):
    running = node(status="running")
    assert written_node(running, "r", "n", LATER, None, {"status": "success", **fields}).duration_ms == duration_ms


def test_running_again_is_another_attempt():
    done = written_node(node(status="running"), "r", "n", LATER, None, {"status": "failed", "error_message": "x"})
    again = written_node(done, "r", "n", LATER, None, {"status": "running", "attempt": 2})
    assert (again.started_at, again.finished_at, again.duration_ms) == (LATER, None, None)
    assert (again.error_message, again.attempt) == ("x", 2)


def test_a_whole_state_keeps_nothing_but_the_version():
    before = node(status="running", row_count=1)
    after = written_node(before, "r", "n", LATER, NodeState(run_id="r", version=77, sequence=5), {})
    assert after == NodeState(run_id="r", node_id="n", version=2)


def test_guards():
    check_unwritten(None, "run r")
    check_version(None, None, "run r")
    check_version(None, 0, "run r")
    check_version(RunState(run_id="r", version=3), 3, "run r")
    with pytest.raises(ConcurrencyError, match="version 3"):
        check_unwritten(RunState(run_id="r", version=3), "run r")
    with pytest.raises(StaleVersionError, match="does not exist") as caught:
        check_version(None, 2, "run r")
    assert (caught.value.expected, caught.value.found) == (2, 0)


@pytest.mark.parametrize("depth", [99, 100, 101, 5000])
def test_nesting(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    if depth <= 100:
        assert node(metadata=value).metadata == value
    else:
        with pytest.raises(InvalidFieldError, match="deeper"):
            node(metadata=value)
