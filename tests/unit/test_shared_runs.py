"""The recorder of tasks that share a run and nothing else: `track_node` and `end_run`."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from seeknal.errors import LeaseLostError, LockHeldError, RunNotFoundError
from seeknal.state.backend import create_state_backend
from seeknal.tracking import end_run, track_node
from seeknal.tracking.recovery import DEAD, recover_dead_runs


@pytest.fixture(params=["file", "database"])
def options(request, tmp_path):
    place = {"base_path": tmp_path} if request.param == "file" else {"db_path": tmp_path / "state.db"}
    return {"backend_type": request.param, **place}


def opened(options):
    backend = create_state_backend(**options)
    backend.initialize()
    return backend


@pytest.fixture
def backend(options):
    with opened(options) as found:
        yield found


def test_tasks_that_know_only_the_id_of_their_run_record_into_one_run(backend, options):
    with track_node(backend, "r", "a", "f", metadata={"from": "there"}) as node:
        assert (backend.get_run("r").status, backend.get_node_state("r", "a").status) == ("running", "running")
        node.row_count = 3
        node.complete_interval(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    with opened(options) as other, track_node(other, "r", "b", metadata={"from": "elsewhere"}):
        pass
    run = end_run(backend, "r")
    assert (run.status, run.metadata, run.finished_at is not None) == ("success", {"from": "there"}, True)
    states = backend.get_all_node_states("r")
    assert {node_id: state.status.value for node_id, state in states.items()} == {"a": "success", "b": "success"}
    assert (states["a"].row_count, states["a"].fingerprint) == (3, "f")
    assert len(backend.get_completed_intervals("a")) == 1


def test_a_failure_is_recorded_and_raised_and_the_run_ends_as_failed(backend):
    with pytest.raises(ValueError, match="no such table"), track_node(backend, "r", "a"):
        raise ValueError("no such table")
    assert backend.get_node_state("r", "a").error_message == "no such table"
    assert end_run(backend, "r").status == "failed"


def test_a_task_that_is_tried_again_lets_the_run_run_again(backend):
    with pytest.raises(ValueError, match="once"), track_node(backend, "r", "a"):
        raise ValueError("once")
    end_run(backend, "r")
    with track_node(backend, "r", "a") as node:
        assert node.attempt == 2
        assert (backend.get_run("r").status, backend.get_run("r").finished_at) == ("running", None)
    assert backend.get_node_state("r", "a").error_message is None
    assert end_run(backend, "r").status == "success"


def test_what_is_current_is_recorded_as_cached(backend):
    with track_node(backend, "first", "a", "f") as node:
        node.row_count = 3
    with track_node(backend, "second", "a", "f") as node:
        assert node.is_current()
        node.skip_cached()
    state = backend.get_node_state("second", "a")
    assert (state.status, state.row_count) == ("cached", 3)
    assert end_run(backend, "second").status == "success"


def test_two_attempts_of_a_node_do_not_overlap_and_two_nodes_may(backend, options):
    with opened(options) as other, track_node(backend, "r", "a"):
        with pytest.raises(LockHeldError), track_node(other, "r", "a"):
            pass
        with track_node(other, "r", "b"):
            pass


def test_an_attempt_whose_lock_was_broken_writes_nothing_more(backend, options):
    with pytest.raises(LeaseLostError), track_node(backend, "r", "a") as node:
        with opened(options) as other:
            other.break_lock("r", "a", reason="it hangs")
            with track_node(other, "r", "a") as second:
                second.row_count = 2
        node.row_count = 1
    state = backend.get_node_state("r", "a")
    assert (state.status, state.row_count, state.attempt) == ("success", 2, 2)


def test_tasks_that_begin_at_once_begin_one_run(options):
    def work(number):
        with opened(options) as backend, track_node(backend, "r", f"n{number}"):
            pass

    opened(options).close()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    with opened(options) as backend:
        assert backend.list_runs() == ["r"]
        assert len(backend.list_nodes("r")) == 6


def die(options):
    with opened(options) as backend, track_node(backend, "r", "a"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_node_whose_process_was_killed_is_failed_when_the_run_ends(options, backend):
    child = multiprocessing.get_context("spawn").Process(target=die, args=(options,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert backend.get_node_state("r", "a").status == "running"
    # The run has no lock that could tell whether its processes live: that is for the orchestrator to say.
    assert recover_dead_runs(backend) == []
    assert end_run(backend, "r").status == "failed"
    state = backend.get_node_state("r", "a")
    assert (state.status, state.error_message) == ("failed", DEAD)
    with track_node(backend, "r", "a") as node:  # its lock went with the end of the run
        assert node.attempt == 2


def test_ending_a_run_again_changes_nothing(backend):
    with track_node(backend, "r", "a"):
        pass
    assert end_run(backend, "r") == end_run(backend, "r") == backend.get_run("r")


def test_a_run_that_was_cancelled_stays_cancelled(backend):
    with track_node(backend, "r", "a"):
        pass
    backend.update_run("r", status="cancelled")
    assert end_run(backend, "r").status == "cancelled"


def test_a_run_that_never_began_cannot_end(backend):
    with pytest.raises(RunNotFoundError):
        end_run(backend, "r")
