"""The days of a schedule: which ones it fires on, and at which instants.

The fields of a cron expression say two things apart from one another: on which days it fires (day, month,
weekday; cronsim answers that) and at which times of a day (minute, hour; a list). So a day is an addition, a
jump to any instant is a search in one list, and only the days around a change of the clocks are looked at time by time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from seeknal.model.wall_clock import MIDNIGHT, ONE_DAY, change_near, steady_offset

LONGEST_PAUSE_DAYS = 50 * 366
"""After so many days without one there will be no more firings.

Source: a 29 February that is a given weekday comes every 28 years, and every 40 across a year such as 2100.
"""


class Day(NamedTuple):
    """A day on the clocks of a zone, from its midnight to the next one, and its firings.

    Attributes:
        date: Of those clocks.
        start: In UTC.
        end: In UTC; 24 hours after the start where the clocks are left alone.
        times: When it fires, counted from the start, ascending.
    """

    date: date
    start: datetime
    end: datetime
    times: tuple[timedelta, ...]


class Calendar:
    """The days of a cron expression of five fields, in a time zone. Read only, so safe from threads.

    Raises:
        CronSimError: The expression cannot be read.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self._cron = CronSim(expression, datetime(2024, 1, 1))
        self._zone = ZoneInfo(timezone)
        self._times = tuple(
            timedelta(hours=hour, minutes=minute)
            for hour in sorted(self._cron.hours)
            for minute in sorted(self._cron.minutes)
        )
        # Debian's rule: what counts minutes or hours fires again when the clocks show the same times again.
        # Source: cron(8) of Debian, "jobs that run at intervals", by a ``*`` in the minute or hour field.
        minute, hour, *days = expression.split()
        self._is_repeating = minute.startswith("*") or hour.startswith("*")
        self._is_daily = days == ["*", "*", "*"]

    def day(self, day: date) -> Day:
        """Return a day with its firings.

        Raises:
            OverflowError: It lies at an end of time.
        """
        midnight, offset = datetime.combine(day, MIDNIGHT), steady_offset(day, self._zone)
        if offset is not None:
            start = midnight - offset
            return Day(day, start, start + ONE_DAY, self._times if self._fires_on(day) else ())
        change = change_near(day, self._zone)
        start, end = (change.instants(each, both=False)[0] for each in (midnight, midnight + ONE_DAY))
        # Times of the day before may have moved into this one, its last ones by as much as the clocks.
        late = bisect_left(self._times, start + min(change.before, change.after) - (midnight - ONE_DAY))
        walls = [midnight - ONE_DAY + at for at in self._times[late:] if self._fires_on(day - ONE_DAY)]
        walls += [midnight + at for at in self._times if self._fires_on(day)]
        found = {instant for wall in walls for instant in change.instants(wall, both=self._is_repeating)}
        return Day(day, start, end, tuple(sorted(instant - start for instant in found if start <= instant < end)))

    def day_at(self, instant: datetime) -> Day | None:
        """Return the day that an instant belongs to, or ``None`` at the ends of time."""
        try:
            found = self.day(instant.astimezone(self._zone).date())
            while found.end <= instant:  # clocks that were put back across midnight show the date before again
                found = self.day(found.date + ONE_DAY)
        except OverflowError:
            return None
        return found

    def days_after(self, day: date) -> Iterator[Day]:
        """Yield the later days that have firings, in order."""
        return self._days(day, ONE_DAY)

    def days_before(self, day: date) -> Iterator[Day]:
        """Yield the earlier days that have firings, latest first."""
        return self._days(day, -ONE_DAY)

    def _days(self, day: date, step: timedelta) -> Iterator[Day]:
        empty = 0
        try:
            while empty < LONGEST_PAUSE_DAYS:
                day += step
                empty += 1
                if self._fires_on(day) or self._fires_on(day - ONE_DAY):
                    found = self.day(day)
                    if found.times:
                        yield found
                        empty = 0
        except OverflowError:  # the next one lies beyond the ends of time
            return

    def _fires_on(self, day: date) -> bool:
        return self._is_daily or (day.month in self._cron.months and self._cron.match_day(day))


@lru_cache(maxsize=256)
def calendar(expression: str, timezone: str) -> Calendar:
    """Return the calendar of an expression and a zone; the last ones that were asked for are kept."""
    return Calendar(expression, timezone)
