"""The recorder: what a block does is what the store says."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from seeknal.errors import (
    CapabilityError,
    ConcurrencyError,
    InvalidFieldError,
    InvalidIdError,
    LeaseLostError,
    LockHeldError,
    TransactionError,
)
from seeknal.state.backend import create_state_backend
from seeknal.state.memory import MemoryStateBackend, MemoryStore
from seeknal.tracking import recover_dead_runs, track_run
from seeknal.tracking.recovery import RECORDED_BY


@pytest.fixture(params=["memory", "file", "database"])
def open_backend(request, tmp_path):
    """Return a callable that opens another instance on the same store."""
    store = MemoryStore()
    opened = []

    def open_one():
        if request.param == "memory":
            opened.append(MemoryStateBackend(store))
        else:
            place = {"base_path": tmp_path} if request.param == "file" else {"db_path": tmp_path / "state.db"}
            opened.append(create_state_backend(request.param, **place))
        opened[-1].initialize()
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def backend(open_backend):
    return open_backend()


def test_a_run_and_its_nodes_are_recorded(backend):
    with track_run(backend, "r", config={"a": 1}) as run:
        with run.node("clean") as node:
            assert backend.get_node_state("r", "clean").status == "running"
            node.row_count, node.fingerprint, node.metadata["k"] = 3, "f", "v"
            node.complete_interval(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
        run.skip("later", "not today")
    state = backend.get_node_state("r", "clean")
    assert (state.status, state.row_count, state.fingerprint, state.metadata) == ("success", 3, "f", {"k": "v"})
    assert state.duration_ms is not None
    assert len(backend.get_completed_intervals("clean")) == 1
    assert backend.get_node_state("r", "later").metadata == {"reason": "not today"}
    assert backend.get_run("r").status == "success"
    assert backend.list_locks() == []


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "failed"), (KeyboardInterrupt(), "cancelled"), (SystemExit(), "cancelled")]
)
def test_an_exception_fails_the_node_and_ends_the_run(backend, error, status):
    with pytest.raises(type(error)), track_run(backend, "r") as run, run.node("n") as node:
        node.complete_interval(datetime(2024, 1, 1), datetime(2024, 1, 2))
        raise error
    message = "no" if status == "failed" else "cancelled"
    assert backend.get_run("r").status == status
    assert backend.get_metadata("r")["error_message"] == message
    assert backend.get_node_state("r", "n").error_message == message
    assert backend.get_completed_intervals("n") == []


def test_attempts_are_counted_and_a_later_success_clears_the_error(backend):
    with track_run(backend, "r") as run:
        with pytest.raises(ValueError, match="no"), run.node("n"):
            raise ValueError("no")
        with run.node("n") as node:
            assert node.attempt == 2
    state = backend.get_node_state("r", "n")
    assert (state.attempt, state.status, state.error_message) == (2, "success", None)


def test_a_current_node_can_be_skipped_both_ways(backend):
    with track_run(backend, "one") as run, run.node("n", "f") as node:
        assert not node.is_current()
        node.row_count = 7
    with track_run(backend, "two") as run:
        assert run.is_current("n", "f")
        assert not run.skip_if_current("n", "g")
        assert run.skip_if_current("n", "f")
    with track_run(backend, "three") as run, run.node("n") as node:
        assert node.is_current("f")
        node.skip_cached()
    for run_id in ("two", "three"):
        state = backend.get_node_state(run_id, "n")
        assert (state.status, state.row_count, state.fingerprint) == ("cached", 7, "f")


def test_a_held_run_is_refused(backend):
    with track_run(backend, "r"), pytest.raises(LockHeldError), track_run(backend, "r"):
        pass


def test_a_recorder_that_lost_its_lease_writes_nothing(backend):
    with pytest.raises(LeaseLostError), track_run(backend, "r") as run, run.node("n"):
        backend.break_lock("r", reason="it sleeps")
    assert backend.get_run("r").status == "running"
    assert backend.get_node_state("r", "n").status == "running"


def test_threads_record_nodes_of_one_run(backend):
    with track_run(backend, "r") as run, ThreadPoolExecutor(4) as pool:
        for number in range(20):
            pool.submit(run.task(f"n{number}")(lambda: None))
    assert {state.status for state in backend.get_all_node_states("r").values()} == {"success"}
    assert len(backend.list_nodes("r")) == 20


def test_nested_nodes_are_recorded_apart(backend):
    with track_run(backend, "r") as run, run.node("outer"), run.node("inner"):
        pass
    assert backend.list_nodes("r") == ["inner", "outer"]


def test_what_was_restated_and_completed_anew_is_recorded_with_the_success(backend):
    days = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    with track_run(backend, "one") as run, run.node("n") as node:
        node.complete_interval(days[0], days[3])
    with track_run(backend, "two") as run, run.node("n") as node:
        node.restate_interval(days[0], days[3])
        node.complete_interval(days[1], days[2])
        assert len(backend.get_completed_intervals("n")) == 1, "nothing is written before the block ends"
    found = [(each.start, each.end, each.run_id) for each in backend.get_completed_intervals("n")]
    assert found == [(days[1], days[2], "two")]


def test_partitions_are_completed_with_the_success_and_not_without_it(backend):
    with track_run(backend, "one") as run, run.node("n") as node:
        node.complete_partition("ID", row_count=3, metadata={"file": "id.csv"})
        node.complete_partition("SG", row_count=1)
        node.complete_partition("SG", row_count=2)
        with pytest.raises(InvalidIdError):
            node.complete_partition("")
        assert backend.list_partitions("n") == [], "nothing is written before the block ends"
    found = [(each.partition, each.row_count, each.run_id) for each in backend.list_partitions("n")]
    assert found == [("ID", 3, "one"), ("SG", 2, "one")]
    with pytest.raises(ValueError, match="no"), track_run(backend, "two") as run, run.node("n") as node:
        node.complete_partition("VN")
        raise ValueError("no")
    with pytest.raises(InvalidFieldError), track_run(backend, "three") as run, run.node("n") as node:
        node.complete_partition("VN", row_count=-1)
    assert backend.get_node_state("three", "n").status == "failed"
    assert [each.partition for each in backend.list_partitions("n")] == ["ID", "SG"]


def test_a_restatement_of_a_node_says_why(backend):
    begin, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    with track_run(backend, "one") as run, run.node("n") as node:
        node.complete_interval(begin, end)
    with track_run(backend, "two") as run, run.node("n") as node:
        node.restate_interval(begin, end, reason="late data")
        node.complete_interval(begin, end)
    (change,) = backend.list_changes(node_id="n")
    assert (change.action, change.reason, change.detail["runs"]) == ("restate", "late data", ["one"])


def test_a_node_that_fails_keeps_what_was_completed_before(backend):
    begin, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    with track_run(backend, "one") as run, run.node("n") as node:
        node.complete_interval(begin, end)
    with pytest.raises(ValueError, match="no"), track_run(backend, "two") as run, run.node("n") as node:
        node.restate_interval(begin, end)
        raise ValueError("no")
    assert len(backend.get_completed_intervals("n")) == 1


def test_a_run_can_fail_without_an_exception(backend):
    with track_run(backend, "r") as run:
        run.fail_node("n", "no such file")
        run.fail("failed: n")
    assert (backend.get_run("r").status, backend.get_metadata("r")["error_message"]) == ("failed", "failed: n")
    assert backend.get_node_state("r", "n").error_message == "no such file"


def test_a_node_block_is_entered_once_and_skips_only_what_succeeded(backend):
    with track_run(backend, "r") as run:
        with run.node("n") as node, pytest.raises(TransactionError, match="never succeeded"):
            node.skip_cached()
        with pytest.raises(TransactionError, match="entered once"), node:
            pass


def test_a_run_id_that_exists_is_refused_and_the_run_left_alone(backend):
    with track_run(backend, "r", config={"first": True}):
        pass
    with pytest.raises(ConcurrencyError), track_run(backend, "r"):
        pass
    assert (backend.get_run("r").status, backend.get_run("r").config) == ("success", {"first": True})
    assert backend.list_locks() == []


def test_dead_runs_are_failed_and_living_ones_left_alone(open_backend):
    one, other = open_backend(), open_backend()
    one.create_run("dead", metadata={RECORDED_BY: {"host": "gone", "pid": 1}})
    one.create_run("somebody else's, without a lock")
    one.set_node_state("dead", "n", status="running")
    one.set_node_state("dead", "done", status="success")
    with track_run(one, "alive"):
        assert recover_dead_runs(other) == ["dead"]
        assert recover_dead_runs(other) == []
    assert one.get_run("dead").status == "failed"
    assert one.get_node_state("dead", "n").status == "failed"
    assert one.get_node_state("dead", "done").status == "success"
    assert one.get_run("alive").status == "success"
    assert one.get_run("somebody else's, without a lock").status == "running"


@pytest.mark.parametrize("message", ["\udcff", "x" * 5_000_000, ""])
def test_a_failure_is_recorded_whatever_its_message(open_backend, message):
    backend = open_backend()
    with pytest.raises(LookupError), track_run(backend, "r") as run, run.node("n"):
        raise LookupError(message)
    assert (backend.get_run("r").status, backend.get_node_state("r", "n").status) == ("failed", "failed")


@pytest.mark.parametrize(("field", "value"), [("row_count", 3.5), ("metadata", {"when": datetime(2024, 1, 1)})])
def test_a_node_that_was_told_what_cannot_be_stored_fails(open_backend, field, value):
    backend = open_backend()
    with track_run(backend, "r") as run:
        with pytest.raises(InvalidFieldError), run.node("n") as node:
            setattr(node, field, value)
        assert backend.get_node_state("r", "n").status == "failed"


def test_a_coroutine_is_a_task_that_lasts_until_it_is_done(open_backend):
    backend = open_backend()
    with track_run(backend, "r") as run:

        @run.task("n")
        async def work():
            assert backend.get_node_state("r", "n").status == "running"
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            asyncio.run(work())
    assert backend.get_node_state("r", "n").status == "failed"


def test_a_generator_cannot_be_a_task(open_backend):
    def rows():
        yield 1

    with track_run(open_backend(), "r") as run, pytest.raises(CapabilityError, match="rows"):
        run.task("n")(rows)
