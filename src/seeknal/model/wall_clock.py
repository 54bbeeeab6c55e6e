"""What a wall-clock time means on the days when clocks are changed.

A time that does not exist (the clocks were put forward over it) means the instant of the change. A time
that exists twice means its first occurrence, or both, as the caller wants.

Source: PEP 495 for ``fold``: 0 takes the offset before a change and 1 the one after it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

ONE_DAY = timedelta(days=1)
MIDNIGHT = time()


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


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, at which a day begins: where its midnight exists twice, the first."""
    return instants(datetime.combine(day, MIDNIGHT), zone, both=False)[0]


def steady_offset(day: date, zone: ZoneInfo) -> timedelta | None:
    """Return the offset from UTC that holds all of a day and of the day before, or ``None`` if there is none.

    It holds if it is the same at three midnights: no zone of the time zone database ever changed its
    clocks and changed them back within six days.
    """
    offset = _offset(day, zone)
    return offset if _offset(day - ONE_DAY, zone) == offset == _offset(day + ONE_DAY, zone) else None


@lru_cache(maxsize=8192)
def _offset(day: date, zone: ZoneInfo) -> timedelta | None:
    return datetime.combine(day, MIDNIGHT, zone).utcoffset()


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
