"""Taking turns: whatever disturbs the machine disturbs all that is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Work = Callable[[int], float]
"""Does a piece of work so many times and returns the seconds that this took."""


def clocked(work: Callable[[int], object]) -> Work:
    """Return what does a piece of work for 0, 1, 2, ... and counts on from turn to turn."""
    done = 0

    def turn(times: int) -> float:
        nonlocal done
        begin = time.perf_counter()
        for number in range(done, done + times):
            work(number)
        spent = time.perf_counter() - begin
        done += times
        return spent

    return turn


def take_turns(works: Mapping[str, Work], *, rounds: int, times: int) -> dict[str, list[float]]:
    """Return the microseconds that each piece of work takes once, one of each round.

    In each round everyone has one turn, and begins one place later than in the round before. A turn before the first
    round is not counted.
    """
    names = list(works)
    for name in names:
        works[name](max(1, times // 4))
    took: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            took[name].append(works[name](times) / times * 1e6)
    return took


def ratios(took: Mapping[str, list[float]], name: str, to: str) -> list[float]:
    """Return the ratio of two of them in each round."""
    return [mine / theirs for mine, theirs in zip(took[name], took[to], strict=True)]
