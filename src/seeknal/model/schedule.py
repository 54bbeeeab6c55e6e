"""Schedules: cron expressions with a time zone, and the whole ticks between two instants.

A schedule is a five-field cron expression or one of the shorthands. Its tick is the interval from
one firing to the next, so ticks touch and never overlap. Firings are wall-clock times of the time
zone; a daily tick is 23 or 25 hours long on the two days of the year when the clocks change. A firing at a
time that the clocks skip comes when they are changed; at a time that they show twice, an hourly schedule
fires twice and a daily one once. The calendar is cronsim's, the clocks are `seeknal.model.wall_clock`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import MAXYEAR, MINYEAR, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from seeknal.errors import IntervalError
from seeknal.model.intervals import Interval, gaps
from seeknal.model.wall_clock import LONGEST_CHANGE, instants, is_steady

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Source: crontab(5), "Extensions"."""


class Schedule(msgspec.Struct, frozen=True):
    """A cron expression that was read, and its time zone."""

    expression: str
    timezone: str = "UTC"

    def firings(self, after: datetime) -> Iterator[datetime]:
        """Yield the firings strictly after an instant, in UTC, ascending and without end."""
        zone = ZoneInfo(self.timezone)
        wall = _wall(after, zone)
        last, repeated = after, list[datetime]()
        try:
            # Clocks that are put back show times before this one again.
            begin = wall if is_steady(after, zone) else wall - LONGEST_CHANGE
            for moment in CronSim(self.expression, begin):
                first, *again = instants(moment, zone, both=self._is_repeating)
                due = [first] if again else [*repeated, first]
                repeated = [*repeated, *again] if again else []
                for firing in due:
                    if firing > last:
                        yield firing
                        last = firing
        except OverflowError:  # the next one lies beyond the ends of time
            return

    def last_firing(self, at: datetime) -> datetime | None:
        """Return the latest firing at or before an instant, or ``None`` if there is none in reach."""
        zone = ZoneInfo(self.timezone)
        wall = _wall(at, zone)
        reach = timedelta() if is_steady(at, zone) else LONGEST_CHANGE
        latest: datetime | None = None
        try:
            # Cron counts in minutes: a minute and a bit later, the firing of this very minute lies before.
            for moment in CronSim(self.expression, wall + reach + timedelta(minutes=1), reverse=True):
                for firing in instants(moment, zone, both=self._is_repeating):
                    if firing <= at and (latest is None or firing > latest):
                        latest = firing
                if latest is not None and moment <= wall - reach:
                    return latest
        except OverflowError:  # the one before lies before the ends of time
            return latest
        return latest

    @property
    def _is_repeating(self) -> bool:
        """Whether it fires again when the clocks show the same times again: if it counts minutes or hours.

        Source: cron(8) of Debian, "jobs that run at intervals", by a ``*`` in the minute or hour field.
        """
        minute, hour, *_ = self.expression.split()
        return minute.startswith("*") or hour.startswith("*")

    def ticks(self, start: datetime, end: datetime) -> Iterator[Interval]:
        """Yield the whole ticks that lie within ``[start, end)``, in order, lazily."""
        previous = start if self.last_firing(start) == start else None
        for firing in self.firings(start):
            if firing > end:
                return
            if previous is not None:
                yield Interval(previous, firing)
            previous = firing


def _wall(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None, fold=0)


def as_schedule(expression: object, timezone: object = None) -> Schedule:
    """Read a schedule.

    Args:
        expression: Five cron fields, or a shorthand (``@hourly``, ``@daily``, ``@weekly``,
            ``@monthly``, ``@yearly``).
        timezone: An IANA time zone name; UTC when ``None``.

    Raises:
        IntervalError: The expression or the time zone cannot be read, or it never fires.
    """
    name = "UTC" if timezone is None else timezone
    text = SHORTHANDS.get(expression, expression) if isinstance(expression, str) else expression
    if not isinstance(text, str) or len(text.split()) != 5:
        raise IntervalError(
            f"schedule {expression!r} is not a cron expression of five fields",
            hint=f"Write it like '0 6 * * *', or use one of {', '.join(SHORTHANDS)}.",
        )
    try:
        zone = ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise IntervalError(
            f"time zone {name!r} is not known", hint="Use an IANA name such as Europe/Berlin."
        ) from None
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=zone)))
    except CronSimError as error:
        raise IntervalError(
            f"schedule {expression!r} cannot be read: {error}",
            hint="Check its five fields: minute hour day month weekday.",
        ) from error
    except StopIteration:
        raise IntervalError(f"schedule {expression!r} never fires", hint="Check its day and month.") from None
    return Schedule(" ".join(text.split()), str(name))


def missing_ticks(completed: list[Interval], start: datetime, end: datetime, schedule: Schedule) -> Iterator[Interval]:
    """Yield the whole ticks of ``[start, end)`` that are not fully completed, in order.

    Only the gaps are walked, so the cost follows the answer and not the span that is asked about.

    Raises:
        IntervalError: The span reaches into the first or the last year that a datetime can hold.
    """
    if start.year <= MINYEAR or end.year >= MAXYEAR:
        raise IntervalError(
            f"[{start.isoformat()}, {end.isoformat()}) reaches too near the ends of time to count ticks in it",
            hint=f"Ask about the years {MINYEAR + 1} to {MAXYEAR - 1}.",
        )
    last = start
    for gap in gaps(completed, start, end):
        # A tick that a completed span cuts into is missing as a whole: begin at its own start.
        begin = max(schedule.last_firing(gap.start) or start, last)
        for tick in schedule.ticks(begin, end):
            if tick.start >= gap.end:
                break
            yield tick
            last = tick.end
