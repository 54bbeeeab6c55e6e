"""``seeknal state schema``: how a store's schema stands, and the SQL that makes it or brings it up to date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import ConfigurationError


def schema(
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL that makes or upgrades it, for a DBA.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show whether a database holds a store that this version can use, and what this user is not granted.

    Changes nothing. Exits with 1 if something is missing.
    """
    from seeknal.state.settings import load_settings
    from seeknal.state.sql.backend import DatabaseStateBackend

    printer = Printer(output, quiet=quiet)
    settings = load_settings(project_path, backend=backend, database_url=database_url)
    if settings.backend != "database":
        raise ConfigurationError(
            f"the backend {settings.backend!r} has no schema: it is not a database",
            hint="Name a database with --database-url.",
        )
    with DatabaseStateBackend(**settings.options) as store:
        if sql:
            sys.stdout.write(store.schema_sql())
            printer.note("run it in the database once; `seeknal state schema` then says whether all is there")
            return
        report = store.schema_report()
    missing = ", ".join(report.missing_rights) or None
    lines = [("location", report.location), ("found", report.found or "no store"), ("wanted", report.wanted)]
    printer.thing(report, [*lines, ("missing rights", missing)])
    if report.found != report.wanted:
        printer.note("any command makes what is missing if its user may; `--sql` prints it for somebody who may")
    if report.found != report.wanted or report.missing_rights:
        raise typer.Exit(1)
