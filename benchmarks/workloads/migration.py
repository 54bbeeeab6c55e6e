"""A move of 1,000,000 node states from a file store to SQLite: rows a second, memory, and to a bare copy of the rows.

The whole move counts, its reading back and comparing included, in a process of its own. The limit reads the same rows
of one SQLite file and inserts them into another one of the same tables and indexes, at the same ``synchronous``, in
transactions of as many rows; it does not read them back.

    python -m benchmarks.workloads.migration --move SOURCE TARGET    moves one store, and prints what that took
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.workloads.filling import past
from benchmarks.workloads.memory import peak_kib

from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch
from seeknal.state.migration.moving import move
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import BATCH_ROWS

NAME = "migration"
STATES, NODES = 1_000_000, 200
LEAST_ROWS, MOST_MIB = 50_000, 200


def store_at(path: Path) -> RecordStateBackend:
    """Return the store at a path, open: a SQLite file by its suffix, or a directory."""
    if path.suffix == ".db":
        store = create_state_backend("database", db_path=path)
    else:
        store = create_state_backend("file", base_path=path)
    assert isinstance(store, RecordStateBackend)
    store.initialize()
    return store


def fill(path: Path, states: int, nodes: int) -> None:
    """Make a file store of so many node states."""
    with store_at(path) as store:
        batch = Batch()
        for number in range(states // nodes):
            run, states_of_it = past(number, nodes)
            batch.runs.append(run)
            batch.nodes += states_of_it
            if len(batch.nodes) >= BATCH_ROWS:
                store.commit(batch)
                batch = Batch()
        store.commit(batch)


def move_here(source: Path, target: Path) -> None:
    """Move a store in this process and print what that took."""
    began = time.perf_counter()
    with store_at(source) as ours, store_at(target) as theirs:
        report = move(ours, theirs, source_where=str(source), target_where=str(target))
    spent = time.perf_counter() - began
    print(json.dumps({"rows": report.counts.total, "seconds": spent, "peak_kib": peak_kib()}))


def moved(source: Path, target: Path) -> dict[str, float]:
    """Move a store in a process of its own and return what that took."""
    command = [sys.executable, "-m", "benchmarks.workloads.migration", "--move", str(source), str(target)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def bare_copy(source: Path, target: Path) -> float:
    """Return how long the bare copy of the runs and node states of a SQLite store takes."""
    with closing(sqlite3.connect(source)) as ours, closing(sqlite3.connect(target, isolation_level=None)) as theirs:
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            theirs.execute(f"PRAGMA {pragma}").fetchall()
        made = "SELECT sql FROM sqlite_master WHERE tbl_name IN ('runs', 'node_states') AND sql IS NOT NULL"
        for (statement,) in ours.execute(made).fetchall():
            theirs.execute(statement)
        began = time.perf_counter()
        for table in ("runs", "node_states"):
            rows = ours.execute(f"SELECT * FROM {table}")
            insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows.description))})"
            while batch := rows.fetchmany(BATCH_ROWS):
                theirs.execute("BEGIN IMMEDIATE")
                theirs.executemany(insert, batch)
                theirs.execute("COMMIT")
        return time.perf_counter() - began


def measure(folder: Path, rounds: int, states: int = STATES) -> Iterator[Finding]:
    """Yield what a move of so many node states takes, and the way back."""
    source = folder / "files"
    fill(source, states, NODES)
    there, back, limits = [], [], []
    for number in range(rounds):
        target, bare, files = folder / f"moved-{number}.db", folder / f"bare-{number}.db", folder / f"back-{number}"
        leaving = shutil.copytree(source, folder / f"leaving-{number}")  # a store is left once
        there.append(moved(leaving, target))
        limits.append(bare_copy(target, bare))
        back.append(moved(target, files))
        for path in (target, bare):
            path.unlink()
        shutil.rmtree(files)
        shutil.rmtree(leaving)
    finding = Finding(NAME, "file to sqlite")
    finding.add("rows a second", [each["rows"] / each["seconds"] for each in there], "rows/s", least=LEAST_ROWS)
    finding.add("peak memory", [each["peak_kib"] / 1024 for each in there], "MiB", most=MOST_MIB)
    finding.add("ours / a bare copy", [each["seconds"] / limit for each, limit in zip(there, limits, strict=True)])
    finding.notes.append(f"{states:,} node states in runs of {NODES}")
    yield finding
    finding = Finding(NAME, "sqlite to file")
    finding.add("rows a second", [each["rows"] / each["seconds"] for each in back], "rows/s")
    finding.add("peak memory", [each["peak_kib"] / 1024 for each in back], "MiB")
    yield finding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--move", nargs=2, type=Path, required=True)
    move_here(*parser.parse_args().move)


if __name__ == "__main__":
    main()
