"""The options that every command takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli.output import Format

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend

ProjectPath = Annotated[Path, typer.Option("--project-path", "-p", help="Directory of seeknal_project.yml.")]
Backend = Annotated[str | None, typer.Option("--backend", help="Backend: file, database, or a registered one.")]
DatabaseUrl = Annotated[str | None, typer.Option("--database-url", help="Where the database is.")]
Output = Annotated[Format, typer.Option("--output", help="How results are printed on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results and errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def opened(project_path: Path, backend: str | None, database_url: str | None) -> Iterator[StateBackend]:
    """Yield the project's open backend and close it."""
    # Imported here: --version and --help open no store.
    from seeknal.state.settings import open_state_backend

    with open_state_backend(project_path, backend=backend, database_url=database_url) as store:
        yield store
