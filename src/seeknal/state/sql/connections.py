"""The connections of one instance: how they are lent, given back, and parted with when they broke."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, Pool, PoolProxiedConnection, QueuePool

from seeknal.errors import CommitUnknownError
from seeknal.state.sql.address import Address
from seeknal.state.sql.dialects.base import BusyError, Dialect, DisconnectedError, Limits

_inherited: list[tuple[Pool, list[PoolProxiedConnection]]] = []
"""Pools and connections of a parent process. Closing a SQLite connection in a forked child would drop locks and
files of the parent; closing one to a server would end the parent's session."""


class _Local(threading.local):
    """How long a connection waits that this thread opens."""

    limits: Limits | None = None


class Connections:
    """Those that wait to be used, and the way to new ones. Safe from threads; it never says that there are too many.

    Args:
        dialect: The kind of database.
        address: Where it is.
        limits: How long a connection waits that is opened for a change of the schema.
    """

    def __init__(self, dialect: Dialect, address: Address, limits: Limits) -> None:
        self._dialect = dialect
        self._local = _Local()
        self._pool = QueuePool(
            lambda: dialect.connect(address, self._local.limits or limits),
            pool_size=dialect.connections,
            max_overflow=-1,
            use_lifo=True,  # the connection used last still has the pages in its cache
            reset_on_return=None,  # a transaction never outlives the call that began it
        )
        self._engine: Engine | None = None
        self._idle: list[PoolProxiedConnection] = []
        self._is_ended = False

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine over them."""
        if self._engine is None:
            self._engine = self._dialect.engine(self._pool)
        return self._engine

    def borrow(self, limits: Limits, *, is_exact: bool) -> PoolProxiedConnection:
        """Return a connection that nobody uses and that waits so long; the one used last, whose cache is warm.

        Checking it out of the pool and in again for each call would cost a fifth of a transition. The end of a list
        can be taken and given from any thread.

        Args:
            limits: How long it waits for an answer, and a new one for other writers.
            is_exact: Whether one that is used again waits so long for other writers, too. To tell the server so
                takes a request, so this is for what must not be applied after it was given up.
        """
        connection = self._idle_one()
        if connection is None:
            self._local.limits = limits
            connection = self._pool.connect()
        if self._dialect.is_shared:
            try:
                self._limit(connection, limits, is_exact)
            except BaseException:
                connection.invalidate()
                raise
        return connection

    def _idle_one(self) -> PoolProxiedConnection | None:
        """Return one that nobody uses and that the server has not ended, so that what is sent on it may arrive."""
        with suppress(IndexError):  # there is none, or another thread took the last one
            while True:
                connection = self._idle.pop()
                if not self._dialect.is_shared or not self._dialect.has_ended(connection.dbapi_connection):
                    return connection
                connection.invalidate()
        return None

    def _limit(self, connection: PoolProxiedConnection, limits: Limits, is_exact: bool) -> None:
        raw: Any = connection.dbapi_connection
        self._dialect.wait_at_most(raw, limits.answer_s)
        lock_ms = connection.info.setdefault("lock_ms", limits.lock_ms)
        if is_exact and lock_ms != limits.lock_ms:
            self._dialect.wait_for_locks(raw, limits.lock_ms)
            connection.info["lock_ms"] = limits.lock_ms

    def give_back(self, connection: PoolProxiedConnection) -> None:
        """Take back a connection that is as good as before."""
        self._idle.append(connection)
        if self._is_ended:  # meanwhile, by another thread
            self.drop()

    def part_with(self, connection: PoolProxiedConnection, error: BaseException) -> None:
        """Take back the connection of a call that failed: after an interruption, nobody knows what comes next on it."""
        if not self._dialect.is_shared:
            connection.close()
        elif isinstance(error, BusyError):
            self.give_back(connection)  # rolled back
        else:
            connection.invalidate()
            if isinstance(error, DisconnectedError | CommitUnknownError):
                self.drop()  # what broke this one has most likely broken those

    def drop(self) -> None:
        """Close those that nobody uses."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().invalidate()
        self._pool.dispose()

    def end(self) -> None:
        """Close them all: those in use when they are given back."""
        self._is_ended = True
        self.drop()

    def leave(self) -> None:
        """Leave them to the parent process, which they belong to."""
        _inherited.append((self._pool, self._idle))
