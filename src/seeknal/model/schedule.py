"""Schedules: cron expressions with a time zone, and the whole ticks between two instants.

A schedule is a five-field cron expression or one of the shorthands. Its tick is the interval from
one firing to the next, so ticks touch and never overlap. Firings are wall-clock times of the time
zone; a daily tick is 23 or 25 hours long on the two days of the year when the clocks change.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from seeknal.errors import IntervalError
from seeknal.model.intervals import Interval, gaps

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
        try:
            for moment in CronSim(self.expression, after.astimezone(ZoneInfo(self.timezone))):
                yield moment.astimezone(UTC)
        except OverflowError:  # the next one lies beyond the year 9999
            return

    def last_firing(self, at: datetime) -> datetime | None:
        """Return the latest firing at or before an instant, or ``None`` if there is none in reach."""
        # Cron counts in minutes: a minute and a bit later, the firing of this very minute lies before.
        local = (at + timedelta(minutes=1)).astimezone(ZoneInfo(self.timezone))
        try:
            for moment in CronSim(self.expression, local, reverse=True):
                firing = moment.astimezone(UTC)
                if firing <= at:
                    return firing
        except OverflowError:  # the one before lies before the year 1
            return None
        return None

    def ticks(self, start: datetime, end: datetime) -> Iterator[Interval]:
        """Yield the whole ticks that lie within ``[start, end)``, in order, lazily."""
        previous = start if self.last_firing(start) == start else None
        for firing in self.firings(start):
            if firing > end:
                return
            if previous is not None:
                yield Interval(previous, firing)
            previous = firing


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
