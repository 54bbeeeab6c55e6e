"""Move the state of one open store into another, so that not a row is lost.

Copy in bounded batches, make the source refuse writes, compare a digest of everything that can be read on
both sides, and only then hand the source's identity over. A write that slips in while the copy runs shows in the
digest. Until the hand-over every error puts both sides back as they were found. Lock tokens are not moved:
nobody may hold a lock then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import msgspec

from seeknal.errors import CapabilityError, TransferError
from seeknal.model.codec import encode
from seeknal.model.records import CompletedInterval, NodeState, PartitionState, RunState
from seeknal.state.batch import (
    Batch,
    IntervalCompleted,
    IntervalRestated,
    NodeKey,
    PartitionCompleted,
    PartitionRestated,
    Work,
)
from seeknal.state.contract import StateBackend
from seeknal.state.lease import held
from seeknal.state.record_backend import RecordStateBackend

BATCH_ROWS = 2000
"""Rows of one commit: many enough that round trips do not count, few enough to stay small in memory."""

Record = RunState | NodeState | CompletedInterval | PartitionState


class Counts(msgspec.Struct, kw_only=True):
    """How many records of each kind."""

    runs: int = 0
    node_states: int = 0
    intervals: int = 0
    partitions: int = 0

    def add(self, kind: type[Record]) -> None:
        """Count a record of this kind."""
        if kind is NodeState:
            self.node_states += 1
        elif kind is RunState:
            self.runs += 1
        elif kind is CompletedInterval:
            self.intervals += 1
        else:
            self.partitions += 1

    @property
    def total(self) -> int:
        """How many records of all kinds."""
        return self.runs + self.node_states + self.intervals + self.partitions


class TransferPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a transfer would do.

    Attributes:
        counts: What would be copied.
        refused: Why it would be refused; empty when it would not.
    """

    counts: Counts
    refused: list[str]


class TransferReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a transfer did; ``digest`` is the SHA-256 of what is now in both stores."""

    counts: Counts
    digest: str
    store_id: str


def record_store(backend: StateBackend) -> RecordStateBackend:
    """Return a backend that can be copied record by record.

    Raises:
        CapabilityError: It was not built on `RecordStateBackend`.
    """
    if not isinstance(backend, RecordStateBackend):
        raise CapabilityError(
            f"a {type(backend).__name__} cannot be copied from or to",
            hint="Derive it from seeknal.state.backend.RecordStateBackend.",
        )
    return backend


def records(store: RecordStateBackend) -> Iterator[Record]:
    """Yield everything a store holds: each run followed by its nodes, in creation order, then completed work."""
    for run in store.scan_runs():
        yield run
        yield from store.read_nodes(run.run_id).values()
    for node_id in store.read_worked_nodes():
        yield from store.read_intervals(node_id)
        yield from store.read_partitions(node_id)


def digest_of(store: RecordStateBackend) -> str:
    """Return the SHA-256 of everything a store holds, versions and sequences included."""
    digest = hashlib.sha256()
    for record in records(store):
        digest.update(type(record).__name__.encode() + b" " + encode(record) + b"\n")
    return digest.hexdigest()


def plan_transfer(source: RecordStateBackend, target: RecordStateBackend | None) -> TransferPlan:
    """Count what would be copied and find what forbids it; writes nothing.

    Args:
        source: The store to copy, open.
        target: Where to, open; ``None`` for a store that does not exist yet.
    """
    counts = Counts()
    for record in records(source):
        _count(counts, record)
    refused = [str(held(lock.run_id, lock.node_id, lock)) for lock in source.list_locks()]
    info = source.read_store()
    if info.superseded_by:
        refused.append(f"the source is superseded: its state moved to {info.superseded_by}")
    if target is not None:
        problem = _target_problem(source, target)
        refused += [problem] if problem else []
    return TransferPlan(counts=counts, refused=refused)


def check_source(source: RecordStateBackend) -> None:
    """Raise unless a store can be moved away now.

    Raises:
        LockHeldError: Somebody holds a lock of it.
        TransferError: Its state moved away before.
    """
    for lock in source.list_locks():
        raise held(lock.run_id, lock.node_id, lock)
    successor = source.read_store().superseded_by
    if successor is not None:
        raise TransferError(
            f"the source is superseded: its state moved to {successor}",
            hint="Go back with `seeknal state rollback`, or migrate from the store that is current.",
        )


def transfer(
    source: RecordStateBackend,
    target: RecordStateBackend,
    *,
    target_where: str,
    batch_rows: int = BATCH_ROWS,
    on_progress: Callable[[Counts], None] | None = None,
    before_switch: Callable[[], None] | None = None,
) -> TransferReport:
    """Copy ``source`` into ``target``, verify it, and make the source refuse writes from now on.

    Args:
        source: The store to copy, open.
        target: An empty one; an unfinished copy of this source, which gets what it lacks; or the store that this
            state moved away from, whose content is replaced (after an error it stays superseded and may be empty).
        target_where: The target in words, without secrets; the source names it to its writers.
        batch_rows: Rows per commit.
        on_progress: Called after each commit with what was copied so far.
        before_switch: Called once the copy is complete, before the source is changed.

    Raises:
        LockHeldError: Somebody holds a lock of the source.
        TransferError: The target holds something else, or the two sides differ. Both are as they were found.
    """
    check_source(source)
    source_info, target_info = source.read_store(), target.read_store()
    problem = _target_problem(source, target)
    if problem:
        raise TransferError(problem, hint="Choose an empty store, or empty this one first.")
    counts = Counts()
    copied = _Copied()
    is_switched = False
    try:
        # Under the source's identity from the start: what a kill leaves here is then known as a part of a copy.
        target.write_successor(source_info.store_id, None)
        if _difference(source, target):
            _empty(target)
        for batch in _batches(source, target, batch_rows):
            copied.add(batch)
            target.commit(batch)
            counts.runs += len(batch.runs)
            counts.node_states += len(batch.nodes)
            counts.intervals += sum(isinstance(work, IntervalCompleted) for work in batch.work)
            counts.partitions += sum(isinstance(work, PartitionCompleted) for work in batch.work)
            if on_progress is not None:
                on_progress(counts)
        if before_switch is not None:
            before_switch()
        is_switched = True
        source.write_successor(source_info.store_id, target_where)
        digest = digest_of(source)
        if digest != digest_of(target):
            raise TransferError(
                "the copy is not equal to the source; somebody wrote to one of them meanwhile",
                hint="Stop what writes to them, then migrate again. Nothing has changed.",
            )
    except BaseException:
        try:
            if is_switched:
                source.write_successor(source_info.store_id, None)
        finally:
            copied.remove_from(target)
            target.write_successor(target_info.store_id, target_info.superseded_by)
        raise
    return TransferReport(counts=counts, digest=digest, store_id=source_info.store_id)


class _Copied:
    """What was put into the target, so that it can be taken out again."""

    def __init__(self) -> None:
        self.runs: dict[str, None] = {}
        self.nodes: list[NodeKey] = []
        self.work: list[Work] = []

    def add(self, batch: Batch) -> None:
        self.runs.update((run.run_id, None) for run in batch.runs)
        self.nodes += [(state.run_id, state.node_id) for state in batch.nodes if state.run_id not in self.runs]
        for work in batch.work:
            if isinstance(work, IntervalCompleted):
                self.work.append(IntervalRestated(work.node_id, work.start, work.end))
            elif isinstance(work, PartitionCompleted):
                self.work.append(PartitionRestated(work.state.node_id, work.state.partition))

    def remove_from(self, target: RecordStateBackend) -> None:
        runs = list(self.runs)
        for first in range(0, len(runs), BATCH_ROWS):
            target.commit(Batch(deleted_runs=runs[first : first + BATCH_ROWS]))
        for first in range(0, len(self.nodes), BATCH_ROWS):
            target.commit(Batch(deleted_nodes=self.nodes[first : first + BATCH_ROWS]))
        for first in range(0, len(self.work), BATCH_ROWS):
            target.commit(Batch(work=self.work[first : first + BATCH_ROWS]))


def _batches(source: RecordStateBackend, target: RecordStateBackend, rows: int) -> Iterator[Batch]:
    """Yield what the target lacks; it holds nothing that the source does not hold equally."""
    known = set(target.read_run_ids(None, newest_first=False, limit=None))
    done = {(type(record), encode(record)) for record in _work_of(target)}
    present: dict[str, NodeState] = {}
    batch, size = Batch(), 0
    for record in records(source):
        if isinstance(record, RunState | NodeState):
            if isinstance(record, RunState):
                present = target.read_nodes(record.run_id) if record.run_id in known else {}
                if record.run_id in known:
                    continue
                batch.runs.append(record)
                batch.run_versions[record.run_id] = 0
            elif record.node_id in present:
                continue
            else:
                batch.nodes.append(record)
        elif (type(record), encode(record)) in done:
            continue
        elif isinstance(record, CompletedInterval):
            batch.work.append(IntervalCompleted(record.node_id, record.start, record.end, record.run_id))
        else:
            batch.work.append(PartitionCompleted(record))
        size += 1
        if size == rows:
            yield batch
            batch, size = Batch(), 0
    if size:
        yield batch


def _empty(target: RecordStateBackend) -> None:
    """Remove everything from a store whose state moved to the source, where all of it is."""
    runs = target.read_run_ids(None, newest_first=False, limit=None)
    for first in range(0, len(runs), BATCH_ROWS):
        target.commit(Batch(deleted_runs=runs[first : first + BATCH_ROWS]))
    for node_id in target.read_worked_nodes():
        spans = [IntervalRestated(node_id, each.start, each.end) for each in target.read_intervals(node_id)]
        keys = [PartitionRestated(node_id, each.partition) for each in target.read_partitions(node_id)]
        work: list[Work] = [*spans, *keys]
        for first in range(0, len(work), BATCH_ROWS):
            target.commit(Batch(work=work[first : first + BATCH_ROWS]))


def _target_problem(source: RecordStateBackend, target: RecordStateBackend) -> str:
    """Return why this target cannot take the source, or nothing."""
    if next(records(target), None) is None:
        return ""
    ours, theirs = source.read_store(), target.read_store()
    if ours.store_id != theirs.store_id:
        return "the target already holds another state"
    if theirs.superseded_by is not None:
        return ""  # what this state was before it moved to the source: what differs is replaced
    return _difference(source, target)


def _difference(source: RecordStateBackend, target: RecordStateBackend) -> str:
    """Return what a former copy of the source holds that the source does not hold equally, or nothing."""
    for run_id in target.read_run_ids(None, newest_first=False, limit=None):
        nodes = source.read_nodes(run_id)
        is_part = all(nodes.get(node_id) == state for node_id, state in target.read_nodes(run_id).items())
        if not is_part or source.read_run(run_id) != target.read_run(run_id):
            return f"the target is a former copy of the source, but run {run_id!a} differs there"
    done = {encode(record) for record in _work_of(source)}
    for record in _work_of(target):
        if encode(record) not in done:
            return f"the target is a former copy of the source, but the work of {record.node_id!a} differs there"
    return ""


def _work_of(store: RecordStateBackend) -> Iterator[CompletedInterval | PartitionState]:
    for node_id in store.read_worked_nodes():
        yield from store.read_intervals(node_id)
        yield from store.read_partitions(node_id)


def _count(counts: Counts, record: Record) -> None:
    if isinstance(record, RunState):
        counts.runs += 1
    elif isinstance(record, NodeState):
        counts.node_states += 1
    elif isinstance(record, CompletedInterval):
        counts.intervals += 1
    else:
        counts.partitions += 1
