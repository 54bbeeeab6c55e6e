"""Runs that nothing needs any more: judged by one statement each, deleted by a few in one transaction.

The transaction demands again what the judgement found. Where writers lock rows, it also holds what it rests on until
its end: the run, its nodes, and a newer success of each node that succeeded in it. That is one of a run that is over,
if there is any, since those of a run that goes on are written all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, exists, func, literal_column, select

from seeknal.clock import Clock
from seeknal.model.changes import stale
from seeknal.model.instants import to_us
from seeknal.model.records import RunState
from seeknal.model.status import RunStatus
from seeknal.state.retention import LOCKED, MOST_ROWS, NEWEST_SUCCESS, WRITTEN, Retirement, because, cleaned
from seeknal.state.sql import leases, nodes, receipts, runs
from seeknal.state.sql.dialects.base import RefusedError
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Session, Statement, Step, Target
from seeknal.state.sql.store import current_step
from seeknal.state.transaction import backoff

_SUCCESS: ColumnElement[str] = literal_column("'success'")
_FINAL: list[ColumnElement[str]] = [literal_column(f"'{each.value}'") for each in RunStatus if each.is_final]


def _successes(on: Target) -> Any:
    return on.tables.node_states.alias("ours")


def _is_of_run(ours: Any) -> ColumnElement[bool]:
    return and_(ours.c.run_id == bindparam("key"), ours.c.status == _SUCCESS)


def _first(on: Target, ours: Any, *, is_over: bool = False) -> Any:
    """Return the sequence of the newest success of a node in a run that exists, or that is over.

    In this form every database takes the first entry of an index. For a join or a maximum some read all of them.
    """
    every, run = on.tables.node_states.alias("every"), on.tables.runs.alias("run_of_every")
    same = and_(every.c.node_id == ours.c.node_id, every.c.status == _SUCCESS)
    status = select(run.c.status).where(run.c.run_id == every.c.run_id).scalar_subquery()
    has_run = status.in_(_FINAL) if is_over else status.is_not(None)
    first = select(every.c.sequence).where(same, has_run).order_by(every.c.sequence.desc()).limit(literal_column("1"))
    return first, every.c.sequence > ours.c.sequence


def _newest(on: Target, ours: Any) -> Any:
    return _first(on, ours)[0].scalar_subquery()


def _held(on: Target, ours: Any, *, is_over: bool) -> Any:
    """Return the same of a newer success, which is held from now on; ``NULL`` if there is none."""
    first, is_newer = _first(on, ours, is_over=is_over)
    return first.where(is_newer).with_for_update(read=True).scalar_subquery()


def _is_newest(on: Target, ours: Any) -> ColumnElement[bool]:
    return and_(_is_of_run(ours), ours.c.sequence == _newest(on, ours))


def _standing(on: Target) -> Any:
    """Return a run, how many nodes it has, and one whose newest success it holds."""
    every, run, ours = on.tables.node_states, on.tables.runs, _successes(on)
    count = select(func.count()).select_from(every).where(every.c.run_id == bindparam("key"))
    newest = select(func.min(ours.c.node_id)).where(_is_newest(on, ours))
    return select(run, count.scalar_subquery(), newest.scalar_subquery()).where(run.c.run_id == bindparam("key"))


def _same(on: Target) -> Any:
    """Return a run unless it was written, or made anew under its name, since it was read."""
    run = on.tables.runs
    names = ("version", "sequence", "finished_us")
    seen = [run.c[name] == bindparam(f"seen_{name}", type_=BigInteger) for name in names]
    return select(run.c.version).where(run.c.run_id == bindparam("key"), *seen).with_for_update()


def _obsolete(on: Target) -> Any:
    """Return a row if a run holds no newest success."""
    ours = _successes(on)
    return select(literal_column("1")).where(~exists(select(ours.c.node_id).where(_is_newest(on, ours))))


def _obsolete_and_held(on: Target) -> Any:
    """Return the same, and hold a newer success of each node that succeeded in the run."""
    ours = _successes(on)
    held = func.coalesce(*(_held(on, ours, is_over=is_over) for is_over in (True, False)))
    return select(literal_column("1")).where(~exists(select(ours.c.node_id).where(_is_of_run(ours), held.is_(None))))


STANDING = Statement(_standing)
SAME = Statement(_same)
OBSOLETE = Statement(_obsolete)
HOLD_OBSOLETE = Statement(_obsolete_and_held)
HOLD_NODES = Statement(
    lambda on: (
        select(on.tables.node_states.c.node_id)
        .where(on.tables.node_states.c.run_id == bindparam("key"))
        .order_by(on.tables.node_states.c.node_id)
        .with_for_update()
    )
)


def retire(
    database: Database, clock: Clock, candidates: Sequence[RunState], *, dry_run: bool, budget_ms: int
) -> Retirement:
    """Delete those of the first runs that nothing needs, in one transaction.

    If somebody writes what this rests on, the first run is tried alone, and kept if that goes on until the budget ends.

    Raises:
        StateBackendError: The store cannot be reached, or moved away.
    """
    deadline = clock.ticks_us() + budget_ms * 1000
    for pause in backoff():
        found, demands = database.read(lambda session, runs=candidates: _judged(session, clock, runs))  # type: ignore[misc]
        if dry_run or not found.gone:
            return found
        work = [*demands, *_deletions(found), current_step(database.location)]

        def steps(op_id: int, work: list[Step] = work) -> list[Step]:
            return [receipts.leave_step(op_id), *work] if database.dialect.is_shared else work

        try:
            database.commit(lambda raw, op_id, steps=steps: database.run(raw, steps(op_id)), lambda _: [])  # type: ignore[misc]
        except RefusedError as refused:
            refusal = steps(0)[refused.at].refusal
            problem = database.read(refusal) if refusal else stale("a record of a run", 0, None)
            if not problem.retriable:
                raise problem from None
            if clock.ticks_us() >= deadline:
                return Retirement(1, [], {candidates[0].run_id: WRITTEN})
            candidates = candidates[:1]
            clock.sleep(pause)  # somebody wrote in between: judge again
        else:
            return found
    raise AssertionError("the pauses never end")  # pragma: no cover


def _judged(session: Session, clock: Clock, candidates: Sequence[RunState]) -> tuple[Retirement, list[Step]]:
    """Return what can go of the first runs, and the steps that demand that it can."""
    held = {lock.run_id for lock in leases.read_held(session, clock)}
    found = Retirement(0, [], {})
    stand: dict[str, RunState] = {}
    judged = rows = 0
    for run in candidates:
        if rows >= MOST_ROWS:
            break
        judged += 1
        row = session.one(STANDING, {"key": run.run_id})
        if row is None:
            continue  # somebody else deleted it
        *_, count, newest = row
        rows += 1 + count
        if runs.record(row[:-2]) != run:
            found.kept[run.run_id] = WRITTEN
        elif run.run_id in held:
            found.kept[run.run_id] = LOCKED
        elif newest is not None:
            found.kept[run.run_id] = because(NEWEST_SUCCESS, newest)
        else:
            found.gone.append(cleaned(run, count))
            stand[run.run_id] = run
    # Runs before nodes, each in the order of their ids, as every commit does: no writers wait in a ring.
    demands = [_same_step(stand[run_id]) for run_id in sorted(stand)]
    demands += [leases.unlocked_step(run_id, clock) for run_id in stand]
    if session.target.dialect.locks_rows:
        demands += [Step(HOLD_NODES, {"key": run_id}) for run_id in sorted(stand)]
    obsolete = HOLD_OBSOLETE if session.target.dialect.locks_rows else OBSOLETE
    demands += [Step(obsolete, {"key": run_id}, lambda session: stale("a node", 0, None)) for run_id in sorted(stand)]
    return found._replace(judged=judged), demands


def _same_step(run: RunState) -> Step:
    finished_us = None if run.finished_at is None else to_us(run.finished_at)
    seen = {"seen_version": run.version, "seen_sequence": run.sequence, "seen_finished_us": finished_us}
    return Step(SAME, {"key": run.run_id, **seen}, lambda session: runs.stale_run(session, run.run_id, run.version))


def _deletions(found: Retirement) -> list[Step]:
    return [
        Step(statement, {"key": run.run_id}) for run in found.gone for statement in (nodes.DELETE_OF_RUN, runs.DELETE)
    ]
