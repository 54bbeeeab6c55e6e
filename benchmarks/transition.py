"""What one node transition costs, as a ratio to the physical limit, measured in turns within one run.

    python -m benchmarks.transition [--rounds 15] [--commits 300]

Prints, for each store: the median over the rounds of (ours / limit) with its quartiles, the same at
10,000 nodes in the run against 100, and the microseconds behind them.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from seeknal.state.backend import StateBackend, create_state_backend

FRAME_BYTES = 400  # as long as the journal's frame of such a transition


def seconds(work: Callable[[int], object], commits: int) -> float:
    begin = time.perf_counter()
    for number in range(commits):
        work(number)
    return (time.perf_counter() - begin) / commits


def raw_append(folder: Path) -> Callable[[int], object]:
    descriptor = os.open(folder / "raw.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    frame = b"x" * FRAME_BYTES

    def append(_: int) -> None:
        os.write(descriptor, frame)
        os.fsync(descriptor)

    return append


def raw_sqlite(folder: Path) -> Callable[[int], object]:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (run TEXT, node TEXT, rows INT, extra TEXT, PRIMARY KEY (run, node))")
    sql = "INSERT INTO t VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET rows = excluded.rows, extra = excluded.extra"
    return lambda number: connection.execute(sql, ("run", "node 5", number, "x" * 200))


def opened(kind: str, folder: Path, nodes: int) -> StateBackend:
    options = {"base_path": folder / f"f{nodes}"} if kind == "file" else {"db_path": folder / f"s{nodes}.db"}
    backend = create_state_backend(kind, **options)
    backend.initialize()
    backend.create_run("run")
    with backend.transaction():
        for number in range(nodes):
            backend.set_node_state("run", f"node {number}", status="running")
    return backend


def measure(kind: str, raw: Callable[[Path], Callable[[int], object]], rounds: int, commits: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        limit, small, large = raw(folder), opened(kind, folder, 100), opened(kind, folder, 10_000)

        def transition(backend: StateBackend) -> Callable[[int], object]:
            return lambda number: backend.set_node_state("run", "node 5", row_count=number)

        of_limit, growth, ours_us, raw_us = [], [], [], []
        for _ in range(rounds):
            bare, ours = seconds(limit, commits), seconds(transition(small), commits)
            of_limit.append(ours / bare)
            growth.append(seconds(transition(large), commits) / ours)
            ours_us.append(ours * 1e6)
            raw_us.append(bare * 1e6)
        small.close()
        large.close()
    print(
        f"{kind:9} ours/limit {spread(of_limit)}   10,000/100 nodes {spread(growth)}   "
        f"({statistics.median(ours_us):.0f} us / {statistics.median(raw_us):.0f} us)"
    )


def spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--commits", type=int, default=300)
    arguments = parser.parse_args()
    measure("file", raw_append, arguments.rounds, arguments.commits)
    measure("database", raw_sqlite, arguments.rounds, arguments.commits)


if __name__ == "__main__":
    main()
