"""``seeknal state export`` and ``seeknal state import``: a whole store to a file, and back into any store."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import published
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.cli.progress import progress
from seeknal.cli.stores import looked_at, older_schema, standing

if TYPE_CHECKING:
    from seeknal.state.dump.importing import ImportPlan
    from seeknal.state.dump.reading import Dump

STANDARD_STREAM = "-"


def export_state(
    file: Annotated[str, typer.Argument(help="Where to: a file, compressed if it ends in .gz or .zst; - for stdout.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it stands.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the whole state to one portable file, or to a pipe. Others may go on writing to the store."""
    from seeknal.state.dump.format import total_of
    from seeknal.state.dump.writing import export_to_file, export_to_stream
    from seeknal.state.settings import load_settings
    from seeknal.state.store_info import superseded

    printer = Printer(output, quiet=quiet)
    with ExitStack() as stack:
        source = standing(stack, load_settings(project_path, backend=backend, database_url=database_url))
        successor = source.read_store().superseded_by
        with progress(printer) as tell:
            if file == STANDARD_STREAM:
                report = export_to_stream(source, sys.stdout.buffer, on_progress=tell)
            else:
                report = export_to_file(source, file, force=force, on_progress=tell)
    if output is not Format.TABLE:
        where = sys.stderr if file == STANDARD_STREAM else sys.stdout
        with redirect_stdout(where):
            printer.thing({"file": file, **_fields(report)}, [])
    printer.note(f"exported {total_of(report.counts)} records: {_counted(report.counts)}")
    if successor:
        printer.note(str(superseded(successor)))


def import_state(
    file: Annotated[
        str, typer.Argument(help="An export, compressed or not; - for stdin; or a directory of the published platform.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be imported.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring an export into an empty store, or go on with an import of it that was interrupted.

    The file is read and found whole before anything is written. On a terminal it shows what would be imported and
    asks; elsewhere it does not ask. A directory with the state of the published platform is taken in as by `adopt`.
    """
    from seeknal.state.dump.format import total_of
    from seeknal.state.dump.importing import import_planned, plan_import
    from seeknal.state.settings import load_settings, open_settings
    from seeknal.state.transfer import record_store, records

    if file != STANDARD_STREAM and Path(file).is_dir():
        published.adopt(
            Path(file),
            dry_run=dry_run,
            project_path=project_path,
            backend=backend,
            database_url=database_url,
            output=output,
            quiet=quiet,
            debug=debug,
        )
        return
    printer = Printer(output, quiet=quiet)
    settings = load_settings(project_path, backend=backend, database_url=database_url)
    is_asked = not yes and not dry_run and sys.stdin.isatty() and sys.stderr.isatty()
    with ExitStack() as stack:
        dump = stack.enter_context(_dump(file))
        with progress(printer) as tell:
            found = looked_at(stack, settings)
            if found is not None:
                store = found
                plan = plan_import(dump, store, on_progress=tell)
            else:  # opening the store would make it: not for an export that is damaged
                plan = plan_import(dump, None, on_progress=tell)
                if dry_run and (older := older_schema(settings)):
                    printer.note(
                        f"the schema of {settings.where} is {older}: an import would bring it up to date first; "
                        "what it holds was not looked at"
                    )
                if not dry_run:
                    store = record_store(stack.enter_context(open_settings(settings)))
                    if next(records(store), None) is not None:
                        plan = plan_import(dump, store, on_progress=tell)
        if dry_run:
            _show_plan(printer, file, settings.where, plan)
            printer.note("nothing was changed; run it again without --dry-run")
            return
        if is_asked and not typer.confirm(f"Import {_counted(plan.counts)} into {settings.where}?", err=True):
            printer.note("nothing was imported")
            return
        with progress(printer) as tell:
            report = import_planned(dump, store, plan, on_progress=tell)
    if output is not Format.TABLE:
        printer.thing({"file": file, "to": settings.where, "dry_run": False, **_fields(report)}, [])
    if plan.changes and not report.has_log:
        printer.note("the change log of the export was left out: this store keeps none")
    printer.note(f"imported {report.written} of {total_of(report.counts)} records: {_counted(report.counts)}")


def _show_plan(printer: Printer, file: str, where: str, plan: ImportPlan) -> None:
    header = plan.header
    origin = [("store_id", header.store_id), ("program", header.program), ("exported_at", header.exported_at)]
    facts = [*origin, ("present", plan.present), ("state_sha256", plan.state_sha256)]
    shown = {"file": file, "to": where, "dry_run": True, "counts": plan.counts, **dict(facts)}
    printer.thing(shown, [("file", file), ("to", where), *_fields(plan.counts).items(), *facts])


def _dump(file: str) -> AbstractContextManager[Dump]:
    from seeknal.state.dump.reading import dump_file, dump_stream

    return dump_stream(sys.stdin.buffer) if file == STANDARD_STREAM else dump_file(file)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _counted(counts: Any) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in _fields(counts).items())
