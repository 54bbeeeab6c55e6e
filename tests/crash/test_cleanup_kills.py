"""A cleanup that is killed between or inside its commits has deleted whole runs, and the next one deletes the rest."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from tests.processes import PROCESSES

from seeknal.state import retention
from seeknal.state.backend import create_state_backend
from seeknal.state.dump.archive import clean_into
from seeknal.state.dump.importing import import_dump
from seeknal.state.dump.reading import dump_file
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.retention import rules_of
from seeknal.state.sql import retention as sql_retention

LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
AGE = timedelta(days=30)
RUNS, NODES = 60, 8
NEEDED = {f"r{number:02}" for number in range(RUNS - 5, RUNS)}
"""The last runs hold a newest success each: run N writes the node N modulo 5, and some that fail."""


@pytest.fixture(
    params=[
        "file",
        "sqlite",
        "postgresql",
        pytest.param("mysql", marks=pytest.mark.nightly),
        pytest.param("libsql", marks=pytest.mark.nightly),
    ]
)
def opened(request, tmp_path, shared_store):
    """Return what opens the store of a test, in any process."""
    if request.param == "file":
        options = {"base_path": tmp_path / "target"}
    elif request.param == "sqlite":
        options = {"db_path": tmp_path / "state.db"}
    else:
        options = shared_store(request.param).options
    opened = partial(create_state_backend, "file" if request.param == "file" else "database", **options)
    with opened() as store:
        store.initialize()
        with store.transaction():
            for number in range(RUNS):
                run_id = f"r{number:02}"
                store.create_run(run_id)
                store.set_node_state(run_id, f"n{number % 5}", status="success", row_count=number)
                for node in range(5, 4 + NODES):
                    store.set_node_state(run_id, f"n{node}", status="failed")
                store.update_run(run_id, status="success", finished_at=LONG_AGO)
    return opened


def clean_until_killed(opened, after, archive=None):
    """Clean in small transactions; after so many calls about progress the process is gone."""
    retention.MOST_ROWS = sql_retention.MOST_ROWS = 3 * (NODES + 1)

    def kill(stage, done, total):
        nonlocal after
        after -= 1
        if not after:
            os.kill(os.getpid(), signal.SIGKILL)

    with opened() as store:
        store.initialize()
        if archive is None:
            store.cleanup(older_than=AGE, on_progress=kill)
        else:
            clean_into(store, archive, rules_of(store.clock.now(), AGE, 0, None), on_progress=kill)


def check_whole(store):
    """What is there is there with all of its nodes, and every newest success is.

    The last transaction of a client that was killed may still be on its way in a server: a run counts that is there
    after its nodes were looked at.
    """
    counts = {run_id: len(store.list_nodes(run_id)) for run_id in store.list_runs()}
    left = store.list_runs()
    assert set(left) >= NEEDED
    assert [counts[run_id] for run_id in left] == [NODES] * len(left)
    for node in range(5):
        assert store.get_latest_node_state(f"n{node}", "success").row_count == RUNS - 5 + node
    return left


@pytest.mark.parametrize("after", [1, 4, 11])
def test_a_killed_cleanup_is_finished_by_the_next_one(opened, after) -> None:
    child = PROCESSES.Process(target=clean_until_killed, args=(opened, after))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with opened() as store:
        store.initialize()
        left = check_whole(store)
        assert left == [f"r{number:02}" for number in range(3 * after, RUNS)]
        report = store.cleanup(older_than=AGE)
        assert report.deleted == [run_id for run_id in left if run_id not in NEEDED]
        assert set(check_whole(store)) == NEEDED


def test_a_cleanup_killed_at_any_moment_leaves_whole_runs(opened) -> None:
    for delay_ms in (20, 60, 120):
        child = PROCESSES.Process(target=clean_until_killed, args=(opened, 0))
        child.start()
        with opened() as store:
            store.initialize()
            before, deadline = len(store.list_runs()), time.monotonic() + 20
            while len(store.list_runs()) == before > len(NEEDED) and time.monotonic() < deadline and child.is_alive():
                child.join(delay_ms / 1000)
            child.kill()
            child.join()
            check_whole(store)
    with opened() as store:
        store.initialize()
        store.cleanup(older_than=AGE)
        assert set(check_whole(store)) == NEEDED


def test_two_processes_clean_at_once(opened) -> None:
    children = [PROCESSES.Process(target=clean_until_killed, args=(opened, 0)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    with opened() as store:
        store.initialize()
        assert set(check_whole(store)) == NEEDED


def test_a_cleanup_killed_after_its_archive_has_deleted_nothing_else(opened, tmp_path) -> None:
    archive = tmp_path / "gone.jsonl.gz"
    child = PROCESSES.Process(target=clean_until_killed, args=(opened, 24, archive))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with opened() as store, MemoryStateBackend() as copy, dump_file(archive) as dump:
        store.initialize()
        import_dump(dump, copy)
        left = check_whole(store)
        assert len(left) < RUNS
        assert set(copy.list_runs()) | NEEDED == {f"r{number:02}" for number in range(RUNS)}
        assert set(copy.list_runs()) | set(left) == {f"r{number:02}" for number in range(RUNS)}
