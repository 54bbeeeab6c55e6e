"""Statements, compiled once per dialect to SQL text and the order of its parameters.

SQLAlchemy builds them; the pooled DB-API connection executes them, which costs a tenth of
``Connection.execute`` and is what a node transition spends its time on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from sqlalchemy import ClauseElement

from seeknal.state.sql.dialects import SQLITE, Dialect

Row = tuple[Any, ...]
Params = Mapping[str, Any]


class Cursor(Protocol):
    """The part of a DB-API cursor that is used."""

    rowcount: int

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """Run one statement for each set of parameters."""

    def fetchone(self) -> Any:
        """Return the next row."""

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""


class Statement:
    """A statement with named parameters, compiled when it is first executed.

    Args:
        clause: What SQLAlchemy built.
        dialect: For which database.
    """

    def __init__(self, clause: ClauseElement, dialect: Dialect = SQLITE) -> None:
        self._clause = clause
        self._dialect = dialect
        self._compiled: tuple[str, list[str], dict[str, Any]] | None = None

    @property
    def sql(self) -> str:
        """The text, with positional marks."""
        return (self._compiled or self._compile())[0]

    def bind(self, params: Params) -> tuple[Any, ...]:
        """Return the parameters in the order of their marks."""
        _, order, fixed = self._compiled or self._compile()
        if fixed:
            params = {**fixed, **params}
        return tuple([params[name] for name in order])

    def run(self, cursor: Cursor, params: Params = {}) -> int:  # noqa: B006 - never written to
        """Execute it and return how many rows it touched."""
        cursor.execute(self.sql, self.bind(params))
        return cursor.rowcount

    def run_many(self, cursor: Cursor, many: Iterable[Params]) -> None:
        """Execute it for each set of parameters."""
        cursor.executemany(self.sql, [self.bind(params) for params in many])

    def one(self, cursor: Cursor, params: Params = {}) -> Row | None:  # noqa: B006
        """Execute it and return the first row."""
        cursor.execute(self.sql, self.bind(params))
        row: Row | None = cursor.fetchone()
        return row

    def all(self, cursor: Cursor, params: Params = {}) -> list[Row]:  # noqa: B006
        """Execute it and return all rows."""
        cursor.execute(self.sql, self.bind(params))
        return cursor.fetchall()

    def _compile(self) -> tuple[str, list[str], dict[str, Any]]:
        compiled = self._clause.compile(dialect=self._dialect.sql)
        order: list[str] = list(getattr(compiled, "positiontup", None) or ())
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._compiled = (str(compiled), order, fixed)
        return self._compiled
