"""A worker is killed with SIGKILL while it claims and completes; another one does the rest, each range once."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from tests.processes import PROCESSES

from seeknal.model.intervals import Interval
from seeknal.state import doctor
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.testing.crashes import kill_at

BEGIN, HOUR = datetime(2024, 1, 1, tzinfo=UTC), timedelta(hours=1)
WANTED = [Interval(BEGIN + 2 * n * HOUR, BEGIN + (2 * n + 1) * HOUR) for n in range(40)]
POINTS = ["lock", "write", "fsync", "replace", "fsync-directory", "unlink"]


def options_of(kind: str, folder: Path) -> dict[str, Any]:
    # A small journal, so that checkpoints are killed as often as commits.
    return {"base_path": folder, "checkpoint_bytes": 1000} if kind == "file" else {"db_path": folder / "state.db"}


def work(backend: StateBackend, name: str, told: Connection | None = None) -> list[datetime]:
    """Do what is free; return what was acknowledged, and tell it as it comes."""
    done = []
    with backend.lock("backfill", name, ttl_ms=500) as lease:
        while claims := backend.claim_intervals("backfill", "load", WANTED, lease=lease, limit=2, max_attempts=9):
            for claim in claims:
                backend.complete_claim(claim)
                done.append(claim.start)
                if told is not None:
                    told.send(claim.start)
    return done


def work_until_killed(kind: str, options: dict[str, Any], told: Connection, point: str, occurrence: int) -> None:
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        if point:
            kill_at(point, occurrence)
        work(backend, "first", told)


def killed(
    kind: str, options: dict[str, Any], *, point: str = "", occurrence: int = 0, after: int = 99
) -> list[datetime]:
    """Let a worker begin until it kills itself, or until it was heard so often; return what it was promised."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=work_until_killed, args=(kind, options, theirs, point, occurrence))
    child.start()
    theirs.close()
    heard = []
    try:
        while True:
            heard.append(ours.recv())
            if len(heard) == after:
                os.kill(child.pid or 0, signal.SIGKILL)
    except EOFError:
        pass
    child.join()
    assert child.exitcode == -signal.SIGKILL
    ours.close()
    child.close()
    return heard


def check(backend: StateBackend, promised: list[datetime]) -> None:
    """Do the rest as another worker, once the lease of the first has ended, and look at the sum."""
    completed = [each.start for each in backend.get_completed_intervals("load")]
    assert promised == completed[: len(promised)], "a promised completion was lost"
    assert len(completed) <= len(promised) + 1, "a completion was invented"
    left = {claim.start for claim in backend.list_claims("load")}
    assert len(left) <= 2
    assert not left & set(completed), "a range is completed and claimed"
    with backend.lock("backfill", "first", 30_000):  # until it has ended
        pass
    rest = work(backend, "second")
    assert sorted(completed + rest) == [each.start for each in WANTED], "a range was done twice, or left out"
    assert backend.list_claims("load") == []
    assert [each.check for each in doctor.examine(backend) if each.check != "run-abandoned"] == []


@pytest.mark.parametrize("occurrence", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_at_a_system_call_leaves_each_range_to_one(point: str, occurrence: int, tmp_path: Path) -> None:
    options = options_of("file", tmp_path)
    with create_state_backend("file", **options) as backend:
        backend.initialize()
        backend.create_run("backfill")
        check(backend, killed("file", options, point=point, occurrence=occurrence))


@pytest.mark.parametrize("after", [1, 8, 23])
@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_worker_killed_at_any_moment_leaves_each_range_to_one(kind: str, after: int, tmp_path: Path) -> None:
    options = options_of(kind, tmp_path)
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        backend.create_run("backfill")
        check(backend, killed(kind, options, after=after))
