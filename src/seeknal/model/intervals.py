"""Half-open intervals and their algebra.

An `Interval` is ``[start, end)``: the start belongs to it, the end does not, and it is never empty.
Functions that return several return the *canonical* list of the set they stand for: sorted, without
overlaps, and with touching ones merged. Two canonical lists are equal exactly when they cover the same instants.
Everything here is pure; bounds are aware datetimes in UTC. Arguments may be in any order and overlap.

This module needs no store, and neither do `seeknal.model.schedule`, which cuts intervals into the ticks of a schedule,
and `seeknal.model.pending`, which says what is left to do.

Example:
    >>> from datetime import datetime, UTC
    >>> def day(n): return datetime(2024, 1, n, tzinfo=UTC)
    >>> done = union([Interval(day(1), day(3)), Interval(day(3), day(5)), Interval(day(8), day(9))])
    >>> [(i.start.day, i.end.day) for i in done]
    [(1, 5), (8, 9)]
    >>> [(i.start.day, i.end.day) for i in gaps(done, day(2), day(10))]
    [(5, 8), (9, 10)]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter

import msgspec

from seeknal.errors import IntervalError, InvalidFieldError
from seeknal.model.instants import data_instant


class Interval(msgspec.Struct, frozen=True, order=True, gc=False):  # two datetimes are never part of a cycle
    """A non-empty span of data time ``[start, end)``; ordered by start, then end."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


_start = attrgetter("start")


def as_interval(start: object, end: object) -> Interval:
    """Return ``[start, end)``; naive bounds are UTC.

    Raises:
        IntervalError: A bound is not a datetime, or ``end <= start``.
    """
    try:
        interval = Interval(data_instant(start, "start"), data_instant(end, "end"))
    except InvalidFieldError as error:
        raise IntervalError(str(error), hint=error.hint) from error
    if interval.end <= interval.start:
        raise IntervalError(
            f"an interval must end after it starts: start {interval.start.isoformat()}, end {interval.end.isoformat()}",
            hint="Intervals are half-open: [start, end). Swap the bounds, or widen the interval.",
        )
    return interval


def union(*sets: Iterable[Interval]) -> list[Interval]:
    """Return the canonical list of everything any of them covers. O(n log n), and O(n) of sorted ones."""
    merged: list[Interval] = []
    last: Interval | None = None
    for interval in sorted(chain.from_iterable(sets), key=_start):
        if last is None or interval.start > last.end:
            last = interval
            merged.append(last)
        elif interval.end > last.end:
            last = Interval(last.start, interval.end)
            merged[-1] = last
    return merged


def subtract(minuend: Iterable[Interval], subtrahend: Iterable[Interval]) -> list[Interval]:
    """Return the canonical list of what ``minuend`` covers and ``subtrahend`` does not. Costs as much as `union`."""
    holes = iter(union(subtrahend))
    hole = next(holes, None)
    rest: list[Interval] = []
    for interval in union(minuend):
        start, end = interval.start, interval.end
        while hole is not None and hole.start < end:
            if hole.start > start:
                rest.append(Interval(start, hole.start))
            start = max(start, hole.end)
            if hole.end > end:  # it may cut the next one too
                break
            hole = next(holes, None)
        if start < end:
            rest.append(Interval(start, end))
    return rest


def intersect(left: Iterable[Interval], right: Iterable[Interval]) -> list[Interval]:
    """Return the canonical list of what both cover. Costs as much as `union` of each."""
    ours, theirs = union(left), union(right)
    shared: list[Interval] = []
    i = j = 0
    while i < len(ours) and j < len(theirs):
        start = max(ours[i].start, theirs[j].start)
        end = min(ours[i].end, theirs[j].end)
        if start < end:
            shared.append(Interval(start, end))
        if ours[i].end <= theirs[j].end:
            i += 1
        else:
            j += 1
    return shared


def gaps(completed: Iterable[Interval], start: datetime, end: datetime) -> list[Interval]:
    """Return the canonical list of what is missing from ``[start, end)``, whose bounds are in UTC."""
    return subtract([Interval(start, end)], completed)


def covers(completed: Sequence[Interval], wanted: Interval) -> bool:
    """Return whether ``completed`` holds all of ``wanted``."""
    return not gaps(completed, wanted.start, wanted.end)
