"""The connections to one database, and patience: who waits for what, how often, and what is known after a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from seeknal.clock import Clock
from seeknal.errors import (
    BackendUnavailableError,
    CommitUnknownError,
    CorruptStateError,
    SeeknalError,
)
from seeknal.state.sql import receipts
from seeknal.state.sql.address import Address
from seeknal.state.sql.connections import Connections
from seeknal.state.sql.dialects.base import BusyError, Command, DisconnectedError, Limits, RefusedError, Rows
from seeknal.state.sql.gate import Gate
from seeknal.state.sql.statements import Session, Step, Target
from seeknal.state.transaction import backoff

T = TypeVar("T")

LEAST_ANSWER_S = 2.0
"""An answer over a network is waited for at least so long, however short the caller's budget is."""

MOST_CONNECT_S = 5.0
ATTEMPTS = 3
"""Into how many attempts the budget is cut, so that a connection that went silent is given up while there is time
left to ask on another one."""

FAREWELL_MS = 2000
"""How long an instance that is closed goes on waiting for a server, for all that it still has to say."""


class Kind(Enum):
    """What a call asks of a server."""

    READ = auto()
    REPEATABLE = auto()
    ONCE = auto()


class _Local(threading.local):
    """What the calls of one thread share: until when they may wait, and for how long at a time."""

    deadline: int | None = None
    limits: Limits | None = None


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
        self._budget_ms = budget_ms
        self._limits = self._limits_of(budget_ms)
        self._local = _Local()
        self._end_us: int | None = None
        self._was_reached = not self.dialect.is_shared
        self._begin_anew()

    def _limits_of(self, budget_ms: float) -> Limits:
        """Return how long one attempt of a call with this budget may wait."""
        answer_s = max(LEAST_ANSWER_S, budget_ms / 1000 / ATTEMPTS)
        lock_ms = max(1, round(answer_s * 750)) if self.dialect.is_shared else round(budget_ms)
        return Limits(min(MOST_CONNECT_S, answer_s), answer_s, lock_ms)

    def _begin_anew(self) -> None:
        """Have no connections, and nobody inside."""
        self._connections = Connections(self.dialect, self.address, self._limits)
        self._gate = Gate()
        self._acknowledged = receipts.Acknowledged()
        # As many at once as the server shall see of one process; a file has no such limit.
        self._places = threading.BoundedSemaphore(self.dialect.connections)

    # ---- what a store does with its database ----

    @contextmanager
    def one_budget(self, most_ms: int | None = None) -> Iterator[None]:
        """Let all that this thread asks for in a block wait for one budget together, or for less than that."""
        local = self._local
        outer = (local.deadline, local.limits)
        if most_ms is not None and most_ms < self._budget_ms:
            local.limits = self._limits_of(most_ms)
            ours = self._clock.ticks_us() + most_ms * 1000
        else:
            ours = self._clock.ticks_us() + self._budget_ms * 1000
        local.deadline = ours if outer[0] is None else min(ours, outer[0])
        try:
            yield
        finally:
            local.deadline, local.limits = outer

    def read(self, work: Callable[[Session], T]) -> T:
        """Return what ``work`` reads: one statement sees one state of the store and waits for no writer."""
        deadline = self._deadline()
        return self._patiently(lambda: self._once(lambda raw: work(self._session(raw)), deadline), deadline)

    def repeat(self, steps: Callable[[], Sequence[Step]]) -> list[Rows]:
        """Run a transaction that may run twice; return the rows that were asked.

        Args:
            steps: Makes them for each attempt, with the time that it is then.

        Raises:
            RefusedError: A demand was not met.
            CommitUnknownError: It perhaps ran, and within the budget no answer was to be had.
        """
        deadline = self._deadline()
        doubts: list[CommitUnknownError] = []

        def once() -> list[Rows]:
            try:
                return self._once(lambda raw: self.run(raw, steps()), deadline, Kind.REPEATABLE)
            except CommitUnknownError as error:
                if not self.dialect.is_shared:
                    raise
                doubts.append(error)
                raise DisconnectedError(str(error), hint=error.hint) from error

        try:
            return self._patiently(once, deadline)
        except SeeknalError:
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
                result = self._once(lambda raw: attempt(raw, op_id), deadline, Kind.ONCE)
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
                self._acknowledge(self._acknowledged.add(op_id), deadline)
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
        tables = self.target.tables

        def step(_: Any) -> None:
            with self._connections.engine.connect() as connection, self.dialect.changing(connection, tables):
                work(connection)

        deadline = self._deadline()
        self._patiently(lambda: self._once(step, deadline), deadline)

    # ---- connections that a caller has for longer than a call ----

    @contextmanager
    def unforked(self) -> Iterator[None]:
        """Let other threads fork only after this block: it has connections that no child may inherit."""
        self._gate.enter()
        try:
            yield
        finally:
            self._gate.leave()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn an exception of the driver, which read, into the error that a caller shall see."""
        try:
            yield
        except self.dialect.driver_error as error:
            raise self._typed(error, False) from error

    # ---- its life ----

    def hasten(self) -> None:
        """Let nobody wait much longer: the calls that wait now, and those that say goodbye."""
        if self.dialect.is_shared and self._end_us is None:
            self._end_us = self._clock.ticks_us() + FAREWELL_MS * 1000

    def drop_connections(self) -> None:
        """Close the connections that nobody uses."""
        self._connections.drop()

    def dispose(self, *, close: bool) -> None:
        """Drop all connections for good; without ``close`` forget them, since they belong to a parent process."""
        if not close:
            self._connections.leave()
            self._begin_anew()
            return
        if self._was_reached:
            self._acknowledge(self._acknowledged.take(), self._deadline())
        self._connections.end()

    def prepare_fork(self) -> None:
        """Wait until nobody uses a connection and let nobody begin to; close those of a file.

        SQLite keeps the locks of a process in its memory. A child that inherited them with an open connection would
        believe that it holds them, and lose its commits when its parent closes the store.
        Source: https://www.sqlite.org/howtocorrupt.html §2.6.
        """
        self._gate.shut()
        if not self.dialect.is_shared:
            self._connections.drop()

    def resume_after_fork(self) -> None:
        """Go on in the parent."""
        self._gate.open()

    # ---- patience ----

    def _session(self, raw: Any) -> Session:
        return Session(self.dialect.cursor(raw), self.target)

    def _commands(self, steps: Sequence[Step]) -> list[Command]:
        return [step.command(self.target) for step in steps]

    def _deadline(self) -> int:
        deadline = self._local.deadline
        return self._clock.ticks_us() + self._budget_ms * 1000 if deadline is None else deadline

    def _left_us(self, deadline: int) -> int:
        end = deadline if self._end_us is None else min(deadline, self._end_us)
        return end - self._clock.ticks_us()

    def _limits_now(self, left_us: int) -> Limits:
        """Return how long an attempt may wait that begins now: towards the end of a budget, until that end."""
        most = self._local.limits or self._limits
        return most if left_us >= most.answer_s * 1_000_000 else self._limits_of(left_us / 1000 * ATTEMPTS)

    def _patiently(self, step: Callable[[], T], deadline: int) -> T:
        try:
            return step()  # the usual case, without a generator
        except (BusyError, DisconnectedError) as error:
            last: BackendUnavailableError = error
        for pause in backoff():
            left_us = self._left_us(deadline)
            if left_us <= 0 or (isinstance(last, DisconnectedError) and not self._was_reached):
                break  # a server that was never reached is not waited for: its address may be wrong
            self._clock.sleep(min(pause, left_us / 1_000_000))
            try:
                return step()
            except (BusyError, DisconnectedError) as error:
                last = error
        raise BackendUnavailableError(str(last), hint=last.hint) from last.__cause__

    def _settled(self, op_id: int, lost: CommitUnknownError, deadline: int) -> int | None:
        """Return the number of the receipt of an attempt, or ``None`` if it was not applied and never will be."""
        steps = receipts.settle_steps(op_id)

        def ask() -> tuple[int, int]:
            try:
                rows = self._once(lambda raw: self.run(raw, steps), deadline, Kind.REPEATABLE)
            except CommitUnknownError as error:
                raise DisconnectedError(str(error), hint=error.hint) from error
            number, is_void = rows[0][0]
            return number, is_void

        try:
            number, is_void = self._patiently(ask, deadline)
        except SeeknalError as error:
            raise CommitUnknownError(
                f"{lost}; nor did it answer since, so the commit may have been applied or not ({error})",
                hint="Read the records back once it answers again, to see whether they were written.",
            ) from lost
        return None if is_void else number

    def _acknowledge(self, steps: Sequence[Step], deadline: int) -> None:
        """Remove the receipts of commits whose answers have arrived, once enough of them have gathered.

        It is housekeeping: receipts that could not be removed now are, once a million others have followed.
        """
        if steps:
            with suppress(SeeknalError):
                self._once(lambda raw: self.run(raw, steps), deadline, Kind.REPEATABLE)

    def _once(self, work: Callable[[Any], T], deadline: int, kind: Kind = Kind.READ) -> T:
        """Call ``work`` with a connection, at a place if the server shall see only so many."""
        gate = self._gate
        gate.enter()
        try:
            if not self.dialect.is_shared:
                return self._connected(work, self._limits, kind)
            left_us = self._left_us(deadline)
            if self._end_us is not None and left_us <= 0:
                raise DisconnectedError(f"{self.location} is being closed", hint="Call nothing after close().")
            places = self._places
            if not places.acquire(timeout=max(0.0, left_us / 1_000_000)):
                raise BusyError(
                    f"all {self.dialect.connections} connections to {self.location} are in use",
                    hint="Repeat the call, or raise busy_timeout_ms.",
                )
            try:
                return self._connected(work, self._limits_now(self._left_us(deadline)), kind)
            finally:
                places.release()
        finally:
            gate.leave()

    def _connected(self, work: Callable[[Any], T], limits: Limits, kind: Kind) -> T:
        """Call ``work`` with a connection that waits so long."""
        connections, connection = self._connections, None
        try:
            connection = connections.borrow(limits, is_exact=kind is Kind.ONCE)
            result = self.dialect.in_turn(work, connection.dbapi_connection, self._clock, limits.lock_ms)
        except RefusedError:
            assert connection is not None
            connections.give_back(connection)
            raise
        except BaseException as error:
            typed = self._typed(error, kind is not Kind.READ and connection is not None)
            if connection is not None:
                connections.part_with(connection, typed)
            if typed is error:
                raise
            raise typed from error
        connections.give_back(connection)
        self._was_reached = True
        return result

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
