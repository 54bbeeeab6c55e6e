"""The kinds of databases, by name. A driver is imported when its kind is first asked for."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from seeknal.errors import MissingDriverError
from seeknal.state.sql.dialects.base import Dialect

KINDS = {
    "sqlite": ("seeknal.state.sql.dialects.sqlite:SqliteDialect", ""),
    "postgresql": ("seeknal.state.sql.dialects.postgresql:PostgresqlDialect", "postgres"),
    "mysql": ("seeknal.state.sql.dialects.mysql:MysqlDialect", "mysql"),
    "libsql": ("seeknal.state.sql.dialects.libsql:LibsqlDialect", "turso"),
}
"""To where each is, and the extra that installs its driver."""


@lru_cache
def dialect_of(kind: str) -> Dialect:
    """Return a kind of database; the same object each time.

    Raises:
        MissingDriverError: Its driver is not installed; the hint names the extra.
    """
    path, extra = KINDS[kind]
    module, _, name = path.partition(":")
    try:
        found: Dialect = getattr(import_module(module), name)()
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("seeknal."):
            raise
        raise MissingDriverError(
            f"a {kind} store needs {error.name}, which is not installed",
            hint=f"pip install 'seeknal-state[{extra}]'.",
        ) from error
    return found
