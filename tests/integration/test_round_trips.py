"""How often a server is asked, counted on the way to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.integration.conftest import Far, far_of
from tests.servers.round_trips import waits
from tests.servers.stores import ServerStore

HANDSHAKES = {"postgresql": 3, "mysql": 3, "libsql": 0}
"""Round trips of one connection: encryption refused, login, settings."""

NODES = ("a", "b", "c", "d")
"""As many as leave each statement below five uses, after which psycopg prepares it."""

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def asked(far: Far, work: Callable[[], object]) -> int:
    """Return how often the server was asked for it, without what opening connections costs."""
    with far.proxy.counting() as count:
        work()
    return count.round_trips - count.connections * HANDSHAKES[far.kind]


@pytest.fixture
def far(server_store: ServerStore, through_proxy) -> Iterator[Far]:
    """Return a new store: what others wrote and was emptied is no part of what is counted."""
    yield from far_of(server_store, through_proxy)


@pytest.fixture
def ready(far: Far) -> Far:
    """Return a store with a run, before which an instance has connected."""
    far.backend.create_run("run")
    return far


def test_a_transition_is_one_round_trip(ready: Far) -> None:
    for node in NODES:
        assert asked(ready, lambda node=node: ready.backend.set_node_state("run", node, status="running")) == 1
        assert asked(ready, lambda node=node: ready.backend.set_node_state("run", node, status="success")) == 1


def test_what_is_asked_again_and_again_is_prepared_for_one_more_round_trip(ready: Far) -> None:
    def write() -> None:
        for number in range(50):
            ready.backend.set_node_state("run", f"node{number}")

    assert asked(ready, write) == 50 + (ready.kind == "postgresql")


def test_a_transition_of_what_somebody_else_wrote_is_three(ready: Far) -> None:
    most = 4 if ready.kind == "mysql" else 3  # a text that fails leaves its transaction to be rolled back
    for _ in range(2):  # the first time it was never seen, the second time it is not as it was seen
        ready.beside.set_node_state("run", "node", status="running")
        assert asked(ready, lambda: ready.backend.set_node_state("run", "node", status="success")) <= most


def test_an_attempt_to_take_a_lock_is_one_round_trip(ready: Far) -> None:
    assert ready.beside.acquire_lock("run", "held")
    for node in NODES:
        assert asked(ready, lambda node=node: ready.backend.acquire_lock("run", node, timeout_ms=0)) == 1
        assert asked(ready, lambda: ready.backend.acquire_lock("run", "held", timeout_ms=0)) == 1
    assert len(ready.beside.list_locks()) == 1 + len(NODES)


def test_a_lock_is_renewed_and_given_back_in_one_round_trip(ready: Far) -> None:
    with ready.backend.lock("run", "node") as lease:
        assert asked(ready, lambda: ready.backend.renew_lock(lease, 30_000)) == 1
    assert ready.backend.acquire_lock("run")
    assert asked(ready, lambda: ready.backend.release_lock("run")) == 1


def test_a_read_is_one_round_trip(ready: Far) -> None:
    ready.backend.set_node_state("run", "node")
    for _ in NODES:
        assert asked(ready, lambda: ready.backend.get_latest_node_state("node")) == 1
        assert asked(ready, lambda: ready.backend.get_latest_node_state("node", status="success")) == 1
        assert asked(ready, lambda: ready.backend.get_node_state("run", "node")) == 1
        assert asked(ready, lambda: ready.backend.get_run("run")) == 1
        assert asked(ready, lambda: ready.backend.get_all_node_states("run")) == 1


def test_completed_work_is_one_round_trip(ready: Far) -> None:
    for node in NODES:
        assert asked(ready, lambda node=node: ready.backend.add_completed_interval("run", node, NOON, LATER)) == 1
        assert asked(ready, lambda node=node: ready.backend.add_completed_partition("run", node, "p")) == 1


def test_a_transaction_of_a_thousand_states_is_a_handful(ready: Far) -> None:
    def write() -> None:
        with ready.backend.transaction():
            ready.backend.get_all_node_states("run")
            for number in range(1000):
                ready.backend.set_node_state("run", f"node{number}", status="success", row_count=number)

    for what in ("makes", "changes"):
        with waits(ready.proxy, ready.kind) as count:
            write()
        assert count() <= 5, what
    assert {state.version for state in ready.beside.get_all_node_states("run").values()} == {2}


@pytest.mark.parametrize("order", ["in order", "backwards", "at random"])
def test_a_transaction_of_a_thousand_states_that_were_not_read_is_a_handful_too(ready: Far, order: str) -> None:
    nodes = [f"node{number:04}" for number in range(1000)]
    if order != "in order":
        nodes = nodes[::-1] if order == "backwards" else random.Random(7).sample(nodes, 1000)
    for what in ("makes", "changes"):
        with waits(ready.proxy, ready.kind) as count, ready.backend.transaction():
            for node in nodes:
                ready.backend.set_node_state("run", node, status="success")
        assert count() <= 8, what
    assert {state.version for state in ready.beside.get_all_node_states("run").values()} == {2}


def test_initialize_of_a_current_store_is_a_handful(far: Far) -> None:
    far.beside.health_check()
    backend = far.at(far.url)
    assert asked(far, backend.initialize) <= 6
    assert far.proxy.connections == 1
