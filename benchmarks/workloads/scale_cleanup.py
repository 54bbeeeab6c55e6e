"""The cleanup of half of a store: the memory that it takes, and what writers beside it notice of it."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

from benchmarks.figures import Finding
from benchmarks.workloads.filling import NODES, Options, past, store_at
from benchmarks.workloads.memory import peak_kib, reset_peak, resident_kib

PROCESSES = multiprocessing.get_context("spawn")
BEFORE_S = 10.0
"""How long writers are watched before a cleanup begins."""
PAUSE_S = 0.005
"""Between two transitions of a writer."""
MOST_MIB = 200
"""What the process may take altogether, as that of a move may."""
WRITERS = (1, 2)


class Cleaned(NamedTuple):
    """What a cleanup took: instants of the machine's clock, sizes in KiB."""

    begin: float
    end: float
    runs: int
    kept: int
    resident: int
    peak: int


def cleanups(places: Mapping[int, Options]) -> Finding:
    """Clean up half of each store, the largest one last, and there beside one writer and then, of the rest, two."""
    largest = max(places)
    finding = Finding("scale_cleanup", "postgresql" if "url" in places[largest] else "sqlite")
    for size, options in places.items():
        runs = size // NODES
        if size == largest:
            _beside_writers(options, size, finding)
            continue
        _tell(finding, f"of {size:,}", cleaned(options, runs // 2))
    finding.notes.append(
        f"a writer makes a transition, waits {PAUSE_S * 1000:g} ms, and so on; the memory is that of the process that "
        "cleans, which begins with its imports and an open store"
    )
    return finding


def _beside_writers(options: Options, size: int, finding: Finding) -> None:
    goes_before = 0
    for writers in WRITERS:
        goes_before += (size // NODES - goes_before) // 2
        stop, told = PROCESSES.Event(), PROCESSES.Queue()
        processes = [PROCESSES.Process(target=write, args=(options, n, stop, told)) for n in range(writers)]
        for process in processes:
            process.start()
        for _ in processes:
            told.get(timeout=60)  # it has begun
        time.sleep(BEFORE_S)
        try:
            found = cleaned(options, goes_before)
        finally:
            stop.set()
        samples = [sample for _ in processes for sample in told.get(timeout=60)]
        for process in processes:
            process.join()
        _tell(finding, f"of {size:,} beside {writers}", found)
        before = [took for at, took in samples if at < found.begin]
        during = [took for at, took in samples if found.begin <= at < found.end]
        for name, of in (("p50", 50), ("p99", 99), ("max", 100)):
            theirs, ours = _percentile(before, of) * 1000, _percentile(during, of) * 1000
            finding.add(f"{writers} writing: {name} before", [theirs], "ms")
            finding.add(f"{writers} writing: {name} while it cleans", [ours], "ms")
        finding.add(
            f"{writers} writing: p99 while it cleans / before", [_percentile(during, 99) / _percentile(before, 99)]
        )


def _tell(finding: Finding, of: str, found: Cleaned) -> None:
    deleted = found.runs * NODES / (found.end - found.begin)
    finding.add(f"cleanup {of}: node states deleted", [deleted], "per second")
    finding.add(f"cleanup {of}: peak memory", [found.peak / 1024], "MiB", most=MOST_MIB)
    finding.add(f"cleanup {of}: of it taken while it cleans", [(found.peak - found.resident) / 1024], "MiB")


def cleaned(options: Options, before: int) -> Cleaned:
    """Clean up all runs before one, in a process of its own."""
    told: Queue[Any] = PROCESSES.Queue()
    process = PROCESSES.Process(target=clean, args=(options, before, told))
    process.start()
    while process.is_alive() and told.empty():
        process.join(0.1)
    found: Cleaned = told.get(timeout=10)
    process.join()
    return found


def clean(options: Options, before: int, told: Queue[Any]) -> None:
    """Clean up here, and tell."""
    with store_at(options) as store:
        finished = past(before, 0)[0].finished_at
        assert finished is not None
        resident = resident_kib()
        reset_peak()
        begin = time.monotonic()
        report = store.cleanup(older_than=store.clock.now() - finished)
        end = time.monotonic()
        told.put(Cleaned(begin, end, len(report.runs), len(report.kept), resident, peak_kib()))


def write(options: Options, number: int, stop: Event, told: Queue[Any]) -> None:
    """Make transitions in a run of its own until it shall stop; tell when each began, and the seconds that it took."""
    names = [state.node_id for state in past(0, NODES)[1]]
    run_id = f"live {number} {time.time():.0f}"
    samples: list[tuple[float, float]] = []
    with store_at(options) as store:
        store.create_run(run_id)
        told.put(None)
        at = 0
        while not stop.is_set():
            name, status = names[at // 2 % NODES], ("running", "success")[at % 2]
            begin = time.monotonic()
            store.set_node_state(run_id, name, status=status)
            samples.append((begin, time.monotonic() - begin))
            at += 1
            stop.wait(PAUSE_S)
    told.put(samples)


def _percentile(seconds: Sequence[float], of: int) -> float:
    if of == 100:
        return max(seconds)
    return statistics.quantiles(seconds, n=100)[of - 1]
