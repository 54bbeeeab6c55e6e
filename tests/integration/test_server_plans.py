"""How PostgreSQL goes about what it is asked: it plans a statement once, and compiles none."""

from __future__ import annotations

import pytest

from seeknal.model.records import RunState
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch

RUNS = 3000
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


def test_the_first_page_of_many_runs_is_planned_once(backend) -> None:
    backend.commit(
        Batch(runs=[RunState(run_id=f"r{number}", version=1, sequence=number + 1) for number in range(RUNS)])
    )
    table = backend._database.target.tables.runs
    backend._database.read(lambda session: session.cursor.execute(f"ANALYZE {table.schema}.{table.name}"))
    for _ in range(ENOUGH):
        assert len(backend.list_runs(newest_first=True, limit=20)) == 20
    ordered = "SELECT generic_plans > 0 FROM pg_prepared_statements WHERE statement LIKE '%ORDER BY%DESC%LIMIT%'"
    assert asked(backend, ordered) == [(True,)]
