"""The keeper of leases: what is due is renewed, and nothing else."""

import threading

import pytest

from seeknal.errors import BackendUnavailableError
from seeknal.state.lease import Lease, LeaseKeeper


class Renewals:
    """Notes what is renewed and answers as it is told."""

    def __init__(self, answer=True):
        self.answer = answer
        self.made = []
        self.happened = threading.Semaphore(0)

    def __call__(self, lease, ttl_ms):
        self.made.append((lease, ttl_ms))
        self.happened.release()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def wait(self, times):
        for _ in range(times):
            assert self.happened.acquire(timeout=20)


def lease(name, token=1):
    return Lease("r", name, token, f"owner of {name} {token}")


@pytest.fixture
def keep():
    kept = []

    def make(renewals):
        kept.append(LeaseKeeper(renewals))
        return kept[-1]

    yield make
    for keeper in kept:
        keeper.drop_all()


def test_what_is_kept_is_renewed_again_and_again(keep):
    renewals = Renewals()
    keeper = keep(renewals)
    keeper.add(lease("a"), 30)
    renewals.wait(3)
    assert set(renewals.made) == {(lease("a"), 30)}


def test_coming_and_going_of_one_renews_no_other(keep):
    renewals = Renewals()
    keeper = keep(renewals)
    keeper.add(lease("long"), 3_600_000)
    for number in range(20):
        keeper.add(lease(f"n{number}"), 3_600_000)
        keeper.drop(lease(f"n{number}"))
    keeper.add(lease("short"), 30)
    renewals.wait(3)
    assert {renewed.node_id for renewed, _ in renewals.made} == {"short"}


def test_a_lost_lease_is_dropped(keep):
    renewals = Renewals(answer=False)
    keeper = keep(renewals)
    keeper.add(lease("a"), 3)
    renewals.wait(1)
    keeper.add(lease("b"), 3_600_000)
    thread = keeper._thread
    assert keeper.drop_all() in ([lease("b")], [lease("a"), lease("b")])
    assert not thread.is_alive()
    assert keeper.kept() == []


def test_a_store_that_is_busy_is_asked_again(keep):
    renewals = Renewals(answer=BackendUnavailableError("busy"))
    keeper = keep(renewals)
    keeper.add(lease("a"), 3)
    renewals.wait(3)
    assert keeper.get(("r", "a")) == lease("a")


def test_only_the_same_grant_is_dropped(keep):
    keeper = keep(Renewals())
    keeper.add(lease("a", token=2), 3_600_000)
    keeper.drop(lease("a", token=1))
    assert keeper.get(("r", "a")) == lease("a", token=2)
    keeper.drop(lease("a", token=2))
    assert keeper.get(("r", "a")) is None


def test_no_thread_without_a_lease(keep):
    keeper = keep(Renewals())
    assert keeper.drop_all() == []
    for _ in range(3):
        keeper.add(lease("a"), 3_600_000)
        thread = keeper._thread
        assert keeper.drop_all() == [lease("a")]
        assert not thread.is_alive()
