"""The life of a backend in a process: forks, threads, closing, exits, descriptors, owners that die."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from seeknal.clock import SystemClock
from seeknal.errors import BackendUnavailableError, CapabilityError, TransactionError
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.testing.scene import SkewedClock

Open = Callable[..., StateBackend]


@pytest.fixture(params=["file", "database"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def options(kind: str, tmp_path: Path) -> dict[str, str]:
    return {"base_path": str(tmp_path / "t")} if kind == "file" else {"db_path": str(tmp_path / "t" / "state.db")}


@pytest.fixture
def opened(kind: str, options: dict[str, str]) -> Open:
    return partial(open_store, kind, options)


def open_store(kind: str, options: dict[str, str], **more) -> StateBackend:
    backend = create_state_backend(kind, **options, **more)
    backend.initialize()
    return backend


def forked(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child and return the child's id; it leaves with 0, or with 1 if ``work`` raised."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(30)
        work()
        code = 0
    except BaseException as error:
        sys.__stderr__.write(f"in the child: {error!r}\n")
    finally:
        os._exit(code)


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def python(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=True, **options)


# ---- forks ----


def test_a_forked_child_works_and_owns_nothing_of_its_parent(opened: Open) -> None:
    backend = opened()
    backend.create_run("run")
    assert backend.acquire_lock("run")

    def work() -> None:
        backend.set_node_state("run", "child", status="success")
        assert not backend.release_lock("run")
        assert not backend.acquire_lock("run", timeout_ms=0)
        assert backend.acquire_lock("run", "child")
        backend.close()

    assert code_of(forked(work)) == 0
    assert [lock.node_id for lock in backend.list_locks()] == [None], "the child gave its own back, and no other"
    assert backend.release_lock("run")
    assert backend.list_nodes("run") == ["child"]
    backend.close()


def test_what_a_child_commits_after_its_parent_closed_is_kept(opened: Open) -> None:
    backend = opened()
    backend.create_run("run")
    reading, writing = os.pipe()
    closed_reading, closed_writing = os.pipe()

    def work() -> None:
        backend.set_node_state("run", "before")
        os.write(writing, b"x")
        os.read(closed_reading, 1)
        backend.set_node_state("run", "after")

    child = forked(work)
    os.read(reading, 1)
    backend.close()
    os.write(closed_writing, b"x")
    assert code_of(child) == 0
    for descriptor in (reading, writing, closed_reading, closed_writing):
        os.close(descriptor)
    with opened() as again:
        assert again.list_nodes("run") == ["after", "before"]


def test_forking_while_a_thread_commits(opened: Open) -> None:
    backend = opened()
    backend.create_run("run")
    done, failures, count = threading.Event(), [], 0

    def commit() -> None:
        nonlocal count
        try:
            while not done.is_set():
                with backend.transaction():
                    backend.set_node_state("run", "parent", row_count=count + 1)
                    backend.set_node_state("run", "twin", row_count=count + 1)
                count += 1
        except BaseException as error:
            failures.append(error)

    def work(number: int) -> None:
        backend.set_node_state("run", f"child {number}", row_count=number)
        assert backend.get_node_state("run", f"child {number}").row_count == number
        backend.close()

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        for number in range(30):
            assert code_of(forked(partial(work, number))) == 0
    finally:
        done.set()
        thread.join()
    assert failures == []
    with opened() as again:
        states = again.get_all_node_states("run")
        assert len(states) == 32
        assert states["parent"].row_count == states["twin"].row_count == states["parent"].version == count
    backend.close()


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(opened: Open) -> None:
    backend = opened()
    backend.create_run("run")
    with backend.transaction() as transaction:
        backend.set_node_state("run", "parent")

        def work() -> None:
            assert not backend.node_exists("run", "parent")
            with pytest.raises(TransactionError, match="has ended"):
                transaction.__exit__(None, None, None)
            with backend.transaction():
                backend.set_node_state("run", "child")

        assert code_of(forked(work)) == 0
    assert backend.list_nodes("run") == ["child", "parent"]
    backend.close()


# ---- threads and instances ----


def test_eight_threads_share_one_instance(opened: Open) -> None:
    with opened() as backend:
        backend.create_run("run")

        def work(name: int) -> None:
            for number in range(25):
                backend.set_node_state("run", "shared", metadata={f"{name}-{number}": True})

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = backend.get_node_state("run", "shared")
        assert (len(state.metadata), state.version) == (200, 200)


CLOSER = """\
import json, sys
from seeknal.state.backend import create_state_backend
with create_state_backend(sys.argv[1], **json.loads(sys.argv[2])) as backend:
    backend.initialize()
    backend.set_node_state("run", "other process")
"""


def test_a_second_instance_does_not_take_the_firsts_locks_on_the_store(
    opened: Open, kind: str, options: dict[str, str]
) -> None:
    with opened() as first, opened():
        first.create_run("run")
        opened().close()
        python(CLOSER, kind, json.dumps(options))
        first.set_node_state("run", "first")
        python(CLOSER.replace("other process", "third"), kind, json.dumps(options))
        assert first.list_nodes("run") == ["first", "other process", "third"]
    with opened() as again:
        assert again.list_nodes("run") == ["first", "other process", "third"]


def test_closed_twice(opened: Open) -> None:
    backend = opened()
    backend.close()
    backend.close()
    with pytest.raises(BackendUnavailableError, match="closed"):
        backend.list_runs()


UNCLOSED = """\
import json, sys
from seeknal.state.backend import create_state_backend
backend = create_state_backend(sys.argv[1], **json.loads(sys.argv[2]))
backend.initialize()
backend.create_run("run")
assert backend.acquire_lock("run", ttl_ms=600_000)
for number in range(500):
    backend.set_node_state("run", "node", row_count=number)
"""


def test_left_unclosed_at_the_exit_of_the_interpreter(opened: Open, kind: str, options: dict[str, str]) -> None:
    done = python(UNCLOSED, kind, json.dumps(options))
    assert done.stderr == ""
    if kind == "file":
        view = json.loads((Path(options["base_path"]) / "run_state.json").read_bytes())
        assert view["nodes"]["node"]["row_count"] == 499
    with opened() as backend:
        assert backend.list_locks() == []
        assert backend.get_node_state("run", "node").row_count == 499


def test_pickled_by_accident(opened: Open) -> None:
    with opened() as backend:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(CapabilityError) as raised:
                pickle.dumps(backend, protocol)
            assert "Open the store again in the other process" in raised.value.hint


def test_many_openings_leak_nothing(opened: Open, kind: str) -> None:
    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    opened().close()
    gc.collect()  # what earlier tests dropped would otherwise be closed while we count
    before = count()
    for number in range(1000 if kind == "file" else 300):
        with opened() as backend:
            if number % 50 == 0:
                backend.create_run(f"run {number}")
                assert backend.acquire_lock(f"run {number}")
    assert count() == before


# ---- leases ----


OWNER = """\
import json, sys, time
from seeknal.state.backend import create_state_backend
backend = create_state_backend(sys.argv[1], **json.loads(sys.argv[2]))
backend.initialize()
assert backend.acquire_lock("run", ttl_ms=600)
print("held", flush=True)
time.sleep(60)
"""


def test_the_lease_of_a_killed_owner_expires_and_goes_to_another(
    opened: Open, kind: str, options: dict[str, str]
) -> None:
    with opened() as backend:
        command = [sys.executable, "-c", OWNER, kind, json.dumps(options)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout.readline() == "held\n"
            time.sleep(0.9)
            (held,) = backend.list_locks()
            assert held.pid == owner.pid
            assert not backend.acquire_lock("run", timeout_ms=0), "its owner lives and renews it"
            owner.kill()
        assert backend.acquire_lock("run", timeout_ms=10_000)
        (granted,) = backend.list_locks()
        assert (granted.pid, granted.token) == (os.getpid(), held.token + 1)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_is_an_hour_off_changes_nothing_about_leases(opened: Open, hours: int) -> None:
    with opened() as right, opened(clock=SkewedClock(SystemClock(), timedelta(hours=hours))) as wrong:
        for one, other in ((right, wrong), (wrong, right)):
            assert one.acquire_lock("run", ttl_ms=900)
            first = other.list_locks()[0]
            time.sleep(1.2)
            assert not other.acquire_lock("run", timeout_ms=0), "its owner lives and renews it"
            one._keeper.drop_all()  # its owner is frozen
            assert other.acquire_lock("run", timeout_ms=5000)
            assert one.list_locks()[0].token == first.token + 1
            assert not one.release_lock("run")
            assert other.release_lock("run")
