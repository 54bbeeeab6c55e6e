"""Programs that are killed in the middle of their commits, and what must be true afterwards.

A child process runs `commit_until_killed`; it tells each commit that it was promised through a pipe. Its
parent reopens the store and calls `check_survivor` with the last number it heard.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any

from seeknal.state.backend import Capability, StateBackend, create_state_backend

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
COMMITS_PER_RUN = 10


def kill_at(point: str, occurrence: int) -> None:
    """Have this process kill itself right before the n-th system call of a name (file store only).

    Args:
        point: A name of `seeknal.state.file.durable.at`.
        occurrence: 1 is the next one.
    """
    from seeknal.state.file import durable

    left = occurrence

    def reached(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    durable.at = reached


def commit_until_killed(
    kind: str, options: dict[str, Any], acknowledged: Connection, most: int, point: str = "", occurrence: int = 0
) -> None:
    """Commit transactions, telling the number of each that returned; stop by itself after ``most``.

    Transaction n sets two nodes of the latest run to ``row_count`` n and completes hour n of a third, and logs so where
    the store keeps a log; every tenth begins a run and deletes an old one.
    """
    backend = create_state_backend(kind, **options)
    backend.initialize()
    if point:
        kill_at(point, occurrence)
    for number in range(1, most + 1):
        commit_number(backend, number)
        acknowledged.send(number)
    acknowledged.close()
    os.kill(os.getpid(), signal.SIGKILL)


def commit_number(backend: StateBackend, number: int) -> None:
    """Do transaction ``number``."""
    run_id = f"run {number // COMMITS_PER_RUN}"
    old = f"run {number // COMMITS_PER_RUN - 3}"
    hour = BEGIN + timedelta(hours=number)
    with backend.transaction():
        if not backend.exists(run_id):
            backend.create_run(run_id)
            backend.delete_run(old)
        backend.set_node_state(run_id, "left", status="success", row_count=number)
        backend.set_node_state(run_id, "right", status="success", row_count=number)
        backend.add_completed_interval(run_id, "hours", hour, hour + timedelta(hours=1))
        if Capability.LOG in backend.capabilities:
            backend.log_change("step", run_id=run_id, detail={"number": number})


def check_survivor(backend: StateBackend, promised: int) -> int:
    """Raise `AssertionError` unless every promised commit is there whole; return the number of the last one.

    At most one commit that was not promised may stand: the one whose answer did not arrive.
    """
    left, right = backend.get_latest_node_state("left"), backend.get_latest_node_state("right")
    last = 0 if left is None else left.row_count or 0
    assert (0 if right is None else right.row_count) == last, "a transaction was torn"
    assert promised <= last <= promised + 1, f"promised {promised}, found {last}"
    hours = [(each.start, each.end) for each in backend.get_completed_intervals("hours")]
    expected = [(BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=last + 1))] if last else []
    assert hours == expected, "an interval was lost or invented"
    if Capability.LOG in backend.capabilities:
        logged = [change.detail["number"] for change in backend.list_changes()]
        assert logged == list(range(1, last + 1)), "an entry of the log was lost or invented"
    newest = last // COMMITS_PER_RUN
    runs = [f"run {number}" for number in range(max(0, newest - 2), newest + 1)] if last else []
    assert backend.list_runs() == runs, "a run was lost or came back"
    return last
