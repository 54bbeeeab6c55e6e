"""The file backend: readable JSON under ``target/``, with the transactions and leases of a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, ConfigurationError
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
from seeknal.state.batch import Batch, Changes, Sequences
from seeknal.state.capabilities import Capability
from seeknal.state.change_log import unlocked
from seeknal.state.checks import attribute_parts, merge_intervals
from seeknal.state.file import durable
from seeknal.state.file.adopt import adopted, keep_original
from seeknal.state.file.creation import create, exists
from seeknal.state.file.documents import FORMAT, Entry, Moved
from seeknal.state.file.examine import Menders, expired_locks, findings
from seeknal.state.file.filelock import FileLock
from seeknal.state.file.layout import Layout
from seeknal.state.file.network import refuse_network_file_system
from seeknal.state.file.snapshot import snapshot, stamp
from seeknal.state.file.store import FileStore
from seeknal.state.file.view import View
from seeknal.state.file.whole import frozen, replacing
from seeknal.state.finding import Finding
from seeknal.state.grants import granted, renewed
from seeknal.state.image import LockEntry, sequences_of
from seeknal.state.lease import Lease, LockKey
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.record_store import DEFAULT_BUSY_TIMEOUT_MS
from seeknal.state.store_info import ANY_SUCCESSOR, StoreInfo, check_successor, is_being_filled, is_being_restored
from seeknal.state.whole import LoggedReading, SideStore

CHECKPOINT_BYTES = 1 << 20


class FileStateBackend(RecordStateBackend):
    """State in files. Several processes of one machine may use it at once.

    Args:
        base_path: The directory that holds ``run_state.json`` and ``run_state/``.
        clock: Where time comes from.
        busy_timeout_ms: The one budget for waiting on other writers, per call.
        checkpoint_bytes: How long the journal may grow before its files are written; it also grows with them.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.PERSISTENT,
            Capability.PROCESSES,
            Capability.LOG,
            Capability.CLAIMS,
            Capability.PROVENANCE,
            Capability.EXPECTED,
        }
    )
    current_schema: ClassVar[str] = str(FORMAT)

    _opened: tuple[FileStore, View] | None = None
    _committed = False

    def __init__(
        self,
        base_path: str | os.PathLike[str] = "target",
        *,
        clock: Clock | None = None,
        busy_timeout_ms: int = DEFAULT_BUSY_TIMEOUT_MS,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
    ) -> None:
        super().__init__(clock=clock, busy_timeout_ms=busy_timeout_ms)
        if not isinstance(checkpoint_bytes, int) or checkpoint_bytes < 1:
            raise ConfigurationError(
                f"checkpoint_bytes is {checkpoint_bytes!r}", hint="Pass a whole number of bytes, 1 or more."
            )
        self._checkpoint_bytes = checkpoint_bytes
        self._layout = Layout(Path(base_path).absolute())

    # ---- life ----

    def initialize(self) -> None:
        """Make or open the store, and bring ``run_state.json`` up to date."""
        self._check_open()
        if self._opened is not None:
            return
        layout = self._layout
        durable.make_directory(layout.base)
        refuse_network_file_system(layout.base)
        durable.make_directory(layout.directory)
        store = FileStore(layout, self.clock, budget_ms=self.busy_timeout_ms, checkpoint_bytes=self._checkpoint_bytes)
        with ExitStack() as undo:
            undo.callback(store.close)
            view = View(store, FileLock(layout.view_lock, self.clock), budget_ms=self.busy_timeout_ms)
            undo.callback(view.close)
            self._open(store, view)
            undo.pop_all()
        self._opened = store, view

    def _open(self, store: FileStore, view: View) -> None:
        found, layout = view.read(), self._layout
        if not exists(layout):
            # What cannot be taken in is refused before anything is created.
            taken = adopted(found, layout, self.clock.now())
            with store.locked():
                if not exists(layout):  # another process may have been first
                    create(layout, self.clock, is_adopting=taken is not None)
        if store.is_adopting():
            keep_original(self._layout)
            store.adopt(adopted(found, self._layout, self.clock.now()))
        store.upgrade()
        store.tidy()
        if found is not None and "superseded_by" not in found and store.read(lambda image: image.superseded_by):
            # Its owner put run_state.json.bak back: this store is the current one again. Unless it is half a copy of
            # another one, which was being moved back into it, or a restore has only begun.
            with store.writing() as image:
                if not (is_being_filled(image.superseded_by) or is_being_restored(image.superseded_by)):
                    store.append(Entry(moved=Moved(store.store_id, None)))
        view.catch_up()

    def examine(self) -> Iterator[Finding]:
        """Yield what is wrong with this store, whether it is open or can be opened or not."""
        menders = Menders(
            self._tidy, self._free_expired, partial(merge_intervals, self), partial(attribute_parts, self)
        )
        yield from findings(self._layout, self.clock, menders)

    def peek_store(self) -> StoreInfo | None:
        """Return what the store says of itself, without opening it."""
        return None if stamp(self._layout) is None else snapshot(self._layout).info

    def _tidy(self) -> None:
        """Remove what interrupted writes left, and bring ``run_state.json`` up to date."""
        self.initialize()
        self._store.tidy()
        self._view.catch_up()

    def _free_expired(self) -> None:
        """Mark leases that ran out as given back."""
        self.initialize()
        store = self._store
        with store.writing() as image:
            for holder in expired_locks(image, self.clock):
                entry = image.locks[holder.run_id, holder.node_id]
                store.append(Entry(locks=[msgspec.structs.replace(entry, is_free=True)]))

    def close_store(self) -> None:
        """Bring the files up to date and close them."""
        if self._opened is None:
            return
        store, view = self._opened
        try:
            view.close()
            if self._committed:
                with store.writing():
                    store.write_documents()
        finally:
            store.close()
            self._opened = None

    def reset_after_fork(self) -> None:
        """Open the parent's files anew."""
        if self._opened is not None:
            for part in self._opened:
                part.reset_after_fork()

    @property
    def _store(self) -> FileStore:
        if self._opened is None:
            raise BackendUnavailableError(
                f"{self._layout.base} is not open", hint="Call initialize() first, and nothing after close()."
            )
        return self._opened[0]

    # ---- reading ----

    def snapshot(self) -> AbstractContextManager[LoggedReading]:
        """Read through links to the files."""
        return frozen(self._store, self.clock)

    def replacing(self, by: str) -> AbstractContextManager[SideStore]:
        """Write a journal beside; the file that another one of these writes is another file."""
        store, view = self._store, self._view
        return replacing(store, self.clock, view.write)

    def read_store(self) -> StoreInfo:
        """Return what the store says of itself."""
        store = self._store
        successor = store.read(lambda image: image.superseded_by)
        return StoreInfo(store_id=store.store_id, schema_version=str(FORMAT), superseded_by=successor)

    def read_run(self, run_id: str) -> RunState | None:
        """Return one run."""
        return self._store.read(lambda image: image.runs.get(run_id))

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order."""
        return self._store.read(lambda image: image.read_run_ids(status, newest_first, limit))

    def read_node(self, run_id: str, node_id: str) -> NodeState | None:
        """Return one node state."""
        return self._store.read(lambda image: image.nodes_of(run_id).get(node_id))

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by node id."""
        return self._store.read(lambda image: image.read_nodes(run_id))

    def read_latest(self, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
        """Return the state of a node that was written last."""
        return self._store.read(lambda image: image.read_latest(node_id, status, hidden))

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node."""
        return self._store.read(lambda image: list(image.work_of(node_id).intervals))

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of them."""
        return self._store.read(lambda image: list(image.work_of(node_id).provenance))

    def read_partitions(
        self, node_id: str, after: str = "", limit: int | None = None, *, descending: bool = False
    ) -> list[PartitionState]:
        """Return completed partitions of a node."""
        return self._store.read(lambda image: image.work_of(node_id).page(after, limit, descending=descending))

    def read_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return one completed partition."""
        return self._store.read(lambda image: image.work_of(node_id).partitions.get(partition))

    def read_partition_count(self, node_id: str) -> int:
        """Return how many partitions a node has completed."""
        return self._store.read(lambda image: len(image.work_of(node_id).partitions))

    def read_expected(self, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Return keys of partitions that are expected of a node."""
        return self._store.read(lambda image: image.work_of(node_id).expected_page(after, limit))

    def read_is_expected(self, node_id: str, partition: str) -> bool:
        """Return whether one partition is expected of a node."""
        return self._store.read(lambda image: partition in image.work_of(node_id).expected)

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have work."""
        return self._store.read(lambda image: image.read_worked_nodes())

    def read_locks(self) -> list[LockInfo]:
        """Return the locks that are held now."""
        return self._store.read(lambda image: image.held_locks(self.clock.ticks_us()))

    def read_log(self, after: str, limit: int) -> list[LoggedChange]:
        """Return the entries of the change log that follow a change id."""
        return self._store.read(lambda image: image.read_log(after, limit))

    def read_tokens(self) -> list[LockToken]:
        """Return the token counters of all locks."""
        return self._store.read(lambda image: image.read_tokens())

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node and the version they stand at."""
        return self._store.read(lambda image: image.read_claims(node_id))

    def read_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims."""
        return self._store.read(lambda image: image.read_claimed_nodes())

    # ---- writing ----

    def commit(self, batch: Batch) -> Sequences:
        """Append a batch to the journal if its guards hold."""
        store, view = self._store, self._view
        with store.writing() as image:
            image.check(batch, self.clock.ticks_us())
            numbered = image.numbered(batch)
            begins_run = any(run.run_id not in image.runs for run in numbered.runs)
            store.append(Entry(changes=numbered))
            if begins_run and len(image.behind_runs) > 1:
                store.write_documents_in_passing()
        self._committed = True
        view.committed()
        return sequences_of(numbered)

    def give_back_space(self, deadline: int | None = None) -> str:
        """Remove the files of runs that are gone, which a checkpoint does."""
        with self._store.writing() as image:
            if sum(1 for _ in self._layout.runs.glob("*.json")) > len(image.runs):
                self._store.checkpoint()
        return ""

    def write_successor(self, store_id: str, successor: str | None, *, expected: str | None = ANY_SUCCESSOR) -> None:
        """Set the store's identity and where its state moved to, and keep ``run_state.json.bak``."""
        store, view = self._store, self._view
        with store.writing() as image:
            check_successor(image.superseded_by, expected)
            if successor is not None and not (is_being_filled(successor) or is_being_restored(successor)):
                view.keep_backup(image)
            store.append(Entry(moved=Moved(store_id, successor)))
        view.write()

    def grant_lock(self, key: LockKey, owner: str, ttl_ms: int) -> LockInfo:
        """Grant a lock that nobody holds."""
        store = self._store
        with store.writing() as image:
            image.check(Batch(), self.clock.ticks_us())
            entry = granted(image.locks.get(key), key, owner, ttl_ms, self.clock)
            if entry is not image.locks.get(key):
                store.append(Entry(locks=[entry]))
            return entry.holder

    def renew_lock(self, lease: Lease, ttl_ms: int) -> bool:
        """Extend a lease that is still held; a renewal need not outlive a power cut, since its owner does not."""
        return self._change_lock(lease, lambda entry: renewed(entry, ttl_ms, self.clock))

    def free_lock(self, lease: Lease) -> bool:
        """End a lease."""
        return self._change_lock(lease, lambda entry: msgspec.structs.replace(entry, is_free=True))

    def _change_lock(self, lease: Lease, change: Callable[[LockEntry], LockEntry]) -> bool:
        store = self._store
        with store.writing() as image:
            if not image.holds(lease, self.clock.ticks_us()):
                return False
            store.append(Entry(locks=[change(image.locks[lease.key])]), sync=False)
            return True

    def seize_lock(self, key: LockKey, reason: str) -> LockInfo | None:
        """End whatever lease holds a key."""
        store = self._store
        with store.writing() as image:
            entry = image.locks.get(key)
            if entry is None or not entry.is_held(self.clock.ticks_us()):
                return None
            logged = Changes(log=[unlocked(entry.holder, reason, self.clock)])
            freed = msgspec.structs.replace(entry, is_free=True, broken_for=reason)
            store.append(Entry(changes=logged, locks=[freed]))
        self._committed = True
        return entry.holder

    @property
    def _view(self) -> View:
        assert self._opened is not None
        return self._opened[1]
