"""``seeknal state import-dbt``: what a dbt invocation did, as a run of the store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.stores import unchanged
from seeknal.errors import NotFoundError

if TYPE_CHECKING:
    from seeknal.integrations.dbt import DbtImport, DbtRun


def import_dbt(
    target_dir: Annotated[Path, typer.Argument(help="dbt's target directory.", metavar="TARGET_DIR")],
    without_manifest: Annotated[
        bool,
        typer.Option("--without-manifest", help="Read run_results.json alone: no fingerprints, tags or intervals."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be imported.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Record the last dbt invocation as a run: its nodes, and the batches that microbatch models completed.

    Reads run_results.json and manifest.json. The same invocation again changes nothing. Exits with 0 also where the
    invocation failed: it is recorded as that.
    """
    from seeknal.integrations.dbt import read_dbt, record_dbt

    printer = Printer(output, quiet=quiet)
    run = read_dbt(target_dir, use_manifest=not without_manifest)
    if dry_run:
        report = _preview(run, project_path, backend, database_url)
    else:
        with opened(project_path, backend, database_url) as store:
            report = record_dbt(store, run)
    printer.thing({**_fields(report), "dry_run": dry_run}, _lines(report))
    if not report.is_new:
        printer.note(f"{report.run_id} was imported before; nothing was changed")
    elif dry_run:
        printer.note("nothing was changed; run it again without --dry-run")
    if report.open:
        printer.note("batches that were not over when dbt ran them are not completed: run dbt again when they are")


def _preview(run: DbtRun, project_path: Path, backend: str | None, database_url: str | None) -> DbtImport:
    from seeknal.integrations.dbt import preview_dbt
    from seeknal.state.settings import load_settings

    with ExitStack() as stack:
        try:
            store = unchanged(stack, load_settings(project_path, backend=backend, database_url=database_url))
        except NotFoundError:  # a preview makes no store; in one that is not there, all is new
            return preview_dbt(None, run)
        return preview_dbt(store, run)


def _lines(report: DbtImport) -> list[tuple[str, Any]]:
    spans = [(name, getattr(report, name)) for name in ("completed", "restated", "open")]
    return [
        ("run", report.run_id),
        ("status", report.status),
        ("started", report.started_at),
        ("finished", report.finished_at),
        ("nodes", ", ".join(f"{count} {status}" for status, count in report.nodes.items()) or "none"),
        *((name, f"{each.node_id} {shown(each.start)} {shown(each.end)}") for name, found in spans for each in found),
    ]


def _fields(report: DbtImport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__struct_fields__}
