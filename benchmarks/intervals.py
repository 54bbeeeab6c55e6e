"""What it costs to find what is missing, as a ratio to a plain walk over the ticks, measured in turns within one run.

    python -m benchmarks.intervals [--rounds 9]

Five years, of which a tenth of the ticks is missing at random, or a few of them. The walk adds the length of a tick to
the one before and looks it up in a set of those that are missing: no calendar, no time zone, no ranges. It pays for
every tick of the five years, ours for those that are missing. Prints, for each schedule: the median over the rounds
of (ours / walk) with its quartiles, the milliseconds behind them, and the microseconds for each tick of the answer;
then the same as the number of ranges grows; and what cutting all five years costs, to the walk that makes the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from seeknal.model.intervals import Interval, gaps, union
from seeknal.model.pending import pending_intervals
from seeknal.model.schedule import Schedule, as_schedule, missing_ticks

START, END = datetime(2019, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVERY = {1: "* * * * *", 5: "*/5 * * * *", 60: "@hourly"}


def seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def completed(step: timedelta, missing: set[datetime]) -> list[Interval]:
    """Return what is done when all but these ticks are."""
    return gaps([Interval(start, start + step) for start in missing], START, END)


def ticks(step: timedelta) -> int:
    return (END - START) // step


def drawn(step: timedelta, count: int) -> set[datetime]:
    chosen = random.Random(count).sample(range(ticks(step)), count)
    return {START + step * number for number in chosen}


def walk(step: timedelta, missing: set[datetime]) -> list[Interval]:
    found, at = [], START
    while at < END:
        if at in missing:
            found.append(Interval(at, at + step))
        at += step
    return found


def whole_walk(step: timedelta) -> list[Interval]:
    found, at = [], START
    while at < END:
        after = at + step
        found.append(Interval(at, after))
        at = after
    return found


def fraction(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def compared(name: str, rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any], count: int) -> float:
    """Print the ratio of two ways, in turns; return the median of ours in seconds."""
    mine, other = [], []
    for _ in range(rounds):
        mine.append(seconds(ours))
        other.append(seconds(theirs))
    middle = statistics.median(mine)
    print(
        f"{name:53} ours/walk {fraction([a / b for a, b in zip(mine, other, strict=True)]):33}"
        f"({middle * 1e3:.2f} ms / {statistics.median(other) * 1e3:.2f} ms)   {middle * 1e6 / count:.2f} us a tick"
    )
    return middle


def compare_missing(minutes: int, zone: str, count: int, rounds: int) -> float:
    step, schedule = minutes * MINUTE, as_schedule(EVERY[minutes], zone)
    missing = drawn(step, count)
    done = completed(step, missing)

    def ours() -> list[Interval]:
        return list(missing_ticks(done, START, END, schedule))

    assert ours() == walk(step, missing)
    name = f"{EVERY[minutes]} {zone}, {count:,} of {ticks(step):,} missing"
    return compared(name, rounds, ours, lambda: walk(step, missing), count)


def compare_all(minutes: int, zone: str, rounds: int) -> None:
    step, schedule = minutes * MINUTE, as_schedule(EVERY[minutes], zone)
    name = f"{EVERY[minutes]} {zone}, all {ticks(step):,} missing"
    compared(name, rounds, lambda: list(missing_ticks([], START, END, schedule)), lambda: whole_walk(step), ticks(step))


def first_ones(schedule: Schedule, newest_first: bool) -> list[Interval]:
    return list(pending_intervals([], schedule, now=END, start=START, newest_first=newest_first, max_intervals=10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="2 or more")
    rounds = parser.parse_args().rounds
    for minutes, zone in ((60, "UTC"), (60, "Europe/Berlin"), (5, "UTC"), (5, "Europe/Berlin")):
        compare_missing(minutes, zone, ticks(minutes * MINUTE) // 10, rounds)
    for minutes in (60, 5, 1):
        compare_missing(minutes, "Europe/Berlin", 10, rounds)
    for minutes in (60, 5):
        compare_all(minutes, "Europe/Berlin", rounds)
    print("growth, */5 in Europe/Berlin:")
    per_tick = [compare_missing(5, "Europe/Berlin", count, rounds) / count for count in (100, 1_000, 10_000, 50_000)]
    print("microseconds a tick, to 100 ranges: " + "   ".join(f"{each / per_tick[0]:.2f}" for each in per_tick))
    minutely = as_schedule(EVERY[1], "Europe/Berlin")
    for newest_first in (False, True):
        spent = statistics.median(seconds(lambda: first_ones(minutely, newest_first)) for _ in range(101))  # noqa: B023
        order = "newest" if newest_first else "oldest"
        print(f"the {order} 10 of five years of minutes, none done: {spent * 1e6:.0f} us")
    ten_thousand = union(
        Interval(START + 60 * MINUTE * each, START + 60 * MINUTE * (each + 1)) for each in range(10_000)
    )
    hourly = as_schedule("@hourly", "Europe/Berlin")
    spent = statistics.median(
        seconds(lambda: list(missing_ticks(ten_thousand, START, END, hourly))) for _ in range(rounds)
    )
    others = ticks(60 * MINUTE) - 10_000
    print(f"10,000 hours done without a gap, the other {others:,} of five years: {spent * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
