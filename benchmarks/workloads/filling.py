"""Stores of many node states: the history of a pipeline that ran every hour, written as fast as a store takes it."""

from __future__ import annotations

import random
import secrets
import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch
from seeknal.state.sql.backend import DatabaseStateBackend

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NODES = 500
"""Of each run."""
FAILS_EVERY = 97
"""Prime, so that each time other nodes fail."""
SAMPLED = 25
"""Runs that are read back and compared."""
RUNS_AT_ONCE = 200
FAILURE = "ValueError: no rows of yesterday"

Options: TypeAlias = dict[str, Any]
"""What `create_state_backend` is given."""
Past: TypeAlias = tuple[RunState, list[NodeState]]


def place(folder: Path, url: str | None, name: object, stack: ExitStack) -> Options:
    """Return where a store of a name is made; one on a server is dropped in the end."""
    if url is None:
        return {"db_path": str(folder / f"{name}.db")}
    schema = f"bench_{secrets.token_hex(4)}"
    stack.callback(_drop, url, schema)
    return {"url": url, "schema": schema}


def _drop(url: str, schema: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET client_min_messages = warning; DROP SCHEMA IF EXISTS {schema} CASCADE")


def store_at(options: Options) -> DatabaseStateBackend:
    """Return the store, open."""
    store = create_state_backend("database", **options)
    assert isinstance(store, DatabaseStateBackend)
    store.initialize()
    return store


def past(number: int, nodes: int) -> Past:
    """Return the run of an hour as it stands once it is over, with what a pipeline records of its nodes."""
    run_id, began, first = f"run_{number:06}", BEGIN + timedelta(hours=number), number * (nodes + 1) + 1
    failed = range(-number * nodes % FAILS_EVERY, nodes, FAILS_EVERY)
    run = RunState(
        run_id=run_id,
        status=RunStatus.FAILED if failed else RunStatus.SUCCESS,
        started_at=began,
        finished_at=began + timedelta(minutes=30),
        config={"environment": "production"},
        version=2,
        sequence=first,
    )
    return run, [
        NodeState(
            run_id=run_id,
            node_id=f"transform.node_{node:04}",
            status=NodeStatus.FAILED if node in failed else NodeStatus.SUCCESS,
            started_at=began + timedelta(seconds=node),
            finished_at=began + timedelta(seconds=node + 7),
            duration_ms=7000,
            row_count=None if node in failed else node * number,
            fingerprint=f"{node * 7919 + number // 100:064x}",
            error_message=FAILURE if node in failed else None,
            metadata={"output": f"target/node_{node:04}.parquet"},
            version=2,
            sequence=first + 1 + node,
        )
        for node in range(nodes)
    ]


def fill(options: Options, states: int, nodes: int = NODES) -> None:
    """Make a store of so many node states, in the rows that a move into it writes.

    The runs, and the nodes of the first and the last one, go through the store. The nodes in between are inserted by
    the database, each like that of the first run, which takes a tenth of the time.

    Raises:
        AssertionError: What the store reads is not what was meant.
    """
    last = states // nodes - 1
    is_server = "url" in options
    with store_at(options if is_server else {**options, "synchronous": "NORMAL"}) as store:
        for first in range(0, last + 1, RUNS_AT_ONCE):
            runs = [past(number, nodes)[0] for number in range(first, min(first + RUNS_AT_ONCE, last + 1))]
            store.commit(Batch(runs=runs))
        # On a server, the highest sequence also tells the store which ones are taken.
        store.commit(Batch(nodes=[*past(0, nodes)[1], *past(last, nodes)[1]]))
        with closing(_connected(options)) as connection:
            statement = _inserting(store, options, nodes)
            for first in range(1, last, RUNS_AT_ONCE):
                spans = [past(number, 0)[0].run_id for number in (first, min(first + RUNS_AT_ONCE, last))]
                connection.execute(statement, spans)
                connection.commit()
        check(store, last + 1, nodes)


def _connected(options: Options) -> Any:
    if "url" in options:
        import psycopg

        return psycopg.connect(options["url"])
    connection = sqlite3.connect(options["db_path"])
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _inserting(store: DatabaseStateBackend, options: Options, nodes: int) -> str:
    """Return what inserts the nodes of the runs from one id to before another: `past` in SQL."""
    tables = store._database.target.tables
    columns = [column.name for column in tables.node_states.c]
    number, node = f"((r.sequence - 1) / {nodes + 1})", "(n.sequence - 2)"
    is_failed = f"mod({number} * {nodes} + {node}, {FAILS_EVERY}) = 0"
    value, mark = f"{node} * 7919 + {number} / 100", "%s" if "url" in options else "?"
    values = {name: f"n.{name}" for name in columns} | {
        "run_id": "r.run_id",
        "status": f"CASE WHEN {is_failed} THEN 'failed' ELSE 'success' END",
        "started_us": "n.started_us - f.started_us + r.started_us",
        "finished_us": "n.finished_us - f.started_us + r.started_us",
        "row_count": f"CASE WHEN {is_failed} THEN NULL ELSE {node} * {number} END",
        "fingerprint": f"lpad(to_hex({value}), 64, '0')" if "url" in options else f"printf('%064x', {value})",
        "error_message": f"CASE WHEN {is_failed} THEN '{FAILURE}' END",
        "sequence": f"r.sequence + 1 + {node}",
    }
    place = f"{options['schema']}." if "url" in options else ""
    first = past(0, 0)[0].run_id
    return (
        f"INSERT INTO {place}node_states ({', '.join(columns)}) SELECT {', '.join(values[name] for name in columns)} "
        f"FROM {place}runs r, {place}runs f, {place}node_states n WHERE f.run_id = '{first}' AND n.run_id = '{first}' "
        f"AND r.run_id >= {mark} AND r.run_id < {mark} ORDER BY r.run_id, n.node_id"
    )


def check(store: DatabaseStateBackend, runs: int, nodes: int) -> None:
    """Read runs, and what their nodes did last, as the product reads them, and compare.

    Raises:
        AssertionError: Something else was read.
    """
    chosen = random.Random(runs)
    assert store.list_runs() == [past(number, 0)[0].run_id for number in range(runs)]
    for number in {0, runs - 1, *(chosen.randrange(runs) for _ in range(SAMPLED))}:
        run, states = past(number, nodes)
        assert store.read_run(run.run_id) == run
        assert list(store.read_nodes(run.run_id).values()) == states
    for state in past(runs - 1, nodes)[1]:
        assert store.read_latest(state.node_id, None, frozenset()) == state
