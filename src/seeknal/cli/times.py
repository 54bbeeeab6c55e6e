"""Times on the command line: how they are read, and how they are shown.

A time is an ISO 8601 date or instant, or it is counted from a beginning: ``now``, ``today`` (the midnight that began
it) or neither, which is ``now``, and so many seconds, minutes, hours, days or weeks later or earlier: ``-7d``,
``today-1w``, ``now+90m``. Days and weeks are those of the calendar, so ``today-7d`` is a midnight also across a change
of the clocks; the rest is elapsed time. What has no offset is wall-clock time of the time zone, which is UTC unless
one is named.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.clock import Clock, SystemClock
from seeknal.errors import ConfigurationError, IntervalError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from seeknal.model.intervals import Interval

CLOCK: Clock = SystemClock()
"""What ``now`` and ``today`` are read from."""

HINT = "Write a time like 2024-01-10, 2024-01-10T06:00+01:00, now, today, -7d or today-7d."

Start = Annotated[str, typer.Option("--start", metavar="TIME", help="Where it starts.")]
End = Annotated[str, typer.Option("--end", metavar="TIME", help="Where it ends; not a part of it.")]
From = Annotated[str | None, typer.Option("--start", metavar="TIME", help="Only from here on.")]
To = Annotated[str | None, typer.Option("--end", metavar="TIME", help="Only up to here.")]
Timezone = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="Whose clocks and calendar count; UTC if left out.")
]

_LENGTH = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_RELATIVE = re.compile(r"(?P<origin>now|today)?(?P<shift>[+-]\d{1,9}[smhdw])?", re.ASCII)
_ELAPSED = {"s": "seconds", "m": "minutes", "h": "hours"}
_CALENDAR = {"d": "days", "w": "weeks"}


def as_zone(name: str | None) -> ZoneInfo:
    """Return a time zone; UTC for ``None``.

    Raises:
        ConfigurationError: No zone has this name.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo("UTC" if name is None else name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"--timezone {name!a} is not known", hint="Use an IANA name such as Europe/Berlin."
        ) from None


def as_moment(text: str, option: str, zone: ZoneInfo, now: datetime | None = None) -> datetime:
    """Return the instant, in UTC, that a text means.

    Args:
        text: As it was given.
        option: By which it was given, for the message.
        zone: Of what has no offset, and of the calendar.
        now: What ``now`` means; the clock is read if it is left out.

    Raises:
        ConfigurationError: It means none, or one outside the years 1 to 9999.
    """
    found = _RELATIVE.fullmatch(text)
    try:
        if found is not None and text:
            return _shifted(found["origin"] or "now", found["shift"] or "+0s", zone, now or CLOCK.now())
        moment = datetime.fromisoformat(text)
        return _on_clocks(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(f"{option} {text!a} lies outside the years 1 to 9999", hint=HINT) from None
    except ValueError:
        raise ConfigurationError(f"{option} {text!a} is not a time", hint=HINT) from None


def as_length(text: str, option: str) -> timedelta:
    """Return the elapsed time that a text like ``6h`` or ``2d`` means; a day has 24 hours.

    Raises:
        ConfigurationError: It means none, or more than there is.
    """
    found = _LENGTH.fullmatch(text)
    try:
        if found is not None:
            return int(found[1]) * timedelta(**{(_ELAPSED | _CALENDAR)[found[2]]: 1})
    except OverflowError:
        pass  # no timedelta is so long
    raise ConfigurationError(f"{option} {text!a} is not a length of time", hint="Write it like 45s, 90m, 6h, 2d or 1w.")


def as_span(start: str, end: str, zone: ZoneInfo) -> Interval:
    """Return the span ``[start, end)`` that two texts mean.

    Raises:
        ConfigurationError: As `as_moment`.
        IntervalError: It does not end after it starts.
    """
    from seeknal.model.intervals import Interval

    now = CLOCK.now()  # once, so that -7d to now are seven days
    first, last = as_moment(start, "--start", zone, now), as_moment(end, "--end", zone, now)
    if last <= first:
        raise IntervalError(
            f"--end {end!a} is not after --start {start!a}",
            hint="The end is no part of a span: for one day, give the day after it as --end.",
        )
    return Interval(first, last)


def local(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return an instant as the clocks of a zone show it; as UTC where they would leave the years 1 to 9999."""
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment.astimezone(UTC)


def told(moment: datetime, zone: ZoneInfo) -> str:
    """Return an instant as text with its offset, and all of its digits."""
    return local(moment, zone).isoformat().replace("+00:00", "Z")


def told_briefly(moments: list[datetime], zone: ZoneInfo) -> list[str]:
    """Return instants without offsets, to the minute, and as dates if all of them are midnights."""
    walls = [local(moment, zone).replace(tzinfo=None) for moment in moments]
    if all(wall.time() == time() for wall in walls):
        return [str(wall.date()) for wall in walls]
    return [wall.isoformat(" ", "minutes") for wall in walls]


def told_length(length: timedelta) -> str:
    """Return a length like ``1d 6h``: days of 24 hours, hours, minutes and seconds, without those that are 0."""
    minutes, seconds = divmod(length, timedelta(minutes=1))
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (f"{seconds.total_seconds():.6f}".rstrip("0").rstrip("."), "s")]
    return " ".join(f"{count}{unit}" for count, unit in parts if count not in (0, "0")) or "0s"


def _shifted(origin: str, shift: str, zone: ZoneInfo, now: datetime) -> datetime:
    moment, count, unit = now, int(shift[:-1]), shift[-1]
    if origin == "today":
        moment = _on_clocks(datetime.combine(now.astimezone(zone), time()), zone)
    if unit in _ELAPSED:
        return moment + timedelta(**{_ELAPSED[unit]: count})
    if count == 0:
        return moment
    wall = moment.astimezone(zone).replace(tzinfo=None)
    return _on_clocks(wall + timedelta(**{_CALENDAR[unit]: count}), zone)


def _on_clocks(wall: datetime, zone: ZoneInfo) -> datetime:
    from seeknal.model.wall_clock import first_instant

    return first_instant(wall, zone)
