"""What is special about the SQLite store: its file, its plans, its processes, its damage."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import (
    BackendUnavailableError,
    ConfigurationError,
    CorruptStateError,
    RunNotFoundError,
    SchemaVersionError,
    SupersededError,
)
from seeknal.model.records import NodeState
from seeknal.state.batch import Batch
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.sql import nodes
from seeknal.state.sql.backend import DatabaseStateBackend

SPAWN = multiprocessing.get_context("spawn")
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def opened(path: Path, **options) -> DatabaseStateBackend:
    backend = DatabaseStateBackend(path, **options)
    backend.initialize()
    return backend


def pragma(backend: DatabaseStateBackend, name: str) -> object:
    def ask(session):
        session.cursor.execute(f"PRAGMA {name}")
        return session.cursor.fetchone()[0]

    return backend._database.read(ask)


def patch_fifty_times(path: Path) -> None:
    with opened(path) as backend:
        for number in range(50):
            backend.set_node_state("run", "node", metadata={f"{os.getpid()}-{number}": 1})


def initialize_only(path: Path) -> None:
    opened(path).close()


def write_until_killed(path: Path, acknowledged: Connection) -> None:
    backend = opened(path)
    backend.create_run("run")
    acknowledged.send("run")
    backend.begin_transaction()
    backend.set_node_state("run", "unfinished")
    os.kill(os.getpid(), signal.SIGKILL)


def together(target, path: Path, count: int = 8) -> list[int | None]:
    processes = [SPAWN.Process(target=target, args=(path,)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(50)
    return [process.exitcode for process in processes]


def everything(backend: RecordStateBackend) -> list[object]:
    """Drive a backend through one fixed program and return all that can be seen of it, but for sequences."""
    backend.initialize()
    seen: list[object] = []
    for name in ("a", "B", "b"):
        backend.create_run(name, config={"n": 1})
    for name in ("a", "b"):
        backend.set_node_state(name, "n", status="running", metadata={"x": [1]})
    backend.set_node_state("a", "n", status="success", row_count=3)
    seen.append(getattr(backend.get_latest_node_state("n"), "run_id", None))
    seen.append(getattr(backend.get_latest_node_state("n", "running"), "run_id", None))
    for start, end in ((0, 1), (2, 3), (1, 2), (5, 9)):
        backend.add_completed_interval("a", "n", BEGIN + timedelta(hours=start), BEGIN + timedelta(hours=end))
    backend.restate_intervals("n", BEGIN + timedelta(hours=6), BEGIN + timedelta(hours=7))
    backend.add_completed_partition("a", "n", "p", row_count=1)
    with backend.transaction():
        backend.set_node_state("b", "n", status="failed")
        savepoint = backend.begin_transaction()
        backend.delete_run("a")
        backend.rollback_transaction(savepoint)
        seen.append(getattr(backend.get_latest_node_state("n", "success"), "run_id", None))
    backend.delete_run("B")
    backend.create_run("B")
    with backend.lock("a", "n") as lease:
        seen.append(lease.token)
        with backend.transaction(lease=lease):
            backend.set_node_state("a", "m")
    with backend.lock("a", "n") as lease:
        seen.append(lease.token)
        backend.update_run("a", status="success")
        seen.append(backend.list_locks())
    seen += [backend.list_runs(), backend.get_run("a"), backend.get_completed_intervals("n")]
    seen += [backend.list_partitions("n"), backend.list_runs(status="running", newest_first=True)]
    seen += [
        (state.status, state.version, state.metadata, state.row_count, state.duration_ms)
        for run in backend.list_runs()
        for state in backend.get_all_node_states(run).values()
    ]
    backend.close()
    return [getattr(each, "version", each) for each in seen]


def test_it_behaves_as_the_memory_backend_does(tmp_path: Path) -> None:
    oracle = everything(MemoryStateBackend(clock=FakeClock()))
    assert everything(DatabaseStateBackend(tmp_path / "state.db", clock=FakeClock())) == oracle


def test_eight_processes_initialize_one_new_store(tmp_path: Path) -> None:
    assert together(initialize_only, tmp_path / "state.db") == [0] * 8


def test_eight_processes_patching_one_node_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with opened(path) as backend:
        backend.create_run("run")
        assert together(patch_fifty_times, path) == [0] * 8
        state = backend.get_node_state("run", "node")
    assert state is not None
    assert (state.version, len(state.metadata)) == (400, 400)


def test_a_killed_process_leaves_what_it_committed_and_nothing_else(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=write_until_killed, args=(tmp_path / "state.db", theirs))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert ours.recv() == "run"
    with opened(tmp_path / "state.db") as backend:
        assert backend.exists("run")
        assert backend.list_nodes("run") == []


def test_a_commit_is_durable_by_default_and_the_file_is_its_owners(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "state.db") as backend:
        assert (pragma(backend, "synchronous"), pragma(backend, "journal_mode")) == (2, "wal")
    assert stat.S_IMODE((tmp_path / "deep" / "state.db").stat().st_mode) == 0o600
    with opened(tmp_path / "fast.db", synchronous="NORMAL") as backend:
        assert pragma(backend, "synchronous") == 1


@pytest.mark.parametrize("statement", [nodes.LATEST, nodes.LATEST_OF_STATUS, nodes.LAST_SEQUENCE])
def test_the_latest_state_is_found_by_the_index_alone(tmp_path: Path, statement) -> None:
    with opened(tmp_path / "state.db") as backend:

        def explain(session):
            compiled = statement.on(session.target)
            params = compiled.bind({"node_key": "n", "status": "success"})
            session.cursor.execute(f"EXPLAIN QUERY PLAN {compiled.sql}", params)
            return [row[3] for row in session.cursor.fetchall()]

        plan = backend._database.read(explain)
    assert any("INDEX node_states_by_status" in step for step in plan)
    assert not any(step.startswith("SCAN") and "node_states" in step for step in plan)
    assert not any("TEMP B-TREE" in step for step in plan)


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    with opened(tmp_path / "state.db") as backend:
        assert backend.list_runs() == []


def test_a_file_of_something_else_is_named_as_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all" * 100)
    with DatabaseStateBackend(path) as backend, pytest.raises(CorruptStateError, match=r"state\.db") as caught:
        backend.initialize()
    assert caught.value.location == str(path)


def test_a_directory_cannot_be_opened(tmp_path: Path) -> None:
    with DatabaseStateBackend(tmp_path) as backend, pytest.raises(BackendUnavailableError, match=tmp_path.name):
        backend.initialize()


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with opened(path) as backend:
        backend._database.read(lambda session: session.cursor.execute("UPDATE store SET schema_version = 99"))
    with DatabaseStateBackend(path) as backend, pytest.raises(SchemaVersionError, match="newer"):
        backend.initialize()


def test_a_writer_that_never_ends_is_reported_and_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with opened(path, busy_timeout_ms=10) as backend:
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BackendUnavailableError, match=r"state\.db is busy"):
                backend.create_run("run")
        finally:
            other.close()
        backend.create_run("run")


def test_who_has_waited_long_asks_as_often_as_who_has_just_come(tmp_path: Path) -> None:
    clock, pauses = FakeClock(), []
    with opened(tmp_path / "state.db", clock=clock) as backend:
        backend.create_run("run")
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            clock.advance(seconds=seconds)
            if sum(pauses) > 0.02:
                other.close()

        clock.sleep = sleep
        backend.set_node_state("run", "node", status="success")
    assert 0 < max(pauses) < 0.001


def test_a_lease_that_was_renewed_while_a_statement_waited_is_not_taken_for_one_from_before_a_reboot(tmp_path: Path):
    late, early = FakeClock(), FakeClock()
    late.advance(seconds=1)
    with opened(tmp_path / "s.db", clock=late) as owner, opened(tmp_path / "s.db", clock=early) as other:
        assert owner.acquire_lock("run", ttl_ms=900)
        assert not other.acquire_lock("run", timeout_ms=0)
        assert [lock.run_id for lock in other.list_locks()] == ["run"]


def test_a_superseded_store_refuses_every_write(tmp_path: Path) -> None:
    with opened(tmp_path / "state.db") as backend:
        backend.create_run("run")
        backend.write_successor("id", "elsewhere")
        for write in (lambda: backend.set_node_state("run", "n"), lambda: backend.acquire_lock("run")):
            with pytest.raises(SupersededError):
                write()


def test_a_url_of_no_database_is_refused_without_its_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseStateBackend(url="oracle://user:SECRET@host")
    assert "SECRET" not in str(caught.value)
    with pytest.raises(ConfigurationError):
        DatabaseStateBackend("a.db", "sqlite:///b.db")


def test_a_copy_of_many_states_names_the_run_that_is_missing(tmp_path):
    with opened(tmp_path / "state.db") as store:
        store.create_run("there")
        states = [NodeState(run_id=run, node_id="n", version=1, sequence=9) for run in ("there", "missing")]
        with pytest.raises(RunNotFoundError, match="missing"):
            store.commit(Batch(nodes=states))
        assert store.list_nodes("there") == []
