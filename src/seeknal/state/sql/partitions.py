"""Completed partitions, and those that are expected: rows and records."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, FromClause, Table, bindparam, delete, func, select

from seeknal.model.codec import decode, encode
from seeknal.model.instants import to_us
from seeknal.model.records import ExpectedPartition, PartitionState
from seeknal.state.batch import PartitionCompleted, PartitionExpected, PartitionRestated, PartitionUnexpected
from seeknal.state.sql.intervals import instant
from seeknal.state.sql.statements import Session, Statement, Step, Target

NO_LIMIT = 2**31 - 1
"""More rows than a page ever has; a statement says a number."""


def _of_node(table: FromClause) -> ColumnElement[bool]:
    return table.c.node_id == bindparam("node_key")


def _one(table: FromClause) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _of_node(table), table.c.partition == bindparam("part")


def _row(table: Table) -> dict[str, ColumnElement[Any]]:
    row: dict[str, ColumnElement[Any]] = {
        column.name: bindparam(f"new_{column.name}", type_=column.type) for column in table.c
    }
    return {**row, "node_id": bindparam("node_key"), "partition": bindparam("part")}


def _page(name: str, *, descending: bool = False) -> Statement:
    """Return the statement that reads the rows of a node behind a key; keys are never empty, so that is the least."""

    def build(on: Target) -> Any:
        table: Table = getattr(on.tables, name)
        key = table.c.partition
        behind = key < bindparam("after") if descending else key > bindparam("after")
        order = key.desc() if descending else key
        limit: Any = bindparam("limit", type_=BigInteger)
        return select(table).where(_of_node(table), behind).order_by(order).limit(limit)

    return Statement(build)


def _last(on: Target) -> Any:
    """Read the rows of a node from its last key down."""
    table = on.tables.partitions
    limit: Any = bindparam("limit", type_=BigInteger)
    return select(table).where(_of_node(table)).order_by(table.c.partition.desc()).limit(limit)


PAGE = _page("partitions")
PAGE_DOWN = _page("partitions", descending=True)
LAST = Statement(_last)
ONE = Statement(lambda on: select(on.tables.partitions).where(*_one(on.tables.partitions)))
COUNT = Statement(
    lambda on: select(func.count()).select_from(on.tables.partitions).where(_of_node(on.tables.partitions))
)
KEYS = Statement(lambda on: select(on.tables.partitions.c.partition).where(_of_node(on.tables.partitions)))
PUT = Statement(
    lambda on: on.dialect.overwriting(
        on.dialect.insert(on.tables.partitions).values(_row(on.tables.partitions)),
        ["node_id", "partition"],
        lambda new: {c.name: new[c.name] for c in on.tables.partitions.c if not c.primary_key},
    )
)
DROP = Statement(lambda on: delete(on.tables.partitions).where(*_one(on.tables.partitions)))
EXPECTED = _page("expected_partitions")
IS_EXPECTED = Statement(
    lambda on: select(on.tables.expected_partitions.c.partition).where(*_one(on.tables.expected_partitions))
)
EXPECT = Statement(
    lambda on: on.dialect.overwriting(
        on.dialect.insert(on.tables.expected_partitions).values(_row(on.tables.expected_partitions)),
        ["node_id", "partition"],
        lambda new: {"partition": new["partition"]},
    )
)
EXPECT_NOT = Statement(lambda on: delete(on.tables.expected_partitions).where(*_one(on.tables.expected_partitions)))


def partition(row: Any) -> PartitionState:
    """Return the record of a row."""
    return PartitionState(
        node_id=row[0],
        partition=row[1],
        run_id=row[2],
        completed_at=instant(row[3]),
        row_count=row[4],
        metadata=decode(row[5], dict[str, Any]),
    )


def expected(row: Any) -> ExpectedPartition:
    """Return the record of a row of what is expected.

    Raises:
        msgspec.ValidationError: Its key is no text.
    """
    if not isinstance(row[1], str):
        raise msgspec.ValidationError(f"{row[1]!a} is no key")
    return ExpectedPartition(row[0], row[1])


def read_partitions(
    session: Session, node_id: str, after: str = "", limit: int | None = None, *, descending: bool = False
) -> list[PartitionState]:
    """Return completed partitions of a node in the order of the bytes of their keys, or from the last one down."""
    params: dict[str, Any] = {"node_key": node_id, "limit": NO_LIMIT if limit is None else limit}
    if not descending:
        statement, params["after"] = PAGE, after
    elif after:
        statement, params["after"] = PAGE_DOWN, after
    else:
        statement = LAST
    return [partition(row) for row in session.all(statement, params)]


def read_partition(session: Session, node_id: str, key: str) -> PartitionState | None:
    """Return one completed partition."""
    rows = session.all(ONE, {"node_key": node_id, "part": key})
    return partition(rows[0]) if rows else None


def read_partition_keys(session: Session, node_id: str) -> set[str]:
    """Return the keys of the completed partitions of a node."""
    return {row[0] for row in session.all(KEYS, {"node_key": node_id})}


def read_partition_count(session: Session, node_id: str) -> int:
    """Return how many partitions a node has completed."""
    count: int = session.all(COUNT, {"node_key": node_id})[0][0]
    return count


def read_expected(session: Session, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
    """Return keys of partitions that are expected of a node, in the order of their bytes."""
    params = {"node_key": node_id, "after": after, "limit": NO_LIMIT if limit is None else limit}
    return [expected(row).partition for row in session.all(EXPECTED, params)]


def read_is_expected(session: Session, node_id: str, key: str) -> bool:
    """Return whether one partition is expected of a node."""
    return bool(session.all(IS_EXPECTED, {"node_key": node_id, "part": key}))


def change_steps(
    change: PartitionCompleted | PartitionRestated | PartitionExpected | PartitionUnexpected,
) -> list[Step]:
    """Return the step that completes, restates, expects or no longer expects a partition."""
    if isinstance(change, PartitionCompleted):
        state = change.state
        params = {
            "node_key": state.node_id,
            "part": state.partition,
            "new_run_id": state.run_id,
            "new_completed_us": to_us(state.completed_at),
            "new_row_count": state.row_count,
            "new_metadata": encode(state.metadata).decode(),
        }
        return [Step(PUT, params)]
    named = {"node_key": change.node_id, "part": change.partition}
    if isinstance(change, PartitionRestated):
        return [Step(DROP, named)]
    return [Step(EXPECT if isinstance(change, PartitionExpected) else EXPECT_NOT, named)]
