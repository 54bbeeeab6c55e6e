"""All records of a database, a page at a time and each by itself, so that one that is damaged hides no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
from sqlalchemy import and_, bindparam, func, literal_column, or_, select

from seeknal.model.records import (
    Claim,
    CompletedInterval,
    ExpectedPartition,
    IntervalProvenance,
    LockInfo,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.finding import Finding, error
from seeknal.state.sql import change_log, claims, intervals, leases, nodes, partitions, runs
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Row, Statement, Target

PAGE_ROWS = 1000
MOST_TOLD = 20

R = TypeVar("R")
_LEAST = {str: "", int: -(2**62)}
"""What comes before every key: ids are not empty."""


def _page(name: str) -> Statement:
    """Return the statement that reads the rows of a table behind a key, in the order of the primary key."""

    def build(on: Target) -> Any:
        table = getattr(on.tables, name)
        keys = list(table.primary_key.columns)
        first, *rest = ((key, bindparam(f"after_{n}", type_=key.type)) for n, key in enumerate(keys))
        behind = first[0] > first[1]
        if rest:
            ((second, after),) = rest
            # The first condition is what an index is entered by; MySQL does not see through the second.
            behind = and_(first[0] >= first[1], or_(behind, second > after))
        return select(table).where(behind).order_by(*keys).limit(literal_column(str(PAGE_ROWS)))

    return Statement(build)


def _repeated(table: str, *keys: str) -> Statement:
    """Return the statement that finds what a table holds more than once, with how often."""

    def build(on: Target) -> Any:
        columns = [getattr(on.tables, table).c[key] for key in keys]
        times = func.count().label("times")
        return select(*columns, times).group_by(*columns).having(times > 1).limit(literal_column(str(MOST_TOLD)))

    return Statement(build)


PAGED = (
    "runs",
    "node_states",
    "completed_intervals",
    "interval_provenance",
    "partitions",
    "expected_partitions",
    "change_log",
    "claims",
)
PAGES = {name: _page(name) for name in PAGED}
SAME_RUNS = _repeated("runs", "sequence")
SAME_STATES = _repeated("node_states", "node_id", "sequence")


def _orphaned(on: Target) -> Any:
    states, every = on.tables.node_states, on.tables.runs
    return states.c.run_id.not_in(select(every.c.run_id))


ORPHANS = Statement(
    lambda on: (
        select(on.tables.node_states.c.run_id, on.tables.node_states.c.node_id)
        .where(_orphaned(on))
        .limit(literal_column(str(PAGE_ROWS)))
    )
)
DELETE_ORPHANS = Statement(lambda on: on.tables.node_states.delete().where(_orphaned(on)))


def _expired(on: Target) -> Any:
    return and_(on.tables.locks.c.is_free == literal_column("0"), ~leases.is_held(on))


EXPIRED = Statement(lambda on: select(on.tables.locks).where(_expired(on)))
FREE_EXPIRED = Statement(
    lambda on: (
        on.tables.locks.update()
        .where(_expired(on))
        .values(is_free=literal_column("1"), reason=literal_column("'it had expired'"))
    )
)


class Scan:
    """Reads every record of a store; what cannot be read is kept as a finding.

    Args:
        database: The store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.unreadable: list[Finding] = []

    def runs(self) -> Iterator[RunState]:
        """Yield all runs, by their ids."""
        return self._records("runs", runs.record, ("run",), (str,))

    def nodes(self) -> Iterator[NodeState]:
        """Yield all node states, by run, then node."""
        return self._records("node_states", nodes.record, ("run", "node"), (str, str))

    def intervals(self) -> Iterator[CompletedInterval]:
        """Yield all completed intervals, by node, then start."""
        return self._records("completed_intervals", intervals.interval, ("node", "start"), (str, int))

    def provenance(self) -> Iterator[IntervalProvenance]:
        """Yield which run completed each part of them, by node, then start."""
        return self._records("interval_provenance", intervals.part, ("node", "start"), (str, int))

    def partitions(self) -> Iterator[PartitionState]:
        """Yield all completed partitions, by node, then key."""
        return self._records("partitions", partitions.partition, ("node", "partition"), (str, str))

    def expected(self) -> Iterator[ExpectedPartition]:
        """Yield all expected partitions, by node, then key."""
        return self._records("expected_partitions", partitions.expected, ("node", "partition"), (str, str))

    def changes(self) -> Iterator[LoggedChange]:
        """Yield the change log, by time."""
        return self._records("change_log", change_log.record, ("change",), (str,))

    def claims(self) -> Iterator[Claim]:
        """Yield the claims, by node, then range."""
        return self._records("claims", claims.record, ("node", "range"), (str, str))

    def rows(self, statement: Statement) -> list[Row]:
        """Return the rows of a statement that needs nothing to be told."""
        return self._database.read(lambda session: session.all(statement))

    def expired(self, measured: Any) -> list[LockInfo]:
        """Return the leases that ran out without being given back."""
        rows = self._database.read(lambda session: session.all(EXPIRED, measured))
        return [leases.holder(row) for row in rows]

    def _records(
        self, table: str, record: Callable[[Row], R], names: tuple[str, ...], kinds: tuple[type, ...]
    ) -> Iterator[R]:
        page = PAGES[table]
        after = tuple(_LEAST[kind] for kind in kinds)
        while True:
            params = {f"after_{n}": value for n, value in enumerate(after)}
            rows = self._database.read(lambda session, params=params: session.all(page, params))  # type: ignore[misc]
            for row in rows:
                try:
                    yield record(row)
                except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as problem:
                    self._keep(table, ", ".join(f"{name} {row[n]!a}" for n, name in enumerate(names)), problem)
            if len(rows) < PAGE_ROWS:
                return
            after = tuple(rows[-1][: len(kinds)])

    def _keep(self, table: str, key: str, problem: Exception) -> None:
        if len(self.unreadable) < MOST_TOLD:
            self.unreadable.append(
                error(
                    "record-unreadable",
                    f"a record of {table} cannot be read: {problem}",
                    where=f"{self._database.location}, {table}, {key}",
                    fix="Restore it from a backup, and keep a copy of the damaged one.",
                )
            )
