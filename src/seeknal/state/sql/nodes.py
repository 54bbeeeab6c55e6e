"""Node states: rows and records, and the transition that is one statement."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ScalarSelect,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    union_all,
    update,
)

from seeknal.errors import StateBackendError
from seeknal.model.changes import added_to, missing_run, stale
from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus
from seeknal.state.batch import NodeKey
from seeknal.state.sql import runs
from seeknal.state.sql.sequences import SPAN, given_or_next
from seeknal.state.sql.statements import Row, Session, Statement, Step, Target
from seeknal.state.sql.store import is_current
from seeknal.state.sql.texts import restored, stored

# For every row that is read or written: an enumeration's own look-ups, and the type of a dictionary written out, cost
# more than all the rest of a record.
_STATUSES = {status.value: status for status in NodeStatus}
_NAMES = {status: status.value for status in NodeStatus}
_OBJECT = dict[str, Any]

MOST_REMEMBERED_BYTES = 8192
"""Larger states are not worth the memory it takes to save a read."""


def _key(on: Target) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    nodes = on.tables.node_states
    return nodes.c.run_id == bindparam("key"), nodes.c.node_id == bindparam("node_key")


def _stands(on: Target) -> ColumnElement[bool]:
    """Return that a state is the one that was seen: by its version and, if that is known, by its sequence."""
    nodes, seen = on.tables.node_states, bindparam("seen", type_=BigInteger)
    return (nodes.c.version == bindparam("expected")) & ((seen == literal_column("0")) | (nodes.c.sequence == seen))


def _last_sequence(on: Target) -> ScalarSelect[Any]:
    """Return the highest sequence of a node: the highest of each status, which is where the index stands."""
    other = on.tables.node_states.alias("other")
    heads = [
        select(func.max(other.c.sequence).label("head")).where(
            other.c.node_id == bindparam("node_key"), other.c.status == literal_column(f"'{status.value}'")
        )
        for status in NodeStatus
    ]
    return select(func.coalesce(func.max(union_all(*heads).subquery("heads").c.head), 0)).scalar_subquery()


def _fields(on: Target) -> dict[str, ColumnElement[Any]]:
    """Return the columns that a write sets, but for the key and the sequence."""
    columns = [c for c in on.tables.node_states.c if c.name not in ("run_id", "node_id", "sequence")]
    return {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in columns}


def _written(on: Target) -> dict[str, ColumnElement[Any]]:
    return {**_fields(on), "sequence": given_or_next(on, _last_sequence(on))}


def _row(on: Target) -> dict[str, ColumnElement[Any]]:
    return {"run_id": bindparam("key"), "node_id": bindparam("node_key"), **_written(on)}


def _drawn_now(on: Target) -> ColumnElement[Any]:
    """Return the sequence of a transition that is a statement of its own."""
    if on.dialect.is_shared:
        return on.dialect.draw(on.tables.receipts) * literal_column(str(SPAN)) + literal_column("1")
    return _last_sequence(on) + literal_column("1")


def _with_receipt(on: Target, write: Any) -> Any:
    """Return a write that returns its sequence and, on a shared store, leaves a receipt if it wrote anything."""
    returning = write.returning(on.tables.node_states.c.sequence)
    if not on.dialect.is_shared:
        return returning
    changed = returning.cte("changed")
    names = ["op_id", "number", "is_void"]
    number = changed.c.sequence / literal_column(str(SPAN), type_=BigInteger)
    given = select(bindparam("op_id", type_=BigInteger), number, literal_column("0"))
    receipt = insert(on.tables.receipts).from_select(names, given).cte("receipt")
    return select(changed.c.sequence).add_cte(receipt)


def _changed_alone(on: Target) -> Any:
    changes = {**_fields(on), "sequence": _drawn_now(on)}
    return _with_receipt(
        on, update(on.tables.node_states).where(*_key(on), _stands(on), is_current(on)).values(changes)
    )


def _created_alone(on: Target) -> Any:
    nodes, run = on.tables.node_states, on.tables.runs
    there = exists(select(run.c.run_id).where(run.c.run_id == bindparam("key")))
    row = {"run_id": bindparam("key"), "node_id": bindparam("node_key"), **_fields(on), "sequence": _drawn_now(on)}
    values = select(*(value.label(name) for name, value in row.items())).where(there, is_current(on))
    return _with_receipt(on, on.dialect.leaving(on.dialect.insert(nodes).from_select(list(row), values)))


CHANGE_ALONE = Statement(_changed_alone)
CREATE_ALONE = Statement(_created_alone)
CHANGE = Statement(lambda on: update(on.tables.node_states).where(*_key(on), _stands(on)).values(_written(on)))
CREATE = Statement(lambda on: on.dialect.insert(on.tables.node_states).values(_row(on)))
PUT = Statement(
    lambda on: on.dialect.overwriting(
        on.dialect.insert(on.tables.node_states).values(_row(on)),
        ["run_id", "node_id"],
        lambda new: {name: new[name] for name in _written(on)},
    )
)
PUT_GIVEN = Statement(
    lambda on: on.dialect.overwriting(
        on.dialect.insert(on.tables.node_states).values(_row(on) | {"sequence": bindparam("given", type_=BigInteger)}),
        ["run_id", "node_id"],
        lambda new: {name: new[name] for name in _written(on)},
    )
)
GET = Statement(lambda on: select(on.tables.node_states).where(*_key(on)))
SEQUENCE = Statement(lambda on: select(on.tables.node_states.c.sequence).where(*_key(on)))
STANDS_AT = Statement(
    lambda on: select(on.tables.node_states.c.version).where(*_key(on), _stands(on)).with_for_update()
)
IS_ABSENT = Statement(
    lambda on: select(literal_column("1")).where(~exists(select(on.tables.node_states.c.version).where(*_key(on))))
)
OF_RUN = Statement(
    lambda on: (
        select(on.tables.node_states)
        .where(on.tables.node_states.c.run_id == bindparam("key"))
        .order_by(on.tables.node_states.c.node_id)
    )
)
OF_RUN_FROM = Statement(
    lambda on: (
        select(on.tables.node_states)
        .where(on.tables.node_states.c.run_id == bindparam("key"))
        .where(on.tables.node_states.c.node_id >= bindparam("node_key"))
        .order_by(on.tables.node_states.c.node_id)
        .limit(bindparam("most"))
    )
)
HAS_COUNT = Statement(
    lambda on: select(literal_column("1")).where(
        select(func.count()).where(on.tables.node_states.c.run_id == bindparam("key")).scalar_subquery()
        == bindparam("count", type_=BigInteger)
    )
)
DELETE = Statement(lambda on: delete(on.tables.node_states).where(*_key(on)))
DELETE_OF_RUN = Statement(
    lambda on: delete(on.tables.node_states).where(on.tables.node_states.c.run_id == bindparam("key"))
)
LAST_SEQUENCE = Statement(lambda on: select(_last_sequence(on)))
LATEST = Statement(
    lambda on: select(on.tables.node_states).where(
        on.tables.node_states.c.node_id == bindparam("node_key"),
        on.tables.node_states.c.status.in_([literal_column(f"'{status.value}'") for status in NodeStatus]),
        on.tables.node_states.c.sequence == _last_sequence(on),
    )
)


def _newest_of_status(on: Target) -> Any:
    nodes = on.tables.node_states
    of_node = nodes.c.node_id == bindparam("node_key")
    return select(nodes).where(of_node, nodes.c.status == bindparam("status")).order_by(nodes.c.sequence.desc())


NEWEST_OF_STATUS = Statement(_newest_of_status)
LATEST_OF_STATUS = Statement(lambda on: _newest_of_status(on).limit(literal_column("1")))


def read_node(session: Session, run_id: str, node_id: str) -> NodeState | None:
    """Return one node state."""
    row = session.one(GET, {"key": run_id, "node_key": node_id})
    return None if row is None else record(row)


def read_nodes(session: Session, run_id: str) -> dict[str, NodeState]:
    """Return the node states of a run, sorted by the bytes of their ids."""
    return {row[1]: record(row) for row in session.all(OF_RUN, {"key": run_id})}


def read_nodes_from(session: Session, run_id: str, node_id: str, most: int) -> list[NodeState]:
    """Return at most so many node states of a run from a node id on, in the order of the bytes of the ids."""
    params = {"key": run_id, "node_key": node_id, "most": most}
    return [record(row) for row in session.all(OF_RUN_FROM, params)]


def read_latest(session: Session, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
    """Return the state of a node with the highest sequence, leaving out the runs in ``hidden``."""
    if not hidden:
        if status is None:
            row = session.one(LATEST, {"node_key": node_id})
        else:
            row = session.one(LATEST_OF_STATUS, {"node_key": node_id, "status": status.value})
        return None if row is None else record(row)
    newest: Row | None = None
    for each in NodeStatus if status is None else [status]:
        # Within a transaction that has written the node in some runs: walk past those.
        for row in session.all(NEWEST_OF_STATUS, {"node_key": node_id, "status": each.value}):
            if row[0] not in hidden:
                newest = row if newest is None or row[-1] > newest[-1] else newest
                break
    return None if newest is None else record(newest)


def transition(session: Session, state: NodeState, expected: int, seen: int, op_id: int) -> int | None:
    """Write one state in one statement if its guards hold, and return its sequence, else ``None``.

    The guards: the store is current, the state stands where it was seen, and its run exists.
    """
    params = _params(state) | {"expected": expected, "seen": seen, "op_id": op_id}
    # All of the rows: a statement commits when it is done.
    rows = session.all(CHANGE_ALONE if expected else CREATE_ALONE, params)
    return int(rows[0][0]) if rows else None


def put_step(states: list[NodeState]) -> Step:
    """Return the step that writes many whole states, each with its sequence, whatever was there."""
    rows = [_params(state) for state in states]

    def refusal(session: Session) -> StateBackendError:
        ids = dict.fromkeys(state.run_id for state in states)
        return missing_run(next((run_id for run_id in ids if runs.read_run(session, run_id) is None), next(iter(ids))))

    return Step(PUT_GIVEN, {}, refusal, many=rows)


def write_step(state: NodeState, expected: int | None, seen: int, op_id: int, nth: int) -> Step:
    """Return the step that writes a whole state; ``expected`` is ``None`` where it does not matter what was there."""
    params = {**_params(state), "expected": expected, "seen": seen, "op_id": op_id, "nth": nth}
    key = (state.run_id, state.node_id)
    if expected is None:
        return Step(PUT, params, lambda session: missing_run(state.run_id))
    return Step(CHANGE if expected else CREATE, params, lambda session: stale_node(session, key, expected))


def guard_step(key: NodeKey, expected: int, seen: int) -> Step:
    """Return the step that demands the state that was seen, version 0 being "no record"."""
    params = {"key": key[0], "node_key": key[1], "expected": expected, "seen": seen}
    return Step(STANDS_AT if expected else IS_ABSENT, params, lambda session: stale_node(session, key, expected))


def count_step(run_id: str, count: int) -> Step:
    """Return the step that demands so many node states of a run."""
    return Step(HAS_COUNT, {"key": run_id, "count": count}, lambda session: added_to(run_id))


def stale_node(session: Session, key: NodeKey, expected: int) -> StateBackendError:
    """Return the error of a state that was not at its version, or whose run is gone."""
    found = read_node(session, *key)
    if found is None and not expected and runs.read_run(session, key[0]) is None:
        return missing_run(key[0])
    version = found.version if found else 0
    return stale(f"node {key[1]!a} of run {key[0]!a}", expected, version if version != expected else None)


def is_small(state: NodeState) -> bool:
    """Return whether a state is small enough to be remembered."""
    return len(encode(state)) <= MOST_REMEMBERED_BYTES


def _params(state: NodeState) -> dict[str, Any]:
    return {
        "key": state.run_id,
        "node_key": state.node_id,
        "new_status": _NAMES[state.status],
        "new_started_us": None if state.started_at is None else to_us(state.started_at),
        "new_finished_us": None if state.finished_at is None else to_us(state.finished_at),
        "new_duration_ms": state.duration_ms,
        "new_row_count": state.row_count,
        "new_fingerprint": stored(state.fingerprint),
        "new_error_message": stored(state.error_message),
        "new_attempt": state.attempt,
        "new_metadata": encode(state.metadata).decode() if state.metadata else "{}",
        "new_version": state.version,
        "given": state.sequence,
    }


def record(row: Row) -> NodeState:
    """Return the node state that a row of the table holds, its columns in their order."""
    return NodeState(
        run_id=row[0],
        node_id=row[1],
        status=_STATUSES.get(row[2]) or NodeStatus(row[2]),
        started_at=None if row[3] is None else from_us(row[3]),
        finished_at=None if row[4] is None else from_us(row[4]),
        duration_ms=row[5],
        row_count=row[6],
        fingerprint=restored(row[7]),
        error_message=restored(row[8]),
        attempt=row[9],
        metadata={} if row[10] == "{}" else decode(row[10], _OBJECT),
        version=row[11],
        sequence=row[12],
    )
