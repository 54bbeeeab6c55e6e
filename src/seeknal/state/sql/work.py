"""The work of nodes, intervals and partitions alike: which nodes have any, and the steps of a change."""

from __future__ import annotations

from sqlalchemy import select, union

from seeknal.state.batch import IntervalAttributed, IntervalCompleted, IntervalRestated, Work
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


def change_steps(change: Work) -> list[Step]:
    """Return the steps of a change."""
    if isinstance(change, IntervalCompleted | IntervalRestated | IntervalAttributed):
        return intervals.change_steps(change)
    return partitions.change_steps(change)
