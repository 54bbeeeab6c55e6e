"""SQLite: a file, its locks, and the codes of its errors."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Connection, Engine, Pool, Table, create_engine
from sqlalchemy.dialects import sqlite

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, CommitUnknownError, CorruptStateError, StateBackendError
from seeknal.state.sql.address import Address
from seeknal.state.sql.dialects.base import BusyError, Change, Command, Cursor, Dialect, Limits, RefusedError, Rows
from seeknal.state.sql.tables import Tables

T = TypeVar("T")

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
DRIVER_WAIT_MS = 8
"""How long SQLite itself waits: it asks again after 1, 2 and 5 ms. Then its pauses would grow, up to 100 ms, so that
who has waited longest would ask least often; they have no jitter, and some of its locks are refused without any.
Source: sqliteDefaultBusyCallback in https://www.sqlite.org/src/file/src/main.c."""

TURN_MS = 100
"""How long a call that finds the file busy asks again on the connection that it has: much cheaper than by way of the
pool. In between, a fork has its chance."""

PAUSE_S = 0.0005
"""Between two such attempts, before jitter; about as long as a commit takes."""

CACHE_KIB = 16384
"""What a connection keeps of the file at most. To look up the latest states of 500 nodes among ten million takes the
pages of 10 MiB, which SQLite's own 2,000 KiB would read again and again.
Source: https://www.sqlite.org/pragma.html#pragma_cache_size."""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT: "is damaged", sqlite3.SQLITE_NOTADB: "is not a SQLite database"}
_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Check that the path is a file, and who owns it and its directory."),
    sqlite3.SQLITE_READONLY: ("cannot be written", "Check who owns the file and its directory, or that it was moved."),
    sqlite3.SQLITE_PERM: ("may not be used", "Check who owns the file and its directory."),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "Free space on the disk and repeat the call."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "Check the disk: is it full, failing or gone?"),
    sqlite3.SQLITE_NOMEM: ("needs more memory than there is", "Free memory and repeat the call."),
}
BEGIN = "BEGIN IMMEDIATE"
"""The lock now, or waiting could end in SQLITE_BUSY_SNAPSHOT halfway."""


_creating = threading.Lock()
os.register_at_fork(before=_creating.acquire, after_in_parent=_creating.release, after_in_child=_creating.release)


class SqliteDialect(Dialect):
    """A file on this machine, in WAL mode."""

    name = "SQLite"
    sql = sqlite.dialect(paramstyle="qmark")
    is_shared: ClassVar[bool] = False
    locks_rows: ClassVar[bool] = False
    runs_many: ClassVar[bool] = True
    writes_alone: ClassVar[bool] = True
    driver_error = sqlite3.Error

    def connect(self, address: Address, limits: Limits) -> Any:
        """Open the file."""
        # No implicit transactions: a single statement commits itself, the rest says BEGIN.
        connection = sqlite3.connect(str(address.path), isolation_level=None, check_same_thread=False, timeout=0)
        try:
            connection.execute(f"PRAGMA busy_timeout = {min(limits.lock_ms, DRIVER_WAIT_MS)}")
            connection.execute(f"PRAGMA synchronous = {address.options['synchronous']}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def engine(self, pool: Pool) -> Engine:
        """Return SQLAlchemy's engine."""
        return create_engine("sqlite://", pool=pool)

    def begin_snapshot(self, connection: Any) -> Cursor:
        """Begin to read: beside a write-ahead log that stops no writer. Source: https://www.sqlite.org/wal.html."""
        cursor: Cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM sqlite_master")
        cursor.fetchall()
        return cursor

    def in_turn(self, work: Callable[[Any], T], connection: Any, clock: Clock, lock_ms: int) -> T:
        """Call ``work`` with a connection, again and again for a while as long as another writer has the file."""
        begun: int | None = None
        while True:
            try:
                return work(connection)
            except sqlite3.OperationalError as error:
                now = clock.ticks_us()
                begun = now if begun is None else begun
                if _code(error) not in _BUSY or now >= begun + min(lock_ms, TURN_MS) * 1000:
                    raise
            clock.sleep(PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret

    def run(self, connection: Any, commands: Sequence[Command]) -> list[Rows]:
        """Run commands in one transaction, one after the other."""
        asked: list[Rows] = []
        cursor = connection.cursor()
        cursor.execute(BEGIN)
        try:
            for index, command in enumerate(commands):
                try:
                    if command.many:
                        cursor.executemany(command.sql, command.many)
                        if command.is_demand and cursor.rowcount < len(command.many):
                            raise RefusedError(index)
                        continue
                    cursor.execute(command.sql, command.parameters)
                except sqlite3.IntegrityError as error:
                    raise RefusedError(index) from error
                rows = cursor.fetchall()
                if command.is_demand and not rows and cursor.rowcount < 1:
                    raise RefusedError(index)
                if command.is_asked:
                    asked.append(rows)
            cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
                cursor.execute("ROLLBACK")
            raise
        return asked

    def classify(self, error: Exception, location: str, committing: bool) -> StateBackendError:
        """Return the typed error. Source: https://www.sqlite.org/rescode.html."""
        code = _code(error)
        if code in _BUSY:
            return BusyError(
                f"{location} is busy: another writer did not finish in time",
                hint="Repeat the call, or raise busy_timeout_ms.",
            )
        if code in _DAMAGED:
            return CorruptStateError(
                f"{location} {_DAMAGED[code]}: {error}",
                hint="Restore it from a backup, or name another file.",
                location=location,
            )
        if code == sqlite3.SQLITE_IOERR and committing:
            return CommitUnknownError(
                f"the disk failed while {location} committed: {error}",
                hint="Check the disk, then read the record back to see whether it was written.",
            )
        if code in _UNUSABLE:
            what, hint = _UNUSABLE[code]
            return BackendUnavailableError(f"{location} {what}: {error}", hint=hint)
        if isinstance(error, sqlite3.IntegrityError) or str(error).startswith(("no such table", "no such column")):
            return CorruptStateError(
                f"{location} does not hold what a state store must: {error}",
                hint="Restore it from a backup, and keep a copy of the damaged one.",
                location=location,
            )
        return BackendUnavailableError(
            f"{location} refused a statement: {error}", hint="Repeat the call once the cause is gone."
        )

    def insert(self, table: Table) -> Any:
        """Return SQLite's insert."""
        return sqlite.insert(table)

    def overwriting(self, row: Any, keys: Sequence[str], change: Change) -> Any:
        """Return ``INSERT ... ON CONFLICT DO UPDATE``."""
        return row.on_conflict_do_update(index_elements=keys, set_=change(row.excluded))

    def leaving(self, row: Any) -> Any:
        """Return ``INSERT ... ON CONFLICT DO NOTHING``."""
        return row.on_conflict_do_nothing()

    def make_place(self, address: Address) -> None:
        """Make the file, readable by its owner only, and its directory, where they are missing.

        A file that stands is never opened here: closing it again would drop all locks that this process has on it,
        those of SQLite's connections included, and another process would take the log away under them.
        Source: https://www.sqlite.org/howtocorrupt.html §2.2.
        """
        path = address.path
        assert path is not None
        try:
            path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            with _creating, contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            raise BackendUnavailableError(
                f"cannot open {address.location}: {error.strerror or error}",
                hint="Check that the path is a file, and who owns it and its directory.",
            ) from error

    def settle(self, cursor: Cursor) -> None:
        """Use a write-ahead log, so that readers never wait for a writer; let a new file give back single pages."""
        cursor.execute("PRAGMA page_count")
        if cursor.fetchone()[0] == 0:  # before the first table, or it changes nothing; and it writes each time
            cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.fetchone()

    def has_table(self, table: Table) -> str:
        """Return a query for whether a table is there."""
        return f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{table.name}'"

    @contextlib.contextmanager
    def changing(self, connection: Connection, tables: Tables) -> Iterator[None]:
        """Hold the file's write lock."""
        connection.exec_driver_sql(BEGIN)
        yield
        connection.commit()


def _code(error: Exception) -> int:
    """Return the primary code of an error, which is its low byte."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
