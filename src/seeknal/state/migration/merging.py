"""Add the runs of one store to what another one holds, which stays as it is.

What is added comes after all that is there: its order among itself is kept, so the newest state of each node stays the
newest. That is only right if what is added was written later; where both stores know a node, its times have to say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

import msgspec

from seeknal.errors import TransferError
from seeknal.model.intervals import Interval, gaps
from seeknal.model.records import ExpectedPartition, NodeState, PartitionState, RunState
from seeknal.state.batch import Batch, IntervalRestated, PartitionCompleted, PartitionRestated, PartitionUnexpected
from seeknal.state.migration.copying import Coverage, Ledger, Lookup, is_coverage
from seeknal.state.migration.undo import Undo
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.store_info import StoreInfo, filling_mark, is_being_filled
from seeknal.state.transfer import BATCH_ROWS, Record
from seeknal.state.whole import work_records
from seeknal.state.work import doing

R = TypeVar("R", RunState, NodeState)


def merge_problem(source: RecordStateBackend, target: RecordStateBackend, theirs: StoreInfo) -> str:
    """Return why the source cannot be merged into a target that says this of itself, or nothing; locks apart."""
    ours = source.read_store()
    if ours.store_id == theirs.store_id:
        return "the target is a copy of the source: there is nothing to merge"
    is_begun = is_being_filled(theirs.superseded_by)
    if theirs.superseded_by is not None and not is_begun:
        return f"the target is superseded: its state moved to {theirs.superseded_by}"
    first: dict[str, NodeState] = {}
    for run in source.scan_runs():
        nodes = source.read_nodes(run.run_id)
        if target.read_run(run.run_id) is not None and not (is_begun and holds(target, run, nodes, is_part=True)):
            return f"both stores have a run {run.run_id!a}"
        for node_id, state in nodes.items():
            if node_id not in first or state.sequence < first[node_id].sequence:
                first[node_id] = state
    for node_id, state in first.items():
        latest = target.read_latest(node_id, None, frozenset())
        if latest is None or (is_begun and source.read_run(latest.run_id) is not None):
            continue
        written, since = _time_of(latest), _time_of(state)
        if written is None or since is None or since < written:
            return f"both stores have states of node {node_id!a}, and the target's are not all older"
    return ""


def holds(target: Lookup, run: RunState, nodes: dict[str, NodeState], *, is_part: bool = False) -> bool:
    """Return whether a store has a run as it is, but for its place in the order.

    Args:
        target: The store.
        run: The run.
        nodes: Its nodes.
        is_part: Whether some nodes may be missing there.
    """
    there = target.read_run(run.run_id)
    if there is None or _unplaced(there) != _unplaced(run):
        return False
    theirs = target.read_nodes(run.run_id)
    is_whole = is_part or theirs.keys() == nodes.keys()
    return is_whole and all(key in nodes and _unplaced(state) == _unplaced(nodes[key]) for key, state in theirs.items())


def take_out(source: RecordStateBackend, target: RecordStateBackend, *, source_where: str) -> None:
    """Take out of a store what a merge that was killed has put into it, and let everybody write to it again.

    Completed work that was merged stays: it cannot be told from the target's own.

    Args:
        source: The store that was being merged.
        target: Where to.
        source_where: The source in words, as the mark of the target names it.

    Raises:
        TransferError: The target is not being filled from this source.
        SeeknalError: As `RecordStateBackend.commit`; the same call goes on.
    """
    info = target.read_store()
    mark = info.superseded_by
    if mark is None or not mark.startswith(filling_mark(source_where, "")):
        raise TransferError(
            f"the target is not being filled from {source_where}", hint="Look at it with `seeknal state doctor`."
        )
    for run in source.scan_runs():
        if holds(target, run, source.read_nodes(run.run_id), is_part=True):
            target.commit(Batch(successor=mark, deleted_runs=[run.run_id]))
    target.write_successor(info.store_id, None, expected=mark)


class Merge:
    """One merge of a store into another.

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

    def add(self, source: RecordStateBackend, ledger: Ledger) -> None:
        """Add everything that the source holds, which does not change meanwhile.

        Raises:
            SeeknalError: As `RecordStateBackend.commit`; what was written can be undone.
        """
        self._drop_begun(source)
        base = max((_last_sequence(self._target, run) for run in self._target.scan_runs()), default=0)
        for run in source.scan_runs():
            ledger.add(run)
            batch = Batch(successor=self._mark, runs=[_placed(run, base)], run_versions={run.run_id: 0})
            inverse = Batch(deleted_runs=[run.run_id])
            for state in source.read_nodes(run.run_id).values():
                ledger.add(state)
                batch.nodes.append(_placed(state, base))
                if len(batch.nodes) >= self._rows:
                    self._commit(batch, inverse)
                    batch, inverse = Batch(successor=self._mark), Batch()
            self._commit(batch, inverse)
        for node_id in source.read_worked_nodes():
            records = list(work_records(source, node_id))
            self._add_intervals(node_id, [*filter(is_coverage, records)], ledger)
            self._add_partitions(node_id, source.read_partitions(node_id), ledger)
            self._add_expected([record for record in records if isinstance(record, ExpectedPartition)], ledger)

    def verify(self, source: RecordStateBackend, ledger: Ledger) -> None:
        """Hold what the target has against the source.

        Raises:
            TransferError: Something is missing.
        """
        for run in source.scan_runs():
            nodes = source.read_nodes(run.run_id)
            if not holds(self._target, run, nodes):
                raise _missing(f"run {run.run_id!a}")
            _enter(ledger, [run, *nodes.values()])
        for node_id in source.read_worked_nodes():
            intervals, partitions = source.read_intervals(node_id), source.read_partitions(node_id)
            there = [Interval(span.start, span.end) for span in self._target.read_intervals(node_id)]
            if any(gaps(there, span.start, span.end) for span in intervals):
                raise _missing(f"intervals of node {node_id!a}")
            known = {state.partition: state for state in self._target.read_partitions(node_id)}
            if any(state.partition not in known for state in partitions):
                raise _missing(f"partitions of node {node_id!a}")
            if set(source.read_expected(node_id)) - set(self._target.read_expected(node_id)):
                raise _missing(f"expected partitions of node {node_id!a}")
            _enter(ledger, work_records(source, node_id))

    def _drop_begun(self, source: RecordStateBackend) -> None:
        """Remove what a merge that was killed left, whose place in the order would be another one now."""
        for run in source.scan_runs():
            there = self._target.read_run(run.run_id)
            if there is not None:
                nodes = list(self._target.read_nodes(run.run_id).values())
                inverse = Batch(deleted_runs=[run.run_id], runs=[there], nodes=nodes)
                self._commit(Batch(successor=self._mark, deleted_runs=[run.run_id]), inverse)

    def _add_intervals(self, node_id: str, ours: list[Coverage], ledger: Ledger) -> None:
        if not ours:
            return
        theirs = [*filter(is_coverage, work_records(self._target, node_id))]
        spans = [*ours, *theirs]
        cleared = IntervalRestated(node_id, min(span.start for span in spans), max(span.end for span in spans))
        inverse = Batch(work=[cleared, *map(doing, theirs)])
        for first in range(0, len(ours), self._rows):
            part = ours[first : first + self._rows]
            _enter(ledger, part)
            self._commit(Batch(successor=self._mark, work=[*map(doing, part)]), inverse)
            inverse = Batch()

    def _add_partitions(self, node_id: str, ours: list[PartitionState], ledger: Ledger) -> None:
        there = {state.partition: state for state in self._target.read_partitions(node_id)}
        for first in range(0, len(ours), self._rows):
            batch, inverse = Batch(successor=self._mark), Batch()
            for state in ours[first : first + self._rows]:
                ledger.add(state)
                known = there.get(state.partition)
                if known is not None and known.completed_at >= state.completed_at:
                    continue
                batch.work.append(PartitionCompleted(state))
                inverse.work.append(PartitionCompleted(known) if known else PartitionRestated(node_id, state.partition))
            self._commit(batch, inverse)

    def _add_expected(self, ours: list[ExpectedPartition], ledger: Ledger) -> None:
        _enter(ledger, ours)
        there = set(self._target.read_expected(ours[0].node_id)) if ours else set()
        new = [record for record in ours if record.partition not in there]
        for first in range(0, len(new), self._rows):
            part = new[first : first + self._rows]
            inverse = Batch(work=[PartitionUnexpected(record.node_id, record.partition) for record in part])
            self._commit(Batch(successor=self._mark, work=[*map(doing, part)]), inverse)

    def _commit(self, batch: Batch, inverse: Batch) -> None:
        if not batch.is_empty:
            self._undo.keep(inverse)
            self._target.commit(batch)


def _enter(ledger: Ledger, records: Iterable[Record]) -> None:
    for record in records:
        ledger.add(record)


def _last_sequence(target: RecordStateBackend, run: RunState) -> int:
    return max([run.sequence, *(state.sequence for state in target.read_nodes(run.run_id).values())])


def _placed(record: R, base: int) -> R:
    return msgspec.structs.replace(record, sequence=base + record.sequence)


def _unplaced(record: R) -> R:
    return msgspec.structs.replace(record, sequence=0)


def _time_of(state: NodeState) -> datetime | None:
    return state.finished_at or state.started_at


def _missing(what: str) -> TransferError:
    return TransferError(
        f"the target does not hold the {what} as the source does",
        hint="Nothing has changed. Compare what there is with `seeknal state diff`, and report this.",
    )
