"""Definitions of partitions: which keys a node is expected to have, as a value.

A definition is a list of names (`StaticPartitions`), the ticks of a schedule told as text (`TimePartitions`), or
every pair of two of these (`PartitionGrid`). It is frozen, knows no store and reads no clock; keys come lazily, in
order, each once. What makes two partitions of one key is refused when a definition is made, as far as that can be
seen, and where it is met otherwise: a key that means two slices would leave one of them undone for ever.

Example:
    >>> from datetime import UTC, datetime
    >>> days = TimePartitions(schedule="@daily", start=datetime(2024, 1, 10), timezone="Asia/Jakarta")
    >>> now = datetime(2024, 1, 12, tzinfo=UTC)
    >>> list(days.keys(now))
    ['2024-01-10', '2024-01-11']
    >>> days.interval_of("2024-01-11").start.isoformat()
    '2024-01-10T17:00:00+00:00'
    >>> grid = PartitionGrid(outer=days, inner=StaticPartitions(["ID", "SG"]))
    >>> list(missing_partitions(grid, {"2024-01-10|SG"}, now))
    ['2024-01-10|ID', '2024-01-11|ID', '2024-01-11|SG']
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from seeknal.errors import InvalidFieldError, InvalidIdError
from seeknal.model.ids import MAX_ID_BYTES, check_id
from seeknal.model.instants import wall_instant
from seeknal.model.time_partitions import END_OF_TIME, TimePartitions

__all__ = [
    "PartitionDefinition",
    "PartitionGrid",
    "StaticPartitions",
    "TimePartitions",
    "grid_key",
    "missing_partitions",
    "split_key",
]

SEPARATOR = "|"
"""Between the two parts of a key of a grid."""

_PART = r"(?:[^|\\]|\\[|\\])+"
_TWO_PARTS = re.compile(rf"({_PART})\|({_PART})", re.S)


class StaticPartitions(msgspec.Struct, frozen=True, tag="static"):
    """Partitions that are listed, in that order.

    Attributes:
        members: Their keys; a tuple, whatever was passed.

    Raises:
        InvalidFieldError: There are none, one is there twice, or it is no list.
        InvalidIdError: One is no key.
    """

    members: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.members, str) or not isinstance(self.members, Iterable):
            raise InvalidFieldError(
                f"members must be a list of keys, not {type(self.members).__name__}",
                hint="Write StaticPartitions(['ID', 'SG']).",
                field="members",
            )
        members = tuple(check_id(each, "partition") for each in self.members)
        if not members:
            raise InvalidFieldError(
                "members is empty: no partition is expected", hint="List one key or more.", field="members"
            )
        seen: set[str] = set()
        for each in members:
            if each in seen:
                raise InvalidFieldError(
                    f"members has {each!a} twice", hint="List every key once: it names one partition.", field="members"
                )
            seen.add(each)
        msgspec.structs.force_setattr(self, "members", members)

    def keys(self, now: datetime) -> Iterator[str]:
        """Return the keys in their order; they do not depend on ``now``."""
        return iter(self.members)

    def contains(self, key: object, now: datetime) -> bool:
        """Return whether it is one of the keys. O(n)."""
        return key in self.members


class PartitionGrid(msgspec.Struct, frozen=True, kw_only=True, tag="grid"):
    """Every pair of a key of one definition and a key of another, as `grid_key` joins them.

    Attributes:
        outer: The first part of a key, which changes last.
        inner: The second part.

    Raises:
        InvalidFieldError: One of them is not a `StaticPartitions` or a `TimePartitions`.
        InvalidIdError: The keys of both are too long together; the message names two of them. Where only rare keys
            of a time are so long (``%B``), the iterator of `keys` raises it.
    """

    outer: StaticPartitions | TimePartitions
    inner: StaticPartitions | TimePartitions

    def __post_init__(self) -> None:
        for field in ("outer", "inner"):
            given = getattr(self, field)
            if not isinstance(given, StaticPartitions | TimePartitions):
                raise InvalidFieldError(
                    f"{field} must be StaticPartitions or TimePartitions, not {type(given).__name__}",
                    hint="Keys of other pairs come from grid_key(), and can be passed as any iterable.",
                    field=field,
                )
        _joined(_longest(self.outer), _longest(self.inner))

    def keys(self, now: datetime) -> Iterator[str]:
        """Return the keys, lazily: those of the first outer one, in the order of the inner ones, then the next.

        Raises:
            InvalidFieldError: As the ``keys`` of the two.
            InvalidIdError: From the iterator: two keys are too long together.
        """
        at = wall_instant(now, "now")
        return (_joined(outer, inner) for outer in self.outer.keys(at) for inner in self.inner.keys(at))

    def contains(self, key: object, now: datetime) -> bool:
        """Return whether it is one of the keys up to now; costs what asking the two about its parts does."""
        parts = _parts(key)
        return parts is not None and self.outer.contains(parts[0], now) and self.inner.contains(parts[1], now)

    def split(self, key: str) -> tuple[str, str]:
        """Return the outer and the inner part of a key, as `split_key` does."""
        return split_key(key)


PartitionDefinition: TypeAlias = StaticPartitions | TimePartitions | PartitionGrid


def missing_partitions(
    expected: PartitionDefinition | Iterable[str], done: Container[str], now: datetime
) -> Iterator[str]:
    """Return the expected keys that are not done, in the order of what is expected, each once, lazily.

    Args:
        expected: A definition, or keys in any iterable; they are taken one by one, as the answer is.
        done: The keys of completed partitions, best a set; others than are expected do no harm.
        now: The instant up to which partitions by time are expected; naive is local time.

    Raises:
        InvalidFieldError: ``expected`` or ``done`` is one text, or as ``keys`` of the definition.
        InvalidIdError: From the iterator: what is expected is no key.
    """
    for field, given in (("expected", expected), ("done", done)):
        if isinstance(given, str):
            raise InvalidFieldError(
                f"{field} must hold keys; it is one, {given!a}", hint=f"Pass {field} as [{given!r}].", field=field
            )
    if isinstance(expected, StaticPartitions | TimePartitions | PartitionGrid):
        keys = expected.keys(now)
    else:
        keys = _each_once(expected)
    return (key for key in keys if key not in done)


def grid_key(outer: str, inner: str) -> str:
    r"""Return the key of two parts: ``outer|inner``, with a backslash before each ``|`` and backslash within them.

    Raises:
        InvalidIdError: A part is no key, or both are too long together.
    """
    return _joined(check_id(outer, "the outer part of a key"), check_id(inner, "the inner part of a key"))


def split_key(key: str) -> tuple[str, str]:
    """Return the two parts of a key that `grid_key` made.

    Raises:
        InvalidIdError: It is none.
    """
    parts = _parts(check_id(key, "partition"))
    if parts is None:
        raise InvalidIdError(
            f"partition {key!a} has not the two parts of a grid",
            hint=r"Write OUTER|INNER, and \| and \\ for a | and a \ within them; grid_key() does.",
            field="partition",
        )
    return parts


def _each_once(keys: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for each in keys:
        if check_id(each, "partition") not in seen:
            seen.add(each)
            yield each


def _longest(definition: StaticPartitions | TimePartitions) -> str:
    """Return the longest key; of partitions by time the first, most of which are of one length."""
    if isinstance(definition, StaticPartitions):
        return max(definition.members, key=lambda key: len(_escaped(key).encode()))
    return next(definition.keys(END_OF_TIME))


def _escaped(part: str) -> str:
    return part.replace("\\", "\\\\").replace(SEPARATOR, f"\\{SEPARATOR}")


def _joined(outer: str, inner: str) -> str:
    key = f"{_escaped(outer)}{SEPARATOR}{_escaped(inner)}"
    size = len(key.encode())
    if size > MAX_ID_BYTES:
        raise InvalidIdError(
            f"the key of {outer!a} and {inner!a} is {size} bytes long; at most {MAX_ID_BYTES} are allowed",
            hint=r"Shorten one of the two; a | or a \ within them counts twice.",
            field="partition",
        )
    return key


def _parts(key: object) -> tuple[str, str] | None:
    found = _TWO_PARTS.fullmatch(key) if isinstance(key, str) else None
    return None if found is None else (_unescaped(found[1]), _unescaped(found[2]))


def _unescaped(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part)
