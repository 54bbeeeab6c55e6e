"""What partitions of one node cost: adding them, reading them in pages, and finding those that are missing.

    python -m benchmarks.partitions [--store memory|file|sqlite|servers] [--rounds 9] [--full]

Keys are those of a grid of days and countries, added at random. Servers are those whose variable is set, such as
SEEKNAL_TEST_POSTGRES_URL, in places of their own that are removed at the end; they are given 5,000, and with ``--full``
as many as the others, 100,000. Prints for each store:

adding   Microseconds for each in transactions of 1,000, and the last tenth of the transactions to the first.
pages    Of 100, behind keys at the beginning, in the middle and near the end, to a bare ``SELECT ... LIMIT 100`` of the
         same rows on a connection of its own, in turns (databases); to the page at the beginning; and all at once to
         one page.
memory   What a process that opens the store needs more than one that does not: to read one page, all pages of 1,000 one
         by one, and all at once.
missing  To find the tenth of what is expected that is not completed: of the keys in memory, to a plain look into a set,
         in turns; and of what the store was told to expect, to reading all that is completed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import spread
from benchmarks.places import AT_ONCE, NODE, RUN, STORES, Place, begun, places

from seeknal.model.partitions import PartitionGrid, StaticPartitions, TimePartitions, missing_partitions
from seeknal.model.records import PartitionState
from seeknal.state.backend import StateBackend, create_state_backend

START = datetime(2009, 1, 1, tzinfo=UTC)
COUNTRIES = [f"{first}{second}" for first in "AEIO" for second in "DKLMN"]
PAGE, LARGE_PAGE = 100, 1000
COUNT, ON_SERVERS = 100_000, 5_000
PROCESSES = multiprocessing.get_context("forkserver")
MIB = 1024


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return how long it takes by a clock; by default what this process computes, which others do not disturb."""
    begin = clock()
    work()
    return clock() - begin


class Keys:
    """The keys of a grid, of which a tenth, at random, is never completed."""

    def __init__(self, completed: int) -> None:
        self.now = START + timedelta(days=-(-completed * 10 // 9 // len(COUNTRIES)))
        days = TimePartitions(schedule="@daily", start=START)
        self.grid = PartitionGrid(outer=days, inner=StaticPartitions(COUNTRIES))
        self.expected = list(self.grid.keys(self.now))
        self.done = random.Random(completed).sample(self.expected, completed)


def measure(place: Place, count: int, rounds: int) -> None:
    """Print everything about one place."""
    keys = Keys(count)
    with place.opened("partitions") as backend:
        begun(backend)
        print(f"{place.kind}, {count:,} partitions", flush=True)
        measure_adding(backend, keys.done)
        measure_pages(place, backend, sorted(keys.done), rounds)
        measure_missing(place, backend, keys, rounds)
    if place.options is not None:
        measure_memory(*place.options("partitions"))


def measure_adding(backend: StateBackend, done: Sequence[str]) -> None:
    spent = []
    for first in range(0, len(done), AT_ONCE):
        begin = time.perf_counter()
        with backend.transaction():
            for key in done[first : first + AT_ONCE]:
                backend.add_completed_partition(RUN, NODE, key, row_count=1)
        spent.append(time.perf_counter() - begin)
    tenth = -(-len(spent) // 10)
    growth = statistics.median(spent[-tenth:]) / statistics.median(spent[:tenth])
    print(
        f"  adding   {sum(spent) * 1e6 / len(done):.1f} us each   last tenth/first {growth:.2f}   "
        f"slowest 1,000: {max(spent) * 1e3:.0f} ms",
        flush=True,
    )


def measure_pages(place: Place, backend: StateBackend, ordered: Sequence[str], rounds: int) -> None:
    clock = time.perf_counter if place.is_server else time.process_time
    bare = None if place.driver is None else bare_page(*place.driver("partitions"))
    afters = {"beginning": None, "middle": ordered[len(ordered) // 2], "end": ordered[-2 * PAGE]}
    ours: dict[str, list[float]] = {name: [] for name in afters}
    theirs: dict[str, list[float]] = {name: [] for name in afters}
    for after in afters.values():
        found = backend.list_partitions(NODE, after=after, limit=PAGE)
        first = 0 if after is None else ordered.index(after) + 1
        assert [each.partition for each in found] == ordered[first : first + PAGE]
        assert bare is None or [each[1] for each in bare(after or "")] == ordered[first : first + PAGE]
    for _ in range(rounds):
        for name, after in afters.items():
            if bare is not None:
                theirs[name].append(seconds(lambda: bare(after or ""), clock))  # noqa: B023
            page = partial(backend.list_partitions, NODE, after=after, limit=PAGE)
            ours[name].append(seconds(page, clock))
    whole = [seconds(lambda: backend.list_partitions(NODE), clock) for _ in range(min(rounds, 5))]
    for name, spent in ours.items():
        of_bare = ""
        if bare is not None:
            ratios = spread([mine / other for mine, other in zip(spent, theirs[name], strict=True)])
            of_bare = f"ours/select {ratios:24} "
        of_first = spread([mine / other for mine, other in zip(spent, ours["beginning"], strict=True)])
        micros = statistics.median(spent) * 1e6
        print(f"  page     {name:9}   {of_bare}to the first page {of_first:22}   ({micros:.0f} us)")
    middle = statistics.median(whole)
    print(
        f"  all      {middle / statistics.median(ours['beginning']):.0f} times the first page, "
        f"{middle * 1e6 / len(ordered):.2f} us each   ({middle * 1e3:.0f} ms)",
        flush=True,
    )


def bare_page(driver: Any, table: Callable[[str], str]) -> Callable[[str], Sequence[tuple[Any, ...]]]:
    """Return what reads the rows of a page with nothing but the driver."""
    key, mark = f"{driver.quote}partition{driver.quote}", driver.mark
    sql = f"SELECT * FROM {table('partitions')} WHERE node_id = {mark} AND {key} > {mark} ORDER BY {key} LIMIT {PAGE}"
    return lambda after: driver.fetch(sql, (NODE, after))


def measure_missing(place: Place, backend: StateBackend, keys: Keys, rounds: int) -> None:
    done = {each.partition for each in backend.list_partitions(NODE)}
    left = [key for key in keys.expected if key not in done]
    assert list(missing_partitions(keys.expected, done, keys.now)) == left
    assert list(missing_partitions(keys.grid, done, keys.now)) == left
    plain, of_list, of_grid = [], [], []
    for _ in range(rounds):
        plain.append(seconds(lambda: [key for key in keys.expected if key not in done]))
        of_list.append(seconds(lambda: list(missing_partitions(keys.expected, done, keys.now))))
        of_grid.append(seconds(lambda: list(missing_partitions(keys.grid, done, keys.now))))
    print(
        f"  missing  {len(left):,} of {len(keys.expected):,}   of a list, to plain {to_plain(of_list, plain)}   "
        f"of a grid {to_plain(of_grid, plain)}   (plain {statistics.median(plain) * 1e3:.1f} ms)",
        flush=True,
    )
    clock = time.perf_counter if place.is_server else time.process_time
    telling = seconds(lambda: backend.expect_partitions(NODE, keys.expected), clock)
    whole, first = [], []
    for _ in range(3):
        reading = seconds(lambda: backend.list_partitions(NODE), clock)
        whole.append(seconds(lambda: backend.list_partition_statuses(NODE, status="missing"), clock) / reading)
        first.append(seconds(lambda: backend.list_partition_statuses(NODE, status="missing", limit=PAGE), clock))
    assert [each.partition for each in backend.list_partition_statuses(NODE, status="missing")] == sorted(left)
    print(
        f"  missing  of what the store expects, to reading all that is completed {spread(whole)}   "
        f"the first 100 in {statistics.median(first) * 1e3:.1f} ms   "
        f"telling it {telling * 1e6 / len(keys.expected):.1f} us each",
        flush=True,
    )


def to_plain(spent: Sequence[float], plain: Sequence[float]) -> str:
    return spread([mine / other for mine, other in zip(spent, plain, strict=True)])


def measure_memory(kind: str, options: dict[str, Any]) -> None:
    needed = {}
    for way in ("nothing", "a page", "pages", "all"):
        results = PROCESSES.SimpleQueue()
        process = PROCESSES.Process(target=listing, args=(kind, options, way, results))
        process.start()
        process.join()
        needed[way] = results.get()
    print(
        "  memory   "
        + "   ".join(f"{way} {(needed[way] - needed['nothing']) / MIB:.1f} MiB" for way in ("a page", "pages", "all")),
        flush=True,
    )


def listing(kind: str, options: dict[str, Any], way: str, results: Any) -> None:
    """Read partitions in this process, and tell the most memory that it took, in KiB."""
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        if way == "a page":
            backend.list_partitions(NODE, limit=PAGE)
        elif way == "pages":
            after, page = None, None
            while page is None or len(page) == LARGE_PAGE:
                page = backend.list_partitions(NODE, after=after, limit=LARGE_PAGE)
                after = last_key(page, after)
        elif way == "all":
            backend.list_partitions(NODE)
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def last_key(page: Sequence[PartitionState], before: str | None) -> str | None:
    return page[-1].partition if page else before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", choices=STORES)
    parser.add_argument("--rounds", type=int, default=9, help="2 or more")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder, ExitStack() as stack:
        for place in places(given.store or STORES, Path(folder), stack):
            measure(place, ON_SERVERS if place.is_server and not given.full else COUNT, given.rounds)


if __name__ == "__main__":
    main()
