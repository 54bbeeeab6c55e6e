"""Node states: rows and records, and the one-statement transition."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ScalarSelect, bindparam, delete, exists, func, literal_column, select, union_all, update
from sqlalchemy.dialects.sqlite import insert

from seeknal.model.codec import decode, encode
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus
from seeknal.state.batch import NodeKey
from seeknal.state.sql.statements import Cursor, Row, Statement
from seeknal.state.sql.tables import node_states as nodes
from seeknal.state.sql.tables import runs, store

_KEY = (nodes.c.run_id == bindparam("run_id")) & (nodes.c.node_id == bindparam("node_id"))
_other = nodes.alias("other")


def _last_sequence() -> ScalarSelect[Any]:
    """Return the highest sequence of a node: the highest of each status, which is where the index stands."""
    heads = [
        select(func.max(_other.c.sequence).label("head")).where(
            _other.c.node_id == bindparam("node_id"), _other.c.status == literal_column(f"'{status.value}'")
        )
        for status in NodeStatus
    ]
    return select(func.coalesce(func.max(union_all(*heads).subquery("heads").c.head), 0)).scalar_subquery()


_is_current = ~exists(select(store.c.one).where(store.c.superseded_by.is_not(None)))
_written = [column.name for column in nodes.c if not column.primary_key and column.name != "sequence"]
_upsert = insert(nodes)

CHANGE = Statement(
    update(nodes)
    .where(
        nodes.c.run_id == bindparam("run_id_"),
        nodes.c.node_id == bindparam("node_id"),
        nodes.c.version == bindparam("expected"),
        _is_current,
    )
    .values(
        {name: bindparam(f"new_{name}") for name in _written} | {"sequence": _last_sequence() + literal_column("1")}
    )
    .returning(nodes.c.sequence)
)
CREATE = Statement(
    insert(nodes)
    .from_select(
        ["run_id", "node_id", *_written, "sequence"],
        select(
            bindparam("run_id_"),
            bindparam("node_id"),
            *(bindparam(f"new_{name}") for name in _written),
            _last_sequence() + literal_column("1"),
        ).where(exists(select(runs.c.run_id).where(runs.c.run_id == bindparam("run_id_"))), _is_current),
    )
    .on_conflict_do_nothing()
    .returning(nodes.c.sequence)
)
PUT = Statement(
    _upsert.on_conflict_do_update(
        index_elements=["run_id", "node_id"], set_={name: _upsert.excluded[name] for name in [*_written, "sequence"]}
    )
)
GET = Statement(select(nodes).where(_KEY))
VERSION = Statement(select(nodes.c.version).where(_KEY))
LAST_SEQUENCE = Statement(select(_last_sequence()))
OF_RUN = Statement(select(nodes).where(nodes.c.run_id == bindparam("run_id")).order_by(nodes.c.node_id))
DELETE = Statement(delete(nodes).where(_KEY))
DELETE_OF_RUN = Statement(delete(nodes).where(nodes.c.run_id == bindparam("run_id")))
LATEST = Statement(
    select(nodes).where(
        nodes.c.node_id == bindparam("node_id"),
        nodes.c.status.in_([literal_column(f"'{status.value}'") for status in NodeStatus]),
        nodes.c.sequence == _last_sequence(),
    )
)
LATEST_OF_STATUS = Statement(
    select(nodes)
    .where(nodes.c.node_id == bindparam("node_id"), nodes.c.status == bindparam("status"))
    .order_by(nodes.c.sequence.desc())
    .limit(literal_column("1"))
)
NEWEST_OF_STATUS = Statement(
    select(nodes)
    .where(nodes.c.node_id == bindparam("node_id"), nodes.c.status == bindparam("status"))
    .order_by(nodes.c.sequence.desc())
)


def read_node(cursor: Cursor, run_id: str, node_id: str) -> NodeState | None:
    """Return one node state."""
    row = GET.one(cursor, {"run_id": run_id, "node_id": node_id})
    return None if row is None else _record(row)


def read_nodes(cursor: Cursor, run_id: str) -> dict[str, NodeState]:
    """Return the node states of a run, sorted by the bytes of their ids."""
    return {row[1]: _record(row) for row in OF_RUN.all(cursor, {"run_id": run_id})}


def read_latest(cursor: Cursor, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
    """Return the state of a node with the highest sequence, leaving out the runs in ``hidden``."""
    if not hidden:
        if status is None:
            row = LATEST.one(cursor, {"node_id": node_id})
        else:
            row = LATEST_OF_STATUS.one(cursor, {"node_id": node_id, "status": status.value})
        return None if row is None else _record(row)
    newest: Row | None = None
    for each in NodeStatus if status is None else [status]:
        # Within a transaction that has written the node in some runs: walk past those.
        cursor.execute(NEWEST_OF_STATUS.sql, NEWEST_OF_STATUS.bind({"node_id": node_id, "status": each.value}))
        while (row := cursor.fetchone()) is not None:
            if row[0] not in hidden:
                newest = row if newest is None or row[-1] > newest[-1] else newest
                break
    return None if newest is None else _record(newest)


def read_version(cursor: Cursor, key: NodeKey) -> int:
    """Return the version of a node state; 0 is "no record"."""
    row = VERSION.one(cursor, {"run_id": key[0], "node_id": key[1]})
    return 0 if row is None else int(row[0])


def put_guarded(cursor: Cursor, state: NodeState, expected: int) -> int | None:
    """Write one state in one statement if its guards hold, and return its sequence, else ``None``.

    The guards: the store is current, the state stands at ``expected``, and its run exists.
    """
    params = {f"new_{name}": value for name, value in _params(state, 0).items()}
    params |= {"run_id_": state.run_id, "node_id": state.node_id, "expected": expected}
    rows = (CHANGE if expected else CREATE).all(cursor, params)  # all of them: a statement commits when it is done
    return int(rows[0][0]) if rows else None


def put_nodes(cursor: Cursor, records: list[NodeState]) -> dict[NodeKey, int]:
    """Write whole states and return their sequences."""
    last: dict[str, int] = {}
    given: dict[NodeKey, int] = {}
    for record in records:
        node_id = record.node_id
        sequence = record.sequence
        if sequence == 0:
            if node_id not in last:
                row = LAST_SEQUENCE.one(cursor, {"node_id": node_id})
                last[node_id] = row[0] if row else 0
            sequence = last[node_id] = last[node_id] + 1
        given[record.run_id, node_id] = sequence
    PUT.run_many(cursor, (_params(record, given[record.run_id, record.node_id]) for record in records))
    return given


def _params(state: NodeState, sequence: int) -> dict[str, Any]:
    return {
        "run_id": state.run_id,
        "node_id": state.node_id,
        "status": state.status.value,
        "started_us": None if state.started_at is None else to_us(state.started_at),
        "finished_us": None if state.finished_at is None else to_us(state.finished_at),
        "duration_ms": state.duration_ms,
        "row_count": state.row_count,
        "fingerprint": state.fingerprint,
        "error_message": state.error_message,
        "attempt": state.attempt,
        "metadata": encode(state.metadata).decode() if state.metadata else "{}",
        "version": state.version,
        "sequence": sequence,
    }


def _record(row: Row) -> NodeState:
    return NodeState(
        run_id=row[0],
        node_id=row[1],
        status=NodeStatus(row[2]),
        started_at=None if row[3] is None else from_us(row[3]),
        finished_at=None if row[4] is None else from_us(row[4]),
        duration_ms=row[5],
        row_count=row[6],
        fingerprint=row[7],
        error_message=row[8],
        attempt=row[9],
        metadata={} if row[10] == "{}" else decode(row[10], dict[str, Any]),
        version=row[11],
        sequence=row[12],
    )
