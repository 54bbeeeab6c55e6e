"""The options that every command takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.output import Format
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend

ProjectPath = Annotated[Path, typer.Option("--project-path", "-p", help="Directory of seeknal_project.yml.")]
Backend = Annotated[str | None, typer.Option("--backend", help="Backend: file, database, or a registered one.")]
DatabaseUrl = Annotated[str | None, typer.Option("--database-url", help="Where the database is.")]
Output = Annotated[Format, typer.Option("--output", help="How results are printed on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results and errors only.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An option of the backend, as in state_options; repeatable."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def options_of(given: list[str] | None) -> dict[str, Any]:
    """Return what ``--option`` names, whole numbers and booleans as such; empty if it was not used.

    Raises:
        ConfigurationError: One is not ``KEY=VALUE``, or holds a secret, which must come from the environment.
    """
    found: dict[str, Any] = {}
    for each in given or []:
        key, mark, value = each.partition("=")
        if not key or not mark:
            raise ConfigurationError(f"--option {each!r} is not KEY=VALUE", hint="Write it like --option schema=ops.")
        if any(word in key.lower() for word in ("token", "password", "secret")) and "${" not in value:
            raise ConfigurationError(
                f"--option {key} would show a secret to everybody who lists processes",
                hint=f"Write '--option {key}=${{NAME}}', and set the environment variable NAME.",
            )
        found[key] = int(value) if value.isdecimal() else {"true": True, "false": False}.get(value, value)
    return found


def at_path(project_path: Path) -> str:
    """Return what a command that is hinted at takes to be about the same project; nothing for the present directory."""
    return "" if project_path == Path() else f" -p {shlex.quote(str(project_path))}"


@contextmanager
def opened(project_path: Path, backend: str | None, database_url: str | None) -> Iterator[StateBackend]:
    """Yield the project's open backend and close it."""
    # Imported here: --version and --help open no store.
    from seeknal.state.settings import open_state_backend

    with open_state_backend(project_path, backend=backend, database_url=database_url) as store:
        yield store
