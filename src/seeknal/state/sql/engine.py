"""The connections to one database, and patience: who waits for what, how often, and what is known after a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Pool, PoolProxiedConnection, QueuePool
from sqlalchemy.exc import DBAPIError

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, CommitUnknownError, CorruptStateError, StateBackendError
from seeknal.state.sql import receipts
from seeknal.state.sql.address import Address
from seeknal.state.sql.dialects.base import BusyError, Command, DisconnectedError, Limits, RefusedError, Rows
from seeknal.state.sql.gate import Gate
from seeknal.state.sql.statements import Session, Step, Target
from seeknal.state.transaction import backoff

T = TypeVar("T")

LEAST_ANSWER_S = 1.0
"""An answer over a network is waited for at least so long, however short the caller's budget is."""

MOST_CONNECT_S = 5.0
ATTEMPTS = 3
"""Into how many attempts the budget is cut, so that a connection that went silent is given up while there is time
left to ask on another one."""

_inherited: list[tuple[Pool, list[PoolProxiedConnection]]] = []
"""Pools and connections of a parent process. Closing a SQLite connection in a forked child would drop locks and
files of the parent; closing one to a server would end the parent's session."""


class Database:
    """One database and the connections to it. Safe from threads: each call has a connection of its own.

    Args:
        address: Where it is.
        target: Its dialect and its tables.
        clock: What waiting is measured by.
        budget_ms: How long one call may wait, for other writers and for the network together.
    """

    def __init__(self, address: Address, target: Target, clock: Clock, *, budget_ms: int) -> None:
        self.address = address
        self.location = address.location
        self.target = target
        self.dialect = target.dialect
        self._clock = clock
        self._budget_us = budget_ms * 1000
        answer_s = max(LEAST_ANSWER_S, budget_ms / 1000 / ATTEMPTS)
        lock_ms = max(1, round(answer_s * 750)) if self.dialect.is_shared else budget_ms
        self._limits = Limits(min(MOST_CONNECT_S, answer_s), answer_s, lock_ms)
        self._acknowledged = receipts.Acknowledged()
        self._is_disposed = False
        self._was_reached = not self.dialect.is_shared
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Have no connections, and nobody inside."""
        self._pool = QueuePool(
            lambda: self.dialect.connect(self.address, self._limits),
            pool_size=self.dialect.connections,
            max_overflow=-1,
            use_lifo=True,  # the connection used last still has the pages in its cache
            reset_on_return=None,  # a transaction never outlives the call that began it
        )
        self._engine: Engine | None = None
        self._at_hand: list[PoolProxiedConnection] = []
        self._gate = Gate()
        # As many at once as the server shall see of one process; a file has no such limit.
        bounded = self.dialect.is_shared
        self._places: Any = threading.BoundedSemaphore(self.dialect.connections) if bounded else nullcontext()

    # ---- what a store does with its database ----

    def read(self, work: Callable[[Session], T]) -> T:
        """Return what ``work`` reads: one statement sees one state of the store and waits for no writer."""
        return self._patiently(lambda: self._once(lambda raw: work(self._session(raw)), False), self._deadline())

    def repeat(self, steps: Sequence[Step]) -> tuple[list[Rows], bool]:
        """Run a transaction that may run twice; return the rows that were asked, and whether it perhaps did.

        Raises:
            RefusedError: A demand was not met.
            CommitUnknownError: It perhaps ran, and within the budget no answer was to be had.
        """
        doubts: list[CommitUnknownError] = []

        def once() -> list[Rows]:
            try:
                return self._once(lambda raw: self.dialect.run(raw, self._commands(steps)), True)
            except CommitUnknownError as error:
                if not self.dialect.is_shared:
                    raise
                doubts.append(error)
                raise DisconnectedError(str(error), hint=error.hint) from error

        try:
            return self._patiently(once, self._deadline()), bool(doubts)
        except BackendUnavailableError:
            if doubts:
                raise doubts[-1] from None
            raise

    def commit(self, attempt: Callable[[Any, int], T], applied: Callable[[int], T]) -> T:
        """Run ``attempt`` with a DB-API connection and an id until it commits, once.

        Args:
            attempt: Commits all or nothing and, on a shared store, leaves a receipt of the id.
            applied: Makes the result from the number of the receipt, when that is all there is to be had.

        Raises:
            RefusedError: A demand was not met.
            CommitUnknownError: The answer was lost and, within the budget, no other was to be had.
        """
        deadline = self._deadline()

        def once() -> T:
            op_id = receipts.new_op_id() if self.dialect.is_shared else 0
            try:
                result = self._once(lambda raw: attempt(raw, op_id), True)
            except CommitUnknownError as error:
                if not self.dialect.is_shared:
                    raise
                number = self._settled(op_id, error, deadline)
                if number is None:
                    raise DisconnectedError(
                        f"{self.location} went away before it committed", hint="Repeat the call."
                    ) from error
                result = applied(number)
            if op_id:
                self._acknowledge(op_id)
            return result

        return self._patiently(once, deadline)

    def run(self, raw: Any, steps: Sequence[Step]) -> list[Rows]:
        """Run steps in one transaction on a connection that `commit` gave; return the rows that were asked."""
        return self.dialect.run(raw, self._commands(steps))

    def alone(self, raw: Any, work: Callable[[Session], T]) -> T:
        """Run ``work``, a single statement that commits itself, on a connection that `commit` gave."""
        return work(self._session(raw))

    def change_schema(self, work: Callable[[Connection], None]) -> None:
        """Run ``work`` on a SQLAlchemy connection, while nobody else changes the schema of this store."""

        def step(_: Any) -> None:
            if self._engine is None:
                self._engine = self.dialect.engine(self._pool)
            with self._engine.connect() as connection, self.dialect.changing(connection, self.target.tables):
                work(connection)

        self._patiently(lambda: self._once(step, False), self._deadline())

    # ---- its life ----

    def dispose(self, *, close: bool) -> None:
        """Drop all connections; without ``close`` they are only forgotten, since they belong to a parent process."""
        if not close:
            _inherited.append((self._pool, self._at_hand))
            self._begin_anew()
            return
        if self._was_reached and not self._is_disposed:
            steps = self._acknowledged.take()
            if steps:
                with suppress(StateBackendError):  # housekeeping, as in `acknowledge`; the store may be gone by now
                    self._once(lambda raw: self.dialect.run(raw, self._commands(steps)), True)
        self._is_disposed = True
        self._drop_at_hand()
        self._pool.dispose()

    def prepare_fork(self) -> None:
        """Wait until nobody uses a connection and let nobody begin to; close those of a file.

        SQLite keeps the locks of a process in its memory. A child that inherited them with an open connection would
        believe that it holds them, and lose its commits when its parent closes the store.
        Source: https://www.sqlite.org/howtocorrupt.html §2.6.
        """
        self._gate.shut()
        if not self.dialect.is_shared:
            self._drop_at_hand()
            self._pool.dispose()

    def resume_after_fork(self) -> None:
        """Go on in the parent."""
        self._gate.open()

    # ---- connections ----

    def _session(self, raw: Any) -> Session:
        return Session(self.dialect.cursor(raw), self.target)

    def _commands(self, steps: Sequence[Step]) -> list[Command]:
        return [step.command(self.target) for step in steps]

    def _borrow(self) -> PoolProxiedConnection:
        """Return a connection that nobody uses; the one used last, whose cache is warm.

        Checking it out of the pool and in again for each call would cost a fifth of a transition. The end of a list
        can be taken and given from any thread.
        """
        try:
            return self._at_hand.pop()
        except IndexError:
            return self._pool.connect()

    def _give_back(self, connection: PoolProxiedConnection) -> None:
        self._at_hand.append(connection)
        if self._is_disposed:  # meanwhile, by another thread
            self._drop_at_hand()

    def _drop_at_hand(self) -> None:
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._at_hand.pop().close()

    def _drop_all(self) -> None:
        """Drop this connection's idle siblings: what broke it has most likely broken them."""
        with suppress(IndexError):
            while True:
                self._at_hand.pop().invalidate()

    # ---- patience ----

    def _acknowledge(self, op_id: int) -> None:
        """Note that the answer to a commit arrived, and now and then remove the receipts of such.

        It is housekeeping: receipts that could not be removed now are, once a million others have followed.
        """
        steps = self._acknowledged.add(op_id)
        if steps:
            with suppress(BackendUnavailableError, CommitUnknownError):
                self.repeat(steps)

    def _deadline(self) -> int:
        return self._clock.ticks_us() + self._budget_us

    def _patiently(self, step: Callable[[], T], deadline: int) -> T:
        try:
            return step()  # the usual case, without a generator
        except (BusyError, DisconnectedError) as error:
            last: BackendUnavailableError = error
        for pause in backoff():
            if self._clock.ticks_us() >= deadline or (isinstance(last, DisconnectedError) and not self._was_reached):
                break  # a server that was never reached is not waited for: its address may be wrong
            self._clock.sleep(pause)
            try:
                return step()
            except (BusyError, DisconnectedError) as error:
                last = error
        raise BackendUnavailableError(str(last), hint=last.hint) from last.__cause__

    def _settled(self, op_id: int, lost: CommitUnknownError, deadline: int) -> int | None:
        """Return the number of the receipt of an attempt, or ``None`` if it was not applied and never will be."""

        def ask() -> tuple[int, int]:
            try:
                rows = self._once(lambda raw: self.dialect.run(raw, self._commands(receipts.settle_steps(op_id))), True)
            except CommitUnknownError as error:  # it may run twice
                raise DisconnectedError(str(error), hint=error.hint) from error
            number, is_void = rows[0][0]
            return number, is_void

        try:
            number, is_void = self._patiently(ask, deadline)
        except BackendUnavailableError as error:
            raise CommitUnknownError(
                f"{lost}; nor did it answer since, so the commit may have been applied or not ({error})",
                hint="Read the records back once it answers again, to see whether they were written.",
            ) from lost
        return None if is_void else number

    def _once(self, work: Callable[[Any], T], committing: bool) -> T:
        gate = self._gate
        gate.enter()
        try:
            with self._places:
                is_connected = False
                try:
                    connection = self._borrow()
                    is_connected = True
                    result = work(connection.dbapi_connection)
                except RefusedError:
                    self._give_back(connection)
                    raise
                except BaseException as error:
                    typed = self._typed(error, committing and is_connected)
                    if is_connected:
                        self._take_out(connection, typed)
                    if typed is error:
                        raise
                    raise typed from error
                self._give_back(connection)
                self._was_reached = True
                return result
        finally:
            gate.leave()

    def _take_out(self, connection: PoolProxiedConnection, error: BaseException) -> None:
        """Part with the connection of a call that failed."""
        if not self.dialect.is_shared:
            connection.close()
            return
        if isinstance(error, BusyError):
            self._give_back(connection)  # rolled back, and as good as before
            return
        connection.invalidate()
        if isinstance(error, DisconnectedError | CommitUnknownError):
            self._drop_all()

    def _typed(self, error: BaseException, committing: bool) -> BaseException:
        """Return the error that a caller shall see."""
        if isinstance(error, self.dialect.driver_error):
            return self.dialect.classify(error, self.location, committing)
        if isinstance(error, DBAPIError):  # from `change_schema`, where SQLAlchemy wraps the driver's
            cause = error.orig if isinstance(error.orig, self.dialect.driver_error) else error
            return self.dialect.classify(cause, self.location, committing)
        if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
            return CorruptStateError(
                f"{self.location} holds a record that cannot be read: {error}",
                hint="Restore it from a backup, and keep a copy of the damaged one.",
                location=self.location,
            )
        return error
