"""Locks: rows and entries."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from seeknal.model.instants import from_us, to_us
from seeknal.model.records import LockInfo
from seeknal.state.image import LockEntry
from seeknal.state.lease import Lease, LockKey
from seeknal.state.sql.statements import Cursor, Row, Statement
from seeknal.state.sql.tables import locks

_upsert = insert(locks)
PUT = Statement(
    _upsert.on_conflict_do_update(
        index_elements=["run_id", "node_id"],
        set_={c.name: _upsert.excluded[c.name] for c in locks.c if not c.primary_key},
    )
)
GET = Statement(select(locks).where(locks.c.run_id == bindparam("run_id"), locks.c.node_id == bindparam("node_id")))
NOT_FREE = Statement(select(locks).where(locks.c.is_free == bindparam("is_free")))
FREE_RUN = Statement(update(locks).where(locks.c.run_id == bindparam("of_run")).values(is_free=bindparam("free")))


def read_entry(cursor: Cursor, key: LockKey) -> LockEntry | None:
    """Return what is known of a lock."""
    row = GET.one(cursor, {"run_id": key[0], "node_id": key[1] or ""})
    return None if row is None else _entry(row)


def put_entry(cursor: Cursor, entry: LockEntry) -> None:
    """Store a lock."""
    holder = entry.holder
    params = {
        "run_id": holder.run_id,
        "node_id": holder.node_id or "",  # a node id is never empty
        "token": holder.token,
        "owner": holder.owner,
        "host": holder.host,
        "pid": holder.pid,
        "acquired_us": to_us(holder.acquired_at),
        "expires_at_us": to_us(holder.expires_at),
        "ttl_ms": holder.ttl_ms,
        "expires_us": entry.expires_us,
        "is_free": int(entry.is_free),
        "reason": entry.broken_for,
    }
    PUT.run(cursor, params)


def held_entry(cursor: Cursor, lease: Lease, now_us: int) -> LockEntry | None:
    """Return the entry of a lease if it is held at this tick."""
    entry = read_entry(cursor, lease.key)
    return entry if entry is not None and entry.holder.owner == lease.owner and entry.is_held(now_us) else None


def read_held(cursor: Cursor, now_us: int) -> list[LockInfo]:
    """Return the locks that are held at this tick."""
    entries = [_entry(row) for row in NOT_FREE.all(cursor, {"is_free": 0})]
    return [entry.holder for entry in entries if entry.is_held(now_us)]


def free_run(cursor: Cursor, run_id: str) -> None:
    """Free the locks of a run and of its nodes, whoever holds them."""
    FREE_RUN.run(cursor, {"of_run": run_id, "free": 1})


def _entry(row: Row) -> LockEntry:
    run_id, node_id, token, owner, host, pid, acquired_us, expires_at_us, ttl_ms, expires_us, is_free, reason = row
    holder = LockInfo(
        run_id=run_id,
        node_id=node_id or None,
        token=token,
        owner=owner,
        host=host,
        pid=pid,
        acquired_at=from_us(acquired_us),
        expires_at=from_us(expires_at_us),
        ttl_ms=ttl_ms,
    )
    return LockEntry(holder=holder, expires_us=expires_us, is_free=bool(is_free), broken_for=reason)
