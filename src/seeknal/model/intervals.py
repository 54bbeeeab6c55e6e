"""Half-open intervals and their algebra.

An `Interval` is ``[start, end)``: the start belongs to it, the end does not, and it is never empty.
Functions that return several return the *canonical* list of the set they stand for: sorted, without
overlaps, and with touching ones merged. Two canonical lists are equal exactly when they cover the same instants.
Everything here is pure; bounds are aware datetimes in UTC.

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

import msgspec

from seeknal.errors import IntervalError, InvalidFieldError
from seeknal.model.instants import data_instant


class Interval(msgspec.Struct, frozen=True, order=True):
    """A non-empty span of data time ``[start, end)``; ordered by start, then end."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


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
    """Return the canonical list of everything any of them covers. O(n log n)."""
    merged: list[Interval] = []
    for interval in sorted(interval for each in sets for interval in each):
        if merged and interval.start <= merged[-1].end:
            if interval.end > merged[-1].end:
                merged[-1] = Interval(merged[-1].start, interval.end)
        else:
            merged.append(interval)
    return merged


def subtract(minuend: Iterable[Interval], subtrahend: Iterable[Interval]) -> list[Interval]:
    """Return the canonical list of what ``minuend`` covers and ``subtrahend`` does not."""
    holes = union(subtrahend)
    rest: list[Interval] = []
    first = 0
    for interval in union(minuend):
        start = interval.start
        while first < len(holes) and holes[first].end <= start:
            first += 1
        at = first
        while at < len(holes) and holes[at].start < interval.end:
            if holes[at].start > start:
                rest.append(Interval(start, holes[at].start))
            start = max(start, holes[at].end)
            at += 1
        if start < interval.end:
            rest.append(Interval(start, interval.end))
    return rest


def intersect(left: Iterable[Interval], right: Iterable[Interval]) -> list[Interval]:
    """Return the canonical list of what both cover."""
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
    """Return the canonical list of what is missing from ``[start, end)``."""
    return subtract([Interval(start, end)], completed)


def covers(completed: Sequence[Interval], wanted: Interval) -> bool:
    """Return whether ``completed`` holds all of ``wanted``."""
    return not gaps(completed, wanted.start, wanted.end)
