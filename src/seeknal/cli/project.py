"""``seeknal init``."""

from __future__ import annotations

from pathlib import Path

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import BackendUnavailableError, ConfigurationError

DIRECTORIES = ("seeknal/sources", "seeknal/transforms")
TEMPLATE = """\
name: {name}
version: 1.0.0

# Where the state is kept: file (target/run_state.json), or database (target/state.db).
state_backend: {backend}

# For a server, name it here; a secret is best read from the environment:
# database_url: ${{DATABASE_URL}}
"""


def init(
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Begin a project: write seeknal_project.yml and the directories of its nodes."""
    import json

    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import PROJECT_FILE, edit_project
    from seeknal.state.url import has_secret

    project = project_path.absolute()
    path = project / PROJECT_FILE
    if database_url and has_secret(database_url):
        raise ConfigurationError(
            f"a secret does not belong into {PROJECT_FILE}",
            hint="Pass --database-url '${NAME}' and set the environment variable NAME.",
        )
    chosen = backend or ("database" if database_url else "file")
    known = StateBackendFactory.list_backends()
    if chosen not in known:
        raise ConfigurationError(f"there is no state backend {chosen!r}", hint=f"Known: {', '.join(known)}.")
    if database_url and chosen in ("file", "memory"):
        raise ConfigurationError(f"{chosen!r} takes no database URL", hint="Leave out the one or the other.")
    try:
        for name in DIRECTORIES:
            (project / name).mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=json.dumps(project.name), backend=json.dumps(chosen)))
    except FileExistsError:
        raise ConfigurationError(
            f"{path if path.exists() else project} exists already; nothing was overwritten",
            hint="Edit it, or choose another directory with --project-path.",
        ) from None
    except OSError as error:
        raise BackendUnavailableError(f"cannot write {path}: {error.strerror}", hint="Check the directory.") from error
    if database_url:
        edit_project(project, {"database_url": database_url})
    printer = Printer(output, quiet=quiet)
    printer.thing({"project_path": str(project), "state_backend": chosen}, [("project", project), ("backend", chosen)])
    printer.note("next: put nodes into seeknal/ and run them with `seeknal run`")
