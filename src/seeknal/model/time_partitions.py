"""Partitions by time: one for each tick of a schedule, whose key tells when it begins.

`seeknal.model.partitions` is where they are used from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import msgspec

from seeknal.errors import IntervalError, InvalidFieldError
from seeknal.model.instants import data_instant, wall_instant
from seeknal.model.intervals import Interval, as_interval
from seeknal.model.schedule import Schedule, as_schedule
from seeknal.model.time_format import time_format
from seeknal.model.wall_clock import ONE_DAY, Change, change_near, instants, steady_offset

LOOKED_AT = 100
"""So many first ticks have to have keys of their own when time partitions are defined."""

LOOKED_AHEAD = timedelta(days=2 * 366)
"""How long after the start the clocks are looked for being put back; zones that do it do it every year."""

END_OF_TIME = datetime(MAXYEAR, 1, 1, tzinfo=UTC)

_PLAINEST = ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M")


class TimePartitions(msgspec.Struct, frozen=True, kw_only=True, tag="time"):
    """A partition for each whole tick of a schedule, from a start to an end or up to now.

    Its key is the beginning of the tick, as text of the time zone. A ``start`` inside of a tick leaves that tick out.

    Attributes:
        start: Where the first tick may begin; naive is wall-clock time of the time zone. Kept in UTC.
        schedule: As for `as_schedule`; kept as five fields.
        end: Where the last tick ends at the latest, as ``start``; ``None`` is now, whenever that is.
        timezone: Of the schedule, the keys and naive bounds; UTC when ``None``.
        format: As for `time_format`: the directives of ``strftime``.

    Raises:
        InvalidFieldError: ``format`` cannot be used; or it gives one key to two ticks: of the first ones, or of those
            around the next time that the clocks are put back; or it does not tell the year by ``%Y`` or ``%G``, and
            there is no end. Or a bound is not a datetime of the years 2 to 9998.
        IntervalError: The schedule or the time zone cannot be read, or no whole tick lies between the bounds.
    """

    start: datetime
    schedule: str = "@daily"
    end: datetime | None = None
    timezone: str | None = None
    format: str = "%Y-%m-%d"

    def __post_init__(self) -> None:
        schedule = as_schedule(self.schedule, self.timezone)
        zone = ZoneInfo(schedule.timezone)
        msgspec.structs.force_setattr(self, "schedule", schedule.expression)
        msgspec.structs.force_setattr(self, "timezone", schedule.timezone)
        msgspec.structs.force_setattr(self, "start", _bound(self.start, "start", zone))
        if self.end is not None:
            msgspec.structs.force_setattr(self, "end", _bound(self.end, "end", zone))
            as_interval(self.start, self.end)
        until = self._until(None)
        if next(self._ticks(self.start, until), None) is None:
            raise IntervalError(
                f"there is no whole tick of {self._in_words(until)}",
                hint="Move a bound; one without an offset is wall-clock time of timezone.",
            )
        if self.end is None and time_format(self.format).reach is None:
            raise InvalidFieldError(
                f"format {self.format!a} does not tell the year, so that its keys come again where there is no end",
                hint=f"Write the year into it, like {'%Y-' + self.format!a}, or give an end.",
                field="format",
            )
        self._check_keys_differ(zone)

    def keys(self, now: datetime) -> Iterator[str]:
        """Return the keys of the ticks that have ended by now, oldest first, lazily, in little memory.

        Args:
            now: Naive is local time, as ``datetime.now()`` gives.

        Raises:
            InvalidFieldError: ``now`` is not a datetime; or, from the iterator, two ticks have one key.
        """
        return self._distinct(self._ticks(self.start, self._until(now)))

    def contains(self, key: object, now: datetime) -> bool:
        """Return whether it is one of the keys up to now; costs the same however many there are, if they tell the year.

        Raises:
            InvalidFieldError: ``now`` is not a datetime, or it is the key of two ticks.
        """
        return isinstance(key, str) and self._tick(key, self._until(now)) is not None

    def interval_of(self, key: str) -> Interval:
        """Return the tick of a key, be it over or not: the span of the data that belongs to the partition.

        Raises:
            InvalidFieldError: It is no key of these partitions, or it is the key of two ticks.
        """
        until = self._until(None)
        tick = self._tick(key, until) if isinstance(key, str) else None
        if tick is not None:
            return tick
        if isinstance(key, str) and time_format(self.format).is_form_of(key):
            problem = f"is no whole tick of {self._in_words(until)}"
        else:
            problem = f"is not of the format {self.format!a}"
        first = next(self._distinct(self._ticks(self.start, until)))
        raise InvalidFieldError(f"partition {key!a} {problem}", hint=f"The first key is {first!a}.", field="partition")

    def _in_words(self, until: datetime) -> str:
        return f"{self.schedule!r}, {self.timezone}, in [{self.start.isoformat()}, {until.isoformat()})"

    def _ticks(self, start: datetime, end: datetime) -> Iterator[Interval]:
        return Schedule(self.schedule, self.timezone or "UTC").ticks(start, end)

    def _until(self, now: datetime | None) -> datetime:
        """Return where the last tick has ended: at the end, or now."""
        end = END_OF_TIME if self.end is None else self.end
        return end if now is None else min(end, wall_instant(now, "now"))

    def _tick(self, key: str, until: datetime) -> Interval | None:
        """Return the tick of a key, by a look at the ticks that it can mean."""
        walls = time_format(self.format).walls(key)
        if walls is None or walls[0].year >= MAXYEAR or walls[1].year <= MINYEAR:
            return None
        zone = ZoneInfo(self.timezone or "UTC")
        # The instants of all wall-clock times between two lie between the first of the one and the last of the other.
        first, last = self.start, until
        if walls[0].year > MINYEAR:
            first = max(first, instants(walls[0], zone, both=True)[0])
        if walls[1].year < MAXYEAR:
            last = min(last, instants(walls[1], zone, both=True)[-1])
        ticks = list(takewhile(lambda tick: tick.start <= last, self._ticks(first, until)))
        texts = keys_of_ticks(ticks, self.format, self.timezone)
        found = [tick for tick, text in zip(ticks, texts, strict=True) if text == key]
        if len(found) > 1:
            raise self._clash(key, found[0].start, found[1].start)
        return found[0] if found else None

    def _distinct(self, ticks: Iterable[Interval]) -> Iterator[str]:
        """Yield the keys of ticks that are in order; raise where one comes again.

        It remembers those of twice the time within which a text can come again, a day of which is for the clocks.
        """
        form, zone = time_format(self.format), ZoneInfo(self.timezone or "UTC")
        reach = timedelta.max if form.reach is None else form.reach + ONE_DAY
        recent: dict[str, datetime] = {}
        older: dict[str, datetime] = {}
        since = self.start
        for tick in ticks:
            key, start = form.text(tick.start.astimezone(zone)), tick.start
            if start - since > reach:
                recent, older, since = {}, recent, start
            before = recent.get(key) or older.get(key)
            if before is not None:
                raise self._clash(key, before, start)
            recent[key] = start
            yield key

    def _check_keys_differ(self, zone: ZoneInfo) -> None:
        """Raise if the first ticks, or those around the next time that the clocks are put back, share a key."""
        until = self._until(None)
        for _ in islice(self._distinct(self._ticks(self.start, until)), LOOKED_AT):
            pass
        if not time_format(self.format).has_offset and (change := _next_put_back(self.start, until, zone)):
            shown_twice = change.before - change.after
            ticks = self._ticks(max(self.start, change.at - shown_twice), until)
            for _ in self._distinct(takewhile(lambda tick: tick.start < change.at + shown_twice, ticks)):
                pass

    def _clash(self, key: str, first: datetime, second: datetime) -> InvalidFieldError:
        zone = ZoneInfo(self.timezone or "UTC")
        here, there = first.astimezone(zone), second.astimezone(zone)
        fits = [form for form in _PLAINEST if time_format(form).text(here) != time_format(form).text(there)]
        return InvalidFieldError(
            f"format {self.format!a} gives one key, {key!a}, to two ticks: {here.isoformat()} and {there.isoformat()}",
            hint=f"Write more of the time into it, like {fits[0]!r}."
            if fits
            else f"The clocks were put back between them. Write the offset into it, too: {self.format + '%z'!r}.",
            field="format",
        )


def keys_of_ticks(ticks: Iterable[Interval], form: str, timezone: str | None) -> Iterator[str]:
    """Return the beginning of each tick as text of a time zone, lazily; two may be equal.

    Args:
        ticks: In the years 2 to 9998.
        form: As for `time_format`.
        timezone: The name of one that exists; UTC when ``None``.

    Raises:
        InvalidFieldError: The form cannot be used.
    """
    read, zone = time_format(form), ZoneInfo(timezone or "UTC")
    return (read.text(tick.start.astimezone(zone)) for tick in ticks)


def _bound(value: datetime, field: str, zone: ZoneInfo) -> datetime:
    moment = data_instant(value, field)
    if not MINYEAR < moment.year < MAXYEAR:
        raise InvalidFieldError(
            f"{field} {moment.isoformat()} is too near the ends of time to count ticks from it",
            hint=f"Pass one of the years {MINYEAR + 1} to {MAXYEAR - 1}.",
            field=field,
        )
    return moment if value.tzinfo else instants(value.replace(fold=0), zone, both=False)[0]


def _next_put_back(start: datetime, end: datetime, zone: ZoneInfo) -> Change | None:
    """Return the first time in a span, as far as one looks ahead, that the clocks of a zone are put back."""
    last = min(end, start + min(LOOKED_AHEAD, END_OF_TIME - ONE_DAY - start)).date()
    day = start.date()
    while day <= last:
        if steady_offset(day, zone) is None:
            change = change_near(day, zone)
            if change.after < change.before and change.at > start:
                return change
        day += ONE_DAY
    return None
