"""The space of deleted runs goes back to the system, and to nobody's harm."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from seeknal.clock import FakeClock
from seeknal.state.backend import create_state_backend
from seeknal.state.sql import health
from seeknal.state.sql.dialects.sqlite import SqliteDialect

AGE = timedelta(days=30)
RUNS, NODES = 40, 50


def fill(backend) -> None:
    with backend.transaction():
        for number in range(RUNS):
            backend.create_run(f"r{number}", status="failed")
            for node in range(NODES):
                backend.set_node_state(f"r{number}", f"n{node}", status="failed", error_message="x" * 500)
    backend.clock.advance(days=60)


def pages(path, name) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def store(path):
    with create_state_backend("database", db_path=path, clock=FakeClock(), busy_timeout_ms=200) as backend:
        backend.initialize()
        fill(backend)
        yield backend


@pytest.fixture
def older(path, monkeypatch):
    """A store that was made before files could give back single pages."""

    def settle(dialect, cursor):
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.fetchone()

    with monkeypatch.context() as patched:
        patched.setattr(SqliteDialect, "settle", settle)
        with create_state_backend("database", db_path=path) as backend:
            backend.initialize()
    with create_state_backend("database", db_path=path, clock=FakeClock()) as backend:
        backend.initialize()
        fill(backend)
        yield backend


def test_a_sqlite_file_shrinks(store, path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    before = path.stat().st_size
    report = store.cleanup(older_than=AGE)
    assert (len(report.deleted), report.hint) == (RUNS, "")
    assert before > 1_000_000
    assert path.stat().st_size < before / 5


def test_a_preview_gives_nothing_back(store, path) -> None:
    for number in range(10):
        store.delete_run(f"r{number}")
    free = pages(path, "freelist_count")
    assert free > 0
    store.cleanup(older_than=AGE, dry_run=True)
    assert pages(path, "freelist_count") == free


def test_space_that_the_budget_was_too_short_for_goes_back_the_next_time(store, path) -> None:
    for number in range(RUNS):
        store.delete_run(f"r{number}")
    report = store.cleanup(older_than=AGE, budget=timedelta())
    assert report.is_complete
    assert "still to be given back" in report.hint
    assert pages(path, "freelist_count") > 0
    assert store.cleanup(older_than=AGE).hint == ""
    assert pages(path, "freelist_count") == 0


def test_a_writer_that_does_not_end_keeps_the_space_but_not_the_report(store, path, monkeypatch) -> None:
    give_back = store.give_back_space
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:

        def while_somebody_writes(deadline):
            writer.execute("BEGIN IMMEDIATE")
            try:
                return give_back(deadline)
            finally:
                writer.execute("ROLLBACK")

        monkeypatch.setattr(store, "give_back_space", while_somebody_writes)
        report = store.cleanup(older_than=AGE)
    assert len(report.deleted) == RUNS
    assert "busy" in report.hint
    assert give_back() == ""


def test_an_older_file_is_left_alone_and_its_owner_told_what_shrinks_it(older, path) -> None:
    report = older.cleanup(older_than=AGE)
    assert len(report.deleted) == RUNS
    assert str(path) in report.hint
    older.close()
    before = path.stat().st_size
    _, command, _ = report.hint.rsplit("'", 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(command)
    assert path.stat().st_size < before / 5
    assert pages(path, "auto_vacuum") == 2
    with create_state_backend("database", db_path=path) as backend:
        backend.initialize()
        assert backend.cleanup(older_than=AGE).hint == ""


def test_the_doctor_tells_of_much_space_that_an_older_file_keeps(older, path, monkeypatch) -> None:
    older.cleanup(older_than=AGE)
    assert list(older.examine()) == []
    monkeypatch.setattr(health, "MUCH_FREE_BYTES", 1 << 20)
    (finding,) = older.examine()
    assert (finding.check, finding.severity) == ("space-kept", "warning")
    assert str(path) in finding.fix


def test_the_files_of_deleted_runs_go_while_the_store_is_open(tmp_path) -> None:
    with create_state_backend("file", base_path=tmp_path, clock=FakeClock()) as backend:
        backend.initialize()
        fill(backend)
        backend.create_run("last", status="failed")
        backend.close()
        files = len(list(tmp_path.rglob("*.json")))
    with create_state_backend("file", base_path=tmp_path, clock=FakeClock()) as backend:
        backend.initialize()
        backend.clock.advance(days=120)
        assert len(backend.cleanup(older_than=AGE, keep_last=1).deleted) == RUNS
        assert len(list(tmp_path.rglob("*.json"))) == files - RUNS
        assert backend.list_runs() == ["last"]
