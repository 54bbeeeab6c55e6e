"""``seeknal state cleanup``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer
from seeknal.cli.progress import progress
from seeknal.cli.stores import unchanged
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from seeknal.model.records import CleanupReport
    from seeknal.state.dump.writing import ExportReport

MOST_SHOWN = 20
"""Runs of which each has a line, unless all are asked for."""

Seconds = Annotated[float | None, typer.Option("--max-seconds", min=0, max=1e9, help="Stop after so long.")]
File = Annotated[Path | None, typer.Option("--archive", help="Write what goes to this export file first.")]
Every = Annotated[bool, typer.Option("--all", help="Show every run, however many.")]


def cleanup(
    days: Annotated[int | None, typer.Option("--days", min=0, max=36500, help="Runs that finished longer ago.")] = None,
    keep_last: Annotated[int | None, typer.Option("--keep-last", min=0, help="But for so many newest runs.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only success, failed or cancelled ones.")] = None,
    archive: File = None,
    max_seconds: Seconds = None,
    every: Every = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go, and why others stay.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Delete old finished runs and the logs of their nodes; never what is needed, nor completed work.

    Needed are pinned runs, those whose lock is held, and the newest success of each node. --days, --keep-last or both
    say which others go. On a terminal it shows what would go and asks; elsewhere it does not ask.
    """
    # Imported here: most commands do without them.
    from seeknal.cli.node_logs import log_folders, logs_of_deleted_runs
    from seeknal.state.settings import load_settings

    if days is None and keep_last is None:
        raise ConfigurationError(
            "nothing says which runs may go",
            hint="Give --days N, --keep-last N or both, and see what would go with --dry-run.",
        )
    if archive == Path("-"):
        raise ConfigurationError(
            "an archive cannot be written to the standard stream: it is read back before anything goes",
            hint="Name a file, such as --archive gone.jsonl.gz.",
        )
    printer = Printer(output, quiet=quiet)
    is_asked = not yes and not dry_run and sys.stdin.isatty() and sys.stderr.isatty()
    rules: dict[str, Any] = {"older_than": timedelta(days=days or 0), "keep_last": keep_last or 0, "status": status}
    budget = None if max_seconds is None else timedelta(seconds=max_seconds)
    exported: ExportReport | None = None
    with ExitStack() as stack:
        if dry_run:
            store = unchanged(stack, load_settings(project_path, backend=backend, database_url=database_url))
        else:
            store = stack.enter_context(opened(project_path, backend, database_url))
        if is_asked or dry_run:
            with progress(printer, "") as tell:
                report = store.cleanup(**rules, dry_run=True, budget=budget if dry_run else None, on_progress=tell)
            logs = list(log_folders(project_path, report.deleted).of_runs.values())
        if is_asked and report.deleted:
            with redirect_stdout(sys.stderr):
                _show(Printer(quiet=quiet), report, every=every)
            if not typer.confirm(f"Delete {len(report.deleted)} runs?", err=True):
                printer.note("nothing was deleted")
                return
        if not dry_run:
            with (
                _told_if_it_fails(),
                logs_of_deleted_runs(store, project_path) as folders,
                progress(printer, "") as tell,
            ):
                if archive is None:
                    report = store.cleanup(**rules, budget=budget, on_progress=tell)
                else:
                    from seeknal.state.dump.archive import clean_into
                    from seeknal.state.retention import rules_of
                    from seeknal.state.transfer import record_store

                    named = rules_of(store.clock.now(), **rules)
                    done = clean_into(record_store(store), archive, named, budget=budget, on_progress=tell)
                    report, exported = done.report, done.archive
            logs = folders.gone
    if output is not Format.TABLE:
        fields = {name: getattr(report, name) for name in report.__struct_fields__}
        archived = str(archive) if exported else None
        printer.thing({"dry_run": dry_run, **fields, "archive": archived, "logs": list(map(str, logs))}, [])
    elif dry_run:
        _show(printer, report, every=every)
    else:
        _show_gone(printer, report, every=every)
    _sum_up(printer, report, "would delete" if dry_run else "deleted")
    if logs:
        printer.note(f"{'would delete' if dry_run else 'deleted'} the logs of {len(logs)} of them in {logs[0].parent}")
    if exported is not None:
        printer.note(f"archived {exported.counts.runs} runs in {archive}")
        if not report.is_complete:
            printer.note("name another file for --archive then: this one stands, and is never replaced")
    if not dry_run:
        folders.check()


@contextmanager
def _told_if_it_fails() -> Iterator[None]:
    """Print the notes of an error, which say what was deleted before."""
    try:
        yield
    except BaseException as error:
        for note in getattr(error, "__notes__", ()):
            sys.stderr.write(f"{note}\n")
        raise


def _sum_up(printer: Printer, report: CleanupReport, verb: str) -> None:
    nodes = sum(run.nodes for run in report.runs)
    reasons = ", ".join(f"{len(runs)} {reason}" for reason, runs in _grouped(report).items())
    printer.note(f"{verb} {len(report.deleted)} runs with {nodes} node states")
    printer.note(f"kept {len(report.kept)}{f': {reasons}' if reasons else ''}")
    if not report.is_complete:
        printer.note(f"the time is up, and {report.remaining} runs were not dealt with; run it again to go on")
    if report.hint:
        printer.note(report.hint)


def _show(printer: Printer, report: CleanupReport, *, every: bool) -> None:
    """Print what would go, and why the others stay."""
    _show_gone(printer, report, every=every)
    if not report.kept:
        return
    if report.deleted:
        sys.stdout.write("\n")
    if every:
        rows = [{"why": why, "kept": run_id} for run_id, why in report.kept.items()]
        printer.rows(rows, ("why", "kept"), empty="")
        return
    groups = [
        {"kept": len(runs), "why": reason, "runs": ", ".join(_told(*each) for each in runs[:MOST_SHOWN])}
        for reason, runs in _grouped(report).items()
    ]
    printer.rows(groups, ("kept", "why", "runs"), empty="", is_cut=True)


def _show_gone(printer: Printer, report: CleanupReport, *, every: bool) -> None:
    told = report.runs if every else report.runs[:MOST_SHOWN]
    printer.rows(told, ("finished_at", "status", "nodes", "run_id"), empty="no run goes", is_cut=not every)
    if len(told) < len(report.runs):
        sys.stdout.write(f"and {len(report.runs) - len(told)} more; --all shows each of them\n")


def _grouped(report: CleanupReport) -> dict[str, list[tuple[str, str]]]:
    """Return the runs that stay, each with what its reason is about, by their reasons."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for run_id, why in report.kept.items():
        reason, _, detail = why.partition(": ")
        groups.setdefault(reason, []).append((run_id, detail))
    return groups


def _told(run_id: str, detail: str) -> str:
    return f"{run_id} ({detail})" if detail else run_id
