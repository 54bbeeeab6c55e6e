"""How often a node is tried and how long it may take: the keys ``retries``, ``retry_delay`` and ``timeout``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seeknal.errors import ConfigurationError

ATTEMPT_KEYS = ("retries", "retry_delay", "timeout")
MOST_RETRIES = 100
MOST_SECONDS = 30 * 24 * 3600

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def attempt_fields(options: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields of a node that these keys stand for; a key that is missing is left to its default.

    Args:
        options: Keys of a YAML file or options of a decorator; others are left alone.
        place: The file, for messages.

    Raises:
        ConfigurationError: A value cannot be used; the message names the file and the key.
    """
    found: dict[str, Any] = {}
    retries = options.get("retries")
    if retries is not None:
        if type(retries) is not int or not 0 <= retries <= MOST_RETRIES:
            raise ConfigurationError(
                f"{place}: retries is {retries!r}", hint=f"Write a whole number from 0 to {MOST_RETRIES}."
            )
        found["retries"] = retries
    for key in ("retry_delay", "timeout"):
        if options.get(key) is not None:
            found[f"{key}_seconds"] = seconds(options[key], key, place)
    return found


def seconds(value: object, key: str, place: str) -> float:
    """Return a duration in seconds: ``500ms``, ``2s``, ``10m``, ``1h``, ``1d``, or seconds as ``5`` or ``"5"``.

    Raises:
        ConfigurationError: It is none, not positive, or longer than 30 days.
    """
    amount = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        amount = float(match[1]) * _SECONDS[match[2] or "s"]
    if not 0 < amount <= MOST_SECONDS:
        raise ConfigurationError(
            f"{place}: {key} is {value!r}",
            hint=f"Write it like `{key}: 30s`: ms, s, m, h or d, or seconds without a unit, at most 30d.",
        )
    return amount
