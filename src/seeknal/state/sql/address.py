"""Which database a ``db_path`` or a URL names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from seeknal.errors import ConfigurationError, InvalidStateUrlError
from seeknal.state.url import redact

DEFAULT_PATH = "target/state.db"
KINDS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "libsql": "libsql",
    "turso": "libsql",
    "http": "libsql",
    "https": "libsql",
    "ws": "libsql",
    "wss": "libsql",
}
"""Of each scheme."""

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9_.-]+)?://(.*)", re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_MYSQL_OPTIONS = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_mode", "unix_socket")
SSL_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")


class Address(NamedTuple):
    """Where a database is.

    Attributes:
        kind: ``sqlite``, ``postgresql``, ``mysql`` or ``libsql``.
        location: In words, without secrets.
        path: The file of a SQLite database, absolute.
        url: What was given, for a driver that reads it itself. Holds secrets.
        options: What the driver is told besides. Holds secrets.
    """

    kind: str
    location: str
    path: Path | None = None
    url: str = ""
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to

    def __repr__(self) -> str:
        return f"Address({self.location!r})"


def address_of(db_path: str | os.PathLike[str] | None, url: str | None, token: str | None = None) -> Address:
    """Return where a database is.

    Raises:
        ConfigurationError: A path and a URL are given, or a URL of something else.
        InvalidStateUrlError: The URL cannot be read. No message shows its secrets.
    """
    if ":memory:" in str(db_path or url or ""):
        raise ConfigurationError(
            "a SQLite store in memory is gone with its connection", hint="Use the backend `memory`, or name a file."
        )
    if url is None:
        return _file(Path(DEFAULT_PATH if db_path is None else db_path))
    if db_path is not None:
        raise ConfigurationError("db_path and url cannot be given together", hint="Pass the one or the other.")
    match = _SCHEME.fullmatch(url)
    if match is None:
        raise InvalidStateUrlError(
            f"{redact(url)!r} is not a state URL",
            hint="Write it like sqlite:///path, postgresql://host/name, mysql://host/name or libsql://host.",
        )
    scheme, rest = match[1].lower(), match[2].strip()
    if scheme not in KINDS:
        raise ConfigurationError(
            f"{redact(url)!r} names no database that can hold a state",
            hint="Use sqlite, postgresql, mysql, libsql, http or https.",
        )
    kind = KINDS[scheme]
    if kind == "sqlite":
        return _file(_path_in(url, rest))
    if kind == "postgresql":
        return _postgresql(f"postgresql://{rest}")
    return _mysql(f"mysql://{rest}") if kind == "mysql" else _libsql(url.strip(), token)


def table_names(name: str | None, *, has_schemas: bool) -> tuple[str | None, str]:
    """Return the schema that a name chooses, where the database has such, and the prefix of the tables.

    Raises:
        ConfigurationError: The name is not one.
    """
    if name is None:
        return None, ""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"schema is {name!r}; it must be up to 31 lower case letters, digits and underscores, a letter first",
            hint="Choose a name like my_project.",
        )
    return (name, "") if has_schemas else (None, f"{name}_")


def _file(path: Path) -> Address:
    found = path.absolute()
    return Address("sqlite", str(found), path=found)


def _path_in(url: str, rest: str) -> Path:
    if "?" in rest:
        raise InvalidStateUrlError(f"{redact(url)!r} has parameters, which SQLite does not take", hint="Remove them.")
    path = unquote(rest)
    if not path.startswith("/") or path == "/":
        raise InvalidStateUrlError(
            f"{redact(url)!r} names no file", hint="Write three slashes for a relative path: sqlite:///target/state.db."
        )
    return Path(path[1:])


def _postgresql(url: str) -> Address:
    _check_user(url)
    try:
        database = urlsplit(url).path.strip("/")  # nothing else is looked at: libpq also takes several hosts
    except ValueError:
        raise _unreadable(url) from None
    if not database:
        raise InvalidStateUrlError(f"{redact(url)!r} names no database", hint="Add /NAME to the URL.")
    return Address("postgresql", redact(url), url=url)


def _mysql(url: str) -> Address:
    _check_user(url)
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise _unreadable(url) from None
    database = unquote(parts.path.strip("/"))
    if not database or "/" in database:
        raise InvalidStateUrlError(f"{redact(url)!r} names no database", hint="Add /NAME to the URL.")
    options: dict[str, Any] = {
        "host": parts.hostname or "127.0.0.1",
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": database,
        "port": port,
    }
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        known = name in _MYSQL_OPTIONS and (name != "ssl_mode" or value.lower() in SSL_MODES)
        if not known and (name, value) != ("charset", "utf8mb4"):  # it is always that
            raise InvalidStateUrlError(
                f"{redact(url)!r} has a parameter {name!r} that is not known, or a value that it cannot have",
                hint=f"Known: {', '.join(_MYSQL_OPTIONS)}; ssl_mode is one of {', '.join(SSL_MODES)}.",
            )
        if known:
            options[name] = value.lower() if name == "ssl_mode" else value
    return Address("mysql", redact(url), options=options)


def _libsql(url: str, token: str | None) -> Address:
    # Imported here: what reads these URLs stands beside the client, which needs httpx; the others do not.
    from seeknal.state.sql.libsql.endpoint import endpoint

    found = endpoint(url, token)
    return Address("libsql", found.url, options={"endpoint": found})


def _check_user(url: str) -> None:
    """Raise if the user part holds what ends it for some readers: they would take the rest for the host."""
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :].partition("?")[0]
    if authority.count("@") > 1 or "@" in path or ("@" in rest and "@" not in authority):
        raise _unreadable(url)


def _unreadable(url: str) -> InvalidStateUrlError:
    return InvalidStateUrlError(
        f"{redact(url)!r} cannot be read", hint="Percent-encode special characters of the password."
    )
