"""A cleanup of 1,000 old runs of 100 nodes each, to the bare deletes of the same rows.

The limit deletes the rows of a copy of the same SQLite file, in transactions of as many runs, and gives the space back
as well.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.figures import Finding
from benchmarks.rounds import ratios, take_turns

from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.retention import MOST_ROWS
from seeknal.state.sql.dialects.sqlite import SqliteDialect

NAME = "cleanup"
RUNS, NODES = 1000, 100
BAR = 2.0
LIMIT = "bare deletes"
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
ROWS_AT_ONCE = 10_000


def filled(path: Path, runs: int, nodes: int) -> None:
    """Make a store of so many old runs, and one more, which holds the newest successes."""
    store = create_state_backend("database", db_path=path)
    assert isinstance(store, RecordStateBackend)
    with store:
        store.initialize()
        step = max(1, ROWS_AT_ONCE // nodes)
        for first in range(0, runs + 1, step):
            batch = Batch()
            for number in range(first, min(first + step, runs + 1)):
                run_id = f"run_{number:06}"
                batch.runs.append(
                    RunState(
                        run_id=run_id, status=RunStatus.SUCCESS, finished_at=LONG_AGO, version=1, sequence=number + 1
                    )
                )
                batch.nodes += [
                    NodeState(
                        run_id=run_id,
                        node_id=f"transform.node_{node}",
                        status=NodeStatus.SUCCESS,
                        started_at=LONG_AGO,
                        finished_at=LONG_AGO,
                        duration_ms=1000,
                        row_count=node,
                        fingerprint="0123456789abcdef" * 4,
                        version=2,
                        sequence=number + 1,
                    )
                    for node in range(nodes)
                ]
            store.commit(batch)


def bare(path: Path, runs: int, nodes: int) -> float:
    """Return how long the bare deletes take."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    step = max(1, MOST_ROWS // (nodes + 1))
    begin = time.perf_counter()
    for first in range(0, runs, step):
        connection.execute("BEGIN IMMEDIATE")
        for number in range(first, min(first + step, runs)):
            connection.execute("DELETE FROM node_states WHERE run_id = ?", (f"run_{number:06}",))
            connection.execute("DELETE FROM runs WHERE run_id = ?", (f"run_{number:06}",))
        connection.execute("COMMIT")
    connection.executescript("PRAGMA incremental_vacuum")
    spent = time.perf_counter() - begin
    connection.close()
    return spent


def ours(path: Path, runs: int) -> float:
    """Return how long a cleanup takes."""
    with create_state_backend("database", db_path=path) as store:
        store.initialize()
        begin = time.perf_counter()
        report = store.cleanup(older_than=timedelta(days=30))
        spent = time.perf_counter() - begin
    assert len(report.deleted) == runs
    return spent


def statements(path: Path, runs: int) -> float:
    """Return how many statements a cleanup takes for each run."""
    seen: list[str] = []
    connect = SqliteDialect.connect

    def traced(self: SqliteDialect, *given: Any) -> Any:
        connection = connect(self, *given)
        connection.set_trace_callback(seen.append)
        return connection

    SqliteDialect.connect = traced  # type: ignore[method-assign]
    try:
        ours(path, runs)
    finally:
        SqliteDialect.connect = connect  # type: ignore[method-assign]
    return len(seen) / runs


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield what a cleanup costs."""
    template, copy = folder / "template.db", folder / "copy.db"
    filled(template, RUNS, NODES)

    def fresh() -> Path:
        for path in folder.glob("copy.db*"):
            path.unlink()
        shutil.copy(template, copy)
        return copy

    took = take_turns(
        {"ours": lambda _: ours(fresh(), RUNS), LIMIT: lambda _: bare(fresh(), RUNS, NODES)}, rounds=rounds, times=1
    )
    finding = Finding(NAME, "sqlite")
    finding.add(f"ours / {LIMIT}", ratios(took, "ours", LIMIT), most=BAR)
    for name, micros in took.items():
        finding.add(name, [each / 1e6 for each in micros], "s")
    finding.add("statements for each run", [statements(fresh(), RUNS)], "statements")
    fresh()
    tracemalloc.start()
    ours(copy, RUNS)
    finding.add("peak of what Python allocates", [tracemalloc.get_traced_memory()[1] / 2**20], "MiB")
    tracemalloc.stop()
    finding.notes.append(f"the file: {template.stat().st_size / 2**20:.0f} MiB, then {copy.stat().st_size / 2**20:.0f}")
    yield finding
