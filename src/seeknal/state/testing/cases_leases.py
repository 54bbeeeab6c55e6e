"""Cases about locks and the leases that they grant."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction or a lock

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from seeknal.clock import FakeClock, SystemClock
from seeknal.errors import InvalidFieldError, LeaseLostError, LockHeldError
from seeknal.model.records import LockInfo
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import NODE, day, spans
from seeknal.state.testing.scene import Scene

TTL_S = 30
"""The default time to live. Time passes in steps of more than this, so that no renewal falls in between."""


def lease_of(backend: StateBackend, run_id: str = "r", node_id: str | None = None) -> Lease:
    """Return the lease of a lock that is held."""
    (holder,) = [lock for lock in backend.list_locks() if (lock.run_id, lock.node_id) == (run_id, node_id)]
    return Lease(run_id, node_id, holder.token, holder.owner)


class LeaseCases:
    """Cases about locks and the leases that they grant."""

    @clause("LOCK-1", "LOCK-5")
    @pytest.mark.parametrize("node_id", [None, NODE])
    def test_one_holder(self, backend: StateBackend, other: StateBackend, node_id: str | None) -> None:
        """Across instances; given back, it is free. The run need not exist."""
        assert backend.acquire_lock("r", node_id) is True
        assert other.acquire_lock("r", node_id, timeout_ms=0) is False
        assert other.acquire_lock("s", node_id, timeout_ms=0)
        assert backend.release_lock("r", node_id) is True
        assert other.acquire_lock("r", node_id, timeout_ms=0)

    @clause("LOCK-1")
    def test_run_and_nodes_are_different_locks(self, backend: StateBackend, other: StateBackend) -> None:
        """The lock of a run does not lock its nodes."""
        assert backend.acquire_lock("r")
        assert other.acquire_lock("r", "a", timeout_ms=0)
        assert backend.acquire_lock("r", "b", timeout_ms=0)
        assert not backend.acquire_lock("r", "a", timeout_ms=0)

    @clause("LOCK-1")
    def test_threads_race_for_it(self, scene: Scene) -> None:
        """Of many that ask at once, one gets it."""
        opened = [scene.open(SystemClock()), scene.open(SystemClock())]
        with ThreadPoolExecutor(8) as pool:
            granted = list(pool.map(lambda number: opened[number % 2].acquire_lock("r", timeout_ms=0), range(8)))
        assert sum(granted) == 1

    @clause("LOCK-2")
    def test_not_re_entrant(self, backend: StateBackend) -> None:
        """Whoever holds it cannot take it again."""
        assert backend.acquire_lock("r")
        assert not backend.acquire_lock("r", timeout_ms=0)
        assert backend.release_lock("r")
        assert not backend.release_lock("r")

    @clause("LOCK-3")
    def test_it_waits_as_long_as_told(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """And no longer."""
        assert backend.acquire_lock("r")
        for timeout_ms in (0, 700, 5000):
            start = clock.ticks_us()
            assert not other.acquire_lock("r", timeout_ms=timeout_ms)
            assert timeout_ms * 1000 <= clock.ticks_us() - start <= timeout_ms * 1000 + 1000

    @clause("LOCK-3", "LOCK-4")
    def test_waiting_ends_when_the_lease_does(self, backend: StateBackend, scene: Scene) -> None:
        """A waiter gets the lock of an owner that does not renew it."""
        waiter = scene.open()
        assert backend.acquire_lock("r", ttl_ms=TTL_S * 1000)
        scene.pass_time(TTL_S + 1)
        assert waiter.acquire_lock("r", timeout_ms=1000)

    @clause("LOCK-3", "LOCK-4", "ERR-1")
    @pytest.mark.parametrize(
        "options",
        [{"timeout_ms": bad} for bad in (-1, 1.5, "1", True, None)]
        + [{"ttl_ms": bad} for bad in (0, -1, 1.5, "1", True, None, 2**70)],
        ids=str,
    )
    def test_bad_times(self, backend: StateBackend, options: dict[str, Any]) -> None:
        """Refused, naming the field; nothing is locked."""
        with pytest.raises(InvalidFieldError) as caught:
            backend.acquire_lock("r", **options)
        assert caught.value.field in options
        assert backend.list_locks() == []

    @clause("LOCK-4", "LOCK-7")
    @pytest.mark.parametrize("hours", [-1, 1])
    def test_expiry_with_clocks_that_disagree(self, backend: StateBackend, scene: Scene, hours: int) -> None:
        """A wall clock that is wrong neither takes a lock away nor keeps it longer."""
        wrong = scene.open(scene.skewed(hours))
        assert backend.acquire_lock("r")
        assert not wrong.acquire_lock("r", timeout_ms=0)
        assert wrong.acquire_lock("s")
        assert not backend.acquire_lock("s", timeout_ms=0)
        mine, theirs = lease_of(backend, "r"), lease_of(backend, "s")
        scene.pass_time(TTL_S + 1)
        assert backend.list_locks() == wrong.list_locks() == []
        assert wrong.acquire_lock("r", timeout_ms=0)
        assert backend.acquire_lock("s", timeout_ms=0)
        assert lease_of(backend, "r").token == mine.token + 1
        assert lease_of(backend, "s").token == theirs.token + 1

    @clause("LOCK-5")
    def test_only_its_owner_releases(self, backend: StateBackend, other: StateBackend) -> None:
        """Nobody frees somebody else's lock, nor one that was never taken."""
        assert not backend.release_lock("r")
        assert backend.acquire_lock("r")
        assert not other.release_lock("r")
        assert [lock.run_id for lock in other.list_locks()] == ["r"]
        assert not other.acquire_lock("r", timeout_ms=0)

    @clause("LOCK-5")
    def test_a_late_release_frees_nobody_elses(self, backend: StateBackend, other: StateBackend, scene: Scene) -> None:
        """An owner whose lease ran out gives back nothing."""
        assert backend.acquire_lock("r")
        scene.pass_time(TTL_S + 1)
        assert other.acquire_lock("r", timeout_ms=0)
        assert not backend.release_lock("r")
        assert not backend.acquire_lock("r", timeout_ms=0)
        assert other.release_lock("r")

    @clause("LOCK-5", "LOCK-7")
    def test_a_block_frees_its_own_grant_only(self, backend: StateBackend) -> None:
        """Its lock was broken and taken again by the same instance: that grant stays."""
        with backend.lock("r"):
            backend.break_lock("r", reason="test")
            assert backend.acquire_lock("r", timeout_ms=0)
        assert [lock.token for lock in backend.list_locks()] == [2]

    @clause("LOCK-6", "RUN-5")
    @pytest.mark.parametrize("status", ["success", "failed", "cancelled"])
    def test_the_end_of_a_run_frees_its_locks(self, backend: StateBackend, other: StateBackend, status: str) -> None:
        """Its own and its nodes', whoever holds them; not those of other runs; not before the commit."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        assert backend.acquire_lock("r")
        assert other.acquire_lock("r", NODE)
        assert backend.acquire_lock("s")
        with other.transaction():
            other.update_run("r", status=status)
            assert len(backend.list_locks()) == 3
        assert [lock.run_id for lock in backend.list_locks()] == ["s"]
        assert other.acquire_lock("r", timeout_ms=0)
        assert not backend.release_lock("r")
        assert not backend.release_lock("r", NODE)

    @clause("LOCK-6")
    def test_a_note_on_a_finished_run_frees_nothing(self, backend: StateBackend, other: StateBackend) -> None:
        """Only a change of its status does."""
        backend.create_run("r", status="success")
        assert other.acquire_lock("r")
        backend.set_metadata("r", {"a": 1})
        assert [lock.run_id for lock in backend.list_locks()] == ["r"]
        backend.update_run("r", status="running")
        assert [lock.run_id for lock in backend.list_locks()] == ["r"]

    @clause("INIT-2", "LOCK-4")
    def test_close_frees(self, backend: StateBackend, scene: Scene) -> None:
        """All locks of the instance that is closed, and no others."""
        second = scene.open()
        assert second.acquire_lock("r")
        assert second.acquire_lock("r", NODE)
        assert backend.acquire_lock("s")
        second.close()
        assert [lock.run_id for lock in backend.list_locks()] == ["s"]

    @clause("LOCK-7")
    def test_the_token_grows_by_one(self, backend: StateBackend, other: StateBackend, scene: Scene) -> None:
        """With every grant of a key, across releases, expiry, breaking, and the deletion of the run."""
        backend.create_run("r")
        for token in (1, 2):
            with backend.lock("r") as lease:
                assert lease.token == token
        assert other.acquire_lock("r")
        assert lease_of(backend).token == 3
        assert not backend.acquire_lock("r", timeout_ms=0)
        scene.pass_time(TTL_S + 1)
        assert backend.acquire_lock("r")
        assert lease_of(backend).token == 4
        backend.break_lock("r", reason="test")
        assert other.acquire_lock("r")
        backend.delete_run("r")
        backend.create_run("r")
        with backend.lock("r") as lease:
            assert lease.token == 6
        with backend.lock("r", NODE) as lease:
            assert lease.token == 1

    @clause("LOCK-7")
    def test_a_lock_that_is_held(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """The error names who holds it: host, process, since when. The block frees it, after an exception too."""
        with backend.lock("r", NODE, ttl_ms=60_000) as lease:
            assert lease.key == ("r", NODE)
            with pytest.raises(LockHeldError) as caught, other.lock("r", NODE, timeout_ms=0):
                raise AssertionError("it is held")
            holder = caught.value.holder
            assert isinstance(holder, LockInfo)
            assert (holder.owner, holder.pid, holder.token) == (lease.owner, os.getpid(), lease.token)
            for fact in (holder.host, str(os.getpid()), str(holder.acquired_at.year)):
                assert fact in str(caught.value)
        with pytest.raises(ZeroDivisionError), other.lock("r", NODE):
            raise ZeroDivisionError
        assert backend.list_locks() == []

    @clause("LOCK-8")
    def test_a_commit_under_a_lease(self, backend: StateBackend, other: StateBackend) -> None:
        """Written while it is held; a lease on nothing else is checked for a transaction without writes too."""
        backend.create_run("r")
        with backend.lock("r") as lease, backend.transaction(lease=lease):
            backend.set_node_state("r", NODE, status="success")
        assert other.node_exists("r", NODE)
        with pytest.raises(LeaseLostError), backend.transaction(lease=lease):
            pass

    @clause("LOCK-8")
    @pytest.mark.parametrize("how", ["expired", "taken over", "broken", "released", "run finished"])
    def test_a_lost_lease_writes_nothing(
        self, backend: StateBackend, other: StateBackend, scene: Scene, how: str
    ) -> None:
        """However it was lost: a process that wakes up late cannot write."""
        backend.create_run("r")
        assert backend.acquire_lock("r")
        lease = lease_of(backend)

        def lose() -> None:
            if how in ("expired", "taken over"):
                scene.pass_time(TTL_S + 1)
            if how == "broken":
                other.break_lock("r", reason="test")
            if how == "released":
                backend.release_lock("r")
            if how == "run finished":
                other.update_run("r", status="cancelled")
            if how == "taken over":
                assert other.acquire_lock("r", timeout_ms=0)

        with pytest.raises(LeaseLostError), backend.transaction(lease=lease):
            backend.set_node_state("r", NODE, status="success")
            backend.add_completed_interval("r", NODE, day(1), day(2))
            lose()
        assert not other.node_exists("r", NODE)
        assert spans(other) == []
        with pytest.raises(LeaseLostError):
            backend.run_transaction(lambda: backend.set_node_state("r", NODE), lease=lease)
        if how == "taken over":
            other.run_transaction(lambda: other.set_node_state("r", NODE), lease=lease_of(other))
            assert backend.node_exists("r", NODE)

    @clause("LOCK-8", "TX-5")
    def test_the_lease_of_a_savepoint(self, backend: StateBackend, other: StateBackend) -> None:
        """It is demanded of the commit, unless the savepoint was rolled back."""
        backend.create_run("r")
        gone = Lease("r", None, 1, "nobody")
        with pytest.raises(LeaseLostError), backend.transaction(), backend.transaction(lease=gone):
            backend.set_node_state("r", "a")
        with backend.transaction():
            with pytest.raises(ZeroDivisionError), backend.transaction(lease=gone):
                raise ZeroDivisionError
            backend.set_node_state("r", "b")
        assert other.list_nodes("r") == ["b"]

    @clause("LOCK-9")
    def test_list_locks(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """What is held now, by run id, then node id, the run's own lock first."""
        assert backend.list_locks() == []
        for each, run_id, node_id in (
            (other, "s", None),
            (backend, "r", "b"),
            (other, "r", "a"),
            (backend, "r", None),
            (backend, "R", None),
        ):
            assert each.acquire_lock(run_id, node_id, ttl_ms=60_000)
        found = backend.list_locks()
        assert found == other.list_locks()
        assert [(lock.run_id, lock.node_id) for lock in found] == [
            ("R", None),
            ("r", None),
            ("r", "a"),
            ("r", "b"),
            ("s", None),
        ]
        assert len({lock.owner for lock in found}) == 5
        assert {(lock.ttl_ms, lock.token, lock.pid) for lock in found} == {(60_000, 1, os.getpid())}
        assert other.release_lock("r", "a")
        assert len(backend.list_locks()) == 4

    @clause("LOCK-10")
    def test_break_lock(self, backend: StateBackend, other: StateBackend) -> None:
        """Anybody may, with a reason; it tells whose it was."""
        assert backend.break_lock("r", reason="nobody holds it") is None
        assert backend.acquire_lock("r")
        lease = lease_of(backend)
        for bad in ("", "  ", None):
            with pytest.raises(InvalidFieldError):
                other.break_lock("r", reason=bad)  # type: ignore[arg-type]
        assert other.break_lock("r", NODE, reason="another key") is None
        broken = other.break_lock("r", reason="its owner is gone")
        assert broken is not None
        assert (broken.owner, broken.token) == (lease.owner, lease.token)
        assert backend.list_locks() == []
        assert not backend.release_lock("r")
        assert other.acquire_lock("r", timeout_ms=0)

    @clause("LOCK-1")
    def test_locks_do_not_wait_for_transactions(self, backend: StateBackend, other: StateBackend) -> None:
        """A lock taken inside a transaction is held at once, and stays after a rollback."""
        with pytest.raises(ZeroDivisionError), backend.transaction():
            assert backend.acquire_lock("r")
            assert not other.acquire_lock("r", timeout_ms=0)
            raise ZeroDivisionError
        assert not other.acquire_lock("r", timeout_ms=0)
        assert backend.release_lock("r")
