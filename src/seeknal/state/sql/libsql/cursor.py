"""The rows of one statement, as PEP 249 hands them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from seeknal.state.sql.libsql.errors import ProgrammingError
from seeknal.state.sql.libsql.hrana import Result

_NOTHING = Result(rowcount=-1)


class Session(Protocol):
    """What a cursor needs of its connection."""

    def run(self, sql: str, parameters: Sequence[Any] = ...) -> Result:
        """Run one statement."""

    def run_many(self, sql: str, sets: Sequence[Sequence[Any]]) -> int:
        """Run one statement with many sets of parameters."""

    def require_open(self) -> None:
        """Raise once it is closed."""


class Cursor:
    """What one statement returned.

    Attributes:
        arraysize: How many rows `fetchmany` returns.
        rowcount: How many rows the last statement changed or returned; -1 before the first.
        lastrowid: Of the last INSERT, or ``None``.
        description: The names of the columns, each as the first of seven; ``None`` if nothing is returned.
    """

    arraysize = 1

    def __init__(self, connection: Session) -> None:
        self.connection = connection
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self._is_closed = False

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run one statement.

        Raises:
            DatabaseError: As `Connection.run`.
        """
        self._require_open()
        self._show(_NOTHING)
        self._show(self.connection.run(sql, parameters))
        return self

    def executemany(self, sql: str, seq_of_parameters: Sequence[Sequence[Any]]) -> Cursor:
        """Run one statement with each set of parameters, all or none of them.

        Raises:
            DatabaseError: As `Connection.run_many`.
        """
        self._require_open()
        self._show(_NOTHING)
        self.rowcount = self.connection.run_many(sql, list(seq_of_parameters))
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or ``None``."""
        self._require_open()
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows."""
        self._require_open()
        return list(islice(self._rows, self.arraysize if size is None else size))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        self._require_open()
        return list(self._rows)

    def close(self) -> None:
        """Forget the rows; the cursor cannot be used any more."""
        self._rows = iter(())
        self._is_closed = True

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self._require_open()
        return self._rows

    def _show(self, result: Result) -> None:
        self._rows = iter(result.rows)
        self.rowcount = result.rowcount
        self.lastrowid = result.lastrowid
        self.description = tuple((name, *[None] * 6) for name in result.columns) or None

    def _require_open(self) -> None:
        if self._is_closed:
            raise ProgrammingError("the cursor is closed")
        self.connection.require_open()
