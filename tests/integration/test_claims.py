"""Claims on real stores: older formats, checkpoints, damage, moves and restores."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest

from seeknal.errors import CapabilityError, ClaimEndedError, SchemaVersionError, StaleVersionError
from seeknal.model.intervals import Interval
from seeknal.state import doctor
from seeknal.state.backend import create_state_backend
from seeknal.state.backup.making import back_up
from seeknal.state.backup.restoring import restore
from seeknal.state.batch import Batch
from seeknal.state.capabilities import Capability
from seeknal.state.file import documents
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.moving import move
from seeknal.state.sql import schema

NODE = "load"


def days(count):
    return [
        Interval(datetime(2024, 1, n, tzinfo=UTC), datetime(2024, 1, n + 1, tzinfo=UTC)) for n in range(1, count + 1)
    ]


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
        place = request.getfixturevalue("emptied_store")(request.param)
        backend = create_state_backend("database", **place.options)
    with backend:
        backend.initialize()
        yield backend


def leave_some(backend, *, lease):
    """Leave an open, a parked and a living claim of an interval, and an open one of a partition."""
    first, second, _ = backend.claim_intervals("r", NODE, days(3), lease=lease, limit=3, max_attempts=2)
    backend.fail_claim(first, "once \x00 é")
    backend.fail_claim(second, "once")
    (second,) = backend.claim_intervals("r", NODE, days(2)[1:], lease=lease, max_attempts=2)
    backend.fail_claim(second, "twice")
    (part,) = backend.claim_partitions("r", NODE, ["é" * 95], lease=lease)
    backend.fail_claim(part, "no")


def told(backend):
    return [(one.status, one.attempt, one.error_message, one.partition) for one in backend.list_claims(NODE)]


LEFT = [("open", 1, "once \x00 é", None), ("parked", 2, "twice", None), ("open", 1, "no", "é" * 95)]


# ---- stores ----


def test_claims_are_there_after_a_checkpoint_and_after_the_store_was_opened_again(tmp_path):
    with create_state_backend("file", base_path=tmp_path, checkpoint_bytes=1) as backend:
        backend.initialize()
        backend.create_run("r")
        with backend.lock("r") as lease:
            leave_some(backend, lease=lease)
            version, stored = backend.read_claims(NODE)
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        assert backend.read_claims(NODE) == (version, stored)
        assert told(backend)[0] == LEFT[0]
        assert list(doctor.examine(backend)) == []


def test_a_file_store_of_format_2_is_brought_up_to_date_and_refused_by_its_program(tmp_path):
    store = tmp_path / "run_state" / "store.json"
    with pytest.MonkeyPatch.context() as then:
        then.setattr("seeknal.state.file.store.FORMAT", 2)
        older = create_state_backend("file", base_path=tmp_path, checkpoint_bytes=1)
        older.initialize()
        older.create_run("r")
        with older._store.writing():
            older._store.checkpoint()
        assert json.loads(store.read_text())["format"] == 2
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        assert backend.list_claims(NODE) == []
        with backend.lock("r") as lease:
            assert len(backend.claim_intervals("r", NODE, days(1), lease=lease)) == 1
    assert json.loads(store.read_text())["format"] == documents.FORMAT
    with pytest.MonkeyPatch.context() as then:
        then.setattr(documents, "FORMAT", 2)
        with pytest.raises(SchemaVersionError):
            older.create_run("late")
    older.close()


NEW_IN_4 = ["interval_provenance", "expected_partitions"]


@pytest.mark.parametrize("from_version", [1, 2])
def test_a_database_of_an_older_schema_is_brought_up_to_date(sql, from_version):
    with create_state_backend("database", **sql.options) as backend:
        backend.initialize()
        backend.create_run("r")
    gone = [*NEW_IN_4, "claims", "claim_sets", "change_log"][: 5 if from_version == 1 else 4]
    sql.run(
        *(f"DROP TABLE {sql.table(name)}" for name in gone),
        f"UPDATE {sql.table('store')} SET schema_version = {from_version}",
        f"UPDATE {sql.table('alembic_version')} SET version_num = '{from_version:04}'",
    )
    with create_state_backend("database", **sql.options) as backend:
        assert [(each.check, each.severity) for each in doctor.examine(backend)][:1] == [("schema-older", "warning")]
        assert "claim_sets" in backend.schema_sql()
        backend.initialize()
        assert backend.schema_report().found == schema.SCHEMA_VERSION
        with backend.lock("r") as lease:
            leave_some(backend, lease=lease)
            assert told(backend)[:2] == LEFT[:2]
        assert list(doctor.examine(backend)) == []


def test_a_database_of_schema_3_keeps_its_claims_and_the_run_of_each_interval(sql):
    with create_state_backend("database", **sql.options) as backend:
        backend.initialize()
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        for run_id, number in (("r", 1), ("s", 2), ("r", 9)):
            day = days(9)[number - 1]
            backend.add_completed_interval(run_id, "other", day.start, day.end)
        with backend.lock("r") as lease:
            leave_some(backend, lease=lease)
            before = told(backend)
    sql.run(
        *(f"DROP TABLE {sql.table(name)}" for name in NEW_IN_4),
        f"ALTER TABLE {sql.table('claims')} DROP COLUMN sequence",
        f"UPDATE {sql.table('store')} SET schema_version = 3",
        f"UPDATE {sql.table('alembic_version')} SET version_num = '0003'",
    )
    with create_state_backend("database", **sql.options) as backend:
        printed = backend.schema_sql()
        assert "interval_provenance" in printed
        assert "sequence" in printed
        backend.initialize()
        assert told(backend)[0] == before[0]
        whole = [(each.start, each.end, each.run_id) for each in backend.get_completed_intervals("other")]
        assert [run_id for _, _, run_id in whole] == ["s", "r"]
        assert whole == [(each.start, each.end, each.run_id) for each in backend.get_interval_provenance("other")]
        assert list(doctor.examine(backend)) == []
        with backend.lock("r") as lease:
            (claim,) = backend.claim_intervals("r", "other", days(9)[2:3], lease=lease)
            backend.complete_claim(claim)


def test_a_program_that_has_a_database_open_writes_nothing_once_a_newer_one_has_changed_its_schema(sql):
    with create_state_backend("database", **sql.options) as older:
        older.initialize()
        older.create_run("r")
        older.set_node_state("r", NODE, status="running")
        day = days(1)[0]
        with older.lock("r", "worker") as lease:
            (claim,) = older.claim_intervals("r", NODE, days(2)[1:], lease=lease)
            sql.run(f"UPDATE {sql.table('store')} SET schema_version = {schema.SCHEMA_VERSION + 1}")
            for write in (
                lambda: older.create_run("s"),
                lambda: older.set_node_state("r", NODE, row_count=1),
                lambda: older.set_node_state("r", "new", status="running"),
                lambda: older.add_completed_interval("r", NODE, day.start, day.end),
                lambda: older.expect_partitions(NODE, ["p"]),
                lambda: older.complete_claim(claim),
                lambda: older.acquire_lock("r", "another"),
                lambda: older.delete_run("r"),
            ):
                with pytest.raises(SchemaVersionError, match=f"schema {schema.SCHEMA_VERSION + 1}"):
                    write()
            sql.run(f"UPDATE {sql.table('store')} SET schema_version = {schema.SCHEMA_VERSION}")
        assert older.list_runs() == ["r"]
        assert older.get_node_state("r", NODE).row_count is None
        assert older.get_completed_intervals(NODE) == []


def test_a_doctor_finds_a_claim_that_cannot_be_read(sql):
    with create_state_backend("database", **sql.options) as backend:
        backend.initialize()
        backend.create_run("r")
        with backend.lock("r") as lease:
            backend.claim_partitions("r", NODE, ["p"], lease=lease)
    sql.run(f"UPDATE {sql.table('claims')} SET status = 'lost'")
    with create_state_backend("database", **sql.options) as backend:
        (found,) = [each for each in doctor.examine(backend) if each.check == "record-unreadable"]
        assert "'partition p'" in found.where


def test_a_backend_that_keeps_no_claims_says_so():
    class Plain(MemoryStateBackend):
        capabilities = frozenset({Capability.LOG})

    with Plain() as backend, backend.lock("r") as lease:
        for call in (
            lambda: backend.claim_intervals("r", NODE, days(1), lease=lease),
            lambda: backend.claim_partitions("r", NODE, ["p"], lease=lease),
            lambda: backend.list_claims(NODE),
            lambda: backend.list_claimed_nodes(),
            lambda: backend.retry_parked(NODE),
        ):
            with pytest.raises(CapabilityError, match="keeps no claims") as caught:
                call()
            assert "Capability.CLAIMS" in caught.value.hint


# ---- the commit ----


def test_a_commit_that_saw_other_claims_takes_nothing(store):
    store.create_run("r")
    with store.lock("r") as lease:
        version, _ = store.read_claims(NODE)
        (claim,) = store.claim_intervals("r", NODE, days(1), lease=lease)
        for seen in (version, version + 5):
            with pytest.raises(StaleVersionError):
                store.commit(Batch(claims=[claim], claim_versions={NODE: seen, "another": 0}))
        assert store.read_claims(NODE)[0] == version + 1
        assert store.read_claims("another") == (0, [])


def test_a_range_that_is_completed_at_the_last_moment_is_not_taken(store, monkeypatch):
    """Its lease ran out after the completion was on its way: the taker finds out at its commit."""
    store.create_run("r")
    with store.lock("r", "a") as mine, store.lock("r", "b") as theirs:
        (claim,) = store.claim_intervals("r", NODE, days(1), lease=mine)
        read_locks = store.read_locks

        def all_but_mine():
            held = [lock for lock in read_locks() if lock.owner != mine.owner]
            monkeypatch.setattr(store, "read_locks", read_locks)
            return held

        read_intervals = store.read_intervals

        def then_complete(node_id):
            found = read_intervals(node_id)
            monkeypatch.setattr(store, "read_intervals", read_intervals)
            store.complete_claim(claim)
            return found

        monkeypatch.setattr(store, "read_locks", all_but_mine)
        monkeypatch.setattr(store, "read_intervals", then_complete)
        assert store.claim_intervals("r", NODE, days(1), lease=theirs) == []
        assert store.list_claims(NODE) == []
        assert len(store.get_completed_intervals(NODE)) == 1


# ---- moves and restores ----


def test_a_move_takes_attempts_and_errors_along(store, tmp_path):
    store.create_run("r", status="success")
    with store.lock("r", "w") as lease:
        leave_some(store, lease=lease)
    gone = store.list_claims(NODE)[2]
    assert (gone.status, gone.attempt) == ("open", 1)
    with create_state_backend("database", db_path=tmp_path / "moved.db") as target:
        target.initialize()
        move(store, target, source_where="here", target_where="there")
        assert target.list_claims(NODE) == store.list_claims(NODE)
        assert [one for one in told(target) if one[2] != gone.error_message] == LEFT
        with target.lock("r", "w") as lease:
            assert len(target.claim_intervals("r", NODE, days(3), lease=lease, limit=9)) == 2


def test_a_restore_ends_the_claims(store, tmp_path):
    store.create_run("r", status="success")
    made = back_up(store, tmp_path / "backups", kind="any")
    with store.lock("r", "w") as lease:
        leave_some(store, lease=lease)
        store.claim_partitions("r", NODE, ["q"], lease=lease)
    version, _ = store.read_claims(NODE)
    restore(store, made, kind="any")
    assert store.list_claims(NODE) == []
    with store.lock("r", "w") as lease:
        assert store.read_claims(NODE)[0] == version
        (again,) = store.claim_partitions("r", NODE, ["q"], lease=lease)
        assert again.attempt == 1
        store.release_claim(again)
        with pytest.raises(ClaimEndedError):
            store.complete_claim(again)
