"""The engine: the pool, what every connection is told, transactions, and waiting for other writers."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Pool, PoolProxiedConnection, QueuePool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, CorruptStateError
from seeknal.state.sql.dialects import SQLITE, BusyError
from seeknal.state.sql.gate import Gate
from seeknal.state.sql.statements import Cursor
from seeknal.state.transaction import backoff

T = TypeVar("T")

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
KEPT_CONNECTIONS = 8

DRIVER_WAIT_MS = 100
"""How long SQLite itself waits before it is our turn to pause: its own waiting knows no jitter, and some of its locks
are refused without any."""

_inherited: list[tuple[Pool, list[PoolProxiedConnection]]] = []
"""Pools and connections of a parent process. Closing a SQLite connection in a forked child would drop locks and
files of the parent."""

_creating = threading.Lock()
os.register_at_fork(before=_creating.acquire, after_in_parent=_creating.release, after_in_child=_creating.release)


class Database:
    """One SQLite file and the connections to it. Safe from threads: each call has a connection of its own.

    Args:
        path: The file, absolute.
        clock: What waiting is measured by.
        budget_ms: How long one call may wait for other writers.
        synchronous: ``FULL`` or ``NORMAL``.
    """

    def __init__(self, path: Path, clock: Clock, *, budget_ms: int, synchronous: str) -> None:
        self.location = str(path)
        self.dialect = SQLITE
        self._path = path
        self._clock = clock
        self._budget_us = budget_ms * 1000
        self._at_hand: list[PoolProxiedConnection] = []
        self._is_disposed = False
        self._gate = Gate()
        self.engine: Engine = create_engine(
            URL.create("sqlite", database=str(path)),
            poolclass=QueuePool,
            pool_size=KEPT_CONNECTIONS,
            max_overflow=-1,
            pool_use_lifo=True,  # the connection used last still has the pages in its cache
            pool_reset_on_return=None,  # a transaction never outlives the call that began it
            # No implicit transactions: a single statement commits itself, the rest says BEGIN.
            connect_args={"isolation_level": None, "check_same_thread": False, "timeout": 0},
        )
        pragmas = (
            f"PRAGMA busy_timeout = {min(budget_ms, DRIVER_WAIT_MS)}",
            f"PRAGMA synchronous = {synchronous}",
            "PRAGMA foreign_keys = ON",
        )

        @event.listens_for(self.engine, "connect")
        def prepare(connection: Any, _record: object) -> None:
            try:
                for pragma in pragmas:
                    connection.execute(pragma)
            except BaseException:
                connection.close()
                raise

    def create_file(self) -> None:
        """Make the file, readable by its owner only, and its directory, where they are missing.

        A file that stands is never opened here: closing it again would drop all locks that this process has on it,
        those of SQLite's connections included, and another process would take the log away under them.
        Source: https://www.sqlite.org/howtocorrupt.html §2.2.

        Raises:
            BackendUnavailableError: It cannot be, or something that is not a file stands there.
        """
        try:
            self._path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            with _creating, contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            raise BackendUnavailableError(
                f"cannot open {self.location}: {error.strerror or error}",
                hint="Check that the path is a file, and who owns it and its directory.",
            ) from error

    def read(self, work: Callable[[Cursor], T]) -> T:
        """Return what ``work`` reads: one statement sees one state of the store and waits for no writer."""
        return self._patiently(work, committing=False)

    def write_one(self, work: Callable[[Cursor], T]) -> T:
        """Run ``work``, a single statement that commits itself."""
        return self._patiently(work, committing=True)

    def write(self, work: Callable[[Cursor], T]) -> T:
        """Run ``work`` in a transaction that has the store's write lock from its beginning; commit its result.

        It may be called again if the lock was not to be had, never after it has run to its end.
        """
        return self._patiently(lambda cursor: self._transaction(cursor, work), committing=False)

    def change_schema(self, work: Callable[[Connection], None]) -> None:
        """Run ``work`` on a SQLAlchemy connection, in a transaction that has the write lock from its beginning."""

        def step(cursor: Cursor) -> None:
            with self.engine.connect() as connection, connection.begin():
                connection.exec_driver_sql(self.dialect.begin)
                work(connection)

        self._patiently(step, committing=False)

    def dispose(self, *, close: bool) -> None:
        """Drop all connections; without ``close`` they are only forgotten, since they belong to a parent process."""
        if close:
            self._is_disposed = True
            self._drop_at_hand()
        else:
            _inherited.append((self.engine.pool, self._at_hand))
            self._at_hand = []
            self._gate = Gate()
        self.engine.dispose(close=close)

    def prepare_fork(self) -> None:
        """Wait until nobody uses a connection, let nobody begin to, and close them all.

        SQLite keeps the locks of a process in its memory. A child that inherited them with an open connection would
        believe that it holds them, and lose its commits when its parent closes the store.
        Source: https://www.sqlite.org/howtocorrupt.html §2.6.
        """
        self._gate.shut()
        self._drop_at_hand()
        self.engine.dispose(close=True)

    def resume_after_fork(self) -> None:
        """Go on in the parent."""
        self._gate.open()

    def _borrow(self) -> PoolProxiedConnection:
        """Return a connection that nobody uses; the one used last, whose cache is warm.

        Checking it out of the pool and in again for each call would cost a fifth of a transition. The end of a list
        can be taken and given from any thread.
        """
        try:
            return self._at_hand.pop()
        except IndexError:
            return self.engine.raw_connection()

    def _give_back(self, connection: PoolProxiedConnection) -> None:
        self._at_hand.append(connection)
        if self._is_disposed:  # meanwhile, by another thread
            self._drop_at_hand()

    def _drop_at_hand(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                self._at_hand.pop().close()

    def _transaction(self, cursor: Any, work: Callable[[Cursor], T]) -> T:
        cursor.execute(self.dialect.begin)
        committing = False
        try:
            result = work(cursor)
            committing = True
            cursor.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(self.dialect.driver_error):  # some failures have rolled back already
                cursor.execute("ROLLBACK")
            if committing and isinstance(error, self.dialect.driver_error):
                raise self.dialect.classify(error, self.location, True) from error
            raise
        return result

    def _patiently(self, step: Callable[[Cursor], T], *, committing: bool) -> T:
        deadline = self._clock.ticks_us() + self._budget_us
        try:
            return self._once(step, committing)  # the usual case, without a generator
        except BusyError as error:
            last = error
        for pause in backoff():
            if self._clock.ticks_us() >= deadline:
                break
            self._clock.sleep(pause)
            try:
                return self._once(step, committing)
            except BusyError as error:
                last = error
        raise BackendUnavailableError(str(last), hint=last.hint) from last.__cause__

    def _once(self, step: Callable[[Cursor], T], committing: bool) -> T:
        gate = self._gate
        gate.enter()
        try:
            connection = self._borrow()
            try:
                cursor: Any = connection.cursor()
                result = step(cursor)
                cursor.close()
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return result
        except self.dialect.driver_error as error:
            raise self.dialect.classify(error, self.location, committing) from error
        except DBAPIError as error:  # from `change_schema`, where SQLAlchemy wraps the driver's
            cause = error.orig if isinstance(error.orig, self.dialect.driver_error) else error
            raise self.dialect.classify(cause, self.location, committing) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptStateError(
                f"{self.location} holds a record that cannot be read: {error}",
                hint="Restore it from a backup, and keep a copy of the damaged one.",
                location=self.location,
            ) from error
        finally:
            gate.leave()
