"""What a wall-clock time means on the days when clocks are changed.

A time that does not exist (the clocks were put forward over it) means the instant of the change. A time
that exists twice means its first occurrence, or both, as the caller wants.

All of it rests on one fact about the time zone database, which a test watches: no zone ever changed its
clocks twice within six days. So a few days around a change have one offset before it, and one after it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

ONE_DAY = timedelta(days=1)
MIDNIGHT = time(tzinfo=UTC)


class Change(NamedTuple):
    """The clocks of a zone being changed.

    Attributes:
        at: The first instant after it, in UTC, to the second.
        before: The offset from UTC until then.
        after: The offset from then on.
    """

    at: datetime
    before: timedelta
    after: timedelta

    def instants(self, wall: datetime, *, both: bool) -> list[datetime]:
        """Return the instants of a wall-clock time within three days: one, or two where it exists twice, ascending.

        Args:
            wall: What the clocks show, written as if it were UTC.
            both: Whether a time that exists twice means both.
        """
        first, second = wall - self.before, wall - self.after
        if first >= self.at:
            return [max(second, self.at)]  # the change itself where it was skipped
        return [first, second] if both and second >= self.at else [first]


def instants(wall: datetime, zone: ZoneInfo, *, both: bool) -> list[datetime]:
    """Return the instants of a naive wall-clock time, in UTC, ascending: one, or two where it exists twice.

    Args:
        wall: Naive.
        zone: The time zone.
        both: Whether a time that exists twice means both.
    """
    written, offset = wall.replace(tzinfo=UTC), steady_offset(wall.date(), zone)
    return change_near(wall.date(), zone).instants(written, both=both) if offset is None else [written - offset]


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant of a naive wall-clock time, in UTC: where it exists twice, the first.

    Raises:
        OverflowError: It lies outside the years 1 to 9999 in UTC.
    """
    try:
        return instants(wall.replace(fold=0), zone, both=False)[0]
    except OverflowError:  # it looks at the days around, and there is none before the first and behind the last
        return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, at which a day begins: where its midnight exists twice, the first."""
    return instants(datetime.combine(day, time()), zone, both=False)[0]


@lru_cache(maxsize=8192)
def steady_offset(day: date, zone: ZoneInfo) -> timedelta | None:
    """Return the offset from UTC that holds all of a day and of the day before; ``None`` if it changes."""
    offset = _offset(day, zone)
    return offset if _offset(day - ONE_DAY, zone) == offset == _offset(day + ONE_DAY, zone) else None


def change_near(day: date, zone: ZoneInfo) -> Change:
    """Return the change of the clocks on a day that has no steady offset, or on the day before."""
    midnight = datetime.combine(day, MIDNIGHT)
    low, high = midnight - 2 * ONE_DAY, midnight + 2 * ONE_DAY  # offsets are less than a day
    before, after = _at(low, zone), _at(high, zone)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if _at(middle, zone) == after:
            high = middle
        else:
            low = middle
    return Change(high, before, after)


@lru_cache(maxsize=8192)
def _offset(day: date, zone: ZoneInfo) -> timedelta | None:
    return datetime.combine(day, MIDNIGHT, zone).utcoffset()


def _at(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
