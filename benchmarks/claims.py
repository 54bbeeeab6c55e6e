"""What it costs to share a backfill: claims per second of several workers, and how long one claim takes.

    python -m benchmarks.claims [--workers 8] [--ranges 800] [--limit 1] [--url postgresql://... --url mysql://...]

Each worker is a process with an instance of its own. They claim ranges of one node, and complete each at once, so all
that is measured is the store; every claim contends with those of all others. Prints, for one worker and for all of
them, the ranges per second, and the median and the 95th percentile of the milliseconds that `claim_intervals` and
`complete_claim` take. Stores on servers are kept apart by a schema, or a prefix, of their own, which stays there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from seeknal.model.intervals import Interval
from seeknal.state.backend import create_state_backend

RUN, NODE = "backfill", "load"
PROCESSES = multiprocessing.get_context("forkserver")


def wanted(count: int) -> list[Interval]:
    """Return so many hours."""
    begin, hour = datetime(2024, 1, 1, tzinfo=UTC), timedelta(hours=1)
    return [Interval(begin + number * hour, begin + (number + 1) * hour) for number in range(count)]


def work(kind: str, options: dict[str, Any], name: str, count: int, limit: int, barrier: Any, results: Any) -> None:
    """Do what is free until nothing is; tell when that was, and how long each call took."""
    ranges = wanted(count)
    claiming: list[float] = []
    completing: list[float] = []
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        with backend.lock(RUN, name) as lease:
            barrier.wait()
            first = time.monotonic()
            while True:
                begin = time.perf_counter()
                claims = backend.claim_intervals(RUN, NODE, ranges, lease=lease, limit=limit)
                if not claims:
                    break
                claiming.append(time.perf_counter() - begin)
                for claim in claims:
                    begin = time.perf_counter()
                    backend.complete_claim(claim)
                    completing.append(time.perf_counter() - begin)
            results.put((first, time.monotonic(), claiming, completing))


def measure(kind: str, options: dict[str, Any], workers: int, count: int, limit: int) -> str:
    """Return a line about so many workers on a new store."""
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        backend.create_run(RUN)
    barrier, results = PROCESSES.Barrier(workers), PROCESSES.Queue()
    processes = [
        PROCESSES.Process(target=work, args=(kind, options, f"worker-{number}", count, limit, barrier, results))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    told = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    first, last = min(each[0] for each in told), max(each[1] for each in told)
    claiming = [ms for each in told for ms in each[2]]
    completing = [ms for each in told for ms in each[3]]
    assert len(completing) == count
    rate = count / (last - first)
    return f"{workers:>2} workers {rate:8.0f} ranges/s   claim {_ms(claiming)}   complete {_ms(completing)}"


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:6.2f} ms, 95 %: {statistics.quantiles(seconds, n=20)[-1] * 1000:6.2f}"


def main() -> None:
    """Measure the stores that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--ranges", type=int, default=800)
    parser.add_argument("--limit", type=int, default=1, help="ranges that are taken at once")
    parser.add_argument("--url", action="append", default=[], help="a database on a server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, given.workers):
            place = Path(folder) / str(workers)
            stores: list[tuple[str, str, dict[str, Any]]] = [
                ("file", "file", {"base_path": place / "target"}),
                ("sqlite", "database", {"db_path": place / "state.db"}),
            ]
            for url in given.url:
                schema = f"bench_{uuid4().hex[:8]}"
                stores.append((url.partition(":")[0], "database", {"url": url, "schema": schema}))
            for name, kind, options in stores:
                print(f"{name:<12} {measure(kind, options, workers, given.ranges, given.limit)}", flush=True)


if __name__ == "__main__":
    main()
