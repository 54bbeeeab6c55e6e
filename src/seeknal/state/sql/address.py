"""Which file a ``db_path`` or a URL names, and what this version says to the others."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from seeknal.errors import ConfigurationError, InvalidStateUrlError, MissingDriverError
from seeknal.state.url import redact

DEFAULT_PATH = "target/state.db"
LATER = frozenset({"postgresql", "postgres", "mysql", "mariadb", "libsql", "http", "https"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9_.-]+)?://(.*)", re.DOTALL)


def database_path(db_path: str | os.PathLike[str] | None, url: str | None) -> Path:
    """Return the SQLite file, absolute.

    Raises:
        ConfigurationError: Both are given, or the URL names a database that this version does not speak to.
        InvalidStateUrlError: The URL cannot be read. No message shows its secrets.
    """
    if ":memory:" in str(db_path or url or ""):
        raise ConfigurationError(
            "a SQLite store in memory is gone with its connection", hint="Use the backend `memory`, or name a file."
        )
    if url is None:
        return Path(DEFAULT_PATH if db_path is None else db_path).absolute()
    if db_path is not None:
        raise ConfigurationError("db_path and url cannot be given together", hint="Pass the one or the other.")
    match = _SCHEME.fullmatch(url)
    if match is None:
        raise InvalidStateUrlError(f"{redact(url)!r} is not a state URL", hint="Write it like sqlite:///path.")
    scheme, rest = match[1].lower(), match[2]
    if scheme != "sqlite":
        kind = MissingDriverError if scheme in LATER else ConfigurationError
        raise kind(
            f"{redact(url)!r} cannot be opened: this version of the database backend speaks only to SQLite",
            hint="Use sqlite:///path, or db_path.",
        )
    if "?" in rest:
        raise InvalidStateUrlError(f"{redact(url)!r} has parameters, which SQLite does not take", hint="Remove them.")
    path = unquote(rest)
    if not path.startswith("/") or path == "/":
        raise InvalidStateUrlError(
            f"{redact(url)!r} names no file", hint="Write three slashes for a relative path: sqlite:///target/state.db."
        )
    return Path(path[1:]).absolute()
