"""The coverage bar: how much of a span of data time is completed, at a glance.

A bar has one cell for each bucket of the calendar: minutes, hours, days, weeks, months, years or more, whichever are
the shortest that fit the width. Buckets begin where they do on the clocks of a time zone, so a day has 23 or 25 hours
when they change; the first and the last one end where the span does. Everything here is pure.

Example:
    >>> from datetime import datetime, UTC
    >>> def day(n): return datetime(2024, 1, n, tzinfo=UTC)
    >>> found = buckets(Interval(day(1), day(11)), 20, ZoneInfo("UTC"))
    >>> found.unit, drawn(cells([Interval(day(1), day(4)), Interval(day(8), day(11))], found.spans), is_plain=True)
    ('day', '###....###')
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import msgspec

from seeknal.cli.times import local
from seeknal.model.intervals import Interval
from seeknal.model.wall_clock import midnight

ELAPSED = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
YEARS = {"year": 1, "decade": 10, "century": 100, "millennium": 1000}
UNITS = ("minute", "hour", "day", "week", "month", "year", "decade", "century", "millennium")
LEAST_WIDTH = 11
"""Cells in which all of time has room: the millennia of the years 1 to 9999, and one."""

BLOCKS = "█▄░"
PLAIN = "#+."


class Cell(StrEnum):
    """How much of a bucket is completed."""

    FULL = "full"
    PARTLY = "partly"
    EMPTY = "empty"


class Buckets(msgspec.Struct, frozen=True):
    """The buckets that a span is cut into: ascending, touching, together exactly the span."""

    unit: str
    spans: list[Interval]


def buckets(span: Interval, width: int, zone: ZoneInfo) -> Buckets:
    """Return the shortest buckets of which a span holds no more than ``width``.

    Args:
        span: What is looked at.
        width: In characters; at least `LEAST_WIDTH` is taken.
        zone: Whose calendar counts.
    """
    width = max(width, LEAST_WIDTH)
    for unit in UNITS:
        edges = list(islice(takewhile(lambda edge: edge < span.end, _edges(span.start, unit, zone)), width))
        if len(edges) < width:
            break
    return Buckets(unit, [Interval(*bounds) for bounds in pairwise([span.start, *edges, span.end])])


def cells(completed: Sequence[Interval], spans: Sequence[Interval]) -> list[Cell]:
    """Return how much of each bucket is completed.

    Args:
        completed: A canonical list, as of `seeknal.model.intervals.union`.
        spans: Buckets, ascending.
    """
    found, at = [], 0
    for bucket in spans:
        while at < len(completed) and completed[at].end <= bucket.start:
            at += 1
        if at == len(completed) or completed[at].start >= bucket.end:
            found.append(Cell.EMPTY)
        elif completed[at].start <= bucket.start and bucket.end <= completed[at].end:
            found.append(Cell.FULL)
        else:
            found.append(Cell.PARTLY)
    return found


def drawn(found: Sequence[Cell], *, is_plain: bool) -> str:
    """Return cells as a line of blocks, or of ASCII characters."""
    signs = dict(zip(Cell, PLAIN if is_plain else BLOCKS, strict=True))
    return "".join(signs[cell] for cell in found)


def scale(found: Buckets, width: int, zone: ZoneInfo) -> str:
    """Return the line below a bar: what the next longer unit is, where it begins and as far as there is room."""
    line, before = "", None
    for at, bucket in enumerate(found.spans):
        group, label = _label(local(bucket.start, zone), found.unit)
        is_new, before = group != before, group
        if is_new and (not line or len(line) < at) and at + len(label) <= width:
            line = f"{line:<{at}}{label}"
    return line


def legend(found: Buckets, zone: ZoneInfo, *, is_plain: bool) -> str:
    """Return what the signs of a bar mean, in one line."""
    full, partly, empty = list(PLAIN if is_plain else BLOCKS)
    return f"one {found.unit} a cell, {zone.key}: {full} done, {partly} partly, {empty} not"


def _edges(start: datetime, unit: str, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the instants after ``start`` at which a bucket begins, ascending, up to the end of time."""
    last = start
    try:
        if unit in ELAPSED:
            while True:
                wall = local(last, zone)
                into = timedelta(minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)
                last += ELAPSED[unit] - into % ELAPSED[unit]
                yield last
        day = local(start, zone).date()
        while True:
            day = _next(day, unit)
            edge = midnight(day, zone)
            if edge > last:  # two dates begin at once where the clocks skipped the first of them
                yield edge
                last = edge
    except (OverflowError, ValueError):  # the next one lies beyond the end of time
        return


def _next(day: date, unit: str) -> date:
    """Return the first day of the bucket after the one that holds a day."""
    if unit == "day":
        return day + timedelta(days=1)
    if unit == "week":
        return day + timedelta(days=7 - day.weekday())
    if unit == "month":
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return date((day.year // YEARS[unit] + 1) * YEARS[unit], 1, 1)


def _label(wall: datetime, unit: str) -> tuple[object, str]:
    """Return the next longer unit that a bucket belongs to, and how it is written on a scale."""
    year = f"{wall.year:04}"
    match unit:
        case "minute":
            return (wall.date(), wall.hour), f"{wall:%H:%M}"
        case "hour":
            return wall.date(), f"{wall:%m-%d}"
        case "day" | "week":
            return (wall.year, wall.month), f"{year}-{wall:%m}"
        case "month":
            return wall.year, year
        case _:
            return wall.year // (YEARS[unit] * 10), year
