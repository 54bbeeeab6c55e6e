"""Whether the memory of a process that writes for long stays flat.

    python -m benchmarks.workloads.memory [--minutes 3] [--store file --store sqlite] [--url URL]

The process makes transitions, takes leases and gives them back, completes intervals that touch, and lists runs. In the
one form it writes the same runs and nodes again, so that the state does not grow; in the other one it goes on to new
runs, and cleans up the old ones. The backend of files has the whole state in its memory by design: what must be flat is
what that takes for a state that does not grow. What counts is the second half: the first one fills caches.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.figures import Finding
from benchmarks.workloads.filling import place

from seeknal.state.backend import StateBackend, create_state_backend

NAME = "memory"
STATUS = Path("/proc/self/status")
PROCESSES = multiprocessing.get_context("spawn")
MINUTES = 3.0
SAMPLE_EVERY = 1000
"""Operations."""
MOST_KIB = 2.0
"""Per 1,000 operations, over the second half: 7 MiB in an hour of a thousand a second."""
RUNS, NODES = 20, 50
"""Written again and again; of new runs, so many stay."""
SLOTS = 12
"""Intervals of five minutes that a node completes, one after the other, and then again."""
SAME_RUNS, NEW_RUNS = FORMS = ("the same runs", "new runs")
KEEPER = "keeper"
"""A run that goes on: the counters of locks outlive the runs that they are of, so these are taken of it alone."""
STORES = ("file", "sqlite", "postgresql")
START, STEP = datetime(2024, 1, 1, tzinfo=UTC), timedelta(minutes=5)

Given: TypeAlias = tuple[str, dict[str, Any]]
"""What `create_state_backend` is given."""
Sample: TypeAlias = tuple[int, int]
"""Operations so far, and the KiB that the process has."""


def measure(
    folder: Path, minutes: float = MINUTES, url: str | None = None, stores: Sequence[str] = STORES
) -> Iterator[Finding]:
    """Yield how the memory grows on each store, in both forms; without a URL on none of a server.

    All processes write beside each other, each to a store of its own: memory is measured here, not time.
    """
    with ExitStack() as stack:
        writers = {
            (kind, form): Writer(_given(kind, form, folder, url, stack), form == NEW_RUNS, minutes * 60)
            for kind in stores
            if kind != "postgresql" or url is not None
            for form in FORMS
        }
        for kind in dict.fromkeys(kind for kind, _ in writers):
            yield found(kind, {form: writers[kind, form].samples() for form in FORMS}, minutes)


def _given(kind: str, form: str, folder: Path, url: str | None, stack: ExitStack) -> Given:
    name = f"{kind} {form}"
    if kind == "file":
        return "file", {"base_path": str(folder / name)}
    return "database", place(folder, url if kind == "postgresql" else None, name, stack)


def found(kind: str, samples_of: dict[str, list[Sample]], minutes: float) -> Finding:
    """Return how the memory of the processes of a store grew."""
    finding = Finding(NAME, kind)
    for form, samples in samples_of.items():
        finding.add(f"{form}: growth", [growth(samples)], "KiB / 1,000", most=MOST_KIB)
        finding.add(f"{form}: memory after a tenth", [samples[len(samples) // 10][1] / 1024], "MiB")
        finding.add(f"{form}: memory at half", [samples[len(samples) // 2][1] / 1024], "MiB")
        finding.add(f"{form}: memory in the end", [samples[-1][1] / 1024], "MiB")
        finding.add(f"{form}: operations", [samples[-1][0]], "")
    finding.notes.append(
        f"{minutes:g} minutes, all processes beside each other; growth is the slope of the second half"
    )
    return finding


class Writer:
    """A process that writes to one store.

    Args:
        given: The store.
        is_new: Whether it goes on to new runs.
        seconds: For how long.
    """

    def __init__(self, given: Given, is_new: bool, seconds: float) -> None:
        self._told = PROCESSES.Queue()
        self._process = PROCESSES.Process(target=write, args=(given, is_new, seconds, self._told), daemon=True)
        self._process.start()

    def samples(self) -> list[Sample]:
        """Return what it told in the end."""
        while self._process.is_alive() and self._told.empty():
            self._process.join(0.5)
        samples: list[Sample] = self._told.get(timeout=10)
        self._process.join()
        return samples


def growth(samples: list[Sample]) -> float:
    """Return the slope of the second half, in KiB for 1,000 operations."""
    later = samples[len(samples) // 2 :]
    return statistics.linear_regression([at for at, _ in later], [kib for _, kib in later]).slope * 1000


def write(given: Given, is_new: bool, seconds: float, told: Any) -> None:
    """Write for so long, and tell the samples."""
    kind, options = given
    samples: list[Sample] = []
    with create_state_backend(kind, **options) as store:
        store.initialize()
        if not store.exists(KEEPER):
            store.create_run(KEEPER)
        end, done = time.monotonic() + seconds, 0
        while time.monotonic() < end or len(samples) < 10:
            number = done // SAMPLE_EVERY
            done += work(store, f"new {number}" if is_new else f"run {number % RUNS}", number)
            if is_new and number >= RUNS:
                store.cleanup(older_than=timedelta(), keep_last=RUNS)
            samples.append((done, resident_kib()))
    told.put(samples)


def work(store: StateBackend, run_id: str, number: int) -> int:
    """Do `SAMPLE_EVERY` operations in a run, which is made if it is not there, and finished in the end."""
    if store.exists(run_id):
        store.update_run(run_id, status="running")
    else:
        store.create_run(run_id)
    for at in range(SAMPLE_EVERY // 10):
        node = f"node {at % NODES}"
        for _ in range(2):
            store.set_node_state(run_id, node, status="running")
            store.set_node_state(run_id, node, status="success", row_count=at, metadata={"output": f"{node}.parquet"})
        with store.lock(KEEPER, node):
            slot = (number * SAMPLE_EVERY // 10 + at) // NODES % SLOTS
            store.add_completed_interval(run_id, node, START + slot * STEP, START + (slot + 1) * STEP)
        assert store.list_runs(newest_first=True, limit=20)
        assert store.get_latest_node_state(node) is not None
    store.update_run(run_id, status="success")
    return SAMPLE_EVERY


def resident_kib() -> int:
    """Return the memory of this process that is in use now."""
    return _status("VmRSS")


def peak_kib() -> int:
    """Return the most that it ever was since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Begin anew. Source: https://www.kernel.org/doc/html/latest/filesystems/proc.html, ``clear_refs``."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    # Not `getrusage`: its maximum outlives `exec`, so that of a child begins with what its parent has.
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for each form on each store")
    parser.add_argument("--store", action="append", choices=STORES)
    parser.add_argument("--url", help="of a PostgreSQL server, which is measured as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seeknal-memory-") as folder:
        for finding in measure(Path(folder), given.minutes, given.url, given.store or STORES):
            print(finding.text(), flush=True)


if __name__ == "__main__":
    main()
