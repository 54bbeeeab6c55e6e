"""Runs: rows and records."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, literal_column, or_, select, update

from seeknal.errors import StateBackendError
from seeknal.model.changes import missing_run, stale
from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import RunState
from seeknal.model.status import RunStatus
from seeknal.state.sql.sequences import given_or_next
from seeknal.state.sql.statements import Row, Session, Statement, Step, Target

PAGE_RUNS = 1000
MOST_RUNS = 2**63 - 1
"""The highest number that every database takes for a limit."""


def _key(on: Target) -> ColumnElement[bool]:
    return on.tables.runs.c.run_id == bindparam("key")


def _written(on: Target) -> dict[str, ColumnElement[Any]]:
    """Return the columns of a run that a write sets, but for its id."""
    runs = on.tables.runs
    last = select(func.coalesce(func.max(runs.alias("other").c.sequence), 0)).scalar_subquery()
    names = [column.name for column in runs.c if column.name not in ("run_id", "sequence")]
    values = {name: bindparam(f"new_{name}", type_=runs.c[name].type) for name in names}
    return {**values, "sequence": given_or_next(on, last)}


GET = Statement(lambda on: select(on.tables.runs).where(_key(on)))
SEQUENCE = Statement(lambda on: select(on.tables.runs.c.sequence).where(_key(on)))
EXISTS = Statement(
    lambda on: select(on.tables.runs.c.version).where(_key(on)).with_for_update(read=True, key_share=True)
)
STANDS_AT = Statement(
    lambda on: (
        select(on.tables.runs.c.version)
        .where(_key(on), on.tables.runs.c.version == bindparam("expected"))
        .with_for_update()
    )
)
CREATE = Statement(lambda on: on.dialect.insert(on.tables.runs).values({"run_id": bindparam("key"), **_written(on)}))
CHANGE = Statement(
    lambda on: (
        update(on.tables.runs).where(_key(on), on.tables.runs.c.version == bindparam("expected")).values(_written(on))
    )
)
DELETE = Statement(lambda on: delete(on.tables.runs).where(_key(on)))


@lru_cache(maxsize=64)
def _ids(of_status: bool, newest_first: bool, limit: int | None) -> Statement:
    """Return what lists runs.

    The limit is part of the text. PostgreSQL takes one that it does not know beforehand for a tenth of the table, and
    so, once there are many runs, would plan the statement anew each time.
    Source: ``preprocess_limit`` in PostgreSQL's ``planner.c``.
    """

    def build(on: Target) -> Any:
        runs = on.tables.runs
        order = (runs.c.sequence.desc(), runs.c.run_id.desc()) if newest_first else (runs.c.sequence, runs.c.run_id)
        wanted = [runs.c.status == bindparam("status")] if of_status else []
        most: ColumnElement[int] | None = None if limit is None else literal_column(str(min(limit, MOST_RUNS)))
        return select(runs.c.run_id).where(*wanted).order_by(*order).limit(most)

    return Statement(build)


PAGE = Statement(
    lambda on: (
        select(on.tables.runs)
        .where(
            # The first condition is what an index is entered by; MySQL does not see through the second.
            on.tables.runs.c.sequence >= bindparam("sequence"),
            or_(on.tables.runs.c.sequence > bindparam("sequence"), on.tables.runs.c.run_id > bindparam("after")),
        )
        .order_by(on.tables.runs.c.sequence, on.tables.runs.c.run_id)
        .limit(literal_column(str(PAGE_RUNS)))
    )
)


def read_page(session: Session, after: RunState | None) -> list[RunState]:
    """Return the runs that follow one in creation order, `PAGE_RUNS` of them unless there are no more."""
    params = {"sequence": after.sequence if after else -1, "after": after.run_id if after else ""}
    return [record(row) for row in session.all(PAGE, params)]


def read_run(session: Session, run_id: str) -> RunState | None:
    """Return one run."""
    row = session.one(GET, {"key": run_id})
    return None if row is None else record(row)


def read_run_ids(session: Session, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
    """Return run ids in creation order."""
    params = {} if status is None else {"status": status.value}
    return [row[0] for row in session.all(_ids(status is not None, newest_first, limit), params)]


def write_step(run: RunState, expected: int, op_id: int, nth: int) -> Step:
    """Return the step that writes a whole run which stands at a version, 0 being "no such run"."""

    def refusal(session: Session) -> StateBackendError:
        return stale_run(session, run.run_id, expected)

    statement = CHANGE if expected else CREATE
    return Step(statement, {**_params(run), "expected": expected, "op_id": op_id, "nth": nth}, refusal)


def guard_step(run_id: str, expected: int) -> Step:
    """Return the step that holds a run which stands at a version, not 0, until the end of the transaction."""
    return Step(STANDS_AT, {"key": run_id, "expected": expected}, lambda session: stale_run(session, run_id, expected))


def need_step(run_id: str) -> Step:
    """Return the step that demands a run and keeps it from being deleted until the end of the transaction."""
    return Step(EXISTS, {"key": run_id}, lambda session: missing_run(run_id))


def stale_run(session: Session, run_id: str, expected: int) -> StateBackendError:
    """Return the error of a run that was not at its version."""
    found = read_run(session, run_id)
    version = found.version if found else 0
    return stale(f"run {run_id!a}", expected, version if version != expected else None)


def _params(run: RunState) -> dict[str, Any]:
    return {
        "key": run.run_id,
        "new_status": run.status.value,
        "new_started_us": None if run.started_at is None else to_us(run.started_at),
        "new_finished_us": None if run.finished_at is None else to_us(run.finished_at),
        "new_config": encode(run.config).decode(),
        "new_metadata": encode(run.metadata).decode(),
        "new_version": run.version,
        "given": run.sequence,
    }


def record(row: Row) -> RunState:
    """Return the run that a row of the table holds, its columns in their order."""
    run_id, status, started_us, finished_us, config, metadata, version, sequence = row
    return RunState(
        run_id=run_id,
        status=RunStatus(status),
        started_at=None if started_us is None else from_us(started_us),
        finished_at=None if finished_us is None else from_us(finished_us),
        config=decode(config, dict[str, Any]),
        metadata=decode(metadata, dict[str, Any]),
        version=version,
        sequence=sequence,
    )
