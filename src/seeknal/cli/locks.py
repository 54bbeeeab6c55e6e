"""``seeknal state locks`` and ``seeknal state unlock``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer


def list_locks(
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the locks that are held now, and by whom."""
    with opened(project_path, backend, database_url) as store:
        found = store.list_locks()
    columns = ("run_id", "node_id", "host", "pid", "acquired_at")
    Printer(output, quiet=quiet).rows(found, columns, empty="no locks are held")


def unlock(
    run: Annotated[str, typer.Argument(help="The run.")],
    node: Annotated[str | None, typer.Argument(help="The node; the run's own lock when left out.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the lock.")] = "seeknal state unlock",
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Free a lock, whoever holds it; what its owner commits under it from now on is refused."""
    printer = Printer(output, quiet=quiet)
    with opened(project_path, backend, database_url) as store:
        holder = store.break_lock(run, node, reason=reason)
    if holder is None:
        printer.note("nobody holds that lock")
        if output is not Format.TABLE:
            printer.thing({"run_id": run, "node_id": node, "broken": False}, [])
        return
    lines = [(name, getattr(holder, name)) for name in ("run_id", "node_id", "host", "pid", "acquired_at")]
    printer.thing(holder, lines)
