"""What the network may do to a call: cut it, fall silent, come back; and what the call then says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from tests.integration.conftest import DEADLINE_S, Far
from tests.servers.stores import ServerStore

from seeknal.clock import FakeClock
from seeknal.errors import BackendUnavailableError, CommitUnknownError, StateBackendError
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.sql import receipts
from seeknal.state.sql.dialects.base import RefusedError
from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.endpoint import endpoint
from seeknal.state.sql.statements import Step

GRACE_S = 5
"""By how much a call may outlast its budget on a machine that is busy."""


@contextmanager
def within(budget_ms: int) -> Iterator[None]:
    """Fail if the block takes much longer than a budget."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < budget_ms / 1000 + GRACE_S


def write_five(backend: StateBackend) -> None:
    with backend.transaction():
        for number in range(5):
            backend.set_node_state("run", f"node{number}", status="success")


def versions(far: Far) -> list[int]:
    return [state.version for state in far.beside.get_all_node_states("run").values()]


@pytest.fixture
def ready(far: Far) -> Far:
    """Return a store with a run, before which an instance has connected."""
    far.beside.create_run("run", metadata={"count": 0})
    assert far.backend.get_run("run")
    return far


@pytest.fixture
def hasty(far: Far) -> Far:
    """The same, with a budget of two seconds."""
    far.budget_ms = 2000
    far.beside.create_run("run", metadata={"count": 0})
    assert far.backend.get_run("run")
    return far


# ---- transactions ----


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("fault", ["lose_answer", "lose_request"])
def test_a_transaction_is_applied_once_whatever_is_lost(ready: Far, fault: str, how: str) -> None:
    lost = getattr(ready.proxy, fault)(b"receipts", how=how)
    write_five(ready.backend)
    assert lost.count == 1
    assert versions(ready) == [1] * 5
    write_five(ready.backend)
    assert versions(ready) == [2] * 5


@pytest.mark.parametrize("fault", ["lose_answer", "lose_request"])
def test_a_function_is_not_called_again_when_its_commit_can_be_settled(ready: Far, fault: str) -> None:
    calls = []

    def count() -> None:
        calls.append(1)
        ready.backend.update_run("run", metadata={"count": ready.backend.get_run("run").metadata["count"] + 1})

    lost = getattr(ready.proxy, fault)(b"receipts")
    ready.backend.run_transaction(count)
    assert (lost.count, len(calls)) == (1, 1)
    assert ready.beside.get_run("run").metadata == {"count": 1}


def test_an_outcome_that_cannot_be_asked_for_is_unknown_and_says_so(hasty: Far) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        hasty.backend.set_node_state("run", "node", row_count=7)

    lost = hasty.proxy.lose_answer(b"receipts")
    hasty.proxy.refuse()
    with within(2000), pytest.raises(CommitUnknownError) as raised:
        hasty.backend.run_transaction(work)
    assert (raised.value.outcome, raised.value.retriable, lost.count, len(calls)) == ("unknown", False, 1, 1)
    hasty.proxy.restore()
    assert hasty.backend.get_node_state("run", "node").version == 1, "it was applied, and never again"


@pytest.mark.parametrize("write", [write_five, lambda backend: backend.set_node_state("run", "node")])
def test_what_never_left_is_not_applied_and_says_so(hasty: Far, write: Callable[[StateBackend], object]) -> None:
    hasty.proxy.refuse()
    hasty.proxy.cut()
    with within(2000), pytest.raises(BackendUnavailableError) as raised:
        write(hasty.backend)
    assert (raised.value.outcome, raised.value.retriable) == ("not applied", True)
    assert versions(hasty) == []
    hasty.proxy.restore()
    write(hasty.backend)
    assert set(versions(hasty)) == {1}


def test_a_transaction_waits_for_an_outage_that_is_shorter_than_its_budget(ready: Far) -> None:
    ready.proxy.refuse()
    ready.proxy.cut()
    written = ready.soon(write_five, ready.backend)
    read = ready.soon(ready.backend.get_run, "run")
    assert not written.done()
    ready.proxy.restore()
    written.result(DEADLINE_S)
    assert read.result(DEADLINE_S).run_id == "run"
    assert versions(ready) == [1] * 5


# ---- cut in the middle ----


def write_large(backend: StateBackend) -> None:
    """Commit three megabytes, with a mark in their middle."""
    with backend.transaction():
        for number in range(30):
            metadata = {"large": f"{number:05}" * 20_000, "mark": "here-it-is-cut" if number == 15 else ""}
            backend.set_node_state("run", f"node{number:02}", metadata=metadata)


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_large_transaction_is_cut_in_its_middle(ready: Far, how: str) -> None:
    lost = ready.proxy.lose_request(b"here-it-is-cut", how=how)
    write_large(ready.backend)
    assert lost.count == 1
    assert versions(ready) == [1] * 30
    assert ready.beside.get_node_state("run", "node29").metadata["large"] == "00029" * 20_000


def test_a_large_transaction_falls_silent_in_its_middle(far: Far) -> None:
    """Something on the way keeps the server's side alive, so that its keepalives find nothing amiss."""
    far.budget_ms = 2000 if far.kind == "postgresql" else 6000
    far.beside.create_run("run")
    backend = far.open()
    far.proxy.lose_request(b"here-it-is-cut", how="silence")
    if far.kind == "postgresql":
        with within(2000), pytest.raises(CommitUnknownError):
            write_large(backend)
        assert versions(far) == []
        far.proxy.cut()
    write_large(backend)
    assert versions(far) == [1] * 30


def test_a_postgresql_server_looks_whether_its_client_is_there(postgres_store: ServerStore) -> None:
    with create_state_backend("database", **postgres_store.options) as backend:
        backend.initialize()

        def shown(name: str) -> str:
            return backend._database.read(lambda session: session.cursor.execute(f"SHOW {name}").fetchone()[0])

        found = [shown(f"tcp_keepalives_{name}") for name in ("idle", "interval", "count")]
    assert found == ["5", "2", "3"]


# ---- half-closed, and silent ----


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
def test_a_connection_that_one_side_has_closed_is_replaced(ready: Far, direction: str) -> None:
    ready.proxy.half_close(direction)
    assert ready.backend.set_node_state("run", "node").version == 1
    ready.proxy.half_close(direction)
    assert ready.backend.get_node_state("run", "node").version == 1
    ready.proxy.half_close(direction)
    assert ready.backend.acquire_lock("run")
    assert versions(ready) == [1]


def test_a_connection_that_went_silent_is_given_up_for_another(far: Far) -> None:
    far.budget_ms = 6000
    far.beside.create_run("run")
    assert far.backend.get_run("run")
    lost = far.proxy.lose_answer(b"receipts", how="silence")
    with within(6000):
        assert far.backend.set_node_state("run", "node").version == 1
    assert lost.count == 1
    assert versions(far) == [1]


CALLS: dict[str, Callable[[StateBackend], object]] = {
    "read": lambda backend: backend.get_run("run"),
    "write": lambda backend: backend.set_node_state("run", "node"),
    "patch": lambda backend: backend.update_run("run", metadata={"a": 1}),
    "transaction": write_five,
    "lock": lambda backend: backend.acquire_lock("run", timeout_ms=0),
    "break": lambda backend: backend.break_lock("run", reason="test"),
}


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "connecting"])
def test_every_call_to_a_silent_server_ends_within_its_budget(hasty: Far, is_connected: bool) -> None:
    if is_connected:
        hasty.proxy.hold()
    else:
        hasty.proxy.cut()
        hasty.proxy.ignore()

    def call(work: Callable[[StateBackend], object]) -> StateBackendError:
        with within(2000), pytest.raises(StateBackendError) as raised:
            work(hasty.backend)
        return raised.value

    errors = {name: hasty.soon(call, work) for name, work in CALLS.items()}
    outcomes = {name: error.result(DEADLINE_S).outcome for name, error in errors.items()}
    assert outcomes["read"] == "not applied"
    hasty.proxy.restore()
    for work in CALLS.values():
        work(hasty.backend)
    if not is_connected and hasty.kind != "libsql":  # which is not greeted: what is to be done is sent at once
        assert set(outcomes.values()) == {"not applied"}
        assert set(versions(hasty)) == {1}


def test_what_was_held_up_and_given_up_is_applied_once_at_most(ready: Far) -> None:
    """The first request arrives late, with the question what became of it close behind, or ahead."""
    hurried = ready.open(busy_timeout_ms=6000)
    hurried.set_node_state("run", "node")
    connections = ready.proxy.connections
    ready.proxy.hold("to_server")
    outcome = ready.soon(hurried.set_node_state, "run", "node", row_count=1)
    ready.proxy.wait_until(lambda: ready.proxy.connections > connections)
    ready.proxy.restore()
    assert outcome.result(DEADLINE_S).version == 2
    assert hurried.set_node_state("run", "node").version == 3


def test_a_request_that_was_voided_is_refused_when_it_arrives(ready: Far) -> None:
    database = ready.backend._database
    late: list[list[Step]] = []

    def attempt(raw: object, op_id: int) -> str:
        steps = [receipts.leave_step(op_id)]
        if not late:
            late.append(steps)
            raise CommitUnknownError("on its way")
        database.run(raw, steps)
        return "applied by the second try"

    assert database.commit(attempt, lambda _: "applied by the first") == "applied by the second try"
    with pytest.raises(RefusedError):
        database.commit(lambda raw, _: database.run(raw, late[0]), lambda _: None)


def test_a_libsql_batch_that_waited_behind_a_lock_for_too_long(far_libsql: Far) -> None:
    far, store = far_libsql, far_libsql.store
    far.beside.create_run("run")
    backend = far.open(busy_timeout_ms=6000)
    connections = far.proxy.connections
    with closing(dbapi.connect(endpoint(store.url, None))) as holder:
        holder.cursor().execute("BEGIN IMMEDIATE")
        holder.cursor().execute(f"DELETE FROM {store.table('locks')}")
        outcome = far.soon(backend.set_node_state, "run", "node", status="running")
        far.proxy.wait_until(lambda: far.proxy.connections > connections)
    assert outcome.result(DEADLINE_S).version == 1
    assert backend.set_node_state("run", "node").version == 2
    assert versions(far) == [2]


def test_nobody_hears_of_it_when_receipts_could_not_be_removed(ready: Far) -> None:
    def write() -> None:
        for _ in range(receipts.KEPT):
            ready.backend.set_node_state("run", "node")

    receipts_left = f"SELECT count(*) FROM {ready.store.table('receipts')} WHERE is_void = 0"
    lost = ready.proxy.lose_request(f"DELETE FROM {ready.store.table('receipts')}".encode())
    write()
    lost.wait()
    (before,) = ready.store.run(receipts_left)[0]
    write()
    (after,) = ready.store.run(receipts_left)[0]
    assert after == before, "those of later commits are"
    assert ready.backend.get_node_state("run", "node").version == 2 * receipts.KEPT


# ---- budgets ----


@pytest.mark.parametrize("budget_ms", [0, 10])
def test_a_tiny_budget_is_enough_where_nothing_is_in_the_way(far: Far, budget_ms: int) -> None:
    far.beside.create_run("run")
    backend = far.open(busy_timeout_ms=budget_ms)
    assert backend.set_node_state("run", "node").version == 1
    write_five(backend)
    assert backend.acquire_lock("run", timeout_ms=0)
    assert backend.release_lock("run")
    far.proxy.refuse()
    far.proxy.cut()
    with within(budget_ms), pytest.raises(BackendUnavailableError):
        backend.set_node_state("run", "node")


def test_waiting_is_measured_by_the_clock_that_was_given(far: Far) -> None:
    far.beside.create_run("run")
    clock = FakeClock()
    backend = far.open(busy_timeout_ms=20_000, clock=clock)
    far.proxy.refuse()
    far.proxy.cut()
    before = clock.ticks_us()
    with within(0), pytest.raises(BackendUnavailableError):
        backend.set_node_state("run", "node")
    assert clock.ticks_us() - before >= 20_000_000
    far.proxy.restore()
    assert backend.set_node_state("run", "node").version == 1
