"""Which ranges of a node are looked at: those that reach into the span that ``--start`` and ``--end`` name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from seeknal.cli.times import as_moment, as_span

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from seeknal.model.records import CompletedInterval, IntervalProvenance

R = TypeVar("R", "CompletedInterval", "IntervalProvenance")


def bounds(start: str | None, end: str | None, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """Return the two instants that were named, or ``None`` where none was.

    Raises:
        ConfigurationError, IntervalError: As `as_span`.
    """
    if start is not None and end is not None:
        span = as_span(start, end, zone)
        return span.start, span.end
    low = None if start is None else as_moment(start, "--start", zone)
    high = None if end is None else as_moment(end, "--end", zone)
    return low, high


def reaching_into(ranges: Iterable[R], low: datetime | None, high: datetime | None) -> list[R]:
    """Return the ranges that have a part in ``[low, high)``, as they are."""
    return [each for each in ranges if (low is None or each.end > low) and (high is None or each.start < high)]
