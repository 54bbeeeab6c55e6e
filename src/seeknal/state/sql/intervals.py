"""Completed intervals and partitions: rows and records.

A change of intervals is a few statements that look at its neighbours only, and nothing is read in between: so it can be
sent as a part of a whole transaction, and costs the same however many intervals a node has. They rely on the
rows of a node being canonical (sorted, apart from each other) and on nobody else changing them meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    ScalarSelect,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    union,
    union_all,
    update,
)

from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import CompletedInterval, PartitionState
from seeknal.state.batch import IntervalCompleted, IntervalRestated, PartitionCompleted, Work
from seeknal.state.sql.statements import Session, Statement, Step, Target

_FIRST = bindparam("start_us", type_=BigInteger)
_END = bindparam("end_us", type_=BigInteger)


def _of_node(table: FromClause) -> ColumnElement[bool]:
    return table.c.node_id == bindparam("node_key")


def _last_start(on: Target, before: ColumnElement[Any], *, inclusive: bool = False) -> ScalarSelect[Any]:
    """Return where the last interval begins that begins before an instant, or at it.

    Wrapped once more, since MySQL reads the table that it changes only through a derived one.
    Source: https://dev.mysql.com/doc/refman/8.4/en/update.html
    """
    other = on.tables.completed_intervals.alias("other")
    earlier = other.c.start_us <= before if inclusive else other.c.start_us < before
    found = select(func.max(other.c.start_us).label("last")).where(_of_node(other), earlier).subquery("found")
    return select(found.c.last).scalar_subquery()


def _merged(on: Target) -> Any:
    """Put ``[start, end)`` and all that it touches into one row, at the place of the first."""
    spans = on.tables.completed_intervals
    near = spans.alias("near")
    # They never overlap, so only the last one that begins earlier can reach into the span.
    first = func.coalesce(_last_start(on, _FIRST), _FIRST)
    touched = select(near.c.start_us, near.c.end_us).where(
        _of_node(near), near.c.start_us >= first, near.c.start_us <= _END, near.c.end_us >= _FIRST
    )
    every = union_all(select(_FIRST.label("start_us"), _END.label("end_us")), touched).subquery("every")
    row: Any = select(
        bindparam("node_key").label("node_id"),
        func.min(every.c.start_us).label("start_us"),
        func.max(every.c.end_us).label("end_us"),
        bindparam("run_key").label("run_id"),
    ).where(text("1 = 1"))  # or SQLite takes ON CONFLICT for a join: https://www.sqlite.org/lang_upsert.html §2.2
    added = on.dialect.insert(spans).from_select(["node_id", "start_us", "end_us", "run_id"], row)
    return on.dialect.overwriting(
        added, ["node_id", "start_us"], lambda new: {"end_us": new["end_us"], "run_id": new["run_id"]}
    )


def _swallowed(on: Target) -> Any:
    """Remove what the row that `_merged` has put covers: it begins last of those that begin no later than ``start``."""
    spans = on.tables.completed_intervals
    return delete(spans).where(
        _of_node(spans), spans.c.start_us > _last_start(on, _FIRST, inclusive=True), spans.c.start_us <= _END
    )


def _right_part(on: Target) -> Any:
    """Give what reaches out of ``[start, end)`` at its end a row of its own."""
    spans = on.tables.completed_intervals
    near = spans.alias("near")
    row = select(near.c.node_id, _END.label("start_us"), near.c.end_us, near.c.run_id).where(
        _of_node(near), near.c.start_us == _last_start(on, _END), near.c.end_us > _END
    )
    return insert(spans).from_select(["node_id", "start_us", "end_us", "run_id"], row)


def _left_part(on: Target) -> Any:
    """Shorten what reaches into ``[start, end)`` from before."""
    spans = on.tables.completed_intervals
    return (
        update(spans)
        .where(_of_node(spans), spans.c.start_us == _last_start(on, _FIRST), spans.c.end_us > _FIRST)
        .values(end_us=_FIRST)
    )


def _inside(on: Target) -> Any:
    spans = on.tables.completed_intervals
    return delete(spans).where(_of_node(spans), spans.c.start_us >= _FIRST, spans.c.start_us < _END)


COMPLETE = (Statement(_merged), Statement(_swallowed))
RESTATE = (Statement(_right_part), Statement(_left_part), Statement(_inside))


def _held_node(on: Target) -> Any:
    """Make others who change the intervals of a node wait until the end of the transaction."""
    nodes = on.tables.worked_nodes
    row = on.dialect.insert(nodes).values(node_id=bindparam("node_key"), changes=literal_column("1"))
    return on.dialect.overwriting(row, ["node_id"], lambda _: {"changes": nodes.c.changes + literal_column("1")})


HOLD_NODE = Statement(_held_node)
INTERVALS = Statement(
    lambda on: (
        select(on.tables.completed_intervals)
        .where(_of_node(on.tables.completed_intervals))
        .order_by(on.tables.completed_intervals.c.start_us)
    )
)


def _partition_row(on: Target) -> dict[str, ColumnElement[Any]]:
    table = on.tables.partitions
    row: dict[str, ColumnElement[Any]] = {
        column.name: bindparam(f"new_{column.name}", type_=column.type) for column in table.c
    }
    return {**row, "node_id": bindparam("node_key"), "partition": bindparam("part")}


PARTITIONS = Statement(
    lambda on: (
        select(on.tables.partitions).where(_of_node(on.tables.partitions)).order_by(on.tables.partitions.c.partition)
    )
)
PARTITION_KEYS = Statement(lambda on: select(on.tables.partitions.c.partition).where(_of_node(on.tables.partitions)))
PUT_PARTITION = Statement(
    lambda on: on.dialect.overwriting(
        on.dialect.insert(on.tables.partitions).values(_partition_row(on)),
        ["node_id", "partition"],
        lambda new: {c.name: new[c.name] for c in on.tables.partitions.c if not c.primary_key},
    )
)
DROP_PARTITION = Statement(
    lambda on: delete(on.tables.partitions).where(
        _of_node(on.tables.partitions), on.tables.partitions.c.partition == bindparam("part")
    )
)
WORKED_NODES = Statement(
    lambda on: union(select(on.tables.completed_intervals.c.node_id), select(on.tables.partitions.c.node_id))
)


def read_intervals(session: Session, node_id: str) -> list[CompletedInterval]:
    """Return the completed intervals of a node, canonical."""
    rows = session.all(INTERVALS, {"node_key": node_id})
    return [CompletedInterval(row[0], from_us(row[1]), from_us(row[2]), row[3]) for row in rows]


def read_partitions(session: Session, node_id: str) -> list[PartitionState]:
    """Return the completed partitions of a node, sorted by the bytes of their keys."""
    return [
        PartitionState(
            node_id=row[0],
            partition=row[1],
            run_id=row[2],
            completed_at=from_us(row[3]),
            row_count=row[4],
            metadata=decode(row[5], dict[str, Any]),
        )
        for row in session.all(PARTITIONS, {"node_key": node_id})
    ]


def read_partition_keys(session: Session, node_id: str) -> set[str]:
    """Return the keys of the completed partitions of a node."""
    return {row[0] for row in session.all(PARTITION_KEYS, {"node_key": node_id})}


def read_worked_nodes(session: Session) -> list[str]:
    """Return the ids of the nodes that have completed work, sorted by their bytes."""
    return sorted((row[0] for row in session.all(WORKED_NODES)), key=str.encode)


def hold_steps(work: Iterable[Work]) -> list[Step]:
    """Return the steps that make other writers of these intervals wait, in order, so that nobody waits in a ring."""
    held = {change.node_id for change in work if isinstance(change, IntervalCompleted | IntervalRestated)}
    return [Step(HOLD_NODE, {"node_key": node_id}) for node_id in sorted(held)]


def work_steps(change: Work) -> list[Step]:
    """Return the steps that complete or restate an interval or a partition."""
    if isinstance(change, IntervalCompleted):
        span = {"node_key": change.node_id, "start_us": to_us(change.start), "end_us": to_us(change.end)}
        return [Step(statement, {**span, "run_key": change.run_id}) for statement in COMPLETE]
    if isinstance(change, IntervalRestated):
        span = {"node_key": change.node_id, "start_us": to_us(change.start), "end_us": to_us(change.end)}
        return [Step(statement, span) for statement in RESTATE]
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
        return [Step(PUT_PARTITION, params)]
    return [Step(DROP_PARTITION, {"node_key": change.node_id, "part": change.partition})]
