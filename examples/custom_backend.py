"""A state backend of your own: every abstract method of `StateBackend`, over plain dictionaries.

It lives as long as its process. What makes it keep the contract is short: the rules of the records come from
`seeknal.model.changes`; a transaction works on a copy of the dictionaries, which is merged into them at the end if
nobody else wrote the same records meanwhile; one mutex guards the merge and is never held while your code runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from msgspec.structs import replace as changed

from seeknal.clock import Clock, SystemClock
from seeknal.errors import BackendUnavailableError, InvalidFieldError, TransactionError
from seeknal.model.changes import (
    check_limit,
    check_unwritten,
    check_version,
    missing_run,
    new_partition,
    new_run,
    patched_run,
    stale,
    written_node,
)
from seeknal.model.codec import json_copy
from seeknal.model.ids import check_id
from seeknal.model.intervals import as_interval
from seeknal.model.records import CompletedInterval, LockInfo, NodeState, PartitionState, RunState
from seeknal.model.status import RunStatus, as_status
from seeknal.state.backend import StateBackend
from seeknal.state.batch import IntervalCompleted, IntervalRestated
from seeknal.state.grants import granted, renewed
from seeknal.state.image import LockEntry
from seeknal.state.lease import Lease, LeaseKeeper, LockKey, held, lost, new_owner
from seeknal.state.transaction import BegunTransaction, Transaction, backoff, ended
from seeknal.state.work import change_intervals

MOST_MS = 366 * 24 * 3600 * 1000


@dataclass
class Records:
    """Everything that is stored. The records themselves are frozen."""

    runs: dict[str, RunState] = field(default_factory=dict)
    nodes: dict[tuple[str, str], NodeState] = field(default_factory=dict)
    intervals: dict[str, list[CompletedInterval]] = field(default_factory=dict)
    partitions: dict[tuple[str, str], PartitionState] = field(default_factory=dict)
    sequence: int = 0
    # What a transaction did, for its commit:
    work: tuple[IntervalCompleted | IntervalRestated, ...] = ()
    needed: frozenset[str] = frozenset()
    finished: frozenset[str] = frozenset()

    def copy(self) -> Records:
        return replace(
            self,
            runs=dict(self.runs),
            nodes=dict(self.nodes),
            intervals=dict(self.intervals),
            partitions=dict(self.partitions),
        )

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    def require_run(self, run_id: str) -> RunState:
        if run_id not in self.runs:
            raise missing_run(run_id)
        self.needed |= {run_id}
        return self.runs[run_id]

    def do(self, change: IntervalCompleted | IntervalRestated) -> None:
        done = list(self.intervals.get(change.node_id, []))  # the list itself may be another copy's, too
        change_intervals(done, change)
        self.intervals[change.node_id] = done
        self.work += (change,)


def merged(base: Records, mine: Records, theirs: Records) -> Records:
    """Return what is stored by now, changed as one transaction wants it.

    Args:
        base: What was stored when the transaction began.
        mine: The same, as the transaction left it.
        theirs: What is stored now.

    Raises:
        StaleVersionError: Somebody else wrote what it wrote.
        RunNotFoundError: Somebody deleted a run that it needs.
    """
    result = theirs.copy()
    shift = theirs.sequence - base.sequence
    for table in ("runs", "nodes", "partitions"):
        was, now, stands = (getattr(records, table) for records in (base, mine, result))
        for key in dict.fromkeys([*was, *now]):
            before, after, found = was.get(key), now.get(key), stands.get(key)
            if after is before:
                continue
            if table != "partitions":
                if found is not before:
                    raise stale(f"{table} {key!a}", before.version if before else 0, found.version if found else 0)
                if after is not None and after.sequence > base.sequence:
                    after = changed(after, sequence=after.sequence + shift)
                    stands.pop(key, None)
            if after is None:
                stands.pop(key, None)
            else:
                stands[key] = after
    for run_id in mine.needed & mine.runs.keys():
        result.require_run(run_id)
    result.nodes = {key: state for key, state in result.nodes.items() if key[0] in result.runs}
    for change in mine.work:
        result.do(change)
    result.sequence = mine.sequence + shift
    result.finished = mine.finished
    return result


class Store:
    """What instances share that name the same store."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.records = Records()
        self.locks: dict[LockKey, LockEntry] = {}

    def put(self, records: Records) -> None:
        """Make records the committed ones, and free the locks of the runs that ended."""
        for key, entry in self.locks.items():
            if key[0] in records.finished:
                self.locks[key] = changed(entry, is_free=True)
        self.records = replace(records, work=(), needed=frozenset(), finished=frozenset())


class CustomBackend(StateBackend):
    """State in dictionaries.

    Args:
        option: Anything; it shows that options reach the constructor.
        store: Share this store with other instances.
        clock: Where time comes from.
    """

    def __init__(self, option: str = "", *, store: Store | None = None, clock: Clock | None = None) -> None:
        self.option = option
        self.clock = clock or SystemClock()
        self.store = store or Store()
        self._local = threading.local()
        self._closed = False
        self._keeper = LeaseKeeper(self._renew)

    def initialize(self) -> None:
        self._check_open()

    def close(self) -> None:
        for lease in self._keeper.drop_all():
            self._free(lease)
        self._closed = True

    # ---- runs ----

    def create_run(
        self,
        run_id: str,
        status: str = "running",
        started_at: datetime | None = None,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunState:
        now = self.clock.now()
        run = new_run(run_id, now, status=status, started_at=started_at, config=config, metadata=metadata)
        with self._writing() as records:
            check_unwritten(records.runs.get(run_id), f"run {run_id!a}")
            records.runs[run_id] = changed(run, sequence=records.next_sequence())
            return _out(records.runs[run_id])

    def update_run(self, run_id: str, *, expected_version: int | None = None, **fields: Any) -> RunState:
        check_id(run_id, "run_id")
        with self._writing() as records:
            found = records.require_run(run_id)
            check_version(found, expected_version, f"run {run_id!a}")
            run = patched_run(found, self.clock.now(), fields)
            records.runs[run_id] = run
            if run.status.is_final and run.status is not found.status:
                records.finished |= {run_id}
            return _out(run)

    def get_run(self, run_id: str) -> RunState | None:
        run = self._records().runs.get(check_id(run_id, "run_id"))
        return _out(run) if run else None

    def list_runs(
        self, *, status: str | None = None, newest_first: bool = False, limit: int | None = None
    ) -> list[str]:
        wanted = None if status is None else as_status(RunStatus, status)
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise InvalidFieldError(f"limit is {limit!r}", hint="Pass an int, 0 or more.", field="limit")
        runs = [run.run_id for run in list(self._records().runs.values()) if wanted in (None, run.status)]
        return (runs[::-1] if newest_first else runs)[:limit]

    def delete_run(self, run_id: str) -> bool:
        check_id(run_id, "run_id")
        with self._writing() as records:
            if records.runs.pop(run_id, None) is None:
                return False
            records.nodes = {key: state for key, state in records.nodes.items() if key[0] != run_id}
            records.finished |= {run_id}
            return True

    # ---- node states ----

    def set_node_state(
        self,
        run_id: str,
        node_id: str,
        state: NodeState | None = None,
        *,
        overwrite: bool = True,
        expected_version: int | None = None,
        **fields: Any,
    ) -> NodeState:
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")
        with self._writing() as records:
            records.require_run(run_id)
            found = records.nodes.get((run_id, node_id))
            new = written_node(found, run_id, node_id, self.clock.now(), state, fields)
            what = f"node {node_id!a} of run {run_id!a}"
            if not overwrite:
                check_unwritten(found, what)
            check_version(found, expected_version, what)
            new = changed(new, sequence=records.next_sequence())
            records.nodes[run_id, node_id] = new
            return _out(new)

    def get_node_state(self, run_id: str, node_id: str) -> NodeState | None:
        state = self._records().nodes.get((check_id(run_id, "run_id"), check_id(node_id, "node_id")))
        return _out(state) if state else None

    def list_nodes(self, run_id: str) -> list[str]:
        check_id(run_id, "run_id")
        return sorted((node for run, node in list(self._records().nodes) if run == run_id), key=str.encode)

    def delete_node_state(self, run_id: str, node_id: str) -> bool:
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")
        with self._writing() as records:
            records.require_run(run_id)
            return records.nodes.pop((run_id, node_id), None) is not None

    # ---- completed work ----

    def add_completed_interval(self, run_id: str, node_id: str, start: datetime, end: datetime) -> None:
        span = as_interval(start, end)
        change = IntervalCompleted(check_id(node_id, "node_id"), span.start, span.end, check_id(run_id, "run_id"))
        with self._writing() as records:
            records.require_run(run_id)
            records.do(change)

    def get_completed_intervals(self, node_id: str) -> list[CompletedInterval]:
        return list(self._records().intervals.get(check_id(node_id, "node_id"), ()))

    def restate_intervals(self, node_id: str, start: datetime, end: datetime, *, reason: str | None = None) -> None:
        span = as_interval(start, end)
        change = IntervalRestated(check_id(node_id, "node_id"), span.start, span.end)
        with self._writing() as records:
            records.do(change)

    def add_completed_partition(
        self,
        run_id: str,
        node_id: str,
        partition: str,
        *,
        row_count: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        completed_at: datetime | None = None,
    ) -> PartitionState:
        given = {"row_count": row_count, "metadata": metadata, "completed_at": completed_at}
        state = new_partition(run_id, node_id, partition, self.clock.now(), **given)
        with self._writing() as records:
            records.require_run(run_id)
            records.partitions[node_id, partition] = state
            return _out(state)

    def list_partitions(
        self, node_id: str, *, after: str | None = None, limit: int | None = None, descending: bool = False
    ) -> list[PartitionState]:
        check_id(node_id, "node_id")
        check_limit(limit)
        found = {
            state.partition: state for state in list(self._records().partitions.values()) if state.node_id == node_id
        }
        keys = sorted(found, reverse=descending)  # a text sorts like its bytes in UTF-8
        if after is not None:
            check_id(after, "after")
            keys = [key for key in keys if (key < after if descending else key > after)]
        return [_out(found[key]) for key in keys[:limit]]

    def list_worked_nodes(self) -> list[str]:
        records = self._records()
        worked = {node_id for node_id, spans in list(records.intervals.items()) if spans}
        return sorted(worked | {node_id for node_id, _ in list(records.partitions)}, key=str.encode)

    def restate_partition(self, node_id: str, partition: str, *, reason: str | None = None) -> bool:
        key = check_id(node_id, "node_id"), check_id(partition, "partition")
        with self._writing() as records:
            return records.partitions.pop(key, None) is not None

    # ---- transactions ----

    def transaction(self, lease: Lease | None = None) -> Block:
        return Block(self, lease)

    def begin_transaction(self) -> Transaction:
        return BegunTransaction(Block(self, None, in_order=True))

    @property
    def in_transaction(self) -> bool:
        return bool(self._blocks())

    def _blocks(self) -> list[Block]:
        """Return the blocks that this thread has open, the innermost last."""
        if not hasattr(self._local, "blocks"):
            self._local.blocks = []
        blocks: list[Block] = self._local.blocks
        return blocks

    def _records(self) -> Records:
        self._check_open()
        return self._blocks()[-1].records if self._blocks() else self.store.records

    @contextmanager
    def _writing(self) -> Iterator[Records]:
        """Yield the records that one operation may change; it changes nothing before its last check has passed."""
        self._check_open()
        if self._blocks():
            yield self._blocks()[-1].records
            return
        with self.store.mutex:
            yield self.store.records
            self.store.put(self.store.records)

    # ---- locks ----

    def acquire_lock(
        self, run_id: str, node_id: str | None = None, timeout_ms: int = 5000, *, ttl_ms: int = 30_000
    ) -> bool:
        return self._acquire(run_id, node_id, timeout_ms, ttl_ms) is not None

    @contextmanager
    def lock(
        self, run_id: str, node_id: str | None = None, timeout_ms: int = 5000, *, ttl_ms: int = 30_000
    ) -> Iterator[Lease]:
        lease = self._acquire(run_id, node_id, timeout_ms, ttl_ms)
        if lease is None:
            raise held(run_id, node_id, self._holder(run_id, node_id))
        try:
            yield lease
        finally:
            self._keeper.drop(lease)
            self._free(lease)  # this very lease: if it was lost, whoever holds the lock now keeps it

    def _acquire(self, run_id: str, node_id: str | None, timeout_ms: int, ttl_ms: int) -> Lease | None:
        key = _key(run_id, node_id)
        for name, value, least in (("timeout_ms", timeout_ms, 0), ("ttl_ms", ttl_ms, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_MS:
                raise InvalidFieldError(
                    f"{name} is {value!r}", hint=f"Pass an int from {least} to {MOST_MS}.", field=name
                )
        owner = new_owner()
        deadline = self.clock.ticks_us() + timeout_ms * 1000
        for pause in backoff():
            self._check_open()
            with self.store.mutex:
                entry = granted(self.store.locks.get(key), key, owner, ttl_ms, self.clock)
                self.store.locks[key] = entry
            if entry.holder.owner == owner:
                lease = Lease(run_id, node_id, entry.holder.token, owner)
                self._keeper.add(lease, ttl_ms)
                return lease
            left = (deadline - self.clock.ticks_us()) / 1_000_000
            if left <= 0:
                return None
            self.clock.sleep(min(pause, left))
        raise AssertionError("the pauses never end")

    def release_lock(self, run_id: str, node_id: str | None = None) -> bool:
        key = _key(run_id, node_id)
        self._check_open()
        lease = self._keeper.get(key)
        if lease is None:
            return False
        self._keeper.drop(lease)
        return self._free(lease)

    def list_locks(self) -> list[LockInfo]:
        self._check_open()
        with self.store.mutex:
            held = [entry.holder for entry in self.store.locks.values() if entry.is_held(self.clock.ticks_us())]
        return sorted(held, key=lambda lock: (lock.run_id.encode(), (lock.node_id or "").encode()))

    def break_lock(self, run_id: str, node_id: str | None = None, *, reason: str) -> LockInfo | None:
        key = _key(run_id, node_id)
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidFieldError("reason is empty", hint="Say why the lock is broken.", field="reason")
        self._check_open()
        with self.store.mutex:
            entry = self.store.locks.get(key)
            if entry is None or not entry.is_held(self.clock.ticks_us()):
                return None
            self.store.locks[key] = changed(entry, is_free=True)
            return entry.holder

    def _renew(self, lease: Lease, ttl_ms: int) -> bool:
        """Extend a lease; the keeper calls it from its thread while this instance lives."""
        with self.store.mutex:
            if not self._holds(lease):
                return False
            self.store.locks[lease.key] = renewed(self.store.locks[lease.key], ttl_ms, self.clock)
            return True

    def _free(self, lease: Lease) -> bool:
        with self.store.mutex:
            if not self._holds(lease):
                return False
            self.store.locks[lease.key] = changed(self.store.locks[lease.key], is_free=True)
            return True

    def _holds(self, lease: Lease) -> bool:
        entry = self.store.locks.get(lease.key)
        return entry is not None and entry.holder.owner == lease.owner and entry.is_held(self.clock.ticks_us())

    def _check_open(self) -> None:
        if self._closed:
            raise BackendUnavailableError("the backend is closed", hint="Open another one.")


class Block:
    """A transaction, or a savepoint inside one: a copy of the records, merged into them at the end.

    A ``with`` block is left once: what is open inside ends with it. One that was begun without a block can be
    ended ``in_order`` later.
    """

    def __init__(self, backend: CustomBackend, lease: Lease | None, *, in_order: bool = False) -> None:
        self._in_order = in_order
        self._backend = backend
        self._leases = [lease] if lease else []
        self._thread: int | None = None
        self.is_active = False

    def __enter__(self) -> Block:
        if self._thread is not None:
            raise TransactionError("a transaction block is entered once", hint="Call transaction() again.")
        with self._backend.store.mutex:
            self.records = self._backend._records().copy()
        self._base = self.records.copy()
        self._backend._blocks().append(self)
        self._thread = threading.get_ident()
        self.is_active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_active:
            raise ended()
        if self._thread != threading.get_ident():
            raise TransactionError("a transaction belongs to the thread that opened it", hint="End it in that thread.")
        blocks = self._backend._blocks()
        inner = blocks[blocks.index(self) + 1 :]
        if inner and self._in_order:
            raise TransactionError("an inner transaction is still open", hint="End the inner one first.")
        del blocks[blocks.index(self) :]
        for block in (self, *inner):
            block.is_active = False
        if inner and error is None:
            raise TransactionError("an inner transaction was still open; nothing was written", hint="End it first.")
        if error is not None:
            return
        if blocks:
            blocks[-1].records = self.records
            blocks[-1]._leases.extend(self._leases)
        else:
            self._commit(self._backend.store)

    def _commit(self, store: Store) -> None:
        self._backend._check_open()
        with store.mutex:
            for lease in self._leases:
                if not self._backend._holds(lease):
                    raise lost(lease)
            store.put(merged(self._base, self.records, store.records))


def _key(run_id: str, node_id: str | None) -> LockKey:
    return check_id(run_id, "run_id"), None if node_id is None else check_id(node_id, "node_id")


R = TypeVar("R", RunState, NodeState, PartitionState)


def _out(record: R) -> R:
    """Return a record that shares nothing with the store."""
    copied = {name: json_copy(getattr(record, name)) for name in ("config", "metadata") if hasattr(record, name)}
    return changed(record, **copied)
