"""Locks: rows, and the steps that grant, renew and end a lease.

Whether a lease stands is asked inside the statement that acts on it, by the clock that it is measured with: the
server's, or the ticks that all processes of one machine share. Granting the same lease twice to one owner changes
nothing more, so it may be repeated when its answer was lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, case, exists, literal_column, or_, select, update

from seeknal.clock import Clock
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import LockInfo, LockToken
from seeknal.state.lease import Lease, LockKey, locked_meanwhile, lost, this_host
from seeknal.state.sql.statements import Params, Row, Session, Statement, Step, Target
from seeknal.state.sql.texts import stored

WAITED_US = 60_000_000
"""How long ago the ticks of a statement may have been read when it runs."""

PAGE_TOKENS = 1000

_LEAST = bindparam("least", type_=BigInteger)
_OWNER: ColumnElement[str] = bindparam("of_owner")
_TTL_US = bindparam("ttl_us", type_=BigInteger)


def _key(on: Target) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    locks = on.tables.locks
    return locks.c.run_id == bindparam("key"), locks.c.node_id == bindparam("node_key")


def is_held(on: Target) -> ColumnElement[bool]:
    """Return that a lease stands.

    In ticks, far more than a whole time to live ahead means that the ticks began anew: the machine was started again,
    and the owner is gone. A little more only means that somebody renewed it while this statement waited to run.
    """
    locks, now = on.tables.locks, on.dialect.now_us()
    stands = [locks.c.is_free == literal_column("0"), locks.c.expires_us > now]
    if not on.dialect.is_shared:
        latest = now + locks.c.ttl_ms * literal_column("1000") + literal_column(str(WAITED_US))
        stands.append(locks.c.expires_us <= latest)
    return and_(*stands)


def _is_mine(on: Target) -> ColumnElement[bool]:
    return on.tables.locks.c.owner == _OWNER


def _wall_us(on: Target) -> ColumnElement[int]:
    """Return the instant that people are shown."""
    return on.dialect.now_us() if on.dialect.is_shared else bindparam("wall_us", type_=BigInteger)


def _times(on: Target) -> dict[str, ColumnElement[Any]]:
    return {
        "expires_at_us": _wall_us(on) + _TTL_US,
        "ttl_ms": bindparam("new_ttl_ms", type_=BigInteger),
        "expires_us": on.dialect.now_us() + _TTL_US,
    }


def _grant(on: Target) -> dict[str, ColumnElement[Any]]:
    return {
        "host": bindparam("new_host"),
        "pid": bindparam("new_pid", type_=BigInteger),
        "acquired_us": _wall_us(on),
        **_times(on),
        "is_free": literal_column("0"),
        "reason": literal_column("''"),
        "owner": _OWNER,
    }


def _created(on: Target) -> Any:
    row = {"run_id": bindparam("key"), "node_id": bindparam("node_key"), "token": literal_column("1"), **_grant(on)}
    return on.dialect.leaving(on.dialect.insert(on.tables.locks).values(row))


def _taken(on: Target) -> Any:
    locks = on.tables.locks
    token = case((_is_mine(on), locks.c.token), else_=locks.c.token + literal_column("1"))
    # In this order: MySQL computes a column from those that it has already set.
    changes = [(locks.c[name], value) for name, value in {"token": token, **_grant(on)}.items()]
    return update(locks).where(*_key(on), or_(~is_held(on), _is_mine(on))).ordered_values(*changes)


CREATE = Statement(_created)
TAKE = Statement(_taken)
GET = Statement(lambda on: select(on.tables.locks).where(*_key(on)))
GET_HELD = Statement(lambda on: select(on.tables.locks).where(*_key(on), is_held(on)))
GET_MINE = Statement(lambda on: select(on.tables.locks).where(*_key(on), is_held(on), _is_mine(on)))
HELD = Statement(lambda on: select(on.tables.locks).where(is_held(on)))
HOLD = Statement(
    lambda on: select(on.tables.locks.c.token).where(*_key(on), is_held(on), _is_mine(on)).with_for_update(read=True)
)
RENEW = Statement(lambda on: update(on.tables.locks).where(*_key(on), is_held(on), _is_mine(on)).values(_times(on)))


def _freed(on: Target, *conditions: ColumnElement[bool]) -> Any:
    return update(on.tables.locks).where(*conditions).values(is_free=literal_column("1"), reason=bindparam("why"))


FREE = Statement(lambda on: _freed(on, *_key(on), is_held(on), _is_mine(on)))
FREE_RUN = Statement(lambda on: _freed(on, on.tables.locks.c.run_id == bindparam("key")))


def _counted(on: Target) -> Any:
    row: dict[str, ColumnElement[Any]] = {"run_id": bindparam("key"), "node_id": bindparam("node_key"), "token": _LEAST}
    row |= {name: literal_column("0") for name in ("pid", "acquired_us", "expires_at_us", "ttl_ms", "expires_us")}
    row |= {name: literal_column("''") for name in ("owner", "host", "reason")}
    row["is_free"] = literal_column("1")
    return on.dialect.leaving(on.dialect.insert(on.tables.locks).values(row))


COUNT = Statement(_counted)
RAISE = Statement(
    lambda on: update(on.tables.locks).where(*_key(on), on.tables.locks.c.token < _LEAST).values(token=_LEAST)
)


def _tokens(on: Target) -> Any:
    locks = on.tables.locks
    run, node = bindparam("key", type_=locks.c.run_id.type), bindparam("node_key", type_=locks.c.node_id.type)
    # The first condition is what an index is entered by; MySQL does not see through the second.
    behind = and_(locks.c.run_id >= run, or_(locks.c.run_id > run, locks.c.node_id > node))
    page = select(locks.c.run_id, locks.c.node_id, locks.c.token).where(behind)
    return page.order_by(locks.c.run_id, locks.c.node_id).limit(literal_column(str(PAGE_TOKENS)))


TOKENS = Statement(_tokens)
IS_UNLOCKED = Statement(
    lambda on: select(literal_column("1")).where(
        ~exists(select(on.tables.locks.c.token).where(on.tables.locks.c.run_id == bindparam("key"), is_held(on)))
    )
)


def measured(clock: Clock) -> Params:
    """Return what a store of one machine measures leases by."""
    return {"now_us": clock.ticks_us(), "wall_us": to_us(clock.now())}


def read_held(session: Session, clock: Clock) -> list[LockInfo]:
    """Return the locks that are held now."""
    return [holder(row) for row in session.all(HELD, measured(clock))]


def read_holder(session: Session, key: LockKey, clock: Clock) -> LockInfo | None:
    """Return who holds a lock now."""
    row = session.one(GET_HELD, _of(key, "", clock))
    return holder(row) if row else None


def grant_steps(key: LockKey, owner: str, ttl_ms: int, clock: Clock) -> list[Step]:
    """Return the steps that grant a lock if nobody holds it; the last one is asked who holds it then."""
    params = {
        **_of(key, owner, clock),
        "new_host": this_host(),
        "new_pid": os.getpid(),
        "new_ttl_ms": ttl_ms,
        "ttl_us": ttl_ms * 1000,
    }
    return [Step(CREATE, params), Step(TAKE, params), Step(GET, params, is_asked=True)]


def renew_steps(lease: Lease, ttl_ms: int, clock: Clock) -> list[Step]:
    """Return the steps that extend a lease; the last one is asked whether it stands."""
    params = {**_of(lease.key, lease.owner, clock), "new_ttl_ms": ttl_ms, "ttl_us": ttl_ms * 1000}
    return [Step(RENEW, params), Step(GET_MINE, params, is_asked=True)]


def end_steps(lease: Lease, reason: str, clock: Clock) -> list[Step]:
    """Return the steps that end a lease, which they demand to be held."""
    params = {**_of(lease.key, lease.owner, clock), "why": stored(reason)}
    return [Step(FREE, params, lambda session: lost(lease))]


def hold_step(lease: Lease, clock: Clock) -> Step:
    """Return the step that demands a lease, and that it stands until the end of the transaction."""
    return Step(HOLD, _of(lease.key, lease.owner, clock), lambda session: lost(lease))


def unlocked_step(run_id: str, clock: Clock) -> Step:
    """Return the step that demands that nobody holds a lock of a run or of its nodes."""
    return Step(IS_UNLOCKED, {"key": run_id, **measured(clock)}, lambda session: locked_meanwhile(run_id))


def free_run_step(run_id: str) -> Step:
    """Return the step that frees the locks of a run and of its nodes, whoever holds them."""
    return Step(FREE_RUN, {"key": run_id, "why": ""})


def count_steps(tokens: Iterable[LockToken]) -> list[Step]:
    """Return the steps that raise token counters; where there was none, they make one of a lock that nobody holds."""
    # In one order: writers who hold rows do not wait for each other in a ring.
    ordered = sorted(tokens, key=lambda each: (each.run_id.encode(), (each.node_id or "").encode()))
    params = [{"key": each.run_id, "node_key": each.node_id or "", "least": each.token} for each in ordered]
    return [Step(statement, each) for each in params for statement in (COUNT, RAISE)]


def read_tokens(session: Session, after: LockToken | None) -> list[LockToken]:
    """Return the counters that follow one, `PAGE_TOKENS` of them unless there are no more."""
    key = ("", "") if after is None else (after.run_id, after.node_id or "")
    rows = session.all(TOKENS, {"key": key[0], "node_key": key[1]})
    return [LockToken(run_id, node_id or None, token) for run_id, node_id, token in rows]


def holder(row: Row) -> LockInfo:
    """Return who was last granted a lock."""
    run_id, node_id, token, owner, host, pid, acquired_us, expires_at_us, ttl_ms, *_ = row
    return LockInfo(
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


def _of(key: LockKey, owner: str, clock: Clock) -> dict[str, Any]:
    # A node id is never empty: the lock of a run has the empty one.
    return {"key": key[0], "node_key": key[1] or "", "of_owner": owner, **measured(clock)}
