"""Completed intervals and their provenance: rows and records.

A change of intervals is a few statements that look at its neighbours only, and nothing is read in between: so it can be
sent as a part of a whole transaction, and costs the same however many intervals a node has. They rely on the
rows of a node being canonical (sorted, apart from each other, but for those of two runs in the provenance) and on
nobody else changing them meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    union_all,
)

from seeknal.model.instants import from_us, to_us
from seeknal.model.records import CompletedInterval, IntervalProvenance
from seeknal.state.batch import IntervalAttributed, IntervalCompleted, IntervalRestated, Work
from seeknal.state.sql.statements import Session, Statement, Step, Target

_FIRST = bindparam("start_us", type_=BigInteger)
_END = bindparam("end_us", type_=BigInteger)
_COLUMNS = ["node_id", "start_us", "end_us", "run_id"]

Spans = Callable[[Target], Table]
"""Which of the two tables of spans."""


def _coverage(on: Target) -> Table:
    return on.tables.completed_intervals


def _provenance(on: Target) -> Table:
    return on.tables.interval_provenance


def _of_node(table: FromClause) -> ColumnElement[bool]:
    return table.c.node_id == bindparam("node_key")


def _last(spans: Table, before: ColumnElement[Any]) -> Subquery:
    """Return the span that begins last of those that begin before an instant.

    A subquery with a limit, and no statement here compares the key with anything but parameters: where the bound is the
    answer of another query, MariaDB goes through all spans of the node (seen with 10.11).
    """
    other = spans.alias("other")
    found = select(other).where(_of_node(other), other.c.start_us < before)
    return found.order_by(other.c.start_us.desc()).limit(literal_column("1")).subquery("last_before")


def _joined(on: Target, spans: Table, *touched: Select[Any]) -> Any:
    """Put ``[start, end)`` and what it joins into one row, at the place of the first."""
    every = union_all(select(_FIRST.label("start_us"), _END.label("end_us")), *touched).subquery("every")
    row: Any = select(
        bindparam("node_key").label("node_id"),
        func.min(every.c.start_us).label("start_us"),
        func.max(every.c.end_us).label("end_us"),
        bindparam("run_key").label("run_id"),
    ).where(text("1 = 1"))  # or SQLite takes ON CONFLICT for a join: https://www.sqlite.org/lang_upsert.html §2.2
    added = on.dialect.insert(spans).from_select(_COLUMNS, row)
    return on.dialect.overwriting(
        added, ["node_id", "start_us"], lambda new: {"end_us": new["end_us"], "run_id": new["run_id"]}
    )


def _merged(on: Target) -> Any:
    """Merge ``[start, end)`` with all that it touches."""
    spans = _coverage(on)
    # They never overlap, so only the last one that begins earlier can reach into the span.
    before = _last(spans, _FIRST)
    near = spans.alias("near")
    return _joined(
        on,
        spans,
        select(before.c.start_us, before.c.end_us).where(before.c.end_us >= _FIRST),
        select(near.c.start_us, near.c.end_us).where(_of_node(near), near.c.start_us.between(_FIRST, _END)),
    )


def _swallowed(on: Target) -> Any:
    """Remove what the row that `_merged` has put covers and begins behind ``start``."""
    spans = _coverage(on)
    return delete(spans).where(_of_node(spans), spans.c.start_us > _FIRST, spans.c.start_us <= _END)


def _swallowed_first(on: Target) -> Any:
    """Remove what begins right at ``start``, if the row that `_merged` has put begins earlier."""
    spans = _coverage(on)
    before = _last(spans, _FIRST)
    covering: Select[Any] = select(literal_column("1")).select_from(before).where(before.c.end_us >= _FIRST)
    return delete(spans).where(_of_node(spans), spans.c.start_us == _FIRST, exists(covering))


def _attributed(on: Target) -> Any:
    """Join ``[start, end)``, which was cut out before, with what touches it and is of the same run."""
    spans = _provenance(on)
    before = _last(spans, _FIRST)
    behind = spans.alias("behind")
    run: ColumnElement[str] = bindparam("run_key")
    return _joined(
        on,
        spans,
        select(before.c.start_us, before.c.end_us).where(before.c.end_us == _FIRST, before.c.run_id == run),
        select(behind.c.start_us, behind.c.end_us).where(
            _of_node(behind), behind.c.start_us == _END, behind.c.run_id == run
        ),
    )


def _joined_behind(on: Target) -> Any:
    """Remove what the row that `_attributed` has put covers."""
    spans = _provenance(on)
    return delete(spans).where(_of_node(spans), spans.c.start_us == _END, spans.c.run_id == bindparam("run_key"))


def _right_part(of: Spans) -> Statement:
    """Give what reaches out of ``[start, end)`` at its end a row of its own."""

    def build(on: Target) -> Any:
        last = _last(of(on), _END)
        row = select(last.c.node_id, _END.label("start_us"), last.c.end_us, last.c.run_id).where(last.c.end_us > _END)
        return insert(of(on)).from_select(_COLUMNS, row)

    return Statement(build)


def _left_part(of: Spans) -> Statement:
    """Shorten what reaches into ``[start, end)`` from before; written anew, since its key can only be read."""

    def build(on: Target) -> Any:
        last = _last(of(on), _FIRST)
        row = select(last.c.node_id, last.c.start_us, _FIRST.label("end_us"), last.c.run_id).where(
            last.c.end_us > _FIRST
        )
        added = on.dialect.insert(of(on)).from_select(_COLUMNS, row)
        return on.dialect.overwriting(added, ["node_id", "start_us"], lambda new: {"end_us": new["end_us"]})

    return Statement(build)


def _inside(of: Spans) -> Statement:
    def build(on: Target) -> Any:
        spans = of(on)
        return delete(spans).where(_of_node(spans), spans.c.start_us >= _FIRST, spans.c.start_us < _END)

    return Statement(build)


def _cut(of: Spans) -> tuple[Statement, ...]:
    """Return what takes ``[start, end)`` out of a table."""
    return (_right_part(of), _left_part(of), _inside(of))


ATTRIBUTE = (*_cut(_provenance), Statement(_attributed), Statement(_joined_behind))
COMPLETE = (Statement(_merged), Statement(_swallowed_first), Statement(_swallowed), *ATTRIBUTE)
RESTATE = (*_cut(_coverage), *_cut(_provenance))


def _held_node(on: Target) -> Any:
    """Make others who change the intervals of a node wait until the end of the transaction."""
    nodes = on.tables.worked_nodes
    row = on.dialect.insert(nodes).values(node_id=bindparam("node_key"), changes=literal_column("1"))
    return on.dialect.overwriting(row, ["node_id"], lambda _: {"changes": nodes.c.changes + literal_column("1")})


HOLD_NODE = Statement(_held_node)


def _in_order(of: Spans) -> Statement:
    return Statement(lambda on: select(of(on)).where(_of_node(of(on))).order_by(of(on).c.start_us))


INTERVALS = _in_order(_coverage)
PROVENANCE = _in_order(_provenance)


def instant(value: Any) -> datetime:
    """Return the instant of a column.

    Raises:
        msgspec.ValidationError: It holds none; a database tells that as a damaged record.
    """
    try:
        return from_us(value)
    except (TypeError, OverflowError, ValueError) as error:
        raise msgspec.ValidationError(f"{value!a} is no instant") from error


def interval(row: Any) -> CompletedInterval:
    """Return the record of a row."""
    return CompletedInterval(row[0], instant(row[1]), instant(row[2]), row[3])


def part(row: Any) -> IntervalProvenance:
    """Return the record of a row of the provenance."""
    return IntervalProvenance(row[0], instant(row[1]), instant(row[2]), row[3])


def read_intervals(session: Session, node_id: str) -> list[CompletedInterval]:
    """Return the completed intervals of a node, canonical."""
    return [interval(row) for row in session.all(INTERVALS, {"node_key": node_id})]


def read_provenance(session: Session, node_id: str) -> list[IntervalProvenance]:
    """Return which run completed each part of them, in order."""
    return [part(row) for row in session.all(PROVENANCE, {"node_key": node_id})]


def hold_steps(work: Iterable[Work]) -> list[Step]:
    """Return the steps that make other writers of these intervals wait, in order, so that nobody waits in a ring."""
    kinds = IntervalCompleted | IntervalRestated | IntervalAttributed
    held = {change.node_id for change in work if isinstance(change, kinds)}
    return [Step(HOLD_NODE, {"node_key": node_id}) for node_id in sorted(held)]


def change_steps(change: IntervalCompleted | IntervalRestated | IntervalAttributed) -> list[Step]:
    """Return the steps that complete or restate an interval, or tell of a part of one which run completed it."""
    params = {"node_key": change.node_id, "start_us": to_us(change.start), "end_us": to_us(change.end)}
    if isinstance(change, IntervalRestated):
        return [Step(statement, params) for statement in RESTATE]
    params["run_key"] = change.run_id
    statements = COMPLETE if isinstance(change, IntervalCompleted) else ATTRIBUTE
    return [Step(statement, params) for statement in statements]
