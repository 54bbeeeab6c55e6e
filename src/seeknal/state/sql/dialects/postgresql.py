"""PostgreSQL through psycopg 3: a transaction is one pipeline, and so one round trip."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg import errors as failures
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Pool,
    Table,
    create_engine,
    inspect,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from seeknal.errors import AccessDeniedError, BackendUnavailableError, StateBackendError
from seeknal.state.sql.address import Address
from seeknal.state.sql.dialects.base import (
    RIGHTS,
    BusyError,
    Change,
    Command,
    Cursor,
    Dialect,
    DisconnectedError,
    Limits,
    RefusedError,
    Rows,
    is_readable,
    missing_tables,
    refused_statement,
    unreachable,
)
from seeknal.state.sql.tables import Tables

T = TypeVar("T")

DURABLE = """set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
ELSE current_setting('synchronous_commit') END, false)"""
"""What was acknowledged is on disk, whatever the server's default is; a stronger one stays.
Source: https://www.postgresql.org/docs/current/runtime-config-wal.html"""

ISOLATION = "set_config('default_transaction_isolation', 'read committed', false)"

NO_JIT = "set_config('jit', 'off', false)"
"""Compiling a statement takes longer than to run it: all of ours are look-ups by an index, however much the planner
thinks that they may cost. Source: https://www.postgresql.org/docs/current/jit-decision.html"""

IN_ORDER = "set_config('enable_bitmapscan', 'off', false)"
"""Rows come from an index in its order, and the first that fits ends the search. The planner takes a condition on
another table for rare, and so would read and sort all successes of a node: 760 ms instead of 10 for a cleanup to judge
a run, in a store of 100,000 states. Without statistics it would read the index entry of every success of 10,000,000,
or start workers to load a run. Source: https://www.postgresql.org/docs/current/runtime-config-query.html"""

SNAPSHOT_IDLE_MS = 3_600_000
"""How long who reads a snapshot may do something else, such as wait for a slow pipe. Meanwhile nothing that others
delete can be vacuumed."""

POLL_S = 0.1
"""How often a wait looks for Ctrl-C."""

KEEPALIVES: dict[str, Any] = {"keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
"""A peer that vanished without a word is known within half a minute."""

_failures = itertools.count()
"""Makes the text of each rollback new to psycopg. It then forgets which statements it has prepared, as it must: those
of an aborted pipeline, which the server never saw, are among them.
Source: psycopg's ``PrepareManager``, which looks at the result of a text only when it is new."""

SERVERS_KEEPALIVES = ", ".join(
    f"set_config('tcp_keepalives_{name}', '{value}', false)"
    for name, value in {"idle": 5, "interval": 2, "count": 3}.items()
)
"""The server knows it sooner: until then it holds the locks of a pipeline whose rest does not arrive. No other time
limit of it counts within a pipeline. Source: https://www.postgresql.org/docs/current/runtime-config-connection.html"""

_BUSY = (failures.SerializationFailure, failures.DeadlockDetected, failures.LockNotAvailable)
_GOING = (
    failures.AdminShutdown,
    failures.CrashShutdown,
    failures.IdleInTransactionSessionTimeout,
    failures.IdleSessionTimeout,
)
_NOT_YET = (failures.CannotConnectNow, failures.TooManyConnections, failures.ReadOnlySqlTransaction)
_DENIED = (failures.InvalidAuthorizationSpecification, failures.InvalidPassword)


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for an answer until ``answer_s`` have passed, and not for ever."""

    answer_s: float = 30.0

    def wait(self, gen: PQGen[T], interval: float = POLL_S, timeout: float | None = None) -> T:
        """Drive an exchange with the server.

        Raises:
            psycopg.OperationalError: The server did not answer in time; the connection is closed, since an answer
                that came later would be taken for another's.
        """
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except failures._WaitTimeout:
            self.close()
            raise psycopg.OperationalError(f"no answer within {self.answer_s:g} s") from None


class PostgresqlDialect(Dialect):
    """A PostgreSQL server, version 12 or later, at READ COMMITTED."""

    name = "PostgreSQL"
    sql = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
    has_schemas: ClassVar[bool] = True
    writes_alone: ClassVar[bool] = True
    driver_error = psycopg.Error

    def connect(self, address: Address, limits: Limits) -> Any:
        """Connect; a server that an old link leads to, and which only reads, counts as not reached."""
        connection = _Connection.connect(
            address.url,
            autocommit=True,
            connect_timeout=max(2, round(limits.connect_s)),  # libpq takes no less
            fallback_application_name="seeknal",
            **KEEPALIVES,
        )
        connection.answer_s = limits.answer_s
        settings = (_patience(limits.lock_ms), ISOLATION, DURABLE, NO_JIT, IN_ORDER, SERVERS_KEEPALIVES)
        connection.execute(f"SELECT {', '.join(settings)}")
        return connection

    def wait_at_most(self, connection: Any, answer_s: float) -> None:
        """Set it for each exchange."""
        connection.answer_s = answer_s

    def has_ended(self, connection: Any) -> bool:
        """Look at its socket; TLS may have something to say of its own."""
        return connection.closed or (not connection.pgconn.ssl_in_use and is_readable(connection.fileno()))

    def wait_for_locks(self, connection: Any, lock_ms: int) -> None:
        """Set it for the session."""
        connection.execute(f"SELECT {_patience(lock_ms)}")

    def engine(self, pool: Pool) -> Engine:
        """Return SQLAlchemy's engine."""
        return create_engine("postgresql+psycopg://", pool=pool)

    def begin_snapshot(self, connection: Any) -> Cursor:
        """Begin a transaction whose statements all see what the first one sees."""
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(f"SELECT set_config('idle_in_transaction_session_timeout', '{SNAPSHOT_IDLE_MS}', true)")
        cursor: Cursor = connection.cursor()
        return cursor

    def run(self, connection: Any, commands: Sequence[Command]) -> list[Rows]:
        """Run commands in one pipeline. A demand that is not met divides by zero, and nothing after it runs."""
        sent: list[Any] = []
        first: list[psycopg.Error] = []
        try:
            with connection.pipeline():
                try:
                    connection.cursor().execute("BEGIN")
                    for command in commands:
                        sent.append(connection.cursor())
                        sql = _demanding(command.sql) if command.is_demand else command.sql
                        sent[-1].execute(sql, command.parameters)
                    connection.cursor().execute("COMMIT")
                except psycopg.Error as error:  # kept, since psycopg logs one that leaves the block
                    first.append(error)
        except psycopg.Error as error:
            first.append(error)
        except BaseException:
            connection.close()  # interrupted: what comes next on this connection would not be ours
            raise
        if first:
            if not connection.closed and connection.info.transaction_status is not TransactionStatus.IDLE:
                with contextlib.suppress(psycopg.Error):  # what went wrong first is what is told
                    connection.execute(f"ROLLBACK -- {next(_failures)}")
            if isinstance(first[0], failures.DivisionByZero | psycopg.IntegrityError):
                raise RefusedError(sum(cursor.pgresult is not None for cursor in sent)) from first[0]
            raise first[0]
        return [cursor.fetchall() for cursor, command in zip(sent, commands, strict=True) if command.is_asked]

    def classify(self, error: Exception, location: str, committing: bool) -> StateBackendError:
        """Return the typed error. Source: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
        if isinstance(error, _BUSY):
            return BusyError(f"{location} is busy: {_first_line(error)}", hint="Repeat the call.")
        if isinstance(error, _NOT_YET):
            return DisconnectedError(
                f"{location} takes no work now: {_first_line(error)}",
                hint="Is it starting, full, or a standby? Repeat the call, or point to the primary.",
            )
        if isinstance(error, _DENIED):
            return AccessDeniedError(
                f"{location} does not let this user in: {_first_line(error)}", hint="Check the user and the password."
            )
        if isinstance(error, failures.InsufficientPrivilege):
            return AccessDeniedError(
                f"{location} refuses a statement: {_first_line(error)}",
                hint="Grant it to this role; `seeknal state schema --sql` prints what a store needs.",
            )
        if isinstance(error, failures.UndefinedTable | failures.UndefinedColumn | failures.InvalidSchemaName):
            return missing_tables(location, _first_line(error))
        if isinstance(error, psycopg.IntegrityError):  # outside a transaction, whose steps it refuses
            return BusyError(f"{location} is busy: {_first_line(error)}", hint="Repeat the call.")
        if isinstance(error, failures.QueryCanceled):
            return BusyError(f"{location} stopped a statement: {_first_line(error)}", hint="Repeat the call.")
        state = getattr(error, "sqlstate", None) or ""
        if isinstance(error, _GOING) or not state or state.startswith("08"):
            if "authentication" in str(error) or "no pg_hba.conf entry" in str(error):
                return AccessDeniedError(
                    f"{location} does not let this user in: {_first_line(error)}",
                    hint="Check the user and the password.",
                )
            if 'database "' in str(error) and "does not exist" in str(error):
                return BackendUnavailableError(
                    f"{location} cannot be opened: {_first_line(error)}", hint="Create the database, or name another."
                )
            if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                return refused_statement(location, _first_line(error))
            return unreachable(location, _first_line(error), committing)
        return refused_statement(location, _first_line(error))

    def insert(self, table: Table) -> Any:
        """Return PostgreSQL's insert."""
        return insert(table)

    def overwriting(self, row: Any, keys: Sequence[str], change: Change) -> Any:
        """Return ``INSERT ... ON CONFLICT DO UPDATE``."""
        return row.on_conflict_do_update(index_elements=keys, set_=change(row.excluded))

    def leaving(self, row: Any) -> Any:
        """Return ``INSERT ... ON CONFLICT DO NOTHING``."""
        return row.on_conflict_do_nothing()

    def now_us(self) -> ColumnElement[int]:
        """Return the server's clock at this very moment, not at the beginning of the transaction."""
        return literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

    def draw(self, receipts: Table) -> ColumnElement[int]:
        """Return the next value of the sequence behind the receipts' numbers."""
        return literal_column(f"nextval('{_numbers(receipts)}')")

    def raise_number(self, receipts: Table) -> Sequence[Executable]:
        """Set the sequence, never back."""
        name = _numbers(receipts)
        highest = f"GREATEST(CAST(:least AS bigint), (SELECT last_value FROM {name}))"
        return [text(f"SELECT setval('{name}', {highest})")]

    def has_table(self, table: Table) -> str:
        """Return a query for whether a table is there, in the schema or on the search path."""
        return f"SELECT CASE WHEN to_regclass('{_qualified(table)}') IS NULL THEN 0 ELSE 1 END"

    @contextlib.contextmanager
    def changing(self, connection: Connection, tables: Tables) -> Iterator[None]:
        """Hold an advisory lock of the schema, which is made if it is missing."""
        schema = tables.metadata.schema
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('seeknal {schema or ''}'))")
        if schema and not inspect(connection).has_schema(schema):
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        yield
        connection.commit()

    def missing_rights(self, cursor: Cursor, tables: Sequence[Table]) -> list[str]:
        """Ask for all of them in one query."""
        names = ", ".join(f"('{_qualified(table)}')" for table in tables)
        wanted = ", ".join(f"('{right}')" for right in RIGHTS)
        tables_lacking = (
            f"SELECT r.name || ' on ' || t.name FROM (VALUES {names}) AS t(name), (VALUES {wanted}) AS r(name) "
            "WHERE NOT has_table_privilege(t.name, r.name)"
        )
        receipts = _receipts(tables)
        numbers = _numbers(receipts)
        cursor.execute(
            f"{tables_lacking} UNION ALL SELECT 'USAGE on sequence {numbers}' "
            f"WHERE NOT has_sequence_privilege('{numbers}', 'USAGE')"
        )
        return sorted(row[0] for row in cursor.fetchall())

    def fence(self, tables: Sequence[Table]) -> Sequence[Executable]:
        """Lock the receipts, which every commit writes first: so nobody who waits here holds anything else.

        A statement locks its tables before it looks at them, so one that waits finds the store superseded.
        Source: https://www.postgresql.org/docs/current/explicit-locking.html
        """
        receipts = _receipts(tables)
        return [text(f"LOCK TABLE {_qualified(receipts)} IN SHARE ROW EXCLUSIVE MODE")]


def _patience(lock_ms: int) -> str:
    """Return what sets how long to wait for locks, and for the next request within a transaction."""
    names = ("lock_timeout", "idle_in_transaction_session_timeout")
    return ", ".join(f"set_config('{name}', '{lock_ms}', false)" for name in names)


def _receipts(tables: Sequence[Table]) -> Table:
    return next(table for table in tables if table.name.endswith("receipts"))


def _qualified(table: Table) -> str:
    return f"{table.schema}.{table.name}" if table.schema else table.name


def _demanding(sql: str) -> str:
    if sql.startswith("SELECT"):
        return f"SELECT 1 / count(*) FROM ({sql}) AS demanded"
    return f"WITH demanded AS ({sql} RETURNING 1) SELECT 1 / count(*) FROM demanded"


def _numbers(receipts: Table) -> str:
    """Return the sequence that PostgreSQL made for the serial column."""
    return f"{_qualified(receipts)}_number_seq"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
