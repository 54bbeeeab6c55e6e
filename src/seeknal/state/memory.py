"""The reference backend: a store that lives in this process and is gone with it.

Short enough to be read as the specification, and the oracle that the other backends are tested against.
Instances that name the same store share it, as instances on one file would.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import ClassVar
from uuid import uuid4

import msgspec

from seeknal.clock import Clock
from seeknal.model.records import (
    Claim,
    CompletedInterval,
    IntervalProvenance,
    LockInfo,
    LockToken,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.batch import Batch, Sequences
from seeknal.state.capabilities import Capability
from seeknal.state.change_log import unlocked
from seeknal.state.grants import granted, renewed
from seeknal.state.image import Image, sequences_of
from seeknal.state.lease import Lease, LockKey
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.record_store import DEFAULT_BUSY_TIMEOUT_MS
from seeknal.state.store_info import ANY_SUCCESSOR, StoreInfo, check_successor
from seeknal.state.whole import LoggedReading, Record, SideStore, records


class MemoryStore:
    """An image and the mutex that guards it."""

    def __init__(self) -> None:
        self.store_id = str(uuid4())
        self.image = Image()
        self.mutex = threading.Lock()


class MemoryStateBackend(RecordStateBackend):
    """State in memory.

    Args:
        store: Share this store with other instances; a new one when ``None``.
        clock: Where time comes from.
        busy_timeout_ms: How long a conflicting write is repeated.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.LOG, Capability.CLAIMS, Capability.PROVENANCE, Capability.EXPECTED}
    )

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        clock: Clock | None = None,
        busy_timeout_ms: int = DEFAULT_BUSY_TIMEOUT_MS,
    ) -> None:
        super().__init__(clock=clock, busy_timeout_ms=busy_timeout_ms)
        self.store = store or MemoryStore()

    def initialize(self) -> None:
        """Do nothing: it is ready."""
        self._check_open()

    def reset_after_fork(self) -> None:
        """Replace a mutex that a thread of the parent may have held."""
        self.store.mutex = threading.Lock()

    def read_run(self, run_id: str) -> RunState | None:
        """Return one run."""
        with self.store.mutex:
            return self.store.image.runs.get(run_id)

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order."""
        with self.store.mutex:
            return self.store.image.read_run_ids(status, newest_first, limit)

    def read_node(self, run_id: str, node_id: str) -> NodeState | None:
        """Return one node state."""
        with self.store.mutex:
            return self.store.image.nodes_of(run_id).get(node_id)

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by node id."""
        with self.store.mutex:
            return self.store.image.read_nodes(run_id)

    def read_latest(self, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
        """Return the state of a node that was written last."""
        with self.store.mutex:
            return self.store.image.read_latest(node_id, status, hidden)

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node."""
        with self.store.mutex:
            return list(self.store.image.work_of(node_id).intervals)

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of them."""
        with self.store.mutex:
            return list(self.store.image.work_of(node_id).provenance)

    def read_partitions(
        self, node_id: str, after: str = "", limit: int | None = None, *, descending: bool = False
    ) -> list[PartitionState]:
        """Return completed partitions of a node."""
        with self.store.mutex:
            return self.store.image.work_of(node_id).page(after, limit, descending=descending)

    def read_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return one completed partition."""
        with self.store.mutex:
            return self.store.image.work_of(node_id).partitions.get(partition)

    def read_expected(self, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Return keys of partitions that are expected of a node."""
        with self.store.mutex:
            return self.store.image.work_of(node_id).expected_page(after, limit)

    def read_is_expected(self, node_id: str, partition: str) -> bool:
        """Return whether one partition is expected of a node."""
        with self.store.mutex:
            return partition in self.store.image.work_of(node_id).expected

    def read_partition_count(self, node_id: str) -> int:
        """Return how many partitions a node has completed."""
        with self.store.mutex:
            return len(self.store.image.work_of(node_id).partitions)

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have work."""
        with self.store.mutex:
            return self.store.image.read_worked_nodes()

    def read_log(self, after: str, limit: int) -> list[LoggedChange]:
        """Return the entries of the change log that follow a change id."""
        with self.store.mutex:
            return self.store.image.read_log(after, limit)

    def read_tokens(self) -> list[LockToken]:
        """Return the token counters of all locks."""
        with self.store.mutex:
            return self.store.image.read_tokens()

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node and the version they stand at."""
        with self.store.mutex:
            return self.store.image.read_claims(node_id)

    def read_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims."""
        with self.store.mutex:
            return self.store.image.read_claimed_nodes()

    def commit(self, batch: Batch) -> Sequences:
        """Apply a batch if its guards hold."""
        image = self.store.image
        with self.store.mutex:
            image.check(batch, self.clock.ticks_us())
            numbered = image.numbered(batch)
            image.apply(numbered)
        return sequences_of(numbered)

    @contextmanager
    def snapshot(self) -> Iterator[LoggedReading]:
        """Copy the image; its records never change."""
        frozen = MemoryStore()
        with self.store.mutex:
            frozen.image = deepcopy(self.store.image)
        with MemoryStateBackend(frozen, clock=self.clock) as reading:
            yield reading

    @contextmanager
    def replacing(self, by: str) -> Iterator[SideStore]:
        """Make another store of the same kind."""
        with MemoryStateBackend(clock=self.clock) as side:
            yield _Side(self, side)

    def read_store(self) -> StoreInfo:
        """Return what the store says of itself."""
        with self.store.mutex:
            return StoreInfo(
                store_id=self.store.store_id, schema_version="1", superseded_by=self.store.image.superseded_by
            )

    def write_successor(self, store_id: str, successor: str | None, *, expected: str | None = ANY_SUCCESSOR) -> None:
        """Set the store's identity and where its state moved to."""
        with self.store.mutex:
            check_successor(self.store.image.superseded_by, expected)
            self.store.store_id = store_id
            self.store.image.superseded_by = successor

    def grant_lock(self, key: LockKey, owner: str, ttl_ms: int) -> LockInfo:
        """Grant a lock that nobody holds."""
        with self.store.mutex:
            self.store.image.check(Batch(), self.clock.ticks_us())
            entry = granted(self.store.image.locks.get(key), key, owner, ttl_ms, self.clock)
            self.store.image.locks[key] = entry
            return entry.holder

    def renew_lock(self, lease: Lease, ttl_ms: int) -> bool:
        """Extend a lease that is still held."""
        with self.store.mutex:
            if not self.store.image.holds(lease, self.clock.ticks_us()):
                return False
            self.store.image.locks[lease.key] = renewed(self.store.image.locks[lease.key], ttl_ms, self.clock)
            return True

    def free_lock(self, lease: Lease) -> bool:
        """End a lease."""
        with self.store.mutex:
            if not self.store.image.holds(lease, self.clock.ticks_us()):
                return False
            entry = self.store.image.locks[lease.key]
            self.store.image.locks[lease.key] = msgspec.structs.replace(entry, is_free=True)
            return True

    def seize_lock(self, key: LockKey, reason: str) -> LockInfo | None:
        """End whatever lease holds a key."""
        with self.store.mutex:
            entry = self.store.image.locks.get(key)
            if entry is None or not entry.is_held(self.clock.ticks_us()):
                return None
            self.store.image.put_change(unlocked(entry.holder, reason, self.clock))
            self.store.image.locks[key] = msgspec.structs.replace(entry, is_free=True, broken_for=reason)
            return entry.holder

    def read_locks(self) -> list[LockInfo]:
        """Return the locks that are held now."""
        with self.store.mutex:
            return self.store.image.held_locks(self.clock.ticks_us())


class _Side:
    """The side store of a store in memory."""

    def __init__(self, backend: MemoryStateBackend, side: MemoryStateBackend) -> None:
        self._backend = backend
        self._side = side

    def put(self, batch: Batch) -> None:
        """Add records."""
        self._side.commit(batch)

    def records(self) -> Iterator[Record]:
        """Yield what was put."""
        return records(self._side)

    def swap(self, batch: Batch, store_id: str) -> None:
        """Exchange the content of the image."""
        store = self._backend.store
        with store.mutex:
            store.image.check_alone(batch, self._backend.clock.ticks_us())
            store.image.take_over(self._side.store.image)
            for change in batch.log:
                store.image.put_change(change)
            store.store_id, store.image.superseded_by = store_id, None
