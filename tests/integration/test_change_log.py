"""The change log and the token counters on real stores: older formats, damage, rights, and two logs made one."""

from __future__ import annotations

import getpass
import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import AccessDeniedError, CapabilityError, CorruptStateError, SchemaVersionError, SupersededError
from seeknal.model.records import LockToken
from seeknal.state import doctor
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch
from seeknal.state.change_log import PAGE_CHANGES, current_actor, new_change, new_change_id
from seeknal.state.file import documents
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.sql import leases, schema

FORMAT_1 = Path(__file__).parent / "format_1"
"""A file store as it was written before there was a change log: two runs in its checkpoint, a third in its journal."""


class Sqlite:
    kind = "sqlite"

    def __init__(self, path):
        self.path = path / "state.db"
        self.options = {"db_path": self.path}

    def table(self, name):
        return name

    def run(self, *statements):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        return rows


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "libsql"])
def sql(request, tmp_path, shared_store):
    return Sqlite(tmp_path) if request.param == "sqlite" else shared_store(request.param)


@pytest.fixture
def version_1(sql):
    """A filled store as the first revision made it."""
    with create_state_backend("database", **sql.options) as backend:
        backend.initialize()
        backend.create_run("r")
        backend.set_node_state("r", "load", status="success", row_count=3)
        with backend.lock("r"):
            pass
    sql.run(
        *(f"DROP TABLE {sql.table(name)}" for name in ("change_log", "claims", "claim_sets")),
        f"UPDATE {sql.table('store')} SET schema_version = 1",
        f"UPDATE {sql.table('alembic_version')} SET version_num = '0001'",
    )
    return sql


@pytest.fixture(params=["memory", "file", "sqlite", "postgresql", "mysql", "libsql"])
def store(request, tmp_path):
    """An open store of each kind."""
    if request.param == "memory":
        backend = MemoryStateBackend()
    elif request.param == "file":
        backend = create_state_backend("file", base_path=tmp_path / "target")
    elif request.param == "sqlite":
        backend = create_state_backend("database", db_path=tmp_path / "state.db")
    else:
        place = request.getfixturevalue("shared_store")(request.param)
        backend = create_state_backend("database", **place.options)
    with backend:
        backend.initialize()
        yield backend


def tokens_of(backend):
    return {(each.run_id, each.node_id): each.token for each in backend.read_tokens()}


# ---- older stores ----


@pytest.fixture
def format_1(tmp_path):
    target = tmp_path / "target"
    shutil.copytree(FORMAT_1, target)
    for path in target.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


def test_a_file_store_of_format_1_is_brought_up_to_date(format_1):
    with create_state_backend("file", base_path=format_1) as backend:
        assert backend.peek_store().schema_version == "1"
        assert [(each.check, each.severity) for each in doctor.examine(backend)] == [("schema-older", "warning")]
        backend.initialize()
        assert backend.list_runs() == ["run_1", "run_3", "run_5"]
        assert backend.get_latest_node_state("load").run_id == "run_5"
        spans = [(each.start, each.end, each.run_id) for each in backend.get_completed_intervals("load")]
        assert len(spans) == 3
        assert [(each.start, each.end, each.run_id) for each in backend.get_interval_provenance("load")] == spans
        assert tokens_of(backend) == {("run_3", "load"): 2}
        assert backend.list_changes() == []
        backend.log_change("x")
    assert json.loads((format_1 / "run_state" / "store.json").read_text())["format"] == documents.FORMAT
    with create_state_backend("file", base_path=format_1) as backend:
        backend.initialize()
        assert [change.action for change in backend.list_changes()] == ["x"]
        assert backend.list_runs() == ["run_1", "run_3", "run_5"]
        assert list(doctor.examine(backend)) == []


def test_a_look_at_a_file_store_of_format_1_changes_nothing(format_1):
    before = {path: path.read_bytes() for path in format_1.rglob("*") if path.is_file()}
    with create_state_backend("file", base_path=format_1) as backend:
        assert backend.peek_store() is not None
        assert list(doctor.examine(backend))
    assert {path: path.read_bytes() for path in format_1.rglob("*") if path.is_file()} == before


def test_an_older_program_refuses_a_file_store_also_one_that_it_has_open(format_1, monkeypatch):
    newest = f"format {documents.FORMAT}"
    older = create_state_backend("file", base_path=format_1)
    with pytest.MonkeyPatch.context() as then:
        then.setattr("seeknal.state.file.store.FORMAT", 1)
        older.initialize()
        assert older.list_runs() == ["run_1", "run_3", "run_5"]
    with create_state_backend("file", base_path=format_1) as newer:
        newer.initialize()
    monkeypatch.setattr(documents, "FORMAT", 1)
    with pytest.raises(SchemaVersionError, match=newest):
        older.create_run("late")
    with pytest.raises(SchemaVersionError, match=newest), create_state_backend("file", base_path=format_1) as again:
        again.initialize()
    monkeypatch.undo()
    older.close()


def test_a_database_of_schema_1_is_brought_up_to_date(version_1):
    with create_state_backend("database", **version_1.options) as backend:
        assert [(each.check, each.severity) for each in doctor.examine(backend)][:1] == [("schema-older", "warning")]
        assert backend.schema_report().found == 1
        backend.initialize()
        assert backend.get_node_state("r", "load").row_count == 3
        assert tokens_of(backend) == {("r", None): 1}
        assert backend.list_changes() == []
        backend.log_change("x", run_id="r")
        assert [change.action for change in backend.list_changes()] == ["x"]
        assert backend.schema_report().found == schema.SCHEMA_VERSION
    assert (
        version_1.run(f"SELECT version_num FROM {version_1.table('alembic_version')}")[0][0]
        == f"{schema.SCHEMA_VERSION:04}"
    )


def test_an_upgrade_that_was_cut_short_is_finished(version_1):
    with create_state_backend("database", **version_1.options) as backend:
        backend.initialize()
    version_1.run(  # as a server leaves it whose changes of tables commit by themselves
        f"UPDATE {version_1.table('store')} SET schema_version = 1",
        f"UPDATE {version_1.table('alembic_version')} SET version_num = '0001'",
    )
    with create_state_backend("database", **version_1.options) as backend:
        backend.initialize()
        backend.log_change("x")
        assert len(backend.list_changes()) == 1


def test_the_printed_upgrade_brings_a_database_up_to_date(version_1):
    with create_state_backend("database", **version_1.options) as backend:
        text = backend.schema_sql()
    statements = [each.strip() for each in text.split(";")]
    version_1.run(*(each for each in statements if each not in ("", "BEGIN", "COMMIT")))
    with create_state_backend("database", **version_1.options) as backend:
        assert backend.schema_report().found == schema.SCHEMA_VERSION
        backend.initialize()
        assert backend.get_node_state("r", "load").row_count == 3
        backend.log_change("x")
        assert len(backend.list_changes()) == 1


def test_a_user_who_may_not_upgrade_is_told_how_it_is_done(postgres_store):
    with create_state_backend("database", **postgres_store.options) as backend:
        backend.initialize()
    schema_name, role = postgres_store.schema, f"{postgres_store.schema}_role"
    scheme, _, rest = postgres_store.url.partition("://")
    url = f"{scheme}://{role}:secret@{rest.rpartition('@')[2]}"
    postgres_store.run(
        *(f"DROP TABLE {postgres_store.table(name)}" for name in ("change_log", "claims", "claim_sets")),
        f"UPDATE {postgres_store.table('store')} SET schema_version = 1",
        f"UPDATE {postgres_store.table('alembic_version')} SET version_num = '0001'",
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA {schema_name} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_name} TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema_name} TO {role}",
    )
    try:
        with (
            pytest.raises(AccessDeniedError, match=f"has schema 1, and {schema.SCHEMA_VERSION} is needed") as caught,
            create_state_backend("database", url=url, schema=schema_name) as backend,
        ):
            backend.initialize()
        assert "state schema --sql" in caught.value.hint
    finally:
        postgres_store.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


# ---- damage ----


def test_a_log_that_is_damaged_or_gone_is_told_and_hides_nothing_else(tmp_path):
    target = tmp_path / "target"
    with create_state_backend("file", base_path=target) as backend:
        backend.initialize()
        backend.create_run("r")
        backend.log_change("x")
    log = target / "run_state" / "log.json"
    with create_state_backend("file", base_path=target, checkpoint_bytes=1) as backend:
        backend.initialize()
        backend.create_run("s")  # from here on the log is in its file alone
    content = log.read_bytes()
    for damage in (lambda: log.write_bytes(content.replace(b'"x"', b'"y"')), log.unlink):
        damage()
        with create_state_backend("file", base_path=target) as backend:
            backend.initialize()
            with pytest.raises(CorruptStateError, match=r"log\.json"):
                backend.list_changes()
            assert backend.list_runs() == ["r", "s"]
            assert [(each.check, each.where) for each in doctor.examine(backend)] == [("document-damaged", str(log))]
    log.write_bytes(content)
    with create_state_backend("file", base_path=target) as backend:
        backend.initialize()
        assert [change.action for change in backend.list_changes()] == ["x"]


def test_a_doctor_finds_a_log_that_cannot_be_read_or_is_missing(sql):
    with create_state_backend("database", **sql.options) as backend:
        backend.initialize()
        change = backend.log_change("x")
    sql.run(f"UPDATE {sql.table('change_log')} SET detail = '[1]'")
    with create_state_backend("database", **sql.options) as backend:
        (found,) = [each for each in doctor.examine(backend) if each.check == "record-unreadable"]
        assert change.change_id in found.where
        sql.run(f"DROP TABLE {sql.table('change_log')}")
        (found,) = [each for each in doctor.examine(backend) if each.check == "schema-table"]
        assert "change_log" in found.what


# ---- two logs made one ----


def test_copying_an_entry_twice_changes_nothing(store):
    first = store.log_change("x", run_id="r", reason="why \x00 é", detail={"a": [1.5, None, "\x00"]})
    other = new_change(FakeClock(), "older", detail={})
    store.commit(Batch(log=[first, other, other]))
    store.add_to_log([other, first])
    assert store.list_changes() == [other, first]


def test_a_log_longer_than_a_page_is_read_whole(store):
    clock = FakeClock()
    changes = []
    for number in range(PAGE_CHANGES * 2):
        clock.advance(seconds=1)
        changes.append(new_change(clock, "x", detail={"n": number}))
    store.add_to_log(reversed(changes))
    assert list(store.scan_log()) == changes
    assert store.list_changes(newest_first=True, limit=3) == changes[:-4:-1]
    assert store.read_log(changes[4].change_id, 2) == changes[5:7]


def test_a_store_whose_state_moved_away_logs_only_what_the_move_does(store):
    info = store.read_store()
    store.write_successor(info.store_id, "elsewhere")
    with pytest.raises(SupersededError):
        store.log_change("x")
    change = new_change(store.clock, "migrate", detail={})
    store.commit(Batch(log=[change], tokens=[LockToken("r", None, 3)], successor="elsewhere"))
    assert store.list_changes() == [change]
    assert tokens_of(store) == {("r", None): 3}


# ---- token counters ----


def test_a_counter_that_was_carried_along_goes_on_from_there(store):
    store.commit(Batch(tokens=[LockToken("r", None, 7), LockToken("r", "n", 2**40)]))
    assert store.list_locks() == []
    assert tokens_of(store) == {("r", None): 7, ("r", "n"): 2**40}
    with store.lock("r") as lease:
        assert lease.token == 8
    with store.lock("r", "n") as lease:
        assert lease.token == 2**40 + 1
    assert tokens_of(store) == {("r", None): 8, ("r", "n"): 2**40 + 1}


def test_a_counter_is_never_lowered_and_a_lease_stays_what_it_is(store):
    for _ in range(3):
        with store.lock("r"):
            pass
    assert store.acquire_lock("r")
    store.commit(Batch(tokens=[LockToken("r", None, 2)]))
    (holder,) = store.list_locks()
    assert holder.token == 4
    store.commit(Batch(tokens=[LockToken("r", None, 9)]))
    assert [lock.owner for lock in store.list_locks()] == [holder.owner]
    assert store.release_lock("r")
    with store.lock("r") as lease:
        assert lease.token == 10


def test_counters_are_raised_with_their_commit_or_not_at_all(store):
    with pytest.raises(SupersededError):
        store.write_successor(store.read_store().store_id, "elsewhere")
        store.commit(Batch(tokens=[LockToken("r", None, 5)], log=[new_change(store.clock, "x", detail={})]))
    assert (tokens_of(store), store.list_changes()) == ({}, [])


def test_more_counters_than_a_page_are_read_each_once(tmp_path):
    keys = [(f"r{number // 7}", f"n{number % 7}" if number % 7 else None) for number in range(leases.PAGE_TOKENS + 500)]
    with create_state_backend("database", db_path=tmp_path / "state.db") as backend:
        backend.initialize()
        backend.commit(Batch(tokens=[LockToken(*key, number + 1) for number, key in enumerate(keys)]))
        found = list(backend.read_tokens())
    assert len(found) == len(keys)
    assert {(each.run_id, each.node_id): each.token for each in found} == {
        key: number + 1 for number, key in enumerate(keys)
    }


def test_counters_in_a_file_store_outlive_its_process(tmp_path):
    for checkpoint_bytes in (1 << 20, 1):
        target = tmp_path / str(checkpoint_bytes)
        with create_state_backend("file", base_path=target, checkpoint_bytes=checkpoint_bytes) as backend:
            backend.initialize()
            backend.commit(Batch(tokens=[LockToken("r", "n", 5)]))
        with create_state_backend("file", base_path=target) as backend:
            backend.initialize()
            assert tokens_of(backend) == {("r", "n"): 5}


# ---- who did it, and stores that keep no log ----


def test_who_did_it_is_the_user_or_who_the_environment_names(monkeypatch):
    monkeypatch.delenv("SEEKNAL_ACTOR", raising=False)
    monkeypatch.setattr(getpass, "getuser", lambda: "grace")
    assert current_actor() == "grace"
    monkeypatch.setenv("SEEKNAL_ACTOR", " ada ")
    assert current_actor() == "ada"
    monkeypatch.setenv("SEEKNAL_ACTOR", "\udcff")
    assert current_actor() == "?"
    monkeypatch.setenv("SEEKNAL_ACTOR", "x" * 5000)
    assert current_actor() == "x" * 200

    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    monkeypatch.setenv("SEEKNAL_ACTOR", "")
    assert current_actor() == "uid 4711"


def test_a_change_id_is_a_uuid_whose_text_sorts_by_time():
    moments = [
        datetime(1969, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, tzinfo=UTC),
        datetime(2024, 1, 10, 12, 0, 0, 999, tzinfo=UTC),
        datetime(2024, 1, 10, 12, 0, 0, 1000, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ]
    ids = [new_change_id(moment) for moment in moments]
    assert ids == sorted(set(ids))
    assert {(len(each), each[14], each[19] in "89ab") for each in ids} == {(36, "7", True)}


def test_a_backend_that_keeps_no_log_says_so_and_does_the_rest():
    class Keepless(MemoryStateBackend):
        capabilities = frozenset()

    with Keepless() as backend:
        for ask in (
            lambda: backend.log_change("x"),
            backend.list_changes,
            lambda: backend.add_to_log([]),
        ):
            with pytest.raises(CapabilityError, match="keeps no log") as caught:
                ask()
            assert "Capability.LOG" in caught.value.hint
        assert backend.acquire_lock("r")
        assert backend.break_lock("r", reason="it hangs") is not None


def test_a_process_keeps_nothing_of_the_log_of_a_file_store_but_what_its_file_has_not(tmp_path):
    with create_state_backend("file", base_path=tmp_path, checkpoint_bytes=1) as backend:
        backend.initialize()
        logged = [backend.log_change("step", detail={"number": number}) for number in range(100)]
        with backend._store.writing() as image:
            backend._store.checkpoint()
            assert image._log == {}
        logged.append(backend.log_change("another"))
        assert len(backend._store.image._log) <= 1
        assert backend.read_log("", 1000) == logged
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        assert backend.read_log("", 1000) == logged
        assert backend.read_log(logged[97].change_id, 1000) == logged[98:]
