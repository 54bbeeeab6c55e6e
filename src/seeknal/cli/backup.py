"""``seeknal state backup``, ``backups``, ``backup verify`` and ``restore``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.migrate import DryRun
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer, sized
from seeknal.cli.progress import progress
from seeknal.cli.stores import looked_at, older_schema, standing

if TYPE_CHECKING:
    from seeknal.state.backup.generations import Generation
    from seeknal.state.backup.restoring import RestorePlan
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import StateSettings

COLUMNS = ("name", "runs", "node_states", "size", "kind", "standing")

From = Annotated[Path | None, typer.Option("--from", help="Where the backups are; target/backups of the project.")]

backup_app = typer.Typer(name="backup", help="Back the state up while others write to it.", invoke_without_command=True)


@backup_app.callback()
def back_up_state(
    context: typer.Context,
    to: Annotated[Path | None, typer.Option("--to", help="Where to; target/backups of the project.")] = None,
    keep: Annotated[int | None, typer.Option("--keep", help="Remove all but the newest so many.")] = None,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Back up the state as of one instant, while others write to it."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from seeknal.state.backup.making import back_up, check_keep, remove_older
    from seeknal.state.settings import load_settings

    printer = Printer(output, quiet=quiet)
    if keep is not None:
        check_keep(keep)
    settings = load_settings(project_path, backend=backend, database_url=database_url)
    directory = _directory(settings, to)
    with ExitStack() as stack:
        store = standing(stack, settings)
        with progress(printer) as tell:
            made = back_up(store, directory, kind=settings.backend, on_progress=tell)
    assert made.manifest is not None
    removed = [] if keep is None else remove_older(directory, made.manifest.store_id, keep, newest=made.name)
    facts = {**_facts(made), "state_sha256": made.manifest.state_sha256, "path": str(made.path), "removed": removed}
    lines = [("backup", made.name), ("of", settings.where), ("at", str(made.path)), *_counted(made.manifest.counts)]
    printer.thing(facts, [*lines, ("size", sized(made.manifest.size)), ("sha256", made.manifest.state_sha256)])
    for name in removed:
        printer.note(f"removed {name}")


@backup_app.command("verify")
def verify_backup(
    name: Annotated[str | None, typer.Argument(help="The backup, or latest; all of them when left out.")] = None,
    directory: From = None,
    project_path: ProjectPath = Path(),
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read all of a backup, or of every one, and find each byte as it was written.

    Exits with 5 if one is damaged, and with 1 if there is none.
    """
    from seeknal.cli.app import exit_code
    from seeknal.errors import NotFoundError, SeeknalError
    from seeknal.state.backup.generations import Standing, find, generations
    from seeknal.state.backup.verifying import verify
    from seeknal.state.settings import load_settings

    printer = Printer(output, quiet=quiet)
    where = _there(load_settings(project_path), directory)
    there = generations(where) if name is None else [find(where, name)]
    if all(each.standing is Standing.UNFINISHED for each in there):
        raise NotFoundError(f"there is no backup in {where}", hint="Name the directory of the backups with --from.")
    rows: list[dict[str, Any]] = []
    codes = {0}
    for each in there:
        found, problem = each.standing, ""
        if found is not Standing.UNFINISHED:
            try:
                with progress(printer) as tell:
                    verify(each.path, on_progress=tell)
            except SeeknalError as error:  # the others are read all the same
                found, problem = Standing.DAMAGED, str(error)
                codes.add(exit_code(error))
        rows.append({"name": each.name, "standing": found, "problem": problem})
    printer.rows(rows, ("name", "standing"), empty="")
    for row in rows:
        if row["problem"]:
            printer.note(row["problem"])
    if max(codes):
        raise typer.Exit(max(codes))


def list_backups(
    directory: From = None,
    project_path: ProjectPath = Path(),
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the backups, the newest first."""
    from seeknal.state.backup.generations import generations
    from seeknal.state.settings import load_settings

    printer = Printer(output, quiet=quiet)
    where = _there(load_settings(project_path), directory)
    rows = [_facts(each) for each in generations(where)]
    if output is Format.TABLE:
        rows = [{**row, **_in_words(row)} for row in rows]
    printer.rows(rows, COLUMNS, empty=f"no backups in {where}")


def restore(
    name: Annotated[str, typer.Argument(help="The backup, or latest.")],
    directory: From = None,
    dry_run: DryRun = True,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Do not back up what is there, so that nothing can undo this.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Take a backup of another store, too.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Replace the state by a backup, in one step. A preview by default.

    What is there now is backed up before; while that goes on, writers are told to wait. Others see the old state or the
    new one, and whoever changes what they have read before is refused. After a kill, run the same again.
    """
    from seeknal.errors import CorruptStateError
    from seeknal.state.backup.generations import find
    from seeknal.state.backup.restoring import plan_restore
    from seeknal.state.backup.restoring import restore as restore_state
    from seeknal.state.settings import load_settings, open_settings
    from seeknal.state.transfer import record_store

    printer = Printer(output, quiet=quiet)
    settings = load_settings(project_path, backend=backend, database_url=database_url)
    where = _there(settings, directory)
    with ExitStack() as stack:
        if dry_run:
            advice = f"move {_files_of(settings)} out of the way, or restore with --no-backup"
            problem = ""
            try:
                there = looked_at(stack, settings)  # to open one that is not there would make it
                if there is None and (older := older_schema(settings)):
                    problem = f"its schema {older} is an older one, and only a restore brings it up to date"
                    advice = ""
            except CorruptStateError as error:
                there, problem = None, str(error)
                advice = f"move {_files_of(settings)} out of the way, and restore then"
            found = find(where, name, None if force else _identity(there))
            with progress(printer) as tell:
                plan = plan_restore(there, found, is_forced=force, problem=problem, on_progress=tell)
            _show_plan(printer, settings, plan, advice)
            return
        stack.enter_context(_saying_what_to_move(settings, where))
        store = record_store(stack.enter_context(open_settings(settings)))
        found = find(where, name, None if force else _identity(store))
        undo_in = None if no_backup else where
        with progress(printer) as tell:
            report = restore_state(
                store, found, kind=settings.backend, is_forced=force, undo_in=undo_in, on_progress=tell
            )
    lines = [("backup", report.backup), ("to", settings.where), ("undo", report.undo), *_counted(report.counts)]
    facts = {"backup": report.backup, "to": settings.where, "dry_run": False, "counts": report.counts}
    rest = {"state_sha256": report.state_sha256, "store_id": report.store_id, "undo": report.undo}
    printer.thing({**facts, **rest}, [*lines, ("sha256", report.state_sha256)])
    if report.undo is not None:
        printer.note(f"to undo it: seeknal state restore {report.undo} --no-dry-run")


def _show_plan(printer: Printer, settings: StateSettings, plan: RestorePlan, advice: str) -> None:
    changes = {name: getattr(plan, name) for name in ("lost_runs", "changed_runs", "returning_runs")}
    facts = {"backup": plan.backup, "created_at": plan.created_at, "to": settings.where, "dry_run": True}
    counts = {"present": plan.present, "counts": plan.counts}
    lines = [("backup", plan.backup), ("created_at", plan.created_at), ("to", settings.where)]
    if plan.present is None:
        lines += [("present", "unreadable"), *_counted(plan.counts)]
    else:
        pairs = zip(_counted(plan.present), _counted(plan.counts), strict=True)
        lines += [(name, f"{now} now, {then} then") for (name, now), (_, then) in pairs]
        lines += [(name.replace("_", " "), count) for name, count in changes.items()]
    lines += [("refused", reason) for reason in plan.refused]
    printer.thing({**facts, **counts, **changes, "refused": plan.refused, "problem": plan.problem}, lines)
    if plan.problem:
        printer.note(f"what is there cannot be read: {plan.problem}")
        if advice:
            printer.note(advice)
    if plan.refused:
        printer.note("nothing was changed, and nothing would be: it is refused")
        raise typer.Exit(3 if plan.is_held else 1)
    printer.note("nothing was changed; run it again with --no-dry-run")


def _identity(store: RecordStateBackend | None) -> str | None:
    """Return the identity of the store whose backups can be meant; an empty one takes any."""
    from seeknal.state.backup.restoring import is_empty

    return None if store is None or is_empty(store) else store.read_store().store_id


@contextmanager
def _saying_what_to_move(settings: StateSettings, backups: Path) -> Iterator[None]:
    """Let the error of a damaged store, and not that of a damaged backup, name what stands in the way of a restore."""
    from seeknal.errors import CorruptStateError

    try:
        yield
    except CorruptStateError as error:
        if Path(error.location).is_relative_to(backups):
            raise
        way = "Restore with --no-backup, or move" if "--no-backup" in error.hint else "Move"
        hint = f"{way} {_files_of(settings)} out of the way, and run this again."
        raise CorruptStateError(str(error), hint=hint, location=error.location, offset=error.offset) from error


def _files_of(settings: StateSettings) -> str:
    """Return what a damaged store consists of, in words."""
    path = settings.local_path
    if path is None:
        return "its tables"
    if settings.backend == "file":
        return f"{path}/run_state and {path}/run_state.json"
    return f"{path}, {path}-wal and {path}-shm"


def _refuse_options(context: typer.Context) -> None:
    """Raise if options stand before the name of a subcommand, which would not see them."""
    from seeknal.errors import ConfigurationError

    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigurationError(
                f"{parameter.opts[0]} stands before {context.invoked_subcommand}, which would not see it",
                hint=f"Put the options behind it: `seeknal state backup {context.invoked_subcommand} ...`.",
            )


def _directory(settings: StateSettings, named: Path | None) -> Path:
    return settings.project_path / "target" / "backups" if named is None else named.absolute()


def _there(settings: StateSettings, named: Path | None) -> Path:
    """Return the directory to look for backups in.

    Raises:
        NotFoundError: It was named, and there is none.
    """
    from seeknal.errors import NotFoundError

    where = _directory(settings, named)
    if named is not None and not where.is_dir():
        raise NotFoundError(f"{where} is no directory", hint="Name the directory of the backups with --from.")
    return where


def _in_words(row: dict[str, Any]) -> dict[str, str]:
    """Return what a table shows of a backup in another way than JSON does."""
    is_undo = row["before_restore_of"] is not None
    return {
        "size": "-" if row["bytes"] is None else sized(row["bytes"]),
        "standing": f"{row['standing']}, undo" if is_undo else str(row["standing"]),
    }


def _facts(each: Generation) -> dict[str, Any]:
    """Return what is known of a backup; nulls where it cannot be read."""
    made = each.manifest
    return {
        "name": each.name,
        "created_at": each.begun_at,
        "store_id": made and made.store_id,
        "kind": made and made.kind,
        "runs": made and made.counts.runs,
        "node_states": made and made.counts.node_states,
        "intervals": made and made.counts.intervals,
        "partitions": made and made.counts.partitions,
        "bytes": made and made.size,
        "standing": each.standing,
        "before_restore_of": made and made.before_restore_of,
        "problem": each.problem,
    }


def _counted(counts: Any) -> list[tuple[str, Any]]:
    kinds = ("runs", "node_states", "intervals", "partitions")
    return [(name.replace("_", " "), getattr(counts, name)) for name in kinds]
