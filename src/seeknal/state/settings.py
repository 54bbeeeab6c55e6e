"""Which store a project uses: the command line over the environment, over the project file, over the default.

The project file is ``seeknal_project.yml``. The highest of the levels that names a backend *or* a
database URL decides: a URL without a backend means ``database``, since it says where the state is. A URL beside
the backend ``file`` or ``memory`` on the same level contradicts it and is refused; one on a lower level is
overruled with its backend. ``TURSO_DATABASE_URL`` may be meant for another program, so it never chooses
the backend: it serves ``database`` where no Seeknal setting has a URL.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from seeknal.errors import ConfigurationError
from seeknal.state.contract import StateBackend
from seeknal.state.file import durable
from seeknal.state.registry import StateBackendFactory
from seeknal.state.url import has_secret, is_libsql, redact

PROJECT_FILE = "seeknal_project.yml"
RUNNER_KEYS = ("hash_outputs",)
"""What the runner reads of the same file."""

KEYS = ("name", "version", "state_backend", "database_url", "state_options", *RUNNER_KEYS)
PLATFORM_KEYS = ("profile", "config-version")
"""What the project files of the published platform have beside; they are left to it."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class StateSettings:
    """Which store a project uses, and where it is.

    Attributes:
        project_path: The project's directory, absolute.
        name: The project's name.
        backend: The backend's name; ``sqlite`` is given as ``database``.
        options: What the backend is created with; may hold secrets and is never shown.
        decided_by: ``option``, ``environment``, ``file`` or ``default``.
    """

    project_path: Path
    name: str
    backend: str
    options: dict[str, Any] = field(repr=False)
    decided_by: str

    @property
    def where(self) -> str:
        """The store in words, without its secrets; those of one server differ in their schemas."""
        schema = f", schema {self.options['schema']}" if self.options.get("schema") else ""
        for key in ("url", "db_path", "base_path"):
            if key in self.options:
                return f"{self.backend} {redact(path_within(self.options[key], self.project_path))}{schema}"
        return f"{self.backend}{schema}"

    @property
    def local_path(self) -> Path | None:
        """The file or directory of a store on this machine, or ``None``."""
        found = self.options.get("db_path") or self.options.get("base_path")
        return None if found is None or "url" in self.options else Path(found)


def load_settings(
    project_path: str | os.PathLike[str] = ".",
    *,
    backend: str | None = None,
    database_url: str | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    is_whole: bool = False,
) -> StateSettings:
    """Return which store a project uses.

    Args:
        project_path: The directory that holds ``seeknal_project.yml``.
        backend: As given on the command line.
        database_url: As given on the command line; ``${NAME}`` in it is read from the environment.
        options: Of the backend, instead of the project's ``state_options``.
        environ: The environment; the process's own when ``None``.
        is_whole: Whether the backend, the URL and the options that are given say all: no lower level adds a URL. A
            token still comes from the environment.

    Raises:
        ConfigurationError: No project, a file that cannot be read, a misspelt key, a variable that is not
            set, or settings that contradict each other.
    """
    env = os.environ if environ is None else environ
    project = Path(project_path).absolute()
    document = expanded(read_project(project), env, project / PROJECT_FILE)
    levels = [
        ("option", backend, expanded(database_url, env, Path("--database-url"))),
        ("environment", env.get("SEEKNAL_STATE_BACKEND") or None, env.get("SEEKNAL_DATABASE_URL") or None),
        ("file", document.get("state_backend"), document.get("database_url")),
        ("default", "file", None),
    ]
    if is_whole:
        levels = levels[:1]
    at = next(index for index, (_, named, url) in enumerate(levels) if named or url)
    decided_by, named, url = levels[at]
    chosen = _canonical(named or "database")
    if chosen in ("file", "memory") and url:
        raise ConfigurationError(
            f"the backend {chosen!r} takes no database URL, but one is set beside it ({_LEVELS[decided_by]})",
            hint="Remove the URL, or set the backend to database.",
        )
    chosen_options = (
        _options_of(document, chosen) if options is None else dict(expanded(options, env, Path(PROJECT_FILE)))
    )
    if chosen not in ("file", "memory"):
        found = url or next((lower for _, _, lower in levels[at:] if lower), None)
        if found is None and not is_whole and chosen == "database" and not chosen_options.keys() & {"db_path", "url"}:
            found = env.get("TURSO_DATABASE_URL") or None
        if found:
            chosen_options.pop("db_path", None)
            chosen_options["url"] = found
    return StateSettings(
        project_path=project,
        name=str(document.get("name") or project.name),
        backend=chosen,
        options=_located(chosen, chosen_options, project, env),
        decided_by=decided_by,
    )


_LEVELS = {"option": "on the command line", "environment": "in the environment", "file": f"in {PROJECT_FILE}"}


def open_settings(settings: StateSettings) -> StateBackend:
    """Return an initialized backend.

    Raises:
        SeeknalError: As `StateBackendFactory.create` and `StateBackend.initialize`.
    """
    if settings.backend == "database" and "db_path" in settings.options:
        durable.make_directory(Path(settings.options["db_path"]).parent)
    opened = StateBackendFactory.create(settings.backend, **settings.options)
    try:
        opened.initialize()
    except BaseException:
        opened.close()
        raise
    return opened


def open_state_backend(
    project_path: str | os.PathLike[str] = ".", *, backend: str | None = None, database_url: str | None = None
) -> StateBackend:
    """Return the initialized backend of a project; the caller closes it.

    Args:
        project_path: The directory that holds ``seeknal_project.yml``.
        backend: Wins over the environment and the project file.
        database_url: The same.

    Raises:
        ConfigurationError: As `load_settings`.
        SeeknalError: As `StateBackend.initialize`.
    """
    return open_settings(load_settings(project_path, backend=backend, database_url=database_url))


def read_project(project: Path) -> dict[str, Any]:
    """Return what the project file says, its variables not yet replaced.

    Raises:
        ConfigurationError: It is missing, is not YAML, or has a key or a value that it cannot have.
    """
    path = project / PROJECT_FILE
    document: dict[str, Any] = _parsed(read_text(path), path, "safe")
    for key, value in document.items():
        if key in (*PLATFORM_KEYS, *RUNNER_KEYS):
            continue
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            raise ConfigurationError(
                f"{path}: there is no key {str(key)!r}",
                hint=f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(KEYS)}.",
            )
        kinds = {"state_options": dict, "version": (str, int, float)}.get(key, str)
        if value is not None and not isinstance(value, kinds):  # type: ignore[arg-type]
            wanted = "a mapping" if key == "state_options" else "text"
            raise ConfigurationError(f"{path}: {key} must be {wanted}", hint=f"Correct {key} in {path}.")
    return document


def edit_project(project: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of the project file, or remove those set to ``None``; comments and order stay. Atomic.

    Raises:
        ConfigurationError: It cannot be read.
        BackendUnavailableError: It cannot be written; the former file stands.
    """
    path = project / PROJECT_FILE
    write_project(project, edited(read_text(path), changes, path))


def edited(text: str, changes: Mapping[str, Any], path: Path) -> str:
    """Return the text of a project file with keys set, or removed where they are ``None``.

    Raises:
        ConfigurationError: It is not YAML; ``path`` names it.
    """
    from ruamel.yaml import YAML

    document = _parsed(text, path, "rt")
    for key, value in changes.items():
        if value is not None:
            document[key] = value
        elif key in document:
            del document[key]
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def write_project(project: Path, text: str) -> None:
    """Replace the text of the project file. Atomic.

    Raises:
        BackendUnavailableError: It cannot be written; the former file stands.
    """
    path = (project / PROJECT_FILE).resolve()
    with durable.unavailable(path, "write"):
        mode = path.stat().st_mode & 0o777
        durable.replace_file(path, text.encode())
        path.chmod(mode)  # what is replaced was its owner's to share
        durable.sync_directory(path.parent)


def expanded(value: Any, env: Mapping[str, str], path: Path) -> Any:
    """Return a value with every ``${NAME}`` in it read from the environment.

    Raises:
        ConfigurationError: A name is not set.
    """
    if isinstance(value, dict):
        return {key: expanded(item, env, path) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, env, path) for item in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in env:
            raise ConfigurationError(
                f"{path} uses ${{{name}}}, but {name} is not set", hint=f"Set the environment variable {name}."
            )
        return env[name]

    return _VARIABLE.sub(found, value)


def read_text(path: Path) -> str:
    """Return the text of a project file.

    Raises:
        ConfigurationError: It is missing, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(
            f"{path.parent} is not a Seeknal project: it has no {PROJECT_FILE}",
            hint="Make one with `seeknal init`, or name the project with --project-path.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}", hint="Check the file.") from error


def _parsed(text: str, path: Path, kind: str) -> Any:
    # Imported here: a program that opens its store by name needs no YAML.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ=kind, pure=True)
    if kind == "rt":
        yaml.preserve_quotes = True
    try:
        document = yaml.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}, line {line}: {error.problem}", hint="Correct the YAML.") from None
    except YAMLError:
        raise ConfigurationError(f"{path} is not YAML", hint="Correct the file.") from None
    if document is None:
        document = yaml.load("{}")
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}, line 1: it is not a mapping", hint=f"Its keys are {', '.join(KEYS)}.")
    return document


def _canonical(name: str) -> str:
    return "database" if name == "sqlite" else name


def _options_of(document: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """Return the project's ``state_options``, if they were written for this backend."""
    named = document.get("state_backend") or ("database" if document.get("database_url") else "file")
    return dict(document.get("state_options") or {}) if _canonical(named) == chosen else {}


def _located(backend: str, options: dict[str, Any], project: Path, env: Mapping[str, str]) -> dict[str, Any]:
    if backend == "file":
        options.setdefault("base_path", "target")
    if backend == "database" and "url" not in options:
        options.setdefault("db_path", "target/state.db")
    for key in ("base_path", "db_path"):
        if key in options:
            if not isinstance(options[key], str):
                raise ConfigurationError(f"state_options.{key} is not text", hint=f"Write `{key}: path`.")
            options[key] = str(project / options[key])
    url = options.get("url")
    if isinstance(url, str):
        if url.startswith("sqlite:///") and "?" not in url and ":memory:" not in url:
            del options["url"]
            options["db_path"] = str(project / unquote(url.removeprefix("sqlite:///")))
        elif env.get("TURSO_AUTH_TOKEN") and is_libsql(url) and not has_secret(url):
            options.setdefault("token", env["TURSO_AUTH_TOKEN"])
    return options


def path_within(value: object, project: Path) -> str:
    """Return a path as the project file would say it; what does not lie in the project stays as it is."""
    text = str(value)
    return text.removeprefix(f"{project}{os.sep}") or text
