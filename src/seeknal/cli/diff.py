"""``seeknal state diff``: what two states do not have in common."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.named import records_named
from seeknal.cli.options import Debug, Output, Quiet, options_of
from seeknal.cli.output import Format, Printer, shown

if TYPE_CHECKING:
    from seeknal.state.difference import Difference


def diff(
    a: Annotated[str, typer.Argument(help="A project, store, URL, export or backup.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    option_a: Annotated[
        list[str] | None, typer.Option("--option-a", metavar="KEY=VALUE", help="An option of A's store; repeatable.")
    ] = None,
    option_b: Annotated[
        list[str] | None, typer.Option("--option-b", metavar="KEY=VALUE", help="An option of B's store; repeatable.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare versions and sequences, too.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="Print at most so many differences.")] = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare the runs, node states, intervals and partitions of two states.

    Exits with 0 if they hold the same, with 1 if not. Neither is changed.
    """
    from seeknal.state.difference import differences

    printer = Printer(output, quiet=quiet)
    ours_with, theirs_with = (_options(name, given) for name, given in (("-a", option_a), ("-b", option_b)))
    counts: Counter[tuple[str, str]] = Counter()
    with records_named(a, ours_with) as ours, records_named(b, theirs_with) as theirs, _listed(output) as write:
        for number, difference in enumerate(differences(ours, theirs, exact=exact)):
            counts[difference.found.value, difference.kind] += 1
            if limit is None or number < limit:
                write(difference)
    total = sum(counts.values())
    for (found, kind), count in sorted(counts.items()):
        printer.note(f"{found}: {count} {kind}{'' if count == 1 else 's'}")
    if limit is not None and total > limit:
        printer.note(f"{total - limit} differences are not shown")
    if total:
        raise typer.Exit(1)
    printer.note("they hold the same")


def _options(side: str, given: list[str] | None) -> dict[str, Any]:
    """Return what is said of one side, with environment variables put in."""
    import os

    from seeknal.state.settings import expanded

    return dict(expanded(options_of(given), os.environ, Path(f"--option{side}")))


@contextmanager
def _listed(style: Format) -> Iterator[Any]:
    """Yield what prints one difference at a time; a JSON array is whole only if nothing failed."""
    if style is Format.TABLE:
        yield _write_lines
        return
    import msgspec

    if style is Format.JSONL:
        yield lambda each: sys.stdout.write(f"{msgspec.json.encode(each).decode()}\n")
        return
    before = ["[\n  "]

    def write(each: Difference) -> None:
        sys.stdout.write(f"{before[0]}{msgspec.json.encode(each).decode()}")
        before[:] = [",\n  "]

    yield write
    sys.stdout.write("[]\n" if before[0].startswith("[") else "\n]\n")


def _write_lines(difference: Difference) -> None:
    key = ", ".join(_text(value) for value in difference.key.values())
    sys.stdout.write(f"{difference.found.value}  {difference.kind} {key}\n")
    for name, sides in difference.fields.items():
        for side in ("a", "b"):
            value = _text(sides[side]) if side in sides else "not there"
            sys.stdout.write(f"  {side.upper()} {shown(name)}: {value}\n")


def _text(value: Any) -> str:
    """Return a value as a line, an instant with all of its digits: a microsecond can be the difference."""
    return shown(value.isoformat() if isinstance(value, datetime) else value)
