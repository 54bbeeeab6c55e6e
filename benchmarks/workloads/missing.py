"""Intervals of a node: what one more costs among 10,000, and what of five years of hours is missing.

10,000 hours are done, and the other 33,824 of five years are found and returned as intervals of their own. The limit
makes as many objects in a plain loop that adds an hour to the one before: no schedule, no time zone, nothing looked up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.places import Place
from benchmarks.rounds import Work, clocked, ratios, take_turns

from seeknal.model.intervals import Interval
from seeknal.state.backend import StateBackend

NAME = "missing"
START, END, HOUR = datetime(2019, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), timedelta(hours=1)
DONE, FEW = 10_000, 100
LEFT = (END - START) // HOUR - DONE
BAR_MS = 10.0
GROWTH = 1.1
ADDED = 20


def measure(place: Place, folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield what adding to and looking into 10,000 hours costs in one store."""
    with ExitStack() as stack:
        apart, one = (stack.enter_context(place.opened(f"intervals {name}")) for name in ("apart", "one"))
        few = stack.enter_context(place.opened("intervals few"))
        slots = random.Random(7).sample(range((END - START) // HOUR // 2), DONE)
        fill(apart, [2 * slot for slot in slots])
        fill(few, [2 * slot for slot in slots[:FEW]])
        fill(one, range(DONE))
        took = take_turns(
            {
                "10,000 hours done in one range": clocked(lambda _: missing(one)),
                "10,000 hours done, each apart": clocked(lambda _: missing(apart)),
                "33,824 intervals in a loop": clocked(lambda _: loop()),
            },
            rounds=rounds,
            times=1,
        )
        finding = Finding(NAME, place.kind)
        for name, micros in took.items():
            is_ours = "done" in name
            finding.add(name, [each / 1e3 for each in micros], "ms", most=BAR_MS if is_ours else None)
        for name in list(took)[:2]:
            finding.add(f"{name} / loop", ratios(took, name, "33,824 intervals in a loop"))
        added = take_turns({"few": adds(few), "many": adds(apart)}, rounds=rounds, times=ADDED)
        finding.add(f"one more of {DONE:,} / of {FEW}", ratios(added, "many", "few"), most=GROWTH)
        yield finding


def fill(backend: StateBackend, slots: range | list[int]) -> None:
    """Complete some hours."""
    backend.initialize()
    backend.create_run("run")
    for first in range(0, len(slots), 1000):
        with backend.transaction():
            for slot in slots[first : first + 1000]:
                backend.add_completed_interval("run", "node", START + slot * HOUR, START + (slot + 1) * HOUR)


def missing(backend: StateBackend) -> None:
    """Find what is missing, from the store on."""
    found = backend.get_missing_intervals("node", START, END, "@hourly")
    assert len(found) == LEFT, len(found)


def loop() -> list[Interval]:
    """Make as many intervals."""
    found, at = [], START
    for _ in range(LEFT):
        after = at + HOUR
        found.append(Interval(at, after))
        at = after
    return found


def adds(backend: StateBackend) -> Work:
    """Return what completes hours that touch nothing, far from the others."""
    far = END + 100 * 365 * 24 * HOUR

    def add(number: int) -> None:
        at = far + 2 * number * HOUR
        backend.add_completed_interval("run", "node", at, at + HOUR)

    return clocked(add)
