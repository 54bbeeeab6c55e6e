"""Instants: aware datetimes in UTC, with microseconds.

A naive ``started_at`` or ``finished_at`` is local wall-clock time, as ``datetime.now()`` gives; a
naive interval bound is UTC. Stores keep whole microseconds since the Unix epoch.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from seeknal.errors import InvalidFieldError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def wall_instant(value: object, field: str) -> datetime:
    """Return ``value`` in UTC; a naive one is local wall-clock time.

    Raises:
        InvalidFieldError: It is not a datetime, or lies outside the years 1 to 9999 in UTC.
    """
    moment = _as_datetime(value, field)
    try:
        return moment.astimezone(UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise _outside(moment, field) from error


def data_instant(value: object, field: str) -> datetime:
    """Return ``value`` in UTC; a naive one is already UTC.

    Raises:
        InvalidFieldError: It is not a datetime, or lies outside the years 1 to 9999 in UTC.
    """
    moment = _as_datetime(value, field)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise _outside(moment, field) from error


def to_us(moment: datetime) -> int:
    """Return whole microseconds since the Unix epoch; negative before it."""
    return (moment - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """Return the instant of that many microseconds since the Unix epoch, in UTC."""
    return EPOCH + timedelta(0, 0, us)  # by position: a third of the time of the keyword's


def parse_instant(text: str, field: str) -> datetime:
    """Read an ISO 8601 date or instant; without an offset it is UTC.

    Raises:
        InvalidFieldError: It is not ISO 8601.
    """
    try:
        return data_instant(datetime.fromisoformat(text), field)
    except ValueError:
        raise InvalidFieldError(
            f"{field} {text!r} is not an ISO 8601 date or time",
            hint="Write it like 2024-01-10, 2024-01-10T12:00 or 2024-01-10T12:00:00+01:00.",
            field=field,
        ) from None


def _as_datetime(value: object, field: str) -> datetime:
    if type(value) is datetime:
        return value
    try:
        if isinstance(value, datetime):
            # Subclasses, such as pendulum's, are made plain: stores write what they know, and no more.
            clock = (value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
            return datetime(value.year, value.month, value.day, *clock, fold=value.fold)
    except (TypeError, ValueError):
        pass  # the ``NaT`` of pandas is a datetime without a year
    raise InvalidFieldError(
        f"{field} must be a datetime, not {type(value).__name__}",
        hint=f"Pass {field} as a datetime.datetime.",
        field=field,
    )


def _outside(moment: datetime, field: str) -> InvalidFieldError:
    return InvalidFieldError(
        f"{field} {moment.isoformat()} lies outside the years 1 to 9999 in UTC",
        hint="Pass an instant within them.",
        field=field,
    )
