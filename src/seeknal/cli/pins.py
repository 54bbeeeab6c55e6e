"""``seeknal state pin``, ``unpin`` and ``pins``: runs that no cleanup removes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer

Run = Annotated[str, typer.Argument(help="The run.")]


def pin(
    run: Run,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the run.")] = "",
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Pin a run: no cleanup removes it, whatever its age."""
    from seeknal.state.pins import pin_run

    printer = Printer(output, quiet=quiet)
    with opened(project_path, backend, database_url) as store:
        pinned = pin_run(store, run, reason)
    if output is not Format.TABLE:
        printer.thing(pinned, [])
    printer.note(f"pinned {run}")


def unpin(
    run: Run,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take the pin from a run."""
    from seeknal.state.pins import unpin_run

    printer = Printer(output, quiet=quiet)
    with opened(project_path, backend, database_url) as store:
        was_pinned = unpin_run(store, run)
    if output is not Format.TABLE:
        printer.thing({"run_id": run, "unpinned": was_pinned}, [])
    printer.note(f"{run} is not pinned any more" if was_pinned else f"{run} was not pinned")


def list_pins(
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the runs that are pinned, and why."""
    from seeknal.state.pins import is_pinned, pinned_at, reason_of

    with opened(project_path, backend, database_url) as store:
        runs = [run for run in map(store.get_run, store.list_runs()) if run is not None and is_pinned(run)]
    found = [
        {"run_id": run.run_id, "status": run.status, "pinned_at": pinned_at(run), "reason": reason_of(run)}
        for run in runs
    ]
    columns = ("run_id", "status", "pinned_at", "reason")
    Printer(output, quiet=quiet).rows(found, columns, empty="no run is pinned", is_cut=True)
