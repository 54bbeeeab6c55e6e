"""Taking turns: whatever disturbs the machine disturbs all that is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

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


def take_turns(works: Mapping[str, Work], *, rounds: int, times: int | Mapping[str, int]) -> dict[str, list[float]]:
    """Return the microseconds that each piece of work takes once, one of each round.

    In each round everyone has one turn, in another place and after somebody else than in the round before. A turn
    before the first round is not counted.

    Args:
        works: What is compared.
        rounds: How often everyone has a turn.
        times: How often a piece of work is done in a turn: of all, or of each, as `fitted` finds it.
    """
    names = list(works)
    each = times if isinstance(times, Mapping) else dict.fromkeys(names, times)
    for name in names:
        works[name](max(1, each[name] // 4))
    took: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in in_turn(names, number):
            took[name].append(works[name](each[name]) / each[name] * 1e6)
    return took


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Return who comes when in a round, so that what one leaves to do, such as pages to write, hits all alike.

    In as many rounds as there are names everyone has each place once and follows everyone else once. If their number is
    odd, every other round runs backwards, and everyone does so twice in twice as many rounds. This is the design of
    Williams (Australian Journal of Scientific Research A 2, 1949) for experiments whose treatments affect the next one.
    """
    count = len(names)
    places = [place // 2 if place % 2 == 0 else count - (place + 1) // 2 for place in range(count)]
    order = [names[(place + number) % count] for place in places]
    return order[::-1] if count % 2 and number % 2 else order


def fitted(works: Mapping[str, Work], *, like: str, times: int, least: int = 5) -> dict[str, int]:
    """Return how often to do each piece of work in a turn, so that the turns of all take about as long.

    Args:
        works: What is compared, where one may be a thousand times slower than another.
        like: The one whose turn gives the measure.
        times: How often that one is done in a turn.
        least: How often the slowest is done.
    """
    works[like](max(1, times // 4))
    found = {like: times}
    for name in works:
        if name == like:
            continue
        whole = works[like](times)  # again, for what disturbs the machine now
        tried, spent = 1, works[name](1)  # the first may have more to do than those after it
        while tried == 1 or (spent < whole / 4 and tried < times):
            tried = max(3, tried * 4)
            spent = works[name](tried)
        can_tell = spent > 0  # one that failed tells no number
        found[name] = min(10 * times, max(least, round(tried * whole / spent))) if can_tell else least
    return found


def ratios(took: Mapping[str, list[float]], name: str, to: str) -> list[float]:
    """Return the ratio of two of them in each round."""
    return [mine / theirs for mine, theirs in zip(took[name], took[to], strict=True)]
