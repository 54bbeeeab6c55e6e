"""Servers that restart and are killed under load, leases that outlive it, and writers in each other's way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest
from tests.integration.conftest import DEADLINE_S, Far
from tests.processes import PROCESSES
from tests.servers.stores import ServerStore

from seeknal.errors import LeaseLostError
from seeknal.state.backend import StateBackend, create_state_backend

THREADS = 4
SHARED_NODE = "shared"


# ---- a server that goes and comes back ----


def count(backend: StateBackend, mark: str) -> None:
    """Add one to what all writers count together, and leave a mark that nobody else leaves."""

    def add() -> None:
        state = backend.get_node_state("run", SHARED_NODE)
        counted = (state.row_count or 0) if state else 0
        backend.set_node_state("run", SHARED_NODE, row_count=counted + 1, metadata={mark: True})

    backend.run_transaction(add, timeout_ms=60_000)


def write_until(stopped: Callable[[], bool], backend: StateBackend, name: str) -> list[str]:
    """Write until told to stop; return the marks of what was acknowledged."""
    marks: list[str] = []
    while not stopped():
        mark = f"{name}-{len(marks)}"
        count(backend, mark)
        state = backend.set_node_state("run", f"own-{name}", row_count=len(marks), metadata={mark: True})
        marks.append(mark)
        assert state.version == len(marks), "nothing is applied twice, and the right version is told"
    return marks


def in_a_process(options: dict[str, str], name: str, opened: object, stop: object, folder: Path) -> None:
    with create_state_backend("database", **options) as backend:
        backend.initialize()
        opened.wait(DEADLINE_S)
        marks = write_until(stop.is_set, backend, name)
    (folder / name).write_text(json.dumps(marks))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_server_keeps_what_it_acknowledged(private_far: Far, end: str, tmp_path: Path) -> None:
    restart(private_far, end, tmp_path, times=2)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_restarts_again_and_again_keeps_it(private_far: Far, end: str, tmp_path: Path) -> None:
    restart(private_far, end, tmp_path, times=25)


def restart(private_far: Far, end: str, tmp_path: Path, *, times: int) -> None:
    """Restart a server under six writers, and look whether all is there that they were told, once."""
    far, process = private_far, private_far.store.process
    far.backend.create_run("run")
    idle = far.open()
    assert idle.get_run("run")
    stop = threading.Event()
    opened, others = PROCESSES.Barrier(3), PROCESSES.Event()
    workers = [
        PROCESSES.Process(target=in_a_process, args=(far.store.options, f"p{number}", opened, others, tmp_path))
        for number in range(2)
    ]
    for worker in workers:
        worker.start()
    opened.wait(DEADLINE_S)
    threads = [far.soon(write_until, stop.is_set, far.backend, f"t{number}") for number in range(THREADS)]

    def progress(more: int) -> None:
        before = far.proxy.round_trips
        far.proxy.wait_until(lambda: far.proxy.round_trips > before + more, DEADLINE_S)

    progress(40)
    for _ in range(times):
        getattr(process, end)()
        process.start()
        progress(40)
    stop.set()
    others.set()
    marks = [mark for thread in threads for mark in thread.result(DEADLINE_S)]
    for number, worker in enumerate(workers):
        worker.join(DEADLINE_S)
        assert worker.exitcode == 0
        marks += json.loads((tmp_path / f"p{number}").read_text())
    state = idle.get_node_state("run", SHARED_NODE)
    assert set(state.metadata) == set(marks), "nothing is lost, and nothing is there that was not acknowledged"
    assert state.row_count == len(marks), "and nothing is applied twice"
    own = [each for each in idle.get_all_node_states("run").values() if each.node_id != SHARED_NODE]
    assert {mark for each in own for mark in each.metadata} == set(marks)
    assert far.backend.health_check()


# ---- leases ----


def test_a_lease_outlives_an_outage_that_is_shorter_than_its_time(far: Far) -> None:
    far.beside.create_run("run")
    with far.backend.lock("run", ttl_ms=6000) as lease:
        far.proxy.refuse()
        far.proxy.cut()
        time_of_the_outage_s = 2.5  # a renewal falls into it, two seconds after the grant
        threading.Event().wait(time_of_the_outage_s)
        far.proxy.restore()
        before = far.proxy.round_trips
        far.proxy.wait_until(lambda: far.proxy.round_trips > before + 1)
        with far.backend.transaction(lease=lease):
            far.backend.set_node_state("run", "node")
        assert [lock.token for lock in far.beside.list_locks()] == [lease.token]
    assert far.beside.list_locks() == []


def test_a_lease_that_was_lost_in_an_outage_is_missed_at_the_commit(far: Far) -> None:
    far.beside.create_run("run")
    with far.backend.lock("run", ttl_ms=60_000) as lease:
        far.proxy.refuse()
        far.proxy.cut()
        far.store.age_leases(61)
        assert far.beside.acquire_lock("run", timeout_ms=0)
        far.proxy.restore()
        with pytest.raises(LeaseLostError) as raised, far.backend.transaction(lease=lease):
            far.backend.set_node_state("run", "node")
        assert raised.value.outcome == "not applied"
        assert far.beside.get_node_state("run", "node") is None
    assert len(far.beside.list_locks()) == 1, "the block frees no lease but its own"


# ---- writers in each other's way ----


def in_turn(far: Far, *works: Callable[[], object]) -> list[object]:
    """Run each of these in a thread of its own, at once; return what they return."""
    together = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        together.wait(DEADLINE_S)
        return work()

    return [each.result(DEADLINE_S) for each in [far.soon(run, work) for work in works]]


def test_transactions_in_opposite_orders_both_commit(far: Far) -> None:
    instances = far.beside, far.open()
    for run in ("a", "b"):
        far.beside.create_run(run, metadata={"count": 0})

    def rounds(backend: StateBackend, order: str) -> None:
        def add() -> None:
            for run in order:
                backend.update_run(run, metadata={"count": backend.get_run(run).metadata["count"] + 1})
                backend.set_node_state(run, "node", status="running")

        for _ in range(15):
            backend.run_transaction(add, timeout_ms=60_000)

    in_turn(far, *(lambda b=b, o=o: rounds(b, o) for b, o in zip(instances * 2, ("ab", "ba") * 2, strict=True)))
    for run in ("a", "b"):
        assert far.beside.get_run(run).metadata == {"count": 60}
        assert far.beside.get_node_state(run, "node").version == 60


WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' "
    "AND trx_query LIKE '%{}%'",
}
"""How many wait for a row of a table."""

MYSQLS_CACHE_S = 0.15
"""So long the table above shows what it has shown, if it is asked again."""


def other_client(store: ServerStore) -> psycopg.Connection | pymysql.Connection:
    if store.kind == "postgresql":
        return psycopg.connect(store.url)
    parts = urlsplit(store.url)
    return pymysql.connect(
        host=parts.hostname, port=parts.port, user=parts.username, password=parts.password or "", database="test"
    )


def test_a_transaction_that_meets_a_deadlock_commits_in_the_end(far_rows: Far) -> None:
    """Another client locks the rows of two runs in the other order than a transaction that writes them."""
    far, table = far_rows, far_rows.store.table("runs")
    with far.beside.transaction():
        for run in ("a", "b", *(f"weight{number}" for number in range(20))):  # MySQL spares who has written more
            far.beside.create_run(run)
    change = f"UPDATE {table} SET started_us = started_us + 1 WHERE run_id {{}} 'a'"

    def write() -> None:
        with far.backend.transaction():
            for run in ("a", "b"):
                far.backend.update_run(run, metadata={"ours": 1})

    with closing(other_client(far.store)) as other:
        cursor = other.cursor()
        cursor.execute(change.format("<>"))
        written = far.soon(write)
        end = time.monotonic() + DEADLINE_S
        while not far.store.run(WAITING[far.kind].format(table))[0][0]:
            assert time.monotonic() < end, "the transaction does not wait for the row"
            threading.Event().wait(MYSQLS_CACHE_S)
        with suppress(psycopg.errors.DeadlockDetected, pymysql.OperationalError):  # it may be the victim itself
            cursor.execute(change.format("="))
        other.rollback()
    written.result(DEADLINE_S)
    assert [far.beside.get_run(run).version for run in ("a", "b")] == [2, 2]


def test_many_who_change_one_record_lose_nothing(far: Far) -> None:
    far.beside.create_run("run")
    instances = (far.beside, far.open())

    def work(backend: StateBackend, name: str) -> None:
        for number in range(5):
            count(backend, f"{name}-{number}")

    in_turn(far, *(lambda n=n: work(instances[n % 2], f"w{n}") for n in range(6)))
    state = far.beside.get_node_state("run", SHARED_NODE)
    assert (state.row_count, state.version, len(state.metadata)) == (30, 30, 30)
