"""libSQL and Turso over Hrana: a transaction is one batch, and so one request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Connection, Engine, Executable, Pool, Table, create_engine, literal_column, text
from sqlalchemy.dialects import sqlite

from seeknal.errors import (
    AccessDeniedError,
    ConfigurationError,
    InvalidFieldError,
    SeeknalError,
)
from seeknal.state.sql.address import Address
from seeknal.state.sql.dialects.base import (
    BusyError,
    Change,
    Command,
    Cursor,
    Dialect,
    DisconnectedError,
    Limits,
    RefusedError,
    Rows,
    missing_tables,
    refused_statement,
    unreachable,
)
from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.dialect import NAME
from seeknal.state.sql.tables import Tables


class _FreshCursor:
    """A cursor whose statements read what the primary has, whichever server of a group is asked."""

    def __init__(self, connection: dbapi.Connection) -> None:
        self._connection = connection
        self._rows: Rows = []
        self.rowcount = -1

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> None:
        """Run one statement in a transaction that only reads."""
        self._rows = self._connection.batch([(sql, parameters)], read_only=True)[0].rows

    def fetchone(self) -> Any:
        """Return the next row."""
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> Rows:
        """Return the remaining rows."""
        rows, self._rows = self._rows, []
        return rows


class LibsqlDialect(Dialect):
    """A libSQL server, of Turso or one's own. It has one writer at a time."""

    name = "libSQL"
    sql = sqlite.dialect(paramstyle="qmark")
    locks_rows: ClassVar[bool] = False
    driver_error = dbapi.Error

    def connect(self, address: Address, limits: Limits) -> Any:
        """Return a connection; nothing is sent yet."""
        return dbapi.connect(address.options["endpoint"], timeout_s=limits.answer_s)

    def wait_at_most(self, connection: Any, answer_s: float) -> None:
        """Set it for each request."""
        connection.timeout_s = answer_s

    def engine(self, pool: Pool) -> Engine:
        """Return SQLAlchemy's engine."""
        return create_engine(f"sqlite+{NAME}://", pool=pool)

    def cursor(self, connection: Any) -> Cursor:
        """Return a cursor for statements that read."""
        return _FreshCursor(connection)

    def begin_snapshot(self, connection: Any) -> Cursor:
        """Begin to read; the server gives it up if it is not asked anything for ten seconds."""
        connection.run("BEGIN")
        cursor: Cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM sqlite_master")
        cursor.fetchall()
        return cursor

    def run(self, connection: Any, commands: Sequence[Command]) -> list[Rows]:
        """Run commands in one batch."""
        statements = [(command.sql, command.parameters) for command in commands]
        demands = [index for index, command in enumerate(commands) if command.is_demand]
        try:
            results = connection.batch(statements, demands=demands)
        except (dbapi.UnmetDemandError, dbapi.IntegrityError) as error:
            if error.step is None:
                raise
            raise RefusedError(error.step) from error
        return [result.rows for result, command in zip(results, commands, strict=True) if command.is_asked]

    def classify(self, error: Exception, location: str, committing: bool) -> SeeknalError:
        """Return the typed error of what the client has told apart."""
        what = str(error)
        if isinstance(error, dbapi.BusyError | dbapi.TransactionLostError):
            return BusyError(f"{location} is busy: {what}", hint="Repeat the call.")
        if isinstance(error, dbapi.OutcomeUnknownError):
            return unreachable(location, what, committing)
        if isinstance(error, dbapi.UnavailableError):
            return DisconnectedError(
                f"{location} cannot be reached: {what}", hint="Check that the server runs, and the network."
            )
        if isinstance(error, dbapi.AuthenticationError):
            return AccessDeniedError(
                f"{location} does not take this token: {what}",
                hint="Is there one, has it expired, and is it of this database? Set TURSO_AUTH_TOKEN.",
            )
        if isinstance(error, dbapi.ForbiddenError):
            return AccessDeniedError(
                f"{location} refuses to write for this token: {what}", hint="Use a token that may write."
            )
        if isinstance(error, dbapi.TlsError | dbapi.EndpointError):
            return ConfigurationError(
                f"{location} is not a libSQL server as its URL says: {what}",
                hint="Check the host, the port, and whether it speaks TLS (https) or not (http).",
            )
        if isinstance(error, dbapi.DataError):
            return InvalidFieldError(f"{location} refuses a value: {what}", hint="Store less, or a reference to it.")
        if isinstance(error, dbapi.ProgrammingError):
            return missing_tables(location, what)
        return refused_statement(location, what)

    def insert(self, table: Table) -> Any:
        """Return SQLite's insert."""
        return sqlite.insert(table)

    def overwriting(self, row: Any, keys: Sequence[str], change: Change) -> Any:
        """Return ``INSERT ... ON CONFLICT DO UPDATE``."""
        return row.on_conflict_do_update(index_elements=keys, set_=change(row.excluded))

    def leaving(self, row: Any) -> Any:
        """Return ``INSERT ... ON CONFLICT DO NOTHING``."""
        return row.on_conflict_do_nothing()

    def now_us(self) -> ColumnElement[int]:
        """Return the server's clock, which has milliseconds."""
        return literal_column("CAST(unixepoch('subsec') * 1000000 AS INTEGER)")

    def raise_number(self, receipts: Table) -> Sequence[Executable]:
        """Set what SQLite counts from, never back. Source: https://www.sqlite.org/autoinc.html."""
        name = receipts.name
        return [
            text(
                "INSERT INTO sqlite_sequence (name, seq) "
                f"SELECT '{name}', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '{name}')"
            ),
            text(f"UPDATE sqlite_sequence SET seq = max(seq, :least) WHERE name = '{name}'"),
        ]

    def has_table(self, table: Table) -> str:
        """Return a query for whether a table is there."""
        return f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{table.name}'"

    @contextlib.contextmanager
    def changing(self, connection: Connection, tables: Tables) -> Iterator[None]:
        """Hold the database's write lock, which the transaction has from its beginning."""
        yield
        connection.commit()
