"""Opening a store that cannot be opened, asking one that is away, and taking leave of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.integration.conftest import DEADLINE_S, Far
from tests.servers.process import Port

from seeknal.errors import AccessDeniedError, BackendUnavailableError, SeeknalError, StateBackendError
from seeknal.state.backend import create_state_backend

SECRET = "swordfish"
FAST_S = 8
"""Much less than a budget of half a minute, on a machine that is busy."""


@contextmanager
def fast(at_most_s: float = FAST_S) -> Iterator[None]:
    """Fail if the block takes longer than that."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < at_most_s


def changed(url: str, *, host: str | None = None, user: str | None = None, path: str | None = None) -> str:
    """Return a URL with another user whose password is secret, and perhaps another place."""
    parts = urlsplit(url)
    netloc = f"{user or parts.username or 'somebody'}:{SECRET}@{host or parts.netloc.rpartition('@')[2]}"
    if parts.scheme == "http":
        return f"http://{host or parts.netloc}?authToken={SECRET}"
    return urlunsplit(parts._replace(netloc=netloc, path=parts.path if path is None else path))


def refusal(url: str) -> SeeknalError:
    """Return what opening a store raises; it does so soon, and tells no secret."""
    with create_state_backend("database", url=url) as backend, fast(), pytest.raises(SeeknalError) as raised:
        backend.initialize()
    error = raised.value
    shown = "".join(traceback.format_exception(error, chain=True)) + error.hint + repr(error) + repr(error.__cause__)
    assert SECRET not in shown.replace(f'SECRET = "{SECRET}"', "")
    assert error.hint
    return error


def test_nobody_listens(far: Far) -> None:
    port = Port()
    error = refusal(changed(far.url, host=f"127.0.0.1:{port.number}"))
    port.close()
    assert isinstance(error, BackendUnavailableError)
    assert error.outcome == "not applied"
    assert "cannot be reached" in str(error)
    assert f"127.0.0.1:{port.number}" in str(error)


def test_the_host_is_unknown(far: Far) -> None:
    error = refusal(changed(far.url, host="nobody.invalid").replace("http:", "https:"))
    assert isinstance(error, BackendUnavailableError)
    assert "nobody.invalid" in str(error)


def test_nobody_answers(far: Far) -> None:
    far.proxy.ignore()
    backend = far.at(far.url, busy_timeout_ms=6000)
    with fast(), pytest.raises(BackendUnavailableError, match="cannot be reached"):
        backend.initialize()


def test_the_database_does_not_exist(far: Far) -> None:
    if far.kind != "libsql":
        error = refusal(far.url.rsplit("/", 1)[0] + "/no_such_database")
        assert isinstance(error, BackendUnavailableError)
        assert "no_such_database" in str(error)
        assert "database" in error.hint


def test_the_password_is_wrong_on_postgresql(private_postgres) -> None:
    import psycopg

    rules = private_postgres.directory / "data" / "pg_hba.conf"
    with psycopg.connect(private_postgres.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS locked")
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        rule = "host all locked all scram-sha-256\n"
        if rule not in rules.read_text():
            rules.write_text(rule + rules.read_text())
        connection.execute("SELECT pg_reload_conf()")
    assert isinstance(refusal(changed(private_postgres.url, user="locked")), AccessDeniedError)


def test_the_password_is_wrong_on_mysql(private_mysql) -> None:
    with private_mysql._connect() as connection:
        connection.cursor().execute("CREATE OR REPLACE USER locked@'%' IDENTIFIED BY 'right'")
    assert isinstance(refusal(changed(private_mysql.url, user="locked")), AccessDeniedError)


def test_an_instance_that_could_not_be_opened_can_be_opened_later(far: Far) -> None:
    far.beside.create_run("run")
    backend = far.at(far.url)
    far.proxy.refuse()
    with pytest.raises(BackendUnavailableError):
        backend.initialize()
    far.proxy.restore()
    backend.initialize()
    for _ in range(10):
        backend.set_node_state("run", "node")
    assert far.proxy.connections == 1, "and it keeps its connection"


# ---- a server that is away ----


@pytest.mark.parametrize("fault", ["refuse", "ignore", "hold"])
def test_a_health_check_is_quick(far: Far, fault: str) -> None:
    assert far.backend.health_check()
    getattr(far.proxy, fault)()
    if fault != "hold":
        far.proxy.cut()
    with fast():
        assert not far.backend.health_check()
    far.proxy.restore()
    assert far.backend.health_check()


@pytest.mark.parametrize("fault", ["refuse", "hold"])
def test_closing_is_quick_and_safe_to_repeat(far_somewhere: Far, fault: str) -> None:
    far = far_somewhere
    far.budget_ms = 6000
    backend, without_locks = far.open(), far.open()
    for node in ("a", "b", "c", "d", "e"):
        assert backend.acquire_lock("run", node, ttl_ms=3000)
    without_locks.create_run("run")
    getattr(far.proxy, fault)()
    if fault == "refuse":
        far.proxy.cut()
    waiting = far.soon(backend.get_run, "run")
    with fast(12), pytest.raises(StateBackendError):  # the locks could not be given back
        backend.close()
    with fast(12):
        without_locks.close()
    backend.close()
    without_locks.close()
    with pytest.raises(BackendUnavailableError):
        waiting.result(DEADLINE_S)
    with pytest.raises(BackendUnavailableError):
        backend.get_run("run")
    far.proxy.restore()
    far.store.age_leases(10)
    assert far.beside.acquire_lock("run", "a", timeout_ms=0), "they are free once their time has passed"


AT_EXIT = """
import sys
from seeknal.state.backend import create_state_backend
backend = create_state_backend("database", url=sys.argv[1], schema=sys.argv[2])
backend.initialize()
assert backend.acquire_lock("run")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_process_ends_soon_whose_server_is_away(far_somewhere: Far) -> None:
    far = far_somewhere
    far.beside.health_check()
    command = [sys.executable, "-c", AT_EXIT, far.url, far.store.schema]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        far.proxy.refuse()
        far.proxy.cut()
        with fast(15):
            _, told = process.communicate("go\n", timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "could not be closed at exit" in told


# ---- many threads, and one that is interrupted ----


def test_many_threads_share_a_few_connections(far: Far) -> None:
    far.beside.create_run("run")
    backend = far.open()

    def write(number: int) -> int:
        for status in ("pending", "running", "success"):
            version = backend.set_node_state("run", f"node{number}", status=status).version
        return version

    writes = [far.soon(write, number) for number in range(32)]
    assert [write.result(DEADLINE_S) for write in writes] == [3] * 32
    assert far.proxy.connections <= backend._database.dialect.connections


def test_many_threads_find_the_server_silent_and_none_hangs(far_somewhere: Far) -> None:
    far = far_somewhere
    far.budget_ms = 1000
    far.beside.create_run("run")
    backend = far.backend
    far.proxy.hold()

    def write(number: int) -> StateBackendError:
        with pytest.raises(StateBackendError) as raised:
            backend.set_node_state("run", f"node{number}")
        return raised.value

    with fast(12):
        for error in [far.soon(write, number) for number in range(32)]:
            error.result(DEADLINE_S)
    far.proxy.restore()
    writes = [far.soon(backend.set_node_state, "run", "together", metadata={str(n): n}) for n in range(8)]
    assert max(write.result(DEADLINE_S).version for write in writes) == 8


def test_a_connection_is_not_used_again_after_an_interruption(far: Far) -> None:
    far.beside.create_run("run", metadata={"a": 1})
    backend = far.backend
    assert backend.set_node_state("run", "node").version == 1
    me = threading.main_thread().ident
    far.proxy.hold("to_client")
    before = far.proxy.round_trips

    def interrupt() -> None:
        far.proxy.wait_until(lambda: far.proxy.round_trips > before)
        signal.pthread_kill(me, signal.SIGINT)
        far.proxy.restore()

    interrupting = far.soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        backend.set_node_state("run", "node")
    interrupting.result(DEADLINE_S)
    assert backend.get_run("run").metadata == {"a": 1}
    assert backend.get_node_state("run", "node").version in (1, 2)
    assert far.proxy.connections == 2 + (far.kind == "postgresql"), "which has another one to cancel by"


def test_a_child_leaves_the_connections_of_its_parent_alone(far: Far) -> None:
    far.beside.create_run("run")
    with create_state_backend("database", **far.store.options) as backend:
        backend.initialize()
        backend.set_node_state("run", "parent")
        child = os.fork()
        if not child:
            code = 1
            try:
                backend.set_node_state("run", "child")
                backend.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert backend.set_node_state("run", "parent").version == 2
        assert backend.list_nodes("run") == ["child", "parent"]
