"""``seeknal state diff``: what two stores do not have in common."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Debug, Output, Quiet
from seeknal.cli.output import Format, Printer, shown
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.difference import Difference, Record
    from seeknal.state.record_store import RecordStore

SQLITE_MAGIC = b"SQLite format 3\0"
HINT = "Name a project, the directory of a file store, a SQLite file, or a URL like postgresql://host/name."


def diff(
    a: Annotated[str, typer.Argument(help="A project, a file store, a SQLite file, or a URL.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    exact: Annotated[bool, typer.Option("--exact", help="Compare versions and sequences, too.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="Print at most so many differences.")] = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare the runs, node states, intervals and partitions of two stores.

    Exits with 0 if they hold the same, with 1 if not. Neither is changed.
    """
    from seeknal.state.difference import differences

    printer = Printer(output, quiet=quiet)
    counts: Counter[tuple[str, str]] = Counter()
    with _records(a) as ours, _records(b) as theirs, _listed(output) as write:
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


@contextmanager
def _records(name: str) -> Iterator[Iterator[Record]]:
    """Yield the records of what a name on the command line means."""
    from seeknal.state.difference import ordered
    from seeknal.state.record_store import RecordStore
    from seeknal.state.url import redact

    with _created(name) as store:
        # To open a store that is not there would make it; a backend that cannot tell whether it is there is opened.
        if isinstance(store, RecordStore) and _can_peek(type(store)) and store.peek_store() is None:
            raise ConfigurationError(f"there is no store at {redact(name)}", hint=HINT)
        store.initialize()
        yield ordered(store)


def _can_peek(kind: type[RecordStore]) -> bool:
    from seeknal.state.record_store import RecordStore

    return kind.peek_store is not RecordStore.peek_store


def _created(name: str) -> StateBackend:
    import os

    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import PROJECT_FILE, load_settings
    from seeknal.state.url import has_secret, is_libsql

    if "://" in name:
        token = os.environ.get("TURSO_AUTH_TOKEN")
        options = {"token": token} if token and is_libsql(name) and not has_secret(name) else {}
        return StateBackendFactory.create("database", url=name, **options)
    path = Path(name)
    try:
        if (path / PROJECT_FILE).exists():
            settings = load_settings(path)
            return StateBackendFactory.create(settings.backend, **settings.options)
        if (path / "run_state" / "store.json").exists():
            return StateBackendFactory.create("file", base_path=path)
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
                    return StateBackendFactory.create("database", db_path=path)
    except OSError as error:
        raise ConfigurationError(f"cannot look at {name}: {error.strerror}", hint=HINT) from error
    raise ConfigurationError(f"{name} is neither a project nor a store", hint=HINT)


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
