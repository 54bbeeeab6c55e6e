"""Which partitions a node is expected to have: the lines of a file, and the ticks of a schedule in words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.errors import ConfigurationError, InvalidFieldError, InvalidIdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal.model.intervals import Interval

STREAM = Path("-")
"""Standard input."""


def keys_of_file(path: Path) -> list[str]:
    """Return the keys in a file, one a line, each once, in its order; empty lines are none.

    Raises:
        ConfigurationError: It cannot be read, is no UTF-8, or has no key: what makes it may have failed.
        InvalidIdError: A line is no key; the message names it.
    """
    from seeknal.model.ids import check_id

    name = "standard input" if path == STREAM else str(path)
    try:
        content = sys.stdin.buffer.read() if path == STREAM else path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigurationError(
            f"--expected {name} cannot be read: {error.strerror}", hint="Name a file with one key a line, or -."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"--expected {name} is no UTF-8 at byte {error.start}", hint="Save it as UTF-8, one key a line."
        ) from None
    numbered = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1)]
    keys = list(dict.fromkeys(check_id(key, f"line {number} of {name}") for number, key in numbered if key))
    if not keys:
        raise ConfigurationError(
            f"--expected {name} has no keys", hint="See whether what makes it has failed; write one key a line."
        )
    return keys


def keys_of_span(span: Interval, schedule: str, timezone: str | None, form: str) -> list[str]:
    """Return the beginnings of the whole ticks within a span, as text of the time zone, each once, in order.

    Args:
        span: What is looked at.
        schedule: Five cron fields, or a shorthand.
        timezone: Of the schedule and of the keys; UTC when ``None``.
        form: As for `seeknal.model.time_format.time_format`.

    Raises:
        ConfigurationError: The form cannot be used, or gives one key to two ticks, one of which would be lost.
        IntervalError: As `as_schedule` and `missing_ticks`.
    """
    from seeknal.model.schedule import as_schedule, missing_ticks
    from seeknal.model.time_partitions import keys_of_ticks

    ticks = list(missing_ticks([], span.start, span.end, as_schedule(schedule, timezone)))
    try:
        keys = list(keys_of_ticks(ticks, form, timezone))
    except InvalidFieldError as error:
        raise ConfigurationError(f"--{error}", hint=error.hint) from error
    first = dict(zip(reversed(keys), reversed(ticks), strict=True))
    for key, tick in zip(keys, ticks, strict=True):
        if first[key] is not tick:
            raise ConfigurationError(
                f"--format {form!a} gives one key, {key!a}, to the ticks of {first[key].start.isoformat()} "
                f"and of {tick.start.isoformat()}",
                hint="Let it tell them apart: %H:%M for times of a day, %z where clocks are put back.",
            )
    return keys


def keys_of_grid(outer: Sequence[str], by_keys: str) -> list[str]:
    """Return every pair of a key and one of those that a text lists with commas, as `grid_key` joins them.

    Raises:
        ConfigurationError: What is listed is empty, twice there, or no key.
        InvalidIdError: Two keys are too long together.
    """
    from seeknal.model.partitions import StaticPartitions, grid_key

    try:
        inner = StaticPartitions(by_keys.split(","))
    except (InvalidFieldError, InvalidIdError) as error:
        raise ConfigurationError(
            f"--by-keys {by_keys!a} is no list of keys: {error}", hint="Write keys like ID,SG, each of them once."
        ) from error
    return [grid_key(each, other) for each in outer for other in inner.members]
