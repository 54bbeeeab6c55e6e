"""Several processes on one store, some of them frozen for longer than their leases live."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.processes import PROCESSES
from tests.stress.history import TTL_MS, check, prepare, read_histories, work

from seeknal.state.backend import create_state_backend


def stress(kind: str, options: dict[str, object], folder: Path, *, processes: int, seconds: float) -> dict[str, int]:
    histories = folder / "histories"
    histories.mkdir()
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        prepare(backend)
        workers = [
            PROCESSES.Process(target=work, args=(kind, options, histories, f"w{n}", random.getrandbits(32), seconds))
            for n in range(processes)
        ]
        for worker in workers:
            worker.start()
        freezes = _freeze_now_and_then(workers, seconds)
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0, "a worker raised, or hangs"
        return check(read_histories(histories), backend) | {"freezes": freezes}


def _freeze_now_and_then(workers: list, seconds: float) -> int:
    """Stop one worker at a time for longer than a lease lives, until the workers are nearly done."""
    freezes, end = 0, time.monotonic() + seconds
    while time.monotonic() + 2 * TTL_MS / 1000 < end:
        victim = random.choice(workers)
        if not victim.is_alive():
            break
        os.kill(victim.pid, signal.SIGSTOP)
        victim.join(1.5 * TTL_MS / 1000)
        os.kill(victim.pid, signal.SIGCONT)
        victim.join(0.1)
        freezes += 1
    return freezes


def options_of(kind: str, folder: Path) -> dict[str, object]:
    return {"base_path": folder / "t", "checkpoint_bytes": 50_000} if kind == "file" else {"db_path": folder / "s.db"}


@pytest.mark.parametrize("kind", ["file", "database"])
def test_processes_that_are_frozen_now_and_then_break_no_promise(kind: str, tmp_path: Path) -> None:
    counted = stress(kind, options_of(kind, tmp_path), tmp_path, processes=4, seconds=3)
    assert all(counted.values()), counted


def test_processes_that_are_frozen_now_and_then_break_no_promise_of_a_server(
    emptied_server_store, tmp_path: Path
) -> None:
    counted = stress("database", emptied_server_store.options, tmp_path, processes=4, seconds=3)
    assert all(counted.values()), counted


@pytest.mark.nightly
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["file", "database"])
def test_eight_processes_for_minutes_break_no_promise(kind: str, tmp_path: Path, capsys) -> None:
    counted = stress(kind, options_of(kind, tmp_path), tmp_path, processes=8, seconds=90)
    with capsys.disabled():
        print(f"\n{kind}: {counted}")


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_eight_processes_for_minutes_break_no_promise_of_a_server(emptied_server_store, tmp_path: Path, capsys) -> None:
    counted = stress("database", emptied_server_store.options, tmp_path, processes=8, seconds=90)
    with capsys.disabled():
        print(f"\n{emptied_server_store.kind}: {counted}")
