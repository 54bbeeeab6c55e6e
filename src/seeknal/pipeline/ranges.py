"""Which ranges of data a node is computed for: the keys ``schedule``, ``start``, ``batch_size``, ``partitions``, ..."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from seeknal.errors import ConfigurationError, IntervalError, InvalidIdError
from seeknal.model.ids import check_id
from seeknal.model.schedule import as_schedule
from seeknal.model.wall_clock import first_instant
from seeknal.pipeline.attempts import seconds

RANGE_KEYS = ("schedule", "timezone", "start", "end", "lookback", "lateness", "batch_size", "partitions")
EXPECTED = "expected"
"""As ``partitions``: those that the store was told to expect."""

MOST_TICKS = 1_000_000
_OF_SCHEDULES = ("start", "end", "lookback", "lateness", "batch_size")


def range_fields(options: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields of a node that these keys stand for; a key that is missing is left to its default.

    Args:
        options: Keys of a YAML file or options of a decorator; others are left alone.
        place: The file, for messages.

    Raises:
        ConfigurationError: A value cannot be used, or a key means nothing without another; the message names the file
            and the key.
    """
    given = {key: options[key] for key in RANGE_KEYS if options.get(key) is not None}
    schedule, partitions = given.get("schedule"), given.get("partitions")
    if schedule is not None and partitions is not None:
        raise ConfigurationError(f"{place}: `schedule` and `partitions` exclude each other", hint="Remove one of them.")
    for key in _OF_SCHEDULES:
        if key in given and schedule is None:
            raise ConfigurationError(
                f"{place}: `{key}` means nothing without `schedule`", hint="Add `schedule: '@daily'`, or remove it."
            )
    if schedule is not None or "timezone" in given:
        try:
            as_schedule(schedule, given.get("timezone"))
        except IntervalError as error:
            raise ConfigurationError(f"{place}: {error}", hint=error.hint) from error
    if schedule is not None and "start" not in given:
        raise ConfigurationError(f"{place}: a schedule needs `start`", hint="Add `start: 2024-01-01`.")
    found: dict[str, Any] = {key: given[key] for key in ("schedule", "timezone") if key in given}
    zone = ZoneInfo(given.get("timezone", "UTC"))
    found |= {key: _instant(given[key], key, zone, place) for key in ("start", "end") if key in given}
    if "end" in found and found["end"] <= found["start"]:
        raise ConfigurationError(
            f"{place}: `end: {given['end']}` is not after `start: {given['start']}`",
            hint="The end is no part of the data: for one day, write the day after it.",
        )
    found |= {key: _count(given[key], key, place) for key in ("lookback", "batch_size") if key in given}
    if "lateness" in given:
        found["lateness_seconds"] = seconds(given["lateness"], "lateness", place)
    if partitions is not None:
        found["partitions"] = _keys(partitions, place)
    return found


def _instant(value: object, key: str, zone: ZoneInfo, place: str) -> datetime:
    """Return the instant that a date or a time means; what has no offset is what the clocks of a zone show."""
    try:
        moment = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else str(value))
        return first_instant(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(
            f"{place}: {key} {str(value)!r} lies outside the years 1 to 9999 in UTC", hint="Write one within them."
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"{place}: {key} {str(value)!r} is not an ISO 8601 date or time",
            hint="Write it like 2024-01-10, 2024-01-10T12:00 or 2024-01-10T12:00:00+01:00.",
        ) from None


def _count(value: object, key: str, place: str) -> int:
    least = 1 if key == "batch_size" else 0
    if type(value) is not int or not least <= value <= MOST_TICKS:
        raise ConfigurationError(
            f"{place}: {key} is {value!r}", hint=f"Write a whole number from {least} to {MOST_TICKS}."
        )
    return value


def _keys(value: object, place: str) -> tuple[str, ...] | str:
    if value == EXPECTED:
        return EXPECTED
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) for each in value):
        raise ConfigurationError(
            f"{place}: partitions is {value!r}",
            hint=f"Write texts, `partitions: ['ID', 'SG']`, or `partitions: {EXPECTED}` for what the store expects.",
        )
    for key in value:
        try:
            check_id(key, "partition")
        except InvalidIdError as error:
            raise ConfigurationError(f"{place}: {error}", hint=error.hint) from error
    if len(set(value)) < len(value):
        raise ConfigurationError(f"{place}: partitions names a key twice", hint="Name each once.")
    return tuple(value)
