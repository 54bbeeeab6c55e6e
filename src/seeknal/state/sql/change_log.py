"""The change log: rows and records. A row is added once, whoever copies it, and never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select

from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import LoggedChange
from seeknal.state.sql.statements import Row, Session, Statement, Step, Target
from seeknal.state.sql.texts import restored, stored


def _added(on: Target) -> Any:
    log = on.tables.change_log
    row = {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in log.columns}
    return on.dialect.leaving(on.dialect.insert(log).values(row))


def _page(on: Target) -> Any:
    log = on.tables.change_log
    behind = log.c.change_id > bindparam("after", type_=log.c.change_id.type)
    return select(log).where(behind).order_by(log.c.change_id).limit(bindparam("most"))


ADD = Statement(_added)
PAGE = Statement(_page)


def write_step(change: LoggedChange) -> Step:
    """Return the step that adds an entry, unless it is there."""
    params = {
        "new_change_id": change.change_id,
        "new_at_us": to_us(change.at),
        "new_action": change.action,
        "new_run_id": change.run_id,
        "new_node_id": change.node_id,
        "new_reason": stored(change.reason),
        "new_detail": encode(change.detail).decode(),
        "new_actor": stored(change.actor),
        "new_host": change.host,
        "new_pid": change.pid,
    }
    return Step(ADD, params)


def read_log(session: Session, after: str, limit: int) -> list[LoggedChange]:
    """Return the entries that follow a change id, at most so many."""
    return [record(row) for row in session.all(PAGE, {"after": after, "most": limit})]


def record(row: Row) -> LoggedChange:
    """Return the entry of a row."""
    return LoggedChange(
        change_id=row[0],
        at=from_us(row[1]),
        action=row[2],
        run_id=row[3],
        node_id=row[4],
        reason=restored(row[5]) or "",
        detail=decode(row[6], dict[str, Any]),
        actor=restored(row[7]) or "",
        host=row[8],
        pid=row[9],
    )
