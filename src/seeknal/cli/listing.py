"""Long lists on a terminal, and how wide it is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import typer

from seeknal.cli.output import WIDTH, Format, Printer

T = TypeVar("T")

MOST_SHOWN = 20
"""Records of which each has a line, unless all are asked for."""

LEAST_TERMINAL = 20
"""Columns that are taken for granted; a terminal that does not know its width says 0."""

Every = Annotated[bool, typer.Option("--all", help="Show every one, however many.")]


def listed(
    printer: Printer,
    records: Sequence[T],
    row: Callable[[T], dict[str, str]],
    columns: Sequence[str],
    *,
    empty: str,
    every: bool | None,
    is_cut: bool = True,
) -> None:
    """Print a list: all of it in JSON; in a table the first and the last ones, and how many are in between.

    Args:
        printer: Where to.
        records: What is listed, as JSON has it.
        row: Makes the cells of a record.
        columns: Of the table.
        empty: What is remarked where there is nothing to list; nothing if empty.
        every: Whether the table has all of them, as ``--all`` says; ``None`` if the command has no such option.
        is_cut: Whether the last column may be cut so that no line is wider than `WIDTH`.
    """
    if printer.style is not Format.TABLE:
        printer.rows(records, (), empty=empty)
        return
    if not records:
        if empty:
            printer.note(empty)
        return
    hidden = 0 if every else max(0, len(records) - MOST_SHOWN)
    if not hidden:
        printer.rows([row(each) for each in records], columns, empty=empty, is_cut=is_cut and not every)
        return
    half = MOST_SHOWN // 2
    between = dict.fromkeys(columns, "") | {columns[0]: f"... {hidden} more ..."}
    shown = [*map(row, records[:half]), between, *map(row, records[-half:])]
    printer.rows(shown, columns, empty=empty, is_cut=is_cut)
    printer.note("--output json has every one" if every is None else "--all shows every one")


def terminal_width() -> int:
    """Return how many columns there are: those of the terminal, or `WIDTH` where standard output is none."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(LEAST_TERMINAL, shutil.get_terminal_size((WIDTH, 24)).columns)


def takes_only_ascii(signs: str) -> bool:
    """Return whether standard output is no terminal, or one that cannot show these signs."""
    if not sys.stdout.isatty():
        return True
    try:
        signs.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False
