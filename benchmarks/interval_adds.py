"""What it costs to complete intervals of one node, as ratios measured in turns within one run.

    python -m benchmarks.interval_adds [--part single|many|growth] [--store memory|file|sqlite|servers] [--full]

All parts on all stores are measured unless some are named; servers are those whose variable is set, such as
SEEKNAL_TEST_POSTGRES_URL, in places of their own that are removed at the end. Intervals are added in order, where one
range grows, and at random: every second one first, so that there are half as many ranges as intervals, and then those
between, until one range is left.

single  One commit for each, to the least that a store can do: an append of as many bytes and an fsync (file), an upsert
        of a row and a commit at the same ``synchronous`` (SQLite), the same with the raw driver (servers), and an
        insertion into a sorted list (memory).
many    The same in transactions of 1,000. The median and its quartiles are those of the transactions; ``all`` has the
        time of all of them together, so also that of the checkpoints of a file store, which the slowest ones wait for.
growth  Adds of 100 intervals that touch nothing to a store of so many ranges, to the same to a store of 100 ranges,
        which is done in turns: with a commit for each, and in one transaction. ``computing`` counts the time of the
        processor alone, which other work on the machine disturbs less. Then the microseconds behind it; those of the
        transactions that made the ranges; those of reading them; the bytes of the closed store for each range; and what
        it takes to open it, add one and close it, three times.

By default a part of the intervals, in about three minutes; with ``--full``, 10,000 single ones, 500,000 in
transactions, and up to 500,000 ranges. Servers are given less, and 10,000 at most.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import spread
from benchmarks.places import AT_ONCE, NODE, RUN, STEP, STORES, Place, add, add_together, begun, bounds, places

from seeknal.state.backend import StateBackend

PARTS = ("single", "many", "growth")
ORDERS = ("in order", "at random")
AMOUNTS = {
    "single": ((2_000, 10_000), (300, 10_000)),
    "many": ((50_000, 500_000), (3_000, 10_000)),
    "growth": ((100_000, 500_000), (1_000, 10_000)),
}
"""Of each part, how much there is on one machine and on servers, each by default and in full."""
SIZES = (100, 1_000, 10_000, 100_000, 500_000)
ADDS = 100


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ordered(order: str, count: int) -> list[int]:
    """Return the slots of so many intervals in the order of their additions."""
    if order == "in order":
        return list(range(count))
    draw = random.Random(count)
    separate, between = list(range(0, count, 2)), list(range(1, count, 2))
    draw.shuffle(separate)
    draw.shuffle(between)
    return separate + between


def blocks(slots: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (slots[first : first + size] for first in range(0, len(slots), size))


def measure_adds(place: Place, order: str, count: int, at_once: int) -> None:
    """Print what so many adds cost, in commits of so many."""
    name = f"{order} {at_once}".replace(" ", "-")
    limit = place.limit(name)
    ours, bare = [], []
    with place.opened(name) as backend:
        begun(backend)
        for block in blocks(ordered(order, count), max(at_once, ADDS)):
            commits = list(blocks(block, at_once))
            bare.append(seconds(lambda: [limit(commit) for commit in commits]))  # noqa: B023
            ours.append(seconds(lambda: (add if at_once == 1 else add_together)(backend, block)))  # noqa: B023
        assert len(backend.get_completed_intervals(NODE)) == 1
    each = spread([mine / other for mine, other in zip(ours, bare, strict=True)])
    print(
        f"{place.kind:10} {count:7,} {order:9}   ours/limit {each:24} all {sum(ours) / sum(bare):5.2f}   "
        f"({sum(ours) * 1e6 / count:.1f} us / {sum(bare) * 1e6 / count:.1f} us an add)   "
        f"slowest {max(at_once, ADDS):,}: {max(ours) * 1e3:.0f} ms",
        flush=True,
    )


def measure_growth(place: Place, sizes: Sequence[int], rounds: int) -> None:
    """Print what adds cost as the number of ranges grows."""
    with place.opened("small") as small:
        begun(small)
        fill(small, 0, 100)
        have = 0
        for size in sizes:
            with place.opened("large") as large:
                begun(large)
                filling = seconds(lambda: fill(large, have, size)) * 1e6 / (size - have)  # noqa: B023
                have = size
                mine, other, together = [], [], []
                for number in range(rounds):
                    other.append(spent_on_adds(small, 100, number, at_once=False))
                    mine.append(spent_on_adds(large, size, number, at_once=False))
                    bare = spent_on_adds(small, 100, number, at_once=True)
                    together.append(spent_on_adds(large, size, number, at_once=True).computing / bare.computing)
                reading = statistics.median(seconds(lambda: large.get_completed_intervals(NODE)) for _ in range(3))
            print(
                f"{place.kind:10} {size:7,} ranges to 100   single {ratios(mine, other, 0):22}   computing: single "
                f"{ratios(mine, other, 1):22} together {spread(together):22}   ({micros(mine)} / {micros(other)})   "
                f"filling {filling:.0f} us an add   reading {reading * 1e6 / size:.2f} us a range"
                f"{about_files(place, size)}",
                flush=True,
            )


class Spent(NamedTuple):
    """Seconds by the clock on the wall, and those of the processor, which waiting for a disk does not take."""

    passing: float
    computing: float


def ratios(mine: Sequence[Spent], other: Sequence[Spent], which: int) -> str:
    return spread([ours[which] / theirs[which] for ours, theirs in zip(mine, other, strict=True)])


def micros(spent: Sequence[Spent]) -> str:
    passing, computing = (statistics.median(column) * 1e6 / ADDS for column in zip(*spent, strict=True))
    return f"{passing:.0f} us, computing {computing:.0f} us"


def fill(backend: StateBackend, have: int, wanted: int) -> None:
    """Add every second slot at random, up to so many ranges."""
    slots = list(range(2 * have, 2 * wanted, 2))
    random.Random(wanted).shuffle(slots)
    for block in blocks(slots, AT_ONCE):
        add_together(backend, block)


def spent_on_adds(backend: StateBackend, ranges: int, seed: int, *, at_once: bool) -> Spent:
    """Return what it takes to add intervals in gaps; they are taken away again, which is not measured."""
    gaps = (bounds(2 * number + 1) for number in random.Random(seed).sample(range(ranges), ADDS))
    spans = [(start + STEP / 4, end - STEP / 4) for start, end in gaps]

    def work() -> None:
        for span in spans:
            backend.add_completed_interval(RUN, NODE, *span)

    def work_at_once() -> None:
        with backend.transaction():
            work()

    computed = time.process_time()
    passing = seconds(work_at_once if at_once else work)
    spent = Spent(passing, time.process_time() - computed)
    with backend.transaction():
        for span in spans:
            backend.restate_intervals(NODE, *span)
    return spent


def about_files(place: Place, ranges: int) -> str:
    """Return how large the closed store is, and what it takes to open it, add one and close it; nothing of a server."""
    if place.size is None:
        return ""
    size = place.size("large") / ranges
    sessions = []
    for _ in range(3):
        begin = time.process_time()
        with place.opened("large") as backend:
            backend.initialize()
            add(backend, [-2])
        sessions.append(f"{(time.process_time() - begin) * 1e3:.0f} ms")
    return f"   {size:.0f} bytes a range   opening, one add and closing, computing {', '.join(sessions)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--store", action="append", choices=STORES)
    parser.add_argument("--rounds", type=int, default=7, help="of the growth, 2 or more")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder, ExitStack() as stack:
        found = places(given.store or STORES, Path(folder), stack)
        for part in given.part or PARTS:
            print(f"{part}:")
            for place in found:
                measure(place, part, given.full, given.rounds)


def measure(place: Place, part: str, full: bool, rounds: int) -> None:
    """Print one part about one place."""
    amount = AMOUNTS[part][place.is_server][full]
    if part == "growth":
        measure_growth(place, [size for size in SIZES if size <= amount], rounds)
        return
    for order in ORDERS:
        measure_adds(place, order, amount, 1 if part == "single" else AT_ONCE)


if __name__ == "__main__":
    main()
