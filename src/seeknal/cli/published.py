"""``seeknal state adopt``, and what a migration does where the published Seeknal platform left its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import ConfigurationError, TransferError

if TYPE_CHECKING:
    from seeknal.state.batch import Batch
    from seeknal.state.published.directory import Taken
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import StateSettings

SIDECARS = ("", "-journal", "-wal", "-shm")
"""What SQLite keeps beside a database, under its name."""


def adopt(
    directory: Annotated[Path | None, typer.Argument(help="Where the platform left it; target if left out.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Only show what would happen, or do it.")
    ] = True,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take the state of the published Seeknal platform into the project's store. A preview by default.

    It finds run_state.json and its backups, the folders of runs, state/execution_state.json and state.db. They stay
    as they are; one that has the name of a store of ours gets ".published" behind it.
    """
    from seeknal.clock import SystemClock
    from seeknal.state.published.directory import take
    from seeknal.state.settings import load_settings, open_settings
    from seeknal.state.transfer import record_store

    printer = Printer(output, quiet=quiet)
    settings = load_settings(project_path, backend=backend, database_url=database_url)
    where = directory.absolute() if directory is not None else _beside(settings)
    if not where.is_dir():
        raise ConfigurationError(f"{where} is not a directory", hint="Name the target directory of the platform.")
    if directory is not None and (where / "run_state" / "store.json").exists() and settings.local_path != where:
        raise TransferError(
            f"{where} is a file store of this program, of which run_state.json is only the latest run",
            hint="Move it with `seeknal migrate-state`, or export it there and import that here.",
        )
    taken = take(where, SystemClock().now(), database=settings.local_path if settings.backend == "database" else None)
    if taken is None:
        raise TransferError(
            f"{where} holds no state of the published platform",
            hint="Name its target directory: `seeknal state adopt DIRECTORY`.",
        )
    ids = taken.run_ids
    aside = in_the_way(settings, ids)
    shown: dict[str, Any] = {"from": str(where), "to": settings.where, "dry_run": dry_run, "found": taken.forms}
    lines = [("from", where), ("to", settings.where), *lines_of(taken), *moved(aside)]
    if dry_run:
        printer.thing({**shown, "counts": taken.counts()}, [*lines, *taken.counts().items()])
        printer.note("nothing was changed; run it again with --no-dry-run")
        return
    is_new = is_new_file_store(settings)
    with ExitStack() as stack:
        put_back = stack.enter_context(ExitStack())
        if aside is not None:
            put_back.callback(set_aside(aside))
        store = record_store(stack.enter_context(open_settings(settings)))
        added = _add(store, taken.batches)
        put_back.pop_all()
        if is_new:
            added = ids  # a new file store takes in, when it is made, what stands beside it
        if added and store.keeps_log:
            found = [form.what for form in taken.forms]
            store.log_change("adopt", detail={"from": str(where), "found": found, "runs": len(added)})
    result = {**shown, "counts": taken.counts(), "added": added}
    printer.thing(result, [*lines, *taken.counts().items(), ("added", len(added))])
    if len(added) < len(ids):
        printer.note(f"{len(ids) - len(added)} runs were there already and stay as they are")


def waiting(settings: StateSettings) -> Taken | None:
    """Return what the platform left where a file store is not made yet; it is taken in when that is opened."""
    if not is_new_file_store(settings) or settings.local_path is None or not settings.local_path.is_dir():
        return None
    from seeknal.clock import SystemClock
    from seeknal.state.published.directory import take

    return take(settings.local_path, SystemClock().now())


def taken_in(taken: Taken) -> RecordStateBackend:
    """Return a store in memory that holds what was found: what the project's store is going to be when it is made."""
    from seeknal.state.memory import MemoryStateBackend

    store = MemoryStateBackend()
    store.initialize()
    _add(store, taken.batches)
    return store


def is_new_file_store(settings: StateSettings) -> bool:
    """Return whether the project's file store is not made yet."""
    path = settings.local_path
    return settings.backend == "file" and path is not None and not (path / "run_state" / "store.json").exists()


def in_the_way(settings: StateSettings, known: Iterable[str]) -> Path | None:
    """Return the platform's database at the place of ours, or ``None``.

    Args:
        settings: Where our database is to be.
        known: The runs that are taken in.

    Raises:
        TransferError: It cannot be set aside: it holds other runs, or something has its new name.
    """
    from seeknal.state.published.database import is_published_database, runs_in_database

    path = settings.local_path
    if path is None or settings.backend != "database" or not is_published_database(path):
        return None
    rest = sorted({run.run_id for run in runs_in_database(path)} - set(known))
    if rest:
        raise TransferError(
            f"{path} is a state database of the published platform, with {len(rest)} runs that are not in the source",
            hint="Take it in first with `seeknal state adopt`, or name another database.",
        )
    if _kept(path).exists():
        raise TransferError(f"{_kept(path)} is there already", hint="Move it away, or name another database.")
    return path


def set_aside(path: Path) -> Callable[[], None]:
    """Give the platform's database its new name; return what undoes that, and removes what took its place."""
    from seeknal.state.file import durable

    def put_back() -> None:
        with durable.unavailable(path, "put back"):
            for suffix in SIDECARS:
                durable.remove_file(path.with_name(path.name + suffix))
            _rename(_kept(path), path)
            durable.sync_directory(path.parent)

    with durable.unavailable(path, "set aside"):
        _rename(path, _kept(path))
        durable.sync_directory(path.parent)
    return put_back


def _rename(path: Path, to: Path) -> None:
    for suffix in SIDECARS:
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(to.with_name(to.name + suffix))


def _kept(path: Path) -> Path:
    from seeknal.state.published.directory import KEPT

    return path.with_name(path.name + KEPT)


def _beside(settings: StateSettings) -> Path:
    """Return where the platform keeps its state if nobody says otherwise: in ``target``, or beside our store."""
    path, target = settings.local_path, settings.project_path / "target"
    if settings.backend == "file" and path is not None:
        return path
    return target if path is None or target.is_dir() else path.parent


def lines_of(taken: Taken) -> list[tuple[str, Any]]:
    """Return the lines about what was found."""
    return [
        ("found", f"{form.path}: {form.what}, {form.runs} runs, {form.node_states} node states") for form in taken.forms
    ]


def moved(path: Path | None) -> list[tuple[str, Any]]:
    """Return the line about a database that is set aside."""
    return [] if path is None else [("set aside", f"{path.name} as {_kept(path).name}")]


def _add(store: RecordStateBackend, batches: list[Batch]) -> list[str]:
    """Commit the runs that a store lacks, some at a time; return their ids.

    A run that is there stays as it is, and its completed work with it: somebody may have restated that since.

    Raises:
        TransferError: The store has runs that started later. The states of old runs would stand as the newest.
    """
    from seeknal.state.published.records import joined
    from seeknal.state.transfer import BATCH_ROWS

    there = {run_id: store.get_run(run_id) for run_id in store.list_runs()}
    new = [batch for batch in batches if batch.runs[0].run_id not in there]
    latest = max((run.started_at for run in there.values() if run and run.started_at), default=None)
    first = new[0].runs[0] if new else None
    if latest and first and first.started_at and first.started_at < latest:
        raise TransferError(
            f"the store has runs that started after {first.run_id!a}; what is older cannot be put before them",
            hint="Take it into an empty store: name one with --backend or --database-url.",
        )
    part: list[Batch] = []
    for batch in new:
        part.append(batch)
        if sum(len(each.nodes) + len(each.work) + 1 for each in part) >= BATCH_ROWS or batch is new[-1]:
            store.commit(joined(part))
            part = []
    return [batch.runs[0].run_id for batch in new]
