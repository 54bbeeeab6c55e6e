"""The work of nodes, intervals and partitions alike: which nodes have any, and the steps of a change."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select, union

from seeknal.state.batch import IntervalAttributed, IntervalCompleted, IntervalRestated, PartitionCompleted, Work
from seeknal.state.sql import intervals, partitions
from seeknal.state.sql.statements import Session, Statement, Step

WORKED_NODES = Statement(
    lambda on: union(
        select(on.tables.completed_intervals.c.node_id),
        select(on.tables.partitions.c.node_id),
        select(on.tables.expected_partitions.c.node_id),
    )
)


def read_worked_nodes(session: Session) -> list[str]:
    """Return the ids of the nodes that have completed work, or expected partitions, sorted by their bytes."""
    return sorted((row[0] for row in session.all(WORKED_NODES)), key=str.encode)


def in_order(changes: Iterable[Work]) -> list[Work]:
    """Return changes in an order in which nobody waits in a ring for others: intervals first, whose nodes are held.

    Then partitions by their keys, where writers wait for each row. Those of one partition stay in their order, and
    different ones do not touch each other.
    """
    return sorted(changes, key=_place)


def _place(change: Work) -> tuple[str, ...]:
    match change:
        case IntervalCompleted() | IntervalRestated() | IntervalAttributed():
            return ("intervals",)
        case PartitionCompleted():
            return ("partitions", change.state.node_id, change.state.partition)
        case _:
            return ("partitions", change.node_id, change.partition)


def change_steps(change: Work) -> list[Step]:
    """Return the steps of a change."""
    if isinstance(change, IntervalCompleted | IntervalRestated | IntervalAttributed):
        return intervals.change_steps(change)
    return partitions.change_steps(change)
