"""A process that is frozen right after its lock was granted."""

from __future__ import annotations

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import LeaseLostError
from seeknal.model.records import LockInfo
from seeknal.state.lease import LockKey
from seeknal.state.memory import MemoryStateBackend, MemoryStore


class FrozenAfterItsGrant(MemoryStateBackend):
    """Wakes up when its lease has expired and somebody else holds the lock."""

    successor: MemoryStateBackend

    def grant_lock(self, key: LockKey, owner: str, ttl_ms: int) -> LockInfo:
        granted = super().grant_lock(key, owner, ttl_ms)
        self.clock.sleep(60)
        assert self.successor.acquire_lock(*key)
        return granted


def test_it_has_its_own_lease_and_not_its_successors() -> None:
    store, clock = MemoryStore(), FakeClock()
    with FrozenAfterItsGrant(store, clock=clock) as frozen, MemoryStateBackend(store, clock=clock) as successor:
        frozen.successor = successor
        successor.create_run("run")
        with frozen.lock("run") as lease:
            assert lease.token == 1
            with pytest.raises(LeaseLostError), frozen.transaction(lease=lease):
                frozen.set_node_state("run", "node", status="success")
        assert [lock.token for lock in successor.list_locks()] == [2], "the end of the block freed somebody else's lock"
