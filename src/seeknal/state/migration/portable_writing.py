"""Write a whole state into a store through the verbs of the contract, and take it out again.

Such a store numbers what is written by itself. So node states are written in the order in which they were written
first, across all runs: then the newest one of each node is the newest one there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from seeknal.model.changes import NODE_FIELDS
from seeknal.model.codec import encode
from seeknal.model.records import CompletedInterval, PartitionState, RunState
from seeknal.model.status import RunStatus
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease
from seeknal.state.migration.copying import BATCH_BYTES, Copy, Ledger, Lookup
from seeknal.state.migration.portable_order import WritingOrder
from seeknal.state.migration.portable_reading import PlainReading, Unplaced, unplaced
from seeknal.state.migration.undo import Undo
from seeknal.state.registry import StateBackendFactory
from seeknal.state.transfer import BATCH_ROWS, digest_of, record_store

_KEPT = "a copy that is kept for a while"


class Change(NamedTuple):
    """Something to be done in a transaction, with so many rows and about so many bytes."""

    do: Callable[[], object]
    rows: int = 1
    bytes: int = 0


class Rewriting:
    """One writing of a state into an empty store.

    Args:
        target: The store.
        lease: What keeps others from writing into it; no transaction commits without.
        rows: Rows of one transaction.
    """

    def __init__(self, target: StateBackend, lease: Lease, *, rows: int = BATCH_ROWS) -> None:
        self._target = target
        self._lease = lease
        self._rows = rows

    def write(self, source: Lookup, ledger: Ledger) -> None:
        """Write what the source holds, which does not change meanwhile, and enter what was written.

        Raises:
            SeeknalError: As the verbs of the target; a part was written.
        """
        with WritingOrder() as states:
            self._commit(self._created(source, ledger, states))
            self._commit(self._written(states))
        self._commit(self._ended(source))
        self._commit(self._completed(source, ledger))

    def difference(self, source: Lookup) -> str:
        """Return what the target holds that is no part of the source, or nothing."""
        ours, theirs = Unplaced(source), Unplaced(PlainReading(self._target))
        for run in theirs.scan_runs():
            wanted, nodes = ours.read_run(run.run_id), ours.read_nodes(run.run_id)
            is_part = wanted is not None and run in (wanted, _begun(wanted))
            if not is_part or any(nodes.get(key) != state for key, state in theirs.read_nodes(run.run_id).items()):
                return f"run {run.run_id!a}"
        for node_id in theirs.read_worked_nodes():
            intervals, partitions = ours.read_intervals(node_id), ours.read_partitions(node_id)
            if any(span not in intervals for span in theirs.read_intervals(node_id)) or any(
                state not in partitions for state in theirs.read_partitions(node_id)
            ):
                return f"completed work of node {node_id!a}"
        return ""

    def take_out(self, source: Lookup) -> None:
        """Remove what the target holds of the source; what somebody else put in stays.

        Raises:
            SeeknalError: As the verbs of the target; a part may have been removed.
        """
        self._commit(self._removed(source))

    def clear(self) -> None:
        """Remove everything that the target holds, in one transaction: a kill leaves all of it, or nothing.

        Raises:
            SeeknalError: As the verbs of the target; nothing was removed.
        """
        with self._target.transaction(lease=self._lease):
            for node_id in self._target.list_worked_nodes():
                for span in self._target.get_completed_intervals(node_id):
                    self._target.restate_intervals(node_id, span.start, span.end)
                for state in self._target.list_partitions(node_id):
                    self._target.restate_partition(node_id, state.partition)
            for run_id in self._target.list_runs():
                self._target.delete_run(run_id)

    def put_back(self, source: Lookup, kept: Lookup | None) -> None:
        """Take out what was written of the source, and write again what was cleared away.

        Raises:
            SeeknalError: As `take_out` and `write`.
        """
        if kept is None:
            self.take_out(source)
        elif not self._holds(kept):
            self.take_out(source)
            self.write(kept, Ledger(lambda _: None))

    def _holds(self, kept: Lookup) -> bool:
        """Return whether nothing was cleared away."""
        return digest_of(Unplaced(PlainReading(self._target))) == digest_of(Unplaced(kept))

    # ---- what is done, in this order ----

    def _created(self, source: Lookup, ledger: Ledger, states: WritingOrder) -> Iterator[Change]:
        for run in source.scan_runs():
            size = ledger.add(unplaced(run))
            create = partial(self._target.create_run, run.run_id, RunStatus.PENDING, run.started_at)
            yield Change(partial(create, config=run.config, metadata=run.metadata), bytes=size)
            for state in source.read_nodes(run.run_id).values():
                ledger.add(unplaced(state))
                states.add(state)

    def _written(self, states: WritingOrder) -> Iterator[Change]:
        for state in states:
            # Field by field: a whole state would get the times that it does not have.
            fields = {name: getattr(state, name) for name in NODE_FIELDS}
            write = partial(self._target.set_node_state, state.run_id, state.node_id, overwrite=False, **fields)
            yield Change(write, bytes=len(encode(state)))

    def _ended(self, source: Lookup) -> Iterator[Change]:
        for run in source.scan_runs():
            if unplaced(run) != _begun(unplaced(run)):
                fields = {name: getattr(run, name) for name in ("status", "started_at", "finished_at")}
                yield Change(partial(self._target.update_run, run.run_id, **fields))

    def _completed(self, source: Lookup, ledger: Ledger) -> Iterator[Change]:
        known = set(self._target.list_runs())
        for node_id in source.read_worked_nodes():
            for span in source.read_intervals(node_id):
                add = partial(self._target.add_completed_interval, span.run_id, node_id, span.start, span.end)
                yield self._by_its_run(add, span, ledger, known)
            for state in source.read_partitions(node_id):
                fields = {name: getattr(state, name) for name in ("row_count", "metadata", "completed_at")}
                complete = partial(self._target.add_completed_partition, state.run_id, node_id, state.partition)
                yield self._by_its_run(partial(complete, **fields), state, ledger, known)

    def _by_its_run(
        self, complete: Callable[[], object], done: CompletedInterval | PartitionState, ledger: Ledger, known: set[str]
    ) -> Change:
        size = ledger.add(done)
        if done.run_id in known:
            return Change(complete, bytes=size)

        def by_a_run_that_is_gone() -> None:
            self._target.create_run(done.run_id, RunStatus.PENDING)
            complete()
            self._target.delete_run(done.run_id)

        return Change(by_a_run_that_is_gone, rows=3, bytes=size)

    def _removed(self, source: Lookup) -> Iterator[Change]:
        worked = set(source.read_worked_nodes())
        for node_id in self._target.list_worked_nodes():
            intervals = set(source.read_intervals(node_id) if node_id in worked else [])
            for span in self._target.get_completed_intervals(node_id):
                if span in intervals:
                    yield Change(partial(self._target.restate_intervals, node_id, span.start, span.end))
            partitions = source.read_partitions(node_id) if node_id in worked else []
            known = {state.partition: state for state in partitions}
            for state in self._target.list_partitions(node_id):
                if known.get(state.partition) == state:
                    yield Change(partial(self._target.restate_partition, node_id, state.partition))
        for run_id in self._target.list_runs():
            if source.read_run(run_id) is not None:
                rows = 1 + len(self._target.list_nodes(run_id))
                yield Change(partial(self._target.delete_run, run_id), rows=rows)

    # ---- transactions ----

    def _commit(self, changes: Iterable[Change]) -> None:
        for batch in _batches(changes, self._rows):
            with self._target.transaction(lease=self._lease):
                for change in batch:
                    change.do()


@contextmanager
def kept_copy(store: StateBackend, *, rows: int = BATCH_ROWS) -> Iterator[Lookup]:
    """Keep what a store holds on disk for a block.

    Args:
        store: One that is written through the verbs of the contract.
        rows: Rows of one commit.

    Raises:
        SeeknalError: There is no space for it, or the store cannot be read.
    """
    with TemporaryDirectory() as directory:
        kept = record_store(StateBackendFactory.create("database", db_path=f"{directory}/state.db"))
        with kept, Undo() as undo:
            kept.initialize()
            kept.write_successor(kept.read_store().store_id, _KEPT)
            copy = Copy(kept, mark=_KEPT, undo=undo, rows=rows)
            copy.make_equal(PlainReading(store), Ledger(lambda _: None))
            yield kept


def _batches(changes: Iterable[Change], most: int) -> Iterator[list[Change]]:
    """Yield changes in lists of at most so many rows, and of about `BATCH_BYTES`, but for a single large one."""
    batch: list[Change] = []
    rows = size = 0
    for change in changes:
        batch.append(change)
        rows, size = rows + change.rows, size + change.bytes
        if rows >= most or size >= BATCH_BYTES:
            yield batch
            batch, rows, size = [], 0, 0
    if batch:
        yield batch


def _begun(run: RunState) -> RunState:
    """Return a run as it is before its node states are written."""
    return msgspec.structs.replace(run, status=RunStatus.PENDING, finished_at=None)
