"""What a wall-clock time means on the days when clocks are changed.

A time that does not exist (the clocks were put forward over it) means the instant of the change. A time
that exists twice means its first occurrence, or both, as the caller wants.

Source: PEP 495 for ``fold``: 0 takes the offset before a change and 1 the one after it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

LONGEST_CHANGE = timedelta(hours=3)
"""No clock of the time zone database was ever put back by more."""


def instants(wall: datetime, zone: ZoneInfo, *, both: bool) -> list[datetime]:
    """Return the instants of a naive wall-clock time, in UTC, ascending: one, or two where it exists twice.

    Args:
        wall: Naive.
        zone: The time zone.
        both: Whether a time that exists twice means both.
    """
    first, second = wall.replace(tzinfo=zone), wall.replace(tzinfo=zone, fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    assert before is not None
    assert after is not None
    if before == after:
        return [first.astimezone(UTC)]
    if before > after:
        return [first.astimezone(UTC), second.astimezone(UTC)] if both else [first.astimezone(UTC)]
    return [_change(second.astimezone(UTC), first.astimezone(UTC), zone)]


def is_steady(at: datetime, zone: ZoneInfo) -> bool:
    """Return whether the clocks are not changed within a day of an instant; false at the ends of time."""
    try:
        offsets = {(at + timedelta(days=days)).astimezone(zone).utcoffset() for days in (-1, 0, 1)}
    except OverflowError:
        return False
    return len(offsets) == 1


def _change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant after ``low`` at which the offset of ``high`` holds, to the second."""
    after = high.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == after:
            high = middle
        else:
            low = middle
    return high
