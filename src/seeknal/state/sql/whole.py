"""A database as a whole: read as of one instant, and replaced by what was put into tables beside.

The side store is made of the same tables under other names, in the same place. While it is filled the store goes on;
then one transaction lets all writers finish, deletes, and copies on the server from table to table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import msgspec
from sqlalchemy import Connection, bindparam, exists, literal_column, select, text

from seeknal.clock import Clock
from seeknal.errors import AccessDeniedError, StateBackendError
from seeknal.model.records import (
    CompletedInterval,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.batch import Batch
from seeknal.state.change_log import PAGE_CHANGES
from seeknal.state.lease import held
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.sql import change_log, intervals, leases, nodes, partitions, receipts, runs, schema, store, work
from seeknal.state.sql.commit import Plan
from seeknal.state.sql.dialects.base import RefusedError
from seeknal.state.sql.engine import Database
from seeknal.state.sql.sequences import SPAN
from seeknal.state.sql.statements import Session, Statement, Step, Target, statement_of, target_of
from seeknal.state.whole import LoggedReading, Record, SideStore, records

T = TypeVar("T")

SIDE = "restored_"
"""What the names of the side store's tables begin with, behind what those of the store begin with."""

PATIENCE_MS = 1_800_000
"""The budget for each statement of the swap, which writes everything: half an hour, in three attempts."""

CONTENT = (
    "runs",
    "node_states",
    "completed_intervals",
    "interval_provenance",
    "partitions",
    "expected_partitions",
)
"""In an order in which they can be filled, for runs are referred to; they are emptied in the other one."""


class WholeDatabase(RecordStateBackend):
    """What a database does as a whole."""

    _database: Database

    @property
    @abstractmethod
    def _open(self) -> Database:
        """The database, once `initialize` has made it ready."""

    @contextmanager
    def snapshot(self) -> Iterator[LoggedReading]:
        """Read in one transaction, on a connection of its own."""
        database = self._open
        with database.unforked():
            # Opened within a read, so that it is waited for as for any other connection.
            raw, session = database.read(lambda _: _begun(database))

            def read(work: Callable[[Session], T]) -> T:
                with database.told():
                    return work(session)

            try:
                yield _Frozen(read)
            finally:
                with suppress(database.dialect.driver_error):  # nothing is left to be done on it
                    raw.close()

    @contextmanager
    def replacing(self, by: str) -> Iterator[SideStore]:
        """Make tables beside those of the store; they are dropped in the end."""
        database = self._open
        with database.unforked(), ExitStack() as undo:
            side = _Side(database, self.clock, by)
            undo.callback(side.close)
            side.make()
            undo.callback(side.drop)
            yield side


def _begun(database: Database) -> tuple[Any, Session]:
    dialect = database.dialect
    raw = dialect.connect(database.address, database._limits)
    try:
        return raw, Session(dialect.begin_snapshot(raw), database.target)
    except BaseException:
        raw.close()
        raise


class _ReadAs(Protocol):
    """What reads, as `Database.read`."""

    def __call__(self, work: Callable[[Session], T], /) -> T:
        """Return what ``work`` reads."""


def has_side(database: Database) -> bool:
    """Return whether there are tables of a restore, one that goes on or one that was killed."""
    dialect = database.dialect

    def ask(session: Session) -> bool:
        session.cursor.execute(dialect.has_table(_beside(database.target).tables.store))
        return bool(session.cursor.fetchone()[0])

    return database.read(ask)


def remove_side(database: Database, clock: Clock) -> None:
    """Remove the tables of a restore that was killed.

    Raises:
        SeeknalError: They cannot be removed.
    """
    side = _Side(database, clock, "")
    try:
        side.drop()
    finally:
        side.close()


def _beside(target: Target) -> Target:
    tables = target.tables
    return target_of(target.dialect, tables.metadata.schema, f"{tables.prefix}{SIDE}")


class _Frozen:
    """All records, through what reads them."""

    def __init__(self, read: _ReadAs) -> None:
        self._read = read

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order, a page at a time."""
        after: RunState | None = None
        while page := self._read(lambda session, after=after: runs.read_page(session, after)):  # type: ignore[misc]
            yield from page
            after = page[-1]

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run."""
        return self._read(lambda session: nodes.read_nodes(session, run_id))

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work."""
        return self._read(work.read_worked_nodes)

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node."""
        return self._read(lambda session: intervals.read_intervals(session, node_id))

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of them."""
        return self._read(lambda session: intervals.read_provenance(session, node_id))

    def read_partitions(self, node_id: str) -> list[PartitionState]:
        """Return the completed partitions of a node."""
        return self._read(lambda session: partitions.read_partitions(session, node_id))

    def read_expected(self, node_id: str) -> list[str]:
        """Return the keys of partitions that are expected of a node."""
        return self._read(lambda session: partitions.read_expected(session, node_id))

    def scan_log(self) -> Iterator[LoggedChange]:
        """Yield the change log in the order of time, a page at a time."""
        after = ""
        while page := self._read(lambda session, after=after: change_log.read_log(session, after, PAGE_CHANGES)):  # type: ignore[misc]
            yield from page
            after = page[-1].change_id


class _Side:
    """The side store of a database."""

    def __init__(self, database: Database, clock: Clock, by: str) -> None:
        self._clock = clock
        self._mark = by
        self._highest = 0
        self._main = Database(database.address, database.target, clock, budget_ms=PATIENCE_MS)
        self._side = Database(database.address, _beside(database.target), clock, budget_ms=PATIENCE_MS)

    def make(self) -> None:
        """Make the tables, in the place of those that a killed process has left."""
        try:
            self.drop()
            schema.prepare(self._side)
        except AccessDeniedError as error:
            raise AccessDeniedError(
                f"the tables that new content is put into cannot be made: {error}",
                hint="Restore as a user who may make tables beside those of the store.",
            ) from error
        self._side.repeat(lambda: [Step(store.MOVE, {"id": str(uuid4()), "successor": self._mark})])

    def drop(self) -> None:
        """Drop the tables; they may be missing."""
        self._side.change_schema(self._drop)

    def _drop(self, connection: Connection) -> None:
        tables = self._side.target.tables
        tables.metadata.drop_all(connection)
        where = f"{tables.metadata.schema}." if tables.metadata.schema else ""
        connection.execute(text(f"DROP TABLE IF EXISTS {where}{tables.prefix}alembic_version"))

    def close(self) -> None:
        """Close the connections."""
        self._side.dispose(close=True)
        self._main.dispose(close=True)

    def put(self, batch: Batch) -> None:
        """Commit the records to the side store, as long as it is this one's."""
        given = [*(run.sequence for run in batch.runs), *(state.sequence for state in batch.nodes)]
        self._highest = max(self._highest, *given, 0)
        side = self._side
        plan = Plan(msgspec.structs.replace(batch, successor=self._mark), side.target, side.location, self._clock)
        _committed(side, plan.steps)

    def records(self) -> Iterator[Record]:
        """Yield what the side store holds."""
        return records(_Frozen(self._side.read))

    def swap(self, batch: Batch, store_id: str) -> None:
        """Delete and copy in one transaction, which begins when every writer that has begun has ended."""
        main = self._main
        dialect, target = main.dialect, main.target
        tables = target.tables
        [lease] = batch.leases
        fencing = dialect.fence(schema.used_tables(target))
        raising = dialect.raise_number(tables.receipts)

        def steps(op_id: int) -> list[Step]:
            return [
                *(Step(statement_of(each), {}) for each in fencing),
                *(Step(statement_of(each), {"least": self._highest // SPAN + 1}) for each in raising),
                *([receipts.leave_step(op_id)] if dialect.is_shared else []),
                leases.hold_step(lease, self._clock),
                Step(ALONE, {"of_owner": lease.owner, **leases.measured(self._clock)}, self._not_alone(lease.owner)),
                *(Step(_emptied(name), {}) for name in ("claims", *reversed(CONTENT))),
                *(Step(_filled(name, self._side.target), {}) for name in CONTENT),
                *(change_log.write_step(change) for change in batch.log),
                *store.move_steps(store_id, None, batch.successor, main.location),
            ]

        _committed(main, steps, is_locking_ranges=True)

    def _not_alone(self, owner: str) -> Any:
        def refusal(session: Session) -> StateBackendError:
            others = [lock for lock in leases.read_held(session, self._clock) if lock.owner != owner]
            lock = others[0] if others else None
            return held(lock.run_id if lock else "?", lock.node_id if lock else None, lock)

        return refusal


def _committed(database: Database, steps: Any, *, is_locking_ranges: bool = False) -> None:
    """Commit what ``steps`` makes of the id of an attempt.

    Raises:
        StateBackendError: A demand was not met.
    """

    def attempt(raw: Any, op_id: int) -> None:
        if is_locking_ranges:
            database.dialect.lock_ranges(raw)
        database.run(raw, steps(op_id))

    try:
        database.commit(attempt, lambda _: None)
    except RefusedError as refused:
        refusal = steps(0)[refused.at].refusal
        if refusal is None:
            raise
        raise database.read(refusal) from None


def _nobody_else(on: Target) -> Any:
    locks = on.tables.locks
    others = select(locks.c.token).where(leases.is_held(on), locks.c.owner != bindparam("of_owner"))
    return select(literal_column("1")).where(~exists(others))


ALONE = Statement(_nobody_else)


def _emptied(name: str) -> Statement:
    return Statement(lambda on: getattr(on.tables, name).delete())


def _filled(name: str, beside: Target) -> Statement:
    def build(on: Target) -> Any:
        table, side = getattr(on.tables, name), getattr(beside.tables, name)
        return table.insert().from_select([column.name for column in table.c], select(side))

    return Statement(build)
