"""Granting and renewing a lock entry: pure, but for the clock it is given."""

from __future__ import annotations

import os
from datetime import timedelta

import msgspec

from seeknal.clock import Clock
from seeknal.model.records import LockInfo
from seeknal.state.image import LockEntry
from seeknal.state.lease import LockKey, this_host


def granted(entry: LockEntry | None, key: LockKey, owner: str, ttl_ms: int, clock: Clock) -> LockEntry:
    """Return the entry after ``owner`` asked for the lock: the same one if somebody holds it."""
    ticks = clock.ticks_us()
    if entry is not None and entry.is_held(ticks):
        return entry
    now = clock.now()
    holder = LockInfo(
        run_id=key[0],
        node_id=key[1],
        token=1 if entry is None else entry.holder.token + 1,
        owner=owner,
        host=this_host(),
        pid=os.getpid(),
        acquired_at=now,
        expires_at=now + timedelta(milliseconds=ttl_ms),
        ttl_ms=ttl_ms,
    )
    return LockEntry(holder=holder, expires_us=ticks + ttl_ms * 1000)


def renewed(entry: LockEntry, ttl_ms: int, clock: Clock) -> LockEntry:
    """Return the entry of a held lease, extended to ``ttl_ms`` from now."""
    holder = msgspec.structs.replace(
        entry.holder, expires_at=clock.now() + timedelta(milliseconds=ttl_ms), ttl_ms=ttl_ms
    )
    return LockEntry(holder=holder, expires_us=clock.ticks_us() + ttl_ms * 1000)
