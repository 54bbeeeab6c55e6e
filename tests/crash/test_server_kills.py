"""A client is killed with SIGKILL in the middle of its commits to a server; what was promised must be there, whole."""

from __future__ import annotations

import random
import time

import pytest
from tests.crash.test_kills import run_and_kill
from tests.servers.stores import Server, ServerStore, fresh_store

from seeknal.errors import StaleVersionError
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.testing.crashes import check_survivor, commit_number

SETTLED_AFTER_S = 10


def check(backend: StateBackend, heard: int) -> None:
    """Raise unless what was promised is there, and the store can be written on."""
    last = check_survivor(backend, heard)
    commit_number(backend, last + 1)
    check_survivor(backend, last + 1)


def check_when_settled(store: ServerStore, heard: int) -> None:
    """Raise if a check still fails once the server must have ended what the dead client sent it last.

    The reads of a check are several. That last transaction may be committed between two of them; but what is torn,
    lost or invented stays so.
    """
    with create_state_backend("database", **store.options) as backend:
        backend.initialize()
        end = time.monotonic() + SETTLED_AFTER_S
        while True:
            try:
                return check(backend, heard)
            except (AssertionError, StaleVersionError):
                if time.monotonic() > end:
                    raise


def kill_at_random_moments(server: Server, rounds: int) -> int:
    promised = 0
    for _ in range(rounds):
        with fresh_store(server) as store:
            heard = run_and_kill("database", store.options, most=2000, after=random.randint(1, 150))
            check_when_settled(store, heard)
        promised += heard
    return promised


def test_a_client_killed_at_random_moments_leaves_every_promise_kept(server_store) -> None:
    kill_at_random_moments(server_store.server, 5)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_client_killed_often_at_random_moments_leaves_every_promise_kept(server_store, capsys) -> None:
    promised = kill_at_random_moments(server_store.server, 250)
    with capsys.disabled():
        print(f"\n{server_store.kind}: 250 kills at random moments, {promised} promised commits kept")
