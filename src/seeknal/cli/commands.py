"""Where each command is written; a program is assembled of those that its arguments may mean.

Most of the time a command takes to begin is that of importing modules, so those of other commands are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from seeknal import __version__

TOP = {"init": "project:init", "run": "run:run", "migrate-state": "migrate:migrate_state"}
STATE = {
    "list": "state:list_runs",
    "show": "state:show",
    "why": "why:why",
    "cleanup": "cleanup:cleanup",
    "pin": "pins:pin",
    "unpin": "pins:unpin",
    "pins": "pins:list_pins",
    "locks": "locks:list_locks",
    "unlock": "locks:unlock",
    "log": "log:log",
    "adopt": "published:adopt",
    "export": "dump:export_state",
    "import": "dump:import_state",
    "import-dbt": "import_dbt:import_dbt",
    "backup": "backup:backup_app",
    "backups": "backup:list_backups",
    "restore": "backup:restore",
    "rollback": "rollback:rollback",
    "schema": "schema:schema",
    "doctor": "doctor:doctor",
    "diff": "diff:diff",
    "check-backend": "check:check_backend",
}
GROUPS = ("state", "intervals", "partitions")


def assembled(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the program with the commands that these arguments may mean: all of them, unless they begin with one.

    Args:
        arguments: Those of the process.
    """
    first, second = [*arguments, "", ""][:2]
    app = typer.Typer(
        name="seeknal",
        help="Run data pipelines and look after what they remember: what ran, what is done, what is left.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    if first == "--version":
        return app
    is_whole = first not in TOP and first not in GROUPS
    _add(app, TOP if is_whole else {first: TOP[first]} if first in TOP else {})
    if is_whole or first == "state":
        app.add_typer(_state({second: STATE[second]} if first == "state" and second in STATE else STATE))
    if is_whole or first == "intervals":
        app.add_typer(_intervals())
    if is_whole or first == "partitions":
        app.add_typer(_found("partitions:partitions_app"))
    return app


def _state(commands: Mapping[str, str]) -> typer.Typer:
    app = typer.Typer(name="state", help="Look at and look after the state of a project.", no_args_is_help=True)
    _add(app, commands)
    return app


@cache
def _intervals() -> typer.Typer:
    app: typer.Typer = _found("intervals:intervals_app")
    _add(app, {"claims": "claims:list_claims"})
    return app


def _add(app: typer.Typer, commands: Mapping[str, str]) -> None:
    for name, place in commands.items():
        command = _found(place)
        if isinstance(command, typer.Typer):
            app.add_typer(command)
        else:
            app.command(name)(command)


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"seeknal.cli.{module}"), name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"seeknal {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
