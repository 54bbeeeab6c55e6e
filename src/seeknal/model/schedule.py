"""Schedules: cron expressions with a time zone, and the whole ticks between two instants.

A schedule is a five-field cron expression or one of the shorthands. Its tick is the interval from
one firing to the next, so ticks touch and never overlap. Firings are wall-clock times of the time
zone; a daily tick is 23 or 25 hours long on the two days of the year when the clocks change. A firing at a
time that the clocks skip comes when they are changed; at a time that they show twice, an hourly schedule
fires twice and a daily one once. The calendar is cronsim's, the clocks are `seeknal.model.wall_clock`'s.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from seeknal.errors import IntervalError
from seeknal.model.calendar import Day, calendar
from seeknal.model.instants import MICROSECOND
from seeknal.model.intervals import Interval, gaps

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Source: crontab(5), "Extensions"; ``@quarterly`` of Airflow, "Cron Presets"."""

FROM = datetime(2024, 1, 1, tzinfo=UTC)
"""A schedule that does not fire in the years after never does: the calendar repeats itself."""

FIELDS = ("minute", "hour", "day", "month", "weekday")

_EVERY = re.compile(r"@every ([0-9]{1,4})([mhd])")
_MINUTES = {"m": 1, "h": 60, "d": 1440}


class Schedule(msgspec.Struct, frozen=True):
    """A cron expression that was read, and its time zone; `as_schedule` makes one."""

    expression: str
    timezone: str = "UTC"

    def firings(self, after: datetime) -> Iterator[datetime]:
        """Yield the firings strictly after an instant, in UTC, ascending, to the end of time."""
        found = calendar(self.expression, self.timezone)
        if day := found.day_at(after):
            yield from map(day.start.__add__, day.times[bisect_right(day.times, after - day.start) :])
            for later in found.days_after(day.date):
                yield from map(later.start.__add__, later.times)

    def past_firings(self, at: datetime) -> Iterator[datetime]:
        """Yield the firings at or before an instant, in UTC, latest first."""
        found = calendar(self.expression, self.timezone)
        if day := found.day_at(at):
            yield from map(day.start.__add__, reversed(day.times[: bisect_right(day.times, at - day.start)]))
            for earlier in found.days_before(day.date):
                yield from map(earlier.start.__add__, reversed(earlier.times))

    def last_firing(self, at: datetime) -> datetime | None:
        """Return the latest firing at or before an instant, or ``None`` if there is none in reach."""
        return next(self.past_firings(at), None)

    def ticks(self, start: datetime, end: datetime) -> Iterator[Interval]:
        """Return the whole ticks that lie within ``[start, end)``, in order, one by one, lazily."""
        whole = self._whole(start, end)
        return self.ticks_of([whole]) if whole else iter(())

    def ticks_of(self, spans: Iterable[Interval]) -> Iterator[Interval]:
        """Yield every tick that has an instant in common with one of the spans, in order, each once, lazily.

        A jump to the next span is a search in the times of its day, so the cost is that of the spans and of
        the ticks, and not of what lies between.

        Args:
            spans: Canonical: sorted, without overlaps, as `seeknal.model.intervals` returns them.
        """
        found = calendar(self.expression, self.timezone)
        day: Day | None = None
        last: datetime | None = None
        for span in spans:
            at = span.start if last is None else max(span.start, last)
            if at >= span.end:
                continue
            if day is None or not day.start <= at < day.end:
                day = found.day_at(at)
                if day is None:
                    return
                later = found.days_after(day.date)
            index = bisect_right(day.times, at - day.start)
            last = day.start + day.times[index - 1] if index else self.last_firing(at)
            while last is None or last < span.end:
                while index == len(day.times):
                    day, index = next(later, None), 0
                    if day is None:
                        return
                # What there is of it on this day, at once, with the firing that ends the last tick.
                until = len(day.times)
                if span.end < day.end:
                    until = min(bisect_left(day.times, span.end - day.start, index) + 1, until)
                firings = list(map(day.start.__add__, day.times[index:until]))
                if last is not None:
                    firings.insert(0, last)
                yield from map(Interval, firings, firings[1:])
                last, index = firings[-1], until

    def past_ticks_of(self, spans: Sequence[Interval]) -> Iterator[Interval]:
        """Yield what `ticks_of` does, latest first, as lazily."""
        first: datetime | None = None
        for span in reversed(spans):
            if first is not None and first <= span.start:
                continue
            until = span.end if first is None else min(span.end, first)
            end = self._at_or_after(until)
            for firing in self.past_firings(until - MICROSECOND):
                if end is not None:
                    yield Interval(firing, end)
                first = end = firing
                if firing <= span.start:
                    break

    def _at_or_after(self, at: datetime) -> datetime | None:
        return at if self.last_firing(at) == at else next(self.firings(at), None)

    def _whole(self, start: datetime, end: datetime) -> Interval | None:
        """Return what the whole ticks within ``[start, end)`` cover, from the first firing to the last."""
        first, last = self._at_or_after(start), self.last_firing(end)
        return Interval(first, last) if first and last and first < last else None


def as_schedule(expression: object, timezone: object = None) -> Schedule:
    """Read a schedule.

    Args:
        expression: Five cron fields, a shorthand of `SHORTHANDS`, or ``@every`` with a number of minutes, hours or days
            (``@every 15m``, ``@every 6h``, ``@every 1d``) that divides an hour or a day: what comes round at the same
            times every day. A field is ``*``, a number, a name (``JAN``, ``MON``), a range, any of them with a step
            (``*/5``, ``9-17/2``), or a list of them; a day may be ``L`` (the last of the month) or ``LW`` (its last
            weekday), a weekday ``5L`` (the last Friday) or ``MON#2`` (the second Monday). 0 and 7 are Sunday. With
            both a day and a weekday, either is enough, unless one of them begins with ``*`` (Debian's cron).
        timezone: An IANA time zone name; UTC when ``None``.

    Raises:
        IntervalError: The expression or the time zone cannot be read, or it never fires. The message names the field.
    """
    if not isinstance(expression, str):
        raise IntervalError(f"a schedule must be text, not {type(expression).__name__}", hint=_HOW)
    text = SHORTHANDS.get(expression) or _every(expression) or expression
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise IntervalError(f"schedule {expression!r} is not a cron expression of five fields", hint=_HOW)
    schedule = Schedule(" ".join(fields), _as_zone("UTC" if timezone is None else timezone))
    if not _is_read(schedule.expression):
        for name, field in zip(FIELDS, fields, strict=True):
            if not _is_read(" ".join(field if each == name else "*" for each in FIELDS)):
                raise IntervalError(
                    f"schedule {expression!r} cannot be read: its {name} is {field!r}",
                    hint="Check its five fields: minute hour day month weekday.",
                )
    elif next(schedule.firings(FROM), None) is not None:
        return schedule
    raise IntervalError(f"schedule {expression!r} never fires", hint="Check its day and month.")


_HOW = f"Write it like '0 6 * * *' or '@every 15m', or use one of {', '.join(SHORTHANDS)}."


def _every(expression: str) -> str | None:
    """Return ``@every`` as a cron expression; ``None`` if it is none, or divides neither an hour nor a day.

    Source: the notation is that of robfig/cron, "Intervals", which counts from when a program was started. A clock
    that is read at any time has to agree with itself, so only what a wall clock shows is taken.
    """
    found = _EVERY.fullmatch(expression)
    minutes = int(found[1]) * _MINUTES[found[2]] if found else 0
    if minutes and 60 % minutes == 0:
        return f"*/{minutes} * * * *" if minutes < 60 else SHORTHANDS["@hourly"]
    if minutes and minutes % 60 == 0 and 1440 % minutes == 0:
        return f"0 */{minutes // 60} * * *" if minutes < 1440 else SHORTHANDS["@daily"]
    return None


def _as_zone(name: object) -> str:
    with suppress(ZoneInfoNotFoundError, ValueError, OSError):
        if isinstance(name, str):
            return ZoneInfo(name).key
    given = repr(name) if isinstance(name, str) else f"of type {type(name).__name__}"
    raise IntervalError(f"time zone {given} is not known", hint="Use an IANA name such as Europe/Berlin.")


def _is_read(expression: str) -> bool:
    try:
        CronSim(expression, datetime(2024, 1, 1))
    except (CronSimError, ValueError):  # a ValueError of a number that is too long for int()
        return False
    return True


def missing_ticks(
    completed: Iterable[Interval], start: datetime, end: datetime, schedule: Schedule, *, newest_first: bool = False
) -> Iterator[Interval]:
    """Return the whole ticks of ``[start, end)`` that are not fully completed, one by one, lazily.

    What is missing is found as ranges, and only those are cut into ticks: the cost is that of the ranges and of the
    ticks that are taken from the iterator, and not of the span that is asked about.

    Args:
        completed: In any order; overlaps do no harm.
        start: In UTC.
        end: In UTC.
        schedule: What cuts the ticks.
        newest_first: Turn the order around.

    Raises:
        IntervalError: The span reaches into the first or the last year that a datetime can hold.
    """
    if start.year <= MINYEAR or end.year >= MAXYEAR:
        raise IntervalError(
            f"[{start.isoformat()}, {end.isoformat()}) reaches too near the ends of time to count ticks in it",
            hint=f"Ask about the years {MINYEAR + 1} to {MAXYEAR - 1}.",
        )
    whole = schedule._whole(start, end)
    # A tick that a completed span cuts into is missing as a whole: it shares an instant with a gap.
    missing = gaps(completed, whole.start, whole.end) if whole else []
    return schedule.past_ticks_of(missing) if newest_first else schedule.ticks_of(missing)
