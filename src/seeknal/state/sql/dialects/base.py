"""What is asked of a kind of database. Each kind has a module beside this one; no other asks which one it is on."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Engine, Executable, Pool, Select, Table, bindparam
from sqlalchemy.engine.interfaces import Dialect as SqlDialect

from seeknal.errors import (
    BackendUnavailableError,
    CommitUnknownError,
    CorruptStateError,
    SeeknalError,
    StateBackendError,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from seeknal.clock import Clock
    from seeknal.state.sql.address import Address
    from seeknal.state.sql.tables import Tables

T = TypeVar("T")


class Cursor(Protocol):
    """The part of a DB-API cursor that is used."""

    rowcount: int

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def fetchone(self) -> Any:
        """Return the next row."""

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""


class BusyError(BackendUnavailableError):
    """Other writers are in the way; nothing was written, and the same call may be repeated at once."""


class DisconnectedError(BackendUnavailableError):
    """The server was not reached, or went away before anything could be written; a new connection may do better."""


class RefusedError(Exception):
    """A step that demands something did not get it, and the transaction was rolled back.

    Attributes:
        at: The index of the step.
    """

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def is_readable(fileno: int) -> bool:
    """Return whether a socket on which nothing was asked has something to say: of a database, that it is over."""
    waiting = select.poll()
    waiting.register(fileno, select.POLLIN)
    return bool(waiting.poll(0))


def unreachable(location: str, what: str, committing: bool) -> StateBackendError:
    """Return the error of a connection that could not be made, or broke."""
    if committing:
        return CommitUnknownError(
            f"the answer of {location} to a commit was lost: {what}",
            hint="Read the record back to see whether it was written.",
        )
    return DisconnectedError(
        f"{location} cannot be reached: {what}", hint="Check that the server runs, and the network."
    )


def missing_tables(location: str, what: str) -> CorruptStateError:
    """Return the error of a store that lacks a table or a column."""
    return CorruptStateError(
        f"{location} does not hold what a state store must: {what}",
        hint="Was it initialized? If it was, restore it from a backup.",
        location=location,
    )


def refused_statement(location: str, what: str) -> BackendUnavailableError:
    """Return the error of a statement that failed for no reason that is known here."""
    return BackendUnavailableError(
        f"{location} refused a statement: {what}", hint="Repeat the call once the cause is gone."
    )


class Command(NamedTuple):
    """A statement as it is sent.

    Attributes:
        sql: The text, with the marks of the driver.
        parameters: In their order.
        is_demand: Whether it has to touch or return a row.
        is_asked: Whether its rows are wanted.
        many: The parameters of each of many executions, where the dialect `runs_many`.
    """

    sql: str
    parameters: tuple[Any, ...]
    is_demand: bool = False
    is_asked: bool = False
    many: Sequence[tuple[Any, ...]] = ()


RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""What a user needs on each table."""

Rows = list[tuple[Any, ...]]
Change = Callable[[Mapping[str, Any]], dict[str, Any]]


class Limits(NamedTuple):
    """How long one attempt may wait.

    Attributes:
        connect_s: For a connection.
        answer_s: For the answer to what was sent.
        lock_ms: For other writers, on the server; shorter, so that its word comes first.
    """

    connect_s: float
    answer_s: float
    lock_ms: int


class Dialect(ABC):
    """One kind of database, and its driver.

    Attributes:
        name: As messages say it.
        sql: SQLAlchemy's compiler for it.
        is_shared: Whether a network lies in between. Then leases are measured by the server's clock, each
            commit leaves a receipt, and sequences are made of the numbers of receipts.
        locks_rows: Whether writers lock rows, not the whole store.
        has_schemas: Whether tables live in schemas of a database, which a name can choose.
        has_atomic_ddl: Whether a transaction can make tables, all or none.
        runs_many: Whether its driver runs one statement with many rows at no more than the cost of the rows.
        writes_alone: Whether a guarded transition is one statement that commits itself.
        connections: How many one instance opens at most.
    """

    name: ClassVar[str]
    sql: SqlDialect
    is_shared: ClassVar[bool] = True
    locks_rows: ClassVar[bool] = True
    has_schemas: ClassVar[bool] = False
    has_atomic_ddl: ClassVar[bool] = True
    runs_many: ClassVar[bool] = False
    writes_alone: ClassVar[bool] = False
    connections: ClassVar[int] = 8
    driver_error: type[Exception]

    # ---- connections ----

    @abstractmethod
    def connect(self, address: Address, limits: Limits) -> Any:
        """Open a DB-API connection on which each statement commits itself."""

    @abstractmethod
    def engine(self, pool: Pool) -> Engine:
        """Return SQLAlchemy's engine over a pool of such connections, for changes of the schema."""

    def cursor(self, connection: Any) -> Cursor:
        """Return a cursor for statements that read."""
        cursor: Cursor = connection.cursor()
        return cursor

    def wait_at_most(self, connection: Any, answer_s: float) -> None:
        """Let a connection wait so long for each answer from now on; sends nothing."""
        return

    def has_ended(self, connection: Any) -> bool:
        """Return whether the server is known to have ended an idle connection; asks nobody."""
        return False

    def wait_for_locks(self, connection: Any, lock_ms: int) -> None:
        """Let the server wait so long for other writers from now on."""
        return

    # ---- transactions ----

    def in_turn(self, work: Callable[[Any], T], connection: Any, clock: Clock, lock_ms: int) -> T:
        """Call ``work`` with a connection once it is this writer's turn, for which a server lets it wait itself.

        Args:
            work: May run again if it was refused because another writer was busy.
            connection: What it is given.
            clock: What waiting is measured by.
            lock_ms: How long it may wait.
        """
        return work(connection)

    @abstractmethod
    def begin_snapshot(self, connection: Any) -> Cursor:
        """Begin a transaction that reads what is committed now, until the connection is closed; return its cursor."""

    def lock_ranges(self, connection: Any) -> None:
        """Let what a transaction of this connection reads for an update keep others from inserting between it."""
        return

    @abstractmethod
    def run(self, connection: Any, commands: Sequence[Command]) -> list[Rows]:
        """Run commands in one transaction and commit it; return the rows of each one that was asked.

        Raises:
            RefusedError: A demand was not met, or the command broke a constraint; everything was rolled back.
        """

    @abstractmethod
    def classify(self, error: Exception, location: str, committing: bool) -> SeeknalError:
        """Return the typed error of a driver's exception.

        Args:
            error: A `driver_error`.
            location: Where the store is, in words.
            committing: Whether what failed could have been committed.
        """

    # ---- pieces of statements ----

    @abstractmethod
    def insert(self, table: Table) -> Any:
        """Return this database's insert, for `overwriting` and `leaving`."""

    @abstractmethod
    def overwriting(self, row: Any, keys: Sequence[str], change: Change) -> Any:
        """Return an insert that changes the row that has these keys already; ``change`` is given the new values."""

    @abstractmethod
    def leaving(self, row: Any) -> Any:
        """Return an insert that leaves a row alone that has its keys already."""

    def held(self, rows: Select[Any]) -> Select[Any]:
        """Return a selection of the store's row which still stands when the transaction commits."""
        return rows

    def now_us(self) -> ColumnElement[int]:
        """Return the clock that leases are measured by, in microseconds: the caller's ticks, or the server's."""
        return bindparam("now_us", type_=BigInteger)

    def draw(self, receipts: Table) -> ColumnElement[int]:
        """Return the next number of a receipt, for a transition that is a single statement."""
        raise AssertionError(f"{self.name} has no single statement for it")

    def raise_number(self, receipts: Table) -> Sequence[Executable]:
        """Return statements after which receipts are numbered from above ``:least``; for a migration."""
        return ()

    # ---- the schema ----

    def make_place(self, address: Address) -> None:
        """Make what the database is kept in, where that is for a client to make.

        Raises:
            BackendUnavailableError: It cannot be.
        """
        return

    def settle(self, cursor: Cursor) -> None:
        """Set what the database itself keeps."""
        return

    @abstractmethod
    def has_table(self, table: Table) -> str:
        """Return a query for whether a table is there: 0 or 1."""

    @abstractmethod
    def changing(self, connection: Connection, tables: Tables) -> AbstractContextManager[None]:
        """Begin a transaction beside which nobody else changes this schema; commit it at the end of the block."""

    def collation(self, cursor: Cursor) -> str | None:
        """Return what compares text byte for byte on this server, where tables have to be told."""
        return None

    def missing_rights(self, cursor: Cursor, tables: Sequence[Table]) -> list[str]:
        """Return what this user is not granted and needs, each like ``UPDATE on runs``; empty if nothing."""
        return []

    def fence(self, tables: Sequence[Table]) -> Sequence[Executable]:
        """Return what lets all writers finish and makes others wait, for a transaction that supersedes the store."""
        return ()
