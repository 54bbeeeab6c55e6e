"""Eight processes share the work of a node; some are killed, and some are frozen for longer than their leases live."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.processes import PROCESSES
from tests.stress.sharing import DIES, RUN, SLEEPS, check, read, share

from seeknal.state.backend import StateBackend, create_state_backend

ROLES = [DIES, DIES, SLEEPS, SLEEPS, "", "", "", ""]
PATIENCE_S = 60


def split(kind: str, options: dict[str, Any], folder: Path, *, count: int) -> dict[str, int]:
    """Let eight workers do so many intervals and as many partitions; return what was counted."""
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        backend.create_run(RUN)
        barrier = PROCESSES.Barrier(len(ROLES))
        histories = [folder / f"worker-{number}" for number in range(len(ROLES))]
        workers = [
            PROCESSES.Process(
                target=share, args=(kind, options, history, count, random.getrandbits(32), role, barrier.wait)
            )
            for history, role in zip(histories, ROLES, strict=True)
        ]
        for worker in workers:
            worker.start()
        for worker, history, role in zip(workers, histories, ROLES, strict=True):
            if role == SLEEPS:
                _wake_too_late(backend, worker, history)
        victim = random.choice(workers[4:])  # wherever it is just now
        if victim.is_alive():
            victim.kill()
        for worker, role in zip(workers, ROLES, strict=True):
            worker.join(PATIENCE_S)
            expected = {-signal.SIGKILL} if role == DIES else {0, -signal.SIGKILL} if worker is victim else {0}
            assert worker.exitcode in expected, "a worker raised, or hangs"
        return check([read(history) for history in histories], backend, count)


def _wake_too_late(backend: StateBackend, worker: Any, history: Path) -> None:
    """Let a worker that has stopped itself go on once its lease is gone."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(word == SLEEPS for word, _ in read(history)) or any(
        lock.node_id == history.name for lock in backend.list_locks()
    ):
        assert time.monotonic() < deadline, "a worker did not fall asleep"
        worker.join(0.02)
    os.kill(worker.pid, signal.SIGCONT)


def options_of(kind: str, folder: Path) -> dict[str, Any]:
    return {"base_path": folder / "t", "checkpoint_bytes": 50_000} if kind == "file" else {"db_path": folder / "s.db"}


def assert_all_happened(counted: dict[str, int], count: int) -> None:
    assert (counted["late"], counted["died"]) == (2, 2), counted
    assert counted["acknowledged"] >= 2 * count - 3, counted  # all but what one was killed in


@pytest.mark.parametrize("kind", ["file", "database"])
def test_workers_that_are_killed_and_frozen_leave_no_gap_and_do_nothing_twice(kind: str, tmp_path: Path) -> None:
    assert_all_happened(split(kind, options_of(kind, tmp_path), tmp_path, count=60), 60)


def test_workers_of_a_server_that_are_killed_and_frozen_leave_no_gap_and_do_nothing_twice(
    emptied_server_store, tmp_path: Path
) -> None:
    assert_all_happened(split("database", emptied_server_store.options, tmp_path, count=60), 60)


@pytest.mark.nightly
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["file", "database"])
def test_eight_workers_split_a_long_backfill(kind: str, tmp_path: Path) -> None:
    assert_all_happened(split(kind, options_of(kind, tmp_path), tmp_path, count=400), 400)


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_eight_workers_split_a_long_backfill_on_a_server(emptied_server_store, tmp_path: Path) -> None:
    assert_all_happened(split("database", emptied_server_store.options, tmp_path, count=400), 400)
