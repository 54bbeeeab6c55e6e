"""The doctor: each fault is planted for real, found, and, where that is safe, mended."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import threading
import zlib
from contextlib import ExitStack, closing, nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from tests.conftest import available
from tests.processes import PROCESSES
from tests.servers.stores import SERVERS, fresh_store

from seeknal.clock import SystemClock
from seeknal.errors import BackendUnavailableError, CapabilityError, CorruptStateError
from seeknal.model.records import CompletedInterval
from seeknal.state import doctor
from seeknal.state.backend import create_state_backend
from seeknal.state.checks import merging
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.settings import load_settings
from seeknal.state.sql import examine, health, schema
from seeknal.state.sql.tables import SCHEMA_VERSION
from seeknal.state.work import change_intervals

NAMES = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN")


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


def us(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def fill(backend):
    backend.initialize()
    for run_id in ("r1", "r2"):
        backend.create_run(run_id)
        for node_id in ("a", "b"):
            backend.set_node_state(run_id, node_id, status="success", row_count=1)
        backend.update_run(run_id, status="success")
    backend.add_completed_interval("r1", "a", day(1), day(3))
    backend.add_completed_interval("r2", "a", day(10), day(11))
    backend.add_completed_interval("r2", "b", day(1), day(2))
    backend.add_completed_partition("r2", "a", "2024-01")
    backend.delete_run("r1")
    with backend.lock("r2", "a"):
        pass


def examined(backend):
    return list(doctor.examine(backend))


def checks(backend):
    return sorted({finding.check for finding in examined(backend)})


def mended(backend):
    """Mend what there is, and return what a new examination finds."""
    seen = []
    assert doctor.mend(examined(backend), seen.append) == []
    assert seen
    return checks(backend)


class FileScene:
    def __init__(self, path):
        self.path = path / "target"
        with self.open() as backend:
            fill(backend)

    def open(self, **options):
        return create_state_backend("file", base_path=self.path, **options)

    def checkpoint(self):
        """Let all records stand in their files, and nothing in the journal."""
        with self.open(checkpoint_bytes=1) as backend:
            backend.initialize()
            backend.create_run("last", status="success")

    def rewrite(self, path, change):
        """Change a document as somebody would who also knows how to set its checksum."""
        document = json.loads(path.read_text())
        document.pop("checksum")
        change(document)
        body = json.dumps(document, indent=2).encode()[: -len(b"\n}")]
        path.write_bytes(body + b',\n  "checksum": "crc32:%08x"\n}\n' % zlib.crc32(body))


@pytest.fixture
def files(tmp_path):
    return FileScene(tmp_path)


class Sqlite:
    kind = "sqlite"

    def __init__(self, path):
        self.path = path / "state.db"

    @property
    def options(self):
        return {"db_path": self.path}

    def table(self, name):
        return name

    def run(self, *statements):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        return rows


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "libsql"])
def sql(request, tmp_path, shared_store):
    """A filled store in a database, with its tables open to raw SQL."""
    scene = Sqlite(tmp_path) if request.param == "sqlite" else shared_store(request.param)
    with create_state_backend("database", **scene.options) as backend:
        fill(backend)
    return scene


@pytest.fixture
def lite(tmp_path):
    scene = Sqlite(tmp_path)
    with create_state_backend("database", **scene.options) as backend:
        fill(backend)
    return scene


@pytest.fixture
def at(request):
    """Return a new instance on a scene, which is not initialized."""

    def open_(scene, **options):
        backend = create_state_backend("database", **scene.options, **options)
        request.addfinalizer(backend.close)
        return backend

    return open_


# ---- healthy stores ----


def test_healthy_memory():
    backend = MemoryStateBackend()
    fill(backend)
    assert examined(backend) == []


def test_healthy_files(files):
    assert examined(files.open()) == []
    files.checkpoint()
    assert examined(files.open()) == []
    with files.open() as backend:
        backend.initialize()
        backend.create_run("open")
        assert examined(backend) == []
        assert examined(files.open()) == []


def test_healthy_databases(sql, at):
    assert examined(at(sql)) == []
    backend = at(sql)
    backend.initialize()
    assert examined(backend) == []


def test_a_backend_of_a_third_party_is_checked_through_its_reads():

    class Theirs(MemoryStateBackend):
        def read_intervals(self, node_id):
            return [CompletedInterval(node_id, day(1), day(3), "r"), CompletedInterval(node_id, day(2), day(4), "r")]

        def read_worked_nodes(self):
            return ["n"]

    assert checks(Theirs()) == ["intervals-overlap"]


def test_a_backend_that_is_not_built_on_ours():
    class Foreign:
        pass

    with pytest.raises(CapabilityError):
        list(doctor.examine(Foreign()))


@pytest.mark.parametrize("kind", ["file", "database"])
def test_where_there_is_no_store_none_is_made(tmp_path, kind):
    place = tmp_path / "nothing"
    option = {"base_path": place} if kind == "file" else {"db_path": place}
    backend = create_state_backend(kind, **option)
    assert [(found.check, found.severity) for found in examined(backend)] == [("store-missing", "warning")]
    assert not place.exists()


def test_where_a_server_has_no_store_none_is_made(server_store, at):
    assert checks(at(server_store)) == ["store-missing"]
    assert server_store.tables() == []


def test_an_examination_changes_no_file(files, tmp_path):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files.path.rglob("*")}
    examined(files.open())
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files.path.rglob("*")} == before


def test_an_examination_beside_writers(files):
    """Checkpoints that replace the files meanwhile are no damage, and no writer waits."""
    ended = threading.Event()

    def write():
        with files.open(checkpoint_bytes=2000) as backend:
            backend.initialize()
            for number in range(150):
                backend.create_run(f"w{number}")
                backend.add_completed_interval(f"w{number}", "n", day(1), day(1 + number % 20 + 1))
                backend.update_run(f"w{number}", status="success")
                if number > 5:
                    backend.delete_run(f"w{number - 5}")
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    found = []
    while not ended.is_set():
        found += [each for each in examined(files.open()) if each.severity == "error"]
    writer.join()
    assert found == []


# ---- records ----


def interval(scene, node_id, start, end, run_id="r2", *, table="completed_intervals"):
    return (
        f"INSERT INTO {scene.table(table)} (node_id, start_us, end_us, run_id) "
        f"VALUES ('{node_id}', {us(start)}, {us(end)}, '{run_id}')"
    )


BOTH = ("completed_intervals", "interval_provenance")


def test_parts_of_intervals_that_nobody_is_said_to_have_completed(sql, at):
    parts = sql.table("interval_provenance")
    sql.run(
        f"UPDATE {parts} SET end_us = {us(day(2))} WHERE node_id = 'a' AND end_us = {us(day(3))}",
        interval(sql, "a", day(20), day(22), table="interval_provenance"),
        interval(sql, "never", day(1), day(2), table="interval_provenance"),
    )
    backend = at(sql)
    found = examined(backend)
    assert [each.check for each in found] == ["provenance-drift", "provenance-drift"]
    assert all(each.is_fixable for each in found)
    assert mended(backend) == []
    told = [(each.start, each.end, each.run_id) for each in backend.get_interval_provenance("a")]
    assert told == [(day(1), day(3), "r1"), (day(10), day(11), "r2")]
    assert told == [(each.start, each.end, each.run_id) for each in backend.get_completed_intervals("a")]
    assert backend.get_interval_provenance("never") == []


def test_rows_of_spans_and_keys_that_cannot_be_read(sql, at):
    far = 2**62
    sql.run(
        f"UPDATE {sql.table('interval_provenance')} SET end_us = {far} WHERE node_id = 'a'",
        f"UPDATE {sql.table('completed_intervals')} SET end_us = {far} WHERE node_id = 'a'",
        f"INSERT INTO {sql.table('expected_partitions')} VALUES ('a', 'a\x07b')",
    )
    backend = at(sql)
    found = examined(backend)
    assert {each.check for each in found} >= {"record-unreadable", "provenance"}
    assert {"completed_intervals", "interval_provenance"} <= {
        each.where.split(", ")[1] for each in found if each.check == "record-unreadable"
    }
    backend.initialize()
    for read in (backend.get_completed_intervals, backend.get_interval_provenance):
        with pytest.raises(CorruptStateError, match="no instant"):
            read("a")


def test_intervals_that_overlap_or_touch(sql, at):
    sql.run(interval(sql, "a", day(2), day(5)), interval(sql, "a", day(5), day(6)))
    sql.run(*(interval(sql, "c", day(1), day(2), table=table) for table in BOTH))
    backend = at(sql)
    (found,) = examined(backend)
    assert (found.check, found.severity, found.is_fixable) == ("intervals-overlap", "error", True)
    assert "'a'" in found.where
    assert mended(backend) == []
    spans = [(each.start, each.end) for each in backend.get_completed_intervals("a")]
    assert spans == [(day(1), day(6)), (day(10), day(11))]
    assert [each.run_id for each in backend.get_completed_intervals("c")] == ["r2"]


def test_intervals_that_are_empty(sql, at):
    sql.run(interval(sql, "a", day(20), day(20)), interval(sql, "a", day(25), day(22)))
    backend = at(sql)
    assert checks(backend) == ["intervals-empty"]
    assert mended(backend) == []
    spans = [(each.start, each.end, each.run_id) for each in backend.get_completed_intervals("a")]
    assert spans == [(day(1), day(3), "r1"), (day(10), day(11), "r2")]


def test_intervals_of_a_file_that_are_out_of_order(files):
    files.checkpoint()

    def change(document):
        first, second = document["intervals"]
        document["intervals"] = [second, first, {**first, "start": "2024-01-02T00:00:00Z"}]

    files.rewrite(files.path / "run_state" / "nodes" / "a.json", change)
    with files.open() as backend:
        assert checks(backend) == ["intervals-order", "intervals-overlap"]
        assert mended(backend) == []
        spans = [(each.start, each.end) for each in backend.get_completed_intervals("a")]
        assert spans == [(day(1), day(3)), (day(10), day(11))]


def test_merging_is_the_same_for_every_disorder():
    spans = [(1, 3), (2, 5), (5, 5), (7, 6), (9, 10)]
    for order in (spans, spans[::-1], spans[2:] + spans[:2]):
        done = [CompletedInterval("n", day(start), day(end), "r") for start, end in order]
        for change in merging(list(done)):
            change_intervals(done, change)
        assert [(each.start.day, each.end.day) for each in done] == [(1, 5), (9, 10)]


def test_strange_provenance(sql, at):
    sql.run(*(interval(sql, "c", day(1), day(2), run_id="", table=table) for table in BOTH))
    found = examined(at(sql))
    assert [(each.check, each.severity) for each in found] == [("provenance", "warning")] * 2


def test_records_that_cannot_be_read(sql, at):
    sql.run(
        f"UPDATE {sql.table('runs')} SET metadata = '[not json' WHERE run_id = 'r2'",
        f"UPDATE {sql.table('node_states')} SET status = 'odd' WHERE node_id = 'a'",
        f"UPDATE {sql.table('partitions')} SET metadata = '3' WHERE node_id = 'a'",
    )
    found = examined(at(sql))
    assert {each.check for each in found} == {"record-unreadable"}
    places = " ".join(each.where for each in found)
    assert "run 'r2'" in places
    assert "node 'a'" in places
    assert "partition '2024-01'" in places
    assert not any(each.is_fixable for each in found)


def test_versions_and_sequences(sql, at):
    nodes, runs = sql.table("node_states"), sql.table("runs")
    backend = at(sql)
    backend.initialize()
    for run_id in ("r3", "r4"):
        backend.create_run(run_id, status="success")
        backend.set_node_state(run_id, "a", status="success")
    sql.run(
        f"UPDATE {nodes} SET version = 0 WHERE node_id = 'b'",
        f"UPDATE {nodes} SET sequence = 77 WHERE node_id = 'a'",
        f"UPDATE {runs} SET sequence = 78 WHERE run_id <> 'r2'",
    )
    assert checks(backend) == ["record-number", "sequence-duplicate"]
    assert len([each for each in examined(backend) if each.check == "sequence-duplicate"]) == 2


def test_more_records_than_one_page(lite, at):
    backend = at(lite)
    backend.initialize()
    with backend.transaction():
        for number in range(2500):
            backend.set_node_state("r2", f"n{number:05}", status="success")
    lite.run("UPDATE node_states SET version = 0 WHERE node_id IN ('n00999', 'n02499')")
    assert len(examined(backend)) == 2


def orphan(scene, run_id="r2"):
    off = {"sqlite": "PRAGMA foreign_keys = OFF", "libsql": "PRAGMA foreign_keys = OFF", "mysql": "SELECT 1"}
    if scene.kind == "postgresql":
        (name,) = scene.run(
            "SELECT conname FROM pg_constraint WHERE contype = 'f' AND "
            f"conrelid = '{scene.table('node_states')}'::regclass"
        )
        scene.run(f"ALTER TABLE {scene.table('node_states')} DROP CONSTRAINT {name[0]}")
    scene.run(
        off.get(scene.kind, "SELECT 1"),
        f"UPDATE {scene.table('node_states')} SET run_id = 'gone' WHERE node_id = 'b' AND run_id = '{run_id}'",
    )


def test_node_states_without_a_run(sql, at):
    orphan(sql)
    backend = at(sql)
    found = checks(backend)
    assert found == (["foreign-key", "node-orphan"] if sql.kind == "sqlite" else ["node-orphan"])
    assert mended(backend) == []
    assert backend.list_nodes("r2") == ["a"]


@pytest.mark.parametrize("way", ["alone", "in a transaction"])
def test_a_cleanup_before_the_repair_keeps_the_newest_success_that_has_a_run(sql, at, way):
    backend = at(sql)
    backend.initialize()
    backend.delete_run("r2")
    for run_id in ("older", "newer"):
        backend.create_run(run_id)
        backend.set_node_state(run_id, "b", status="success")
        backend.update_run(run_id, status="success", finished_at=day(1))
    orphan(sql, "newer")
    found = [each for each in examined(backend) if each.check == "node-orphan"]
    assert "returned as the latest" in found[0].fix
    with backend.transaction() if way == "in a transaction" else nullcontext():
        assert backend.cleanup(older_than=timedelta(days=1)).kept.get("older") == "newest success: b"
    mended(backend)
    assert backend.get_latest_node_state("b", status="success").run_id == "older"


def test_a_file_store_whose_history_names_a_run_that_is_gone(files):
    files.checkpoint()
    (index,) = (files.path / "run_state").glob("index-*.json")
    files.rewrite(index, lambda document: document["history"]["a"].update(runs="99"))
    (found,) = examined(files.open())
    assert (found.check, "history of node 'a'" in found.what) == ("store-damaged", True)


def test_documents_of_a_file_store_with_wrong_numbers(files):
    files.checkpoint()

    def change(document):
        document["nodes"]["a"]["version"] = 0

    files.rewrite(files.path / "run_state" / "runs" / "r2.json", change)
    (index,) = (files.path / "run_state").glob("index-*.json")
    files.rewrite(index, lambda document: document["runs"][1].update(sequence=document["runs"][0]["sequence"]))
    assert checks(files.open()) == ["record-number", "sequence-duplicate"]


# ---- locks and runs ----


def dead_run(backend):
    backend.create_run("dead", metadata={"recorded_by": {"host": "h", "pid": 1}})
    backend.create_run("by hand")


def test_runs_that_nobody_works_on(sql, at):
    backend = at(sql)
    backend.initialize()
    dead_run(backend)
    with backend.lock("dead"):
        assert examined(backend) == []
    (found,) = examined(backend)
    assert (found.check, found.severity, "'dead'" in found.what) == ("run-abandoned", "warning", True)


def test_runs_of_files_that_nobody_works_on(files):
    with files.open() as backend:
        backend.initialize()
        dead_run(backend)
        assert checks(backend) == ["run-abandoned"]


def test_expired_leases(sql, at):
    backend = at(sql)
    backend.initialize()
    assert backend.acquire_lock("r2", "a", ttl_ms=60_000)
    assert backend.acquire_lock("r2", "b", ttl_ms=60_000)
    sql.run(f"UPDATE {sql.table('locks')} SET expires_us = expires_us - 3600000000 WHERE node_id = 'a'")
    (found,) = examined(backend)
    assert (found.check, found.severity) == ("lease-expired", "warning")
    assert mended(backend) == []
    assert [lock.node_id for lock in backend.list_locks()] == ["b"]
    rows = sql.run(f"SELECT node_id, token, is_free FROM {sql.table('locks')} ORDER BY node_id")
    assert [tuple(map(str, row)) for row in rows] == [("a", "2", "1"), ("b", "1", "0")]


class LateClock(SystemClock):
    late_us = 0

    def ticks_us(self):
        return super().ticks_us() + self.late_us


def test_expired_leases_of_files(files):
    clock = LateClock()
    with files.open(clock=clock) as backend:
        backend.initialize()
        assert backend.acquire_lock("r2", "a", ttl_ms=3_600_000)
        assert examined(backend) == []
        clock.late_us = 7_200_000_000
        assert checks(backend) == ["lease-expired"]
        assert mended(backend) == []


# ---- the schema, rights, settings ----


def test_a_missing_index_is_made(sql, at):
    on = f" ON {sql.table('runs')}" if sql.kind == "mysql" else ""
    sql.run(f"DROP INDEX {sql.table('runs_by_sequence')}{on}")
    backend = at(sql)
    (found,) = examined(backend)
    assert (found.check, found.severity, "runs_by_sequence" in found.what) == ("schema-index", "warning", True)
    assert mended(backend) == []


def test_missing_tables_and_columns(sql, at):
    sql.run(f"ALTER TABLE {sql.table('locks')} DROP COLUMN reason", f"DROP TABLE {sql.table('partitions')}")
    found = {each.check: each for each in examined(at(sql))}
    assert {"schema-table", "schema-column"} <= set(found)
    assert found["schema-table"].what.count("partitions")
    assert found["schema-column"].what.count("locks.reason")


def retyped(sql, kind):
    table = sql.table("partitions")
    sql.run(f"ALTER TABLE {table} DROP COLUMN row_count", f"ALTER TABLE {table} ADD COLUMN row_count {kind}")


def test_a_column_of_another_kind(sql, at):
    retyped(sql, "TEXT")
    (found,) = examined(at(sql))
    assert (found.check, found.severity) == ("schema-kind", "error")
    assert "partitions.row_count is text, and should be a number of 64 bits" in found.what


def test_a_column_that_is_too_narrow(sql, at):
    retyped(sql, "INTEGER")
    assert checks(at(sql)) == (["schema-kind"] if sql.kind in ("postgresql", "mysql") else [])


def test_a_newer_schema(sql, at):
    sql.run(f"UPDATE {sql.table('store')} SET schema_version = 99")
    assert checks(at(sql)) == ["schema-newer"]


def test_an_older_schema(lite, at, monkeypatch):
    for module in (schema, examine):
        monkeypatch.setattr(module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert [(each.check, each.severity) for each in examined(at(lite))] == [("schema-older", "warning")]


def test_a_store_that_lost_its_row(lite, at):
    lite.run("DELETE FROM store")
    assert checks(at(lite)) == ["store-damaged"]


def test_a_database_of_something_else(tmp_path, at):
    scene = Sqlite(tmp_path)
    scene.run("CREATE TABLE theirs (x)")
    os.chmod(scene.path, 0o600)
    assert checks(at(scene)) == ["store-damaged"]


def test_missing_rights(sql, at, monkeypatch):
    monkeypatch.setattr(schema, "missing_rights", lambda _: ["UPDATE on runs"])
    (found,) = examined(at(sql))
    assert (found.check, "UPDATE on runs" in found.what) == ("missing-rights", True)


def test_rights_that_a_role_really_lacks(postgres_store, at):
    with create_state_backend("database", **postgres_store.options) as backend:
        fill(backend)
    role = f"{postgres_store.schema}_role"
    scheme, _, rest = postgres_store.url.partition("://")
    url = f"{scheme}://{role}:secret@{rest.rpartition('@')[2]}"
    postgres_store.run(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA {postgres_store.schema} TO {role}",
        f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {postgres_store.schema} TO {role}",
    )
    try:
        with create_state_backend("database", url=url, schema=postgres_store.schema) as backend:
            found = examined(backend)
        assert [each.check for each in found] == ["missing-rights"]
        assert "UPDATE on" in found[0].what
        assert "secret" not in str(found)
    finally:
        postgres_store.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("kind", "weaken", "restore"),
    [
        ("postgresql", "ALTER SYSTEM SET full_page_writes = off", "ALTER SYSTEM RESET full_page_writes"),
        ("mysql", "SET GLOBAL innodb_flush_log_at_trx_commit = 2", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"),
    ],
)
def test_settings_of_a_server_that_lose_commits(request, private_process, kind, weaken, restore):
    process = available(request, lambda: private_process(kind))
    reload = ["SELECT pg_reload_conf()"] if kind == "postgresql" else []
    with fresh_store(SERVERS[kind](process.url), process) as store:
        store.run(weaken, *reload)
        try:
            with create_state_backend("database", **store.options) as backend:
                fill(backend)
                found = [each for each in examined(backend) if each.check == "durability"]
        finally:
            store.run(restore, *reload)
    setting = weaken.split()[-3]
    assert [each.severity for each in found if setting in each.what] == ["warning"]


class WrongClock(SystemClock):
    def now(self):
        return super().now() - timedelta(seconds=30)


def test_clocks_that_are_apart(server_store, at):
    with create_state_backend("database", **server_store.options) as backend:
        fill(backend)
    (found,) = examined(at(server_store, clock=WrongClock()))
    assert (found.check, found.severity) == ("clock-skew", "warning")
    assert "30 s" in found.what


def test_receipts_that_pile_up(server_store, at, monkeypatch):
    monkeypatch.setattr(health, "MOST_RECEIPTS", 2)
    with create_state_backend("database", **server_store.options) as backend:
        fill(backend)
    table = server_store.table("receipts")
    server_store.run(*(f"INSERT INTO {table} (op_id, is_void, number) VALUES ({n}, 1, {n} + 9000)" for n in range(4)))
    (found,) = examined(at(server_store))
    assert (found.check, "4 of them void" in found.what) == ("receipts-piled", True)


# ---- SQLite files ----


def test_a_journal_mode_that_makes_readers_wait(lite, at):
    lite.run("PRAGMA journal_mode = DELETE")
    backend = at(lite)
    assert checks(backend) == ["journal-mode"]
    assert mended(backend) == []


def test_a_damaged_page(lite, at):
    with create_state_backend("database", **lite.options) as backend:
        backend.initialize()
        with backend.transaction():
            for number in range(400):
                backend.set_node_state("r2", f"n{number:04}", metadata={"x": "y" * 200})
    lite.run("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(lite.path.read_bytes())
    content[-4096 * 3 : -4096 * 2] = os.urandom(4096)
    lite.path.write_bytes(content)
    found = examined(at(lite))
    assert "store-damaged" in {each.check for each in found}


def test_a_file_that_is_no_database(tmp_path, at):
    scene = Sqlite(tmp_path)
    scene.path.write_bytes(b"no database at all" * 300)
    assert checks(at(scene)) == ["file-mode", "store-damaged"]


def test_a_server_that_is_not_there():
    backend = create_state_backend("database", url="postgresql://u:secret@127.0.0.1:1/x", busy_timeout_ms=500)
    (found,) = examined(backend)
    assert (found.check, found.severity) == ("store-unreachable", "error")
    assert "secret" not in str(found)


def test_a_database_that_others_may_read(lite, at):
    os.chmod(lite.path, 0o644)
    backend = at(lite)
    assert checks(backend) == ["file-mode"]
    assert mended(backend) == []
    assert stat.S_IMODE(lite.path.stat().st_mode) == 0o600


# ---- files ----


def test_files_that_others_may_read(files):
    os.chmod(files.path / "run_state.json", 0o644)
    os.chmod(files.path / "run_state" / "runs", 0o755)
    with files.open() as backend:
        (found,) = examined(backend)
        assert (found.check, found.severity) == ("file-mode", "warning")
        assert mended(backend) == []
    assert stat.S_IMODE((files.path / "run_state" / "runs").stat().st_mode) == 0o700


def test_a_mode_that_cannot_be_changed(files, monkeypatch):
    os.chmod(files.path / "run_state.json", 0o644)
    backend = files.open()
    monkeypatch.setattr("pathlib.Path.chmod", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not yours")))
    ((finding, problem),) = doctor.mend(examined(backend), lambda _: None)
    assert finding.check == "file-mode"
    assert isinstance(problem, BackendUnavailableError)
    backend.close()


def test_symbolic_links(files):
    view = files.path / "run_state.json"
    view.rename(files.path / "elsewhere.json")
    view.symlink_to(files.path / "elsewhere.json")
    assert checks(files.open()) == ["symbolic-link"]


def test_leftovers(files):
    left = [files.path / "run_state.json.999.tmp", files.path / "run_state" / "runs" / "x.json.999.tmp"]
    for path in left:
        path.touch(0o600)
    assert examined(files.open()) == []  # they may belong to somebody who writes now
    for path in left:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with files.open() as backend:
        assert checks(backend) == ["file-leftover"]
        assert mended(backend) == []
    assert not any(path.exists() for path in left)


def copy_until_killed(path):
    backend = create_state_backend("file", base_path=path)
    backend.initialize()
    with backend.snapshot():
        os.kill(os.getpid(), signal.SIGKILL)


def restore_until_killed(path):
    backend = create_state_backend("file", base_path=path)
    backend.initialize()
    with backend.replacing("by a test"):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "name"), [(copy_until_killed, "snapshot-*.tmp"), (restore_until_killed, "restored.log.tmp")]
)
@pytest.mark.parametrize("way", ["doctor", "checkpoint", "open"])
def test_what_a_killed_backup_or_restore_leaves_is_told_and_removed(files, work, name, way):
    child = PROCESSES.Process(target=work, args=(files.path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (left,) = (files.path / "run_state").glob(name)
    with files.open() as backend:
        assert not [each for each in examined(backend) if each.check in ("file-leftover", "file-mode")]
        os.utime(left, (1_000_000_000, 1_000_000_000))
        (found,) = (each for each in examined(backend) if each.check == "file-leftover")
        assert left.name in found.what
        if way == "doctor":
            assert mended(backend) == []
        elif way == "open":
            backend.initialize()
    if way == "checkpoint":
        files.checkpoint()
    assert not left.exists()


def test_what_a_backup_or_a_restore_works_with_is_no_leftover(files):
    with files.open() as ours, ExitStack() as stack:
        ours.initialize()
        stack.enter_context(ours.snapshot())
        stack.enter_context(ours.replacing("by a test"))
        left = [next((files.path / "run_state").glob(name)) for name in ("snapshot-*.tmp", "restored.log.tmp")]
        for path in left:
            os.utime(path, (1_000_000_000, 1_000_000_000))
        with files.open() as theirs:
            assert examined(theirs) == []
        files.checkpoint()
        assert all(path.exists() for path in left)
        stack.close()
        assert not any(path.exists() for path in left)


def test_a_view_that_is_foreign(files):
    (files.path / "run_state.json").write_text('{"run_id": "mine", "nodes": {}}')
    for path in (files.path / "run_state").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    os.utime(files.path / "run_state.json", (1_000_000_001, 1_000_000_001))
    with files.open() as backend:
        assert checks(backend) == ["view-foreign"]
        assert mended(backend) == []


def test_a_view_that_is_behind(files):
    view = files.path / "run_state.json"
    behind = view.read_bytes()
    with files.open() as backend:
        backend.initialize()
        backend.create_run("r5", status="success")
    view.write_bytes(behind)
    for path in [view, *(files.path / "run_state").glob("journal-*"), files.path / "run_state" / "store.json"]:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with files.open() as backend:
        assert checks(backend) == ["view-behind"]
        assert mended(backend) == []


def test_a_flipped_byte_in_the_journal(files):
    (journal,) = (files.path / "run_state").glob("journal-*")
    content = bytearray(journal.read_bytes())
    content[40] ^= 1
    journal.write_bytes(content)
    (found,) = examined(files.open())
    assert (found.check, found.where) == ("store-damaged", str(journal))


@pytest.mark.parametrize("name", ["runs/r2.json", "nodes/a.json"])
def test_a_flipped_byte_in_a_document(files, name):
    files.checkpoint()
    path = files.path / "run_state" / name
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"A"', 1))
    (found,) = examined(files.open())
    assert (found.check, found.where, found.is_fixable) == ("document-damaged", str(path), False)


@pytest.mark.parametrize("name", ["runs/r2.json", "nodes/a.json"])
def test_a_document_that_is_gone(files, name):
    files.checkpoint()
    path = files.path / "run_state" / name
    path.unlink()
    (found,) = examined(files.open())
    assert (found.check, found.where) == ("document-damaged", str(path))


@pytest.mark.parametrize("name", ["store.json", "journal-00000001.log", "index-00000001.json"])
def test_a_part_of_the_store_that_is_gone(files, name):
    (files.path / "run_state" / name).unlink()
    assert checks(files.open()) == ["store-damaged"]


def test_a_newer_format(files):
    files.rewrite(files.path / "run_state" / "store.json", lambda document: document.update(format=9))
    assert checks(files.open()) == ["schema-newer"]


# ---- the project ----


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: file\n")
    with create_state_backend("file", base_path=tmp_path / "target") as backend:
        fill(backend)
    return tmp_path


def project_findings(project):
    settings = load_settings(project)
    with create_state_backend(settings.backend, **settings.options) as backend:
        return sorted({each.check for each in doctor.examine_project(settings, backend)})


def migrate(project, monkeypatch):
    from seeknal.cli.app import main

    monkeypatch.chdir(project)
    assert main(["migrate-state", "--backend", "database", "--no-dry-run", "--quiet"]) == 0


def test_a_migration_that_came_to_its_end(project, monkeypatch):
    migrate(project, monkeypatch)
    assert project_findings(project) == []


def test_a_project_that_names_a_store_that_is_superseded(project, monkeypatch):
    migrate(project, monkeypatch)
    (project / "seeknal_project.yml").write_text("name: p\nstate_backend: file\n")
    assert project_findings(project) == ["store-superseded"]


def test_a_migration_that_did_not_come_to_its_end(project, monkeypatch):
    migrate(project, monkeypatch)
    path = project / "target" / "migration.json"
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(record))
    assert project_findings(project) == ["migration-unfinished"]
    path.write_text("{")
    assert project_findings(project) == ["migration-record"]


def test_a_copy_with_the_same_identity(project, monkeypatch):
    migrate(project, monkeypatch)
    with create_state_backend("file", base_path=project / "target") as backend:
        backend.initialize()
        backend.write_successor(backend.read_store().store_id, None)
    assert project_findings(project) == ["identity-shared"]


def test_a_source_that_cannot_be_read(project, monkeypatch):
    migrate(project, monkeypatch)
    (project / "target" / "run_state" / "store.json").write_text("{")
    assert project_findings(project) == ["migration-source"]


def test_a_network_file_system(project, monkeypatch, tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("1 0 0:1 / / rw - nfs4 host:/ rw\n")
    monkeypatch.setattr("seeknal.state.file.network.MOUNTS", mounts)
    assert project_findings(project) == ["network-file-system"]
