"""What a command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from unicodedata import combining, east_asian_width

WIDTH = 80
LEAST_WIDTH = 10
"""What is left of the last column of a table, however wide the others are."""


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class Printer:
    """Prints results and remarks.

    Args:
        style: The form of results.
        quiet: Whether remarks are left out.
    """

    def __init__(self, style: Format = Format.TABLE, *, quiet: bool = False) -> None:
        self.style = style
        self.quiet = quiet

    def rows(self, records: Sequence[Any], columns: Sequence[str], *, empty: str, is_cut: bool = False) -> None:
        """Print a list: an array in JSON, one object a line in JSONL, else a table of these columns.

        Args:
            records: What is listed.
            columns: The fields that a table shows.
            empty: What is remarked where there is nothing to list.
            is_cut: Whether the last column of a table is cut so that no line is wider than `WIDTH`.
        """
        if self.style is Format.JSON:
            _write(_json(list(records), indent=2))
        elif self.style is Format.JSONL:
            for record in records:
                _write(_json(record))
        elif not records:
            self.note(empty)
        else:
            cells = [[shown(_field(record, name)) for name in columns] for record in records]
            _write_table(_cut(cells, columns) if is_cut else cells, columns)

    def thing(self, record: Any, lines: Sequence[tuple[str, Any]]) -> None:
        """Print one thing: an object in JSON, else these names and values, one a line; more for a text of several."""
        if self.style is Format.JSON:
            _write(_json(record, indent=2))
        elif self.style is Format.JSONL:
            _write(_json(record))
        else:
            width = max(len(name) for name, _ in lines)
            for name, value in lines:
                first, *others = value.strip().expandtabs().splitlines() or [""] if isinstance(value, str) else [value]
                _write(f"{name:<{width}}  {shown(first)}".rstrip())
                for line in others:
                    _write(f"{'':<{width}}  {shown(line)}".rstrip())

    def note(self, text: str) -> None:
        """Print a remark on stderr, unless ``--quiet``."""
        if not self.quiet:
            # A remark that nobody can read must not stop the work that it is about.
            with contextlib.suppress(OSError, AttributeError):
                sys.stderr.write(f"{text}\n")


def shown(value: Any) -> str:
    """Return a value as one line of text that is safe in any terminal."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, dict | list):
        return _json(value)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes: two for a wide character (Unicode TR 11), none for a mark."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def shortened(text: str, room: int, mark: str) -> str:
    """Return a text in at most so many cells; where it was cut, it ends with ``mark``."""
    if cells(text) <= room:
        return text
    while text and cells(text) > room - len(mark):
        text = text[:-1]
    return text + mark


def sized(count: int) -> str:
    """Return a number of bytes in words."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _json(value: Any, *, indent: int = -1) -> str:
    # Imported here: --version and --help print no JSON.
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else getattr(record, name)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _cut(rows: list[list[str]], columns: Sequence[str]) -> list[list[str]]:
    others = [max(map(cells, column)) + 2 for column in zip(columns, *rows, strict=True)][:-1]
    room = max(LEAST_WIDTH, WIDTH - sum(others))
    return [[*row[:-1], shortened(row[-1], room, "...")] for row in rows]


def _write_table(rows: list[list[str]], columns: Sequence[str]) -> None:
    widths = [max(map(cells, column)) for column in zip(columns, *rows, strict=True)]
    for row in [[name.upper() for name in columns], *rows]:
        padded = (cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True))
        _write("  ".join(padded).rstrip())
