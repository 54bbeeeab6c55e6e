"""Completed intervals and partitions: rows and records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, select, union
from sqlalchemy.dialects.sqlite import insert

from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import CompletedInterval, PartitionState
from seeknal.state.batch import IntervalCompleted, IntervalRestated, PartitionCompleted, Work
from seeknal.state.sql.statements import Cursor, Statement
from seeknal.state.sql.tables import completed_intervals as spans
from seeknal.state.sql.tables import partitions
from seeknal.state.unit import changed_intervals

_before = spans.alias("before")
_OF_NODE = spans.c.node_id == bindparam("node_id")

INTERVALS = Statement(select(spans).where(_OF_NODE).order_by(spans.c.start_us))
NEAR = Statement(
    # They never overlap, so only the last one that begins earlier can reach into the span.
    select(spans)
    .where(
        _OF_NODE,
        spans.c.start_us <= bindparam("end_us"),
        spans.c.start_us
        >= func.coalesce(
            select(func.max(_before.c.start_us))
            .where(_before.c.node_id == bindparam("node_id"), _before.c.start_us < bindparam("start_us"))
            .scalar_subquery(),
            bindparam("start_us"),
        ),
    )
    .order_by(spans.c.start_us)
)
DROP_INTERVAL = Statement(delete(spans).where(_OF_NODE, spans.c.start_us == bindparam("start_us")))
_span = insert(spans)
PUT_INTERVAL = Statement(
    _span.on_conflict_do_update(
        index_elements=["node_id", "start_us"],
        set_={"end_us": _span.excluded["end_us"], "run_id": _span.excluded["run_id"]},
    )
)

PARTITIONS = Statement(
    select(partitions).where(partitions.c.node_id == bindparam("node_id")).order_by(partitions.c.partition)
)
DROP_PARTITION = Statement(
    delete(partitions).where(
        partitions.c.node_id == bindparam("node_id"), partitions.c.partition == bindparam("partition")
    )
)
_partition = insert(partitions)
PUT_PARTITION = Statement(
    _partition.on_conflict_do_update(
        index_elements=["node_id", "partition"],
        set_={c.name: _partition.excluded[c.name] for c in partitions.c if not c.primary_key},
    )
)
WORKED_NODES = Statement(union(select(spans.c.node_id), select(partitions.c.node_id)))


def read_intervals(cursor: Cursor, node_id: str) -> list[CompletedInterval]:
    """Return the completed intervals of a node, canonical."""
    return [_interval(row) for row in INTERVALS.all(cursor, {"node_id": node_id})]


def read_partitions(cursor: Cursor, node_id: str) -> list[PartitionState]:
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
        for row in PARTITIONS.all(cursor, {"node_id": node_id})
    ]


def read_worked_nodes(cursor: Cursor) -> list[str]:
    """Return the ids of the nodes that have completed work, sorted by their bytes."""
    return sorted((row[0] for row in WORKED_NODES.all(cursor)), key=str.encode)


def apply_work(cursor: Cursor, change: Work) -> None:
    """Complete or restate an interval or a partition."""
    if isinstance(change, IntervalCompleted | IntervalRestated):
        _change_intervals(cursor, change)
    elif isinstance(change, PartitionCompleted):
        state = change.state
        params = {
            "node_id": state.node_id,
            "partition": state.partition,
            "run_id": state.run_id,
            "completed_us": to_us(state.completed_at),
            "row_count": state.row_count,
            "metadata": encode(state.metadata).decode(),
        }
        PUT_PARTITION.run(cursor, params)
    else:
        DROP_PARTITION.run(cursor, {"node_id": change.node_id, "partition": change.partition})


def _change_intervals(cursor: Cursor, change: IntervalCompleted | IntervalRestated) -> None:
    bounds = {"node_id": change.node_id, "start_us": to_us(change.start), "end_us": to_us(change.end)}
    near = [_interval(row) for row in NEAR.all(cursor, bounds)]
    after = changed_intervals(near, change)
    kept = {each.start for each in after}
    for each in near:
        if each.start not in kept:
            DROP_INTERVAL.run(cursor, {"node_id": each.node_id, "start_us": to_us(each.start)})
    for each in after:
        if each not in near:
            params = {"start_us": to_us(each.start), "end_us": to_us(each.end)}
            PUT_INTERVAL.run(cursor, {"node_id": each.node_id, "run_id": each.run_id, **params})


def _interval(row: tuple[Any, ...]) -> CompletedInterval:
    return CompletedInterval(row[0], from_us(row[1]), from_us(row[2]), row[3])
