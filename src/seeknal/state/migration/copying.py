"""Make one store hold what another one holds: a join of two streams of records, whatever the target holds before.

So a first copy, one that was killed and is begun again, and the way back into a store that was left some time ago are
the same thing. In memory there are one batch, one run of each side, and the ids of the nodes that have completed work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias, TypeGuard, get_args

from seeknal.model.codec import encode
from seeknal.model.records import (
    CompletedInterval,
    ExpectedPartition,
    IntervalProvenance,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.batch import Batch, IntervalRestated, Work
from seeknal.state.migration.undo import Undo
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import BATCH_ROWS, Counts
from seeknal.state.whole import Reading, Record, work_records
from seeknal.state.work import WorkRecord, doing, undoing

BATCH_BYTES = 4 << 20
"""A commit holds no more than this, whatever its rows, but for a single record: servers limit what they are sent."""

STEP_RECORDS = 1000
"""After how many records progress is told."""

Told = Callable[[int], None]
"""Called with how many records are behind."""


class Lookup(Reading, Protocol):
    """What a copy reads of a store, and single runs."""

    def read_run(self, run_id: str) -> RunState | None:
        """Return a run, or ``None``."""


_HEADS: dict[type[Record], bytes] = {kind: kind.__name__.encode() + b" " for kind in get_args(Record)}

Coverage: TypeAlias = CompletedInterval | IntervalProvenance


class Ledger:
    """Digests and counts what is read of a store, in the order and the bytes of `seeknal.state.transfer.digest_of`.

    Args:
        told: Called now and then.
    """

    def __init__(self, told: Told) -> None:
        self.counts = Counts()
        self.bytes = 0
        self._told = told
        self._records = 0
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The SHA-256 of the records so far."""
        return self._digest.hexdigest()

    def add(self, record: Record) -> int:
        """Enter a record and return its size in bytes."""
        return self.add_all(type(record), [record])[0]

    def add_all(self, kind: type[Record], records: Iterable[Record]) -> list[int]:
        """Enter records of one kind, such as the nodes of a run, and return their sizes in bytes."""
        head, encoded = _HEADS[kind], [encode(record) for record in records]
        self._digest.update(b"".join([head + each + b"\n" for each in encoded]))
        sizes = [len(each) for each in encoded]
        self.counts.add(kind, len(sizes))
        self.bytes += sum(sizes)
        steps = self._records // STEP_RECORDS
        self._records += len(sizes)
        if self._records // STEP_RECORDS > steps:
            self._told(self._records)
        return sizes

    def add_store(self, store: Reading) -> None:
        """Enter all of a store."""
        for run in store.scan_runs():
            self.add(run)
            self.add_all(NodeState, store.read_nodes(run.run_id).values())
        for node_id in store.read_worked_nodes():
            for record in work_records(store, node_id):
                self.add(record)


class Copy:
    """One copy of a store into another.

    Args:
        target: Where to.
        mark: What the target bears, so that nobody else writes to it.
        undo: Where the inverse of each commit is kept.
        rows: Rows of one commit.
    """

    def __init__(self, target: RecordStateBackend, *, mark: str, undo: Undo, rows: int = BATCH_ROWS) -> None:
        self._target = target
        self._mark = mark
        self._undo = undo
        self._rows = rows
        self._start_batch()

    def make_equal(self, source: Reading, ledger: Ledger) -> None:
        """Make the target hold what the source holds, which does not change meanwhile.

        Raises:
            SeeknalError: As `RecordStateBackend.commit`; what was written can be undone.
        """
        self._drop_runs(source)
        left = self._target.scan_runs()
        theirs = next(left, None)
        for run in source.scan_runs():
            nodes = source.read_nodes(run.run_id)
            ledger.add(run)
            sizes = dict(zip(nodes, ledger.add_all(NodeState, nodes.values()), strict=True))
            if theirs is None or theirs.run_id != run.run_id:
                self._add_run(run, nodes, sizes)
                continue
            if theirs == run:
                self._change_nodes(run.run_id, nodes, sizes)
            else:
                self._replace_run(theirs, run, nodes, sizes)
            theirs = next(left, None)
        self._work(source, ledger)
        self._commit()

    # ---- runs ----

    def _drop_runs(self, source: Reading) -> None:
        """Delete the runs that the source does not have, and those that it has made anew."""
        ours = source.scan_runs()
        run = next(ours, None)
        for theirs in self._target.scan_runs():
            while run is not None and _place(run) < _place(theirs):
                run = next(ours, None)
            if run is None or _place(run) != _place(theirs):
                self._batch.deleted_runs.append(theirs.run_id)
                self._keep_run(theirs)
                self._count(1 + len(self._target.read_nodes(theirs.run_id)), 0)
        self._commit()

    def _add_run(self, run: RunState, nodes: dict[str, NodeState], sizes: dict[str, int]) -> None:
        self._batch.run_versions[run.run_id] = 0
        self._inverse.deleted_runs.append(run.run_id)
        self._put_run(run, nodes, sizes)

    def _put_run(self, run: RunState, nodes: dict[str, NodeState], sizes: dict[str, int]) -> None:
        self._batch.runs.append(run)
        self._count(1, 0)
        for node_id, state in nodes.items():
            self._batch.nodes.append(state)
            self._count(1, sizes[node_id])

    def _replace_run(self, theirs: RunState, run: RunState, nodes: dict[str, NodeState], sizes: dict[str, int]) -> None:
        self._batch.deleted_runs.append(run.run_id)
        self._keep_run(theirs)
        self._put_run(run, nodes, sizes)

    def _keep_run(self, theirs: RunState) -> None:
        """Keep a run of the target, whose nodes fit into memory, to put it back."""
        self._inverse.deleted_runs.append(theirs.run_id)
        self._inverse.runs.append(theirs)
        self._inverse.nodes += self._target.read_nodes(theirs.run_id).values()

    def _change_nodes(self, run_id: str, nodes: dict[str, NodeState], sizes: dict[str, int]) -> None:
        theirs = self._target.read_nodes(run_id)
        for node_id in theirs.keys() - nodes.keys():
            self._batch.deleted_nodes.append((run_id, node_id))
            self._inverse.nodes.append(theirs[node_id])
            self._count(1, 0)
        for node_id, state in nodes.items():
            there = theirs.get(node_id)
            if there == state:
                continue
            self._batch.nodes.append(state)
            if there is None:
                self._inverse.deleted_nodes.append((run_id, node_id))
            else:
                self._inverse.nodes.append(there)
            self._count(1, sizes[node_id])

    # ---- completed work ----

    def _work(self, source: Reading, ledger: Ledger) -> None:
        ours, theirs = source.read_worked_nodes(), self._target.read_worked_nodes()
        known, wanted = set(theirs), set(ours)
        for node_id in sorted(wanted | known, key=str.encode):
            records = list(work_records(source, node_id)) if node_id in wanted else []
            for record in records:
                ledger.add(record)
            there = list(work_records(self._target, node_id)) if node_id in known else []
            self._change_intervals([*filter(is_coverage, records)], [*filter(is_coverage, there)])
            self._change_keys(records, there)

    def _change_intervals(self, ours: list[Coverage], theirs: list[Coverage]) -> None:
        if ours == theirs:
            return
        spans = [*ours, *theirs]
        cleared = IntervalRestated(spans[0].node_id, min(s.start for s in spans), max(s.end for s in spans))
        self._inverse.work += [cleared, *map(doing, theirs)]
        self._do([cleared] if theirs else [])
        self._do(map(doing, ours))

    def _change_keys(self, ours: list[WorkRecord], theirs: list[WorkRecord]) -> None:
        """Change the partitions, and which of them are expected."""
        there = {key: record for record in theirs if (key := _key(record))}
        wanted = {key: record for record in ours if (key := _key(record))}
        for key, record in there.items():
            if wanted.get(key) != record:
                self._inverse.work.append(doing(record))
            if key not in wanted:
                self._do(filter(None, [undoing(record)]))
        for key, record in wanted.items():
            if key not in there:
                self._inverse.work += filter(None, [undoing(record)])
            if there.get(key) != record:
                self._do([doing(record)])

    def _do(self, work: Iterable[Work]) -> None:
        for change in work:
            self._batch.work.append(change)
            self._count(1, 0)

    # ---- batches ----

    def _start_batch(self) -> None:
        self._batch = Batch(successor=self._mark)
        self._inverse = Batch()
        self._size = 0
        self._bytes = 0

    def _count(self, rows: int, size: int) -> None:
        self._size += rows
        self._bytes += size
        if self._size >= self._rows or self._bytes >= BATCH_BYTES:
            self._commit()

    def _commit(self) -> None:
        if self._size:
            self._undo.keep(self._inverse)
            self._target.commit(self._batch)
        self._start_batch()


def _place(run: RunState) -> tuple[int, bytes]:
    return run.sequence, run.run_id.encode()


def is_coverage(record: WorkRecord) -> TypeGuard[Coverage]:
    """Return whether a record is of intervals."""
    return isinstance(record, CompletedInterval | IntervalProvenance)


def _key(record: WorkRecord) -> tuple[type, str] | None:
    """Return what a record of a partition is found by."""
    return (type(record), record.partition) if isinstance(record, PartitionState | ExpectedPartition) else None
