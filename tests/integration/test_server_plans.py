"""How PostgreSQL goes about what it is asked: planned once, not compiled, along an index in its order."""

from __future__ import annotations

import pytest

from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch
from seeknal.state.sql.retention import HOLD_OBSOLETE

RUNS = 3000
PAST, NODES = 100, [f"node {number}" for number in range(50)]
ENOUGH = 20
"""Calls after which psycopg has prepared a statement, and PostgreSQL has decided how it goes on to plan it."""


@pytest.fixture
def backend(emptied_store):
    with create_state_backend("database", **emptied_store("postgresql").options) as backend:
        backend.initialize()
        yield backend


def asked(backend, sql: str):
    def read(session):
        session.cursor.execute(sql)
        return session.cursor.fetchall()

    return backend._database.read(read)


def test_a_statement_is_not_compiled_each_time(backend) -> None:
    assert asked(backend, "SHOW jit") == [("off",)]


def analyze(backend, table) -> None:
    backend._database.read(lambda session: session.cursor.execute(f"ANALYZE {table.schema}.{table.name}"))


def test_the_search_for_a_newer_success_of_a_node_ends_with_the_first_one(backend) -> None:
    tables, size = backend._database.target.tables, len(NODES) + 1
    for number in range(PAST):
        run = RunState(run_id=f"r{number}", status=RunStatus.SUCCESS, version=1, sequence=number * size + 1)
        states = [
            NodeState(
                run_id=run.run_id, node_id=node, status=NodeStatus.SUCCESS, version=1, sequence=run.sequence + nth
            )
            for nth, node in enumerate(NODES, 1)
        ]
        backend.commit(Batch(runs=[run], nodes=states))
    analyze(backend, tables.runs)
    analyze(backend, tables.node_states)

    def plan(session):
        statement = HOLD_OBSOLETE.on(session.target)
        session.cursor.execute(f"EXPLAIN {statement.sql}", statement.bind({"key": "r1"}))
        return [line for (line,) in session.cursor.fetchall()]

    found = backend._database.read(plan)
    assert [line for line in found if "Index Scan Backward" in line]
    assert not [line for line in found if "Sort" in line]


def test_the_first_page_of_many_runs_is_planned_once(backend) -> None:
    backend.commit(
        Batch(runs=[RunState(run_id=f"r{number}", version=1, sequence=number + 1) for number in range(RUNS)])
    )
    analyze(backend, backend._database.target.tables.runs)
    for _ in range(ENOUGH):
        assert len(backend.list_runs(newest_first=True, limit=20)) == 20
    ordered = "SELECT generic_plans > 0 FROM pg_prepared_statements WHERE statement LIKE '%ORDER BY%DESC%LIMIT%'"
    assert asked(backend, ordered) == [(True,)]
