"""Runs: rows and records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import RunState
from seeknal.model.status import RunStatus
from seeknal.state.sql.statements import Cursor, Row, Statement
from seeknal.state.sql.tables import runs

_KEY = runs.c.run_id == bindparam("run_id")

_upsert = insert(runs)
PUT = Statement(
    _upsert.on_conflict_do_update(
        index_elements=["run_id"], set_={c.name: _upsert.excluded[c.name] for c in runs.c if not c.primary_key}
    )
)
GET = Statement(select(runs).where(_KEY))
VERSION = Statement(select(runs.c.version).where(_KEY))
LAST_SEQUENCE = Statement(select(func.coalesce(func.max(runs.c.sequence), 0)))
DELETE = Statement(delete(runs).where(_KEY))
_IDS = select(runs.c.run_id).limit(bindparam("most"))
_OF_STATUS = runs.c.status == bindparam("status")
IDS = {
    (False, False): Statement(_IDS.order_by(runs.c.sequence, runs.c.run_id)),
    (False, True): Statement(_IDS.order_by(runs.c.sequence.desc(), runs.c.run_id.desc())),
    (True, False): Statement(_IDS.where(_OF_STATUS).order_by(runs.c.sequence, runs.c.run_id)),
    (True, True): Statement(_IDS.where(_OF_STATUS).order_by(runs.c.sequence.desc(), runs.c.run_id.desc())),
}
"""By whether a status is asked for, and whether the newest come first."""


def read_run(cursor: Cursor, run_id: str) -> RunState | None:
    """Return one run."""
    row = GET.one(cursor, {"run_id": run_id})
    return None if row is None else _record(row)


def read_run_ids(cursor: Cursor, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
    """Return run ids in creation order."""
    params = {"most": 2**63 - 1 if limit is None else limit, "status": status and status.value}
    return [row[0] for row in IDS[status is not None, newest_first].all(cursor, params)]


def read_version(cursor: Cursor, run_id: str) -> int:
    """Return the version of a run; 0 is "no such run"."""
    row = VERSION.one(cursor, {"run_id": run_id})
    return 0 if row is None else int(row[0])


def put_runs(cursor: Cursor, records: list[RunState]) -> dict[str, int]:
    """Write whole runs and return their sequences."""
    following = 0
    if any(record.sequence == 0 for record in records):
        last = LAST_SEQUENCE.one(cursor)
        following = last[0] if last else 0
    given: dict[str, int] = {}
    for record in records:
        following = max(following + (record.sequence == 0), record.sequence)
        given[record.run_id] = record.sequence or following
    PUT.run_many(cursor, (_params(record, given[record.run_id]) for record in records))
    return given


def _params(run: RunState, sequence: int) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "status": run.status.value,
        "started_us": None if run.started_at is None else to_us(run.started_at),
        "finished_us": None if run.finished_at is None else to_us(run.finished_at),
        "config": encode(run.config).decode(),
        "metadata": encode(run.metadata).decode(),
        "version": run.version,
        "sequence": sequence,
    }


def _record(row: Row) -> RunState:
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
