"""A store as a whole: read as of one instant, and replaced in one step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

from seeknal.model.records import (
    CompletedInterval,
    ExpectedPartition,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.batch import Batch
from seeknal.state.work import WorkRecord, parts_by_others

Record: TypeAlias = RunState | NodeState | WorkRecord


class Reading(Protocol):
    """What is read of a whole store."""

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order."""

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by the bytes of their ids."""

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work, sorted by their bytes."""

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node, canonical."""

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of them, in order."""

    def read_partitions(self, node_id: str) -> list[PartitionState]:
        """Return the completed partitions of a node, sorted by the bytes of their keys."""

    def read_expected(self, node_id: str) -> list[str]:
        """Return the keys of the partitions that are expected of a node, in order."""


class LoggedReading(Reading, Protocol):
    """What is read of a whole store, with what was done to it."""

    def scan_log(self) -> Iterator[LoggedChange]:
        """Yield the change log in the order of time; asked for only where the store keeps one."""


class SideStore(Protocol):
    """New content for a store, put together beside it, where nobody sees it."""

    def put(self, batch: Batch) -> None:
        """Add runs, node states and completed work that bring their sequences; no guard of the batch is looked at.

        Raises:
            SeeknalError: As `seeknal.state.record_store.RecordStore.commit`.
        """

    def records(self) -> Iterator[Record]:
        """Yield what was put, read back, in the order of `records`."""

    def swap(self, batch: Batch, store_id: str) -> None:
        """Let it take the place of what the store holds, in one atomic and durable step.

        Readers see the old content or the new one. The store keeps its locks and their tokens, takes writes from then
        on, and never gives out a sequence again. A writer that has read the old content is refused, as by any other
        write to the records that it has read.

        Args:
            batch: With one lease, that of the restore; with the mark that the store must bear as ``successor``; and
                with entries of the change log that are added in the same step. The rest of it is not looked at.
            store_id: The identity of the store from then on.

        Raises:
            LeaseLostError: This lease is not held any more.
            ConcurrencyError: Somebody holds another lock, or the store does not bear the mark any more.
            SupersededError: The state moved away meanwhile.
            CommitUnknownError: The answer was lost: the store holds the old content or the new one.
            SeeknalError: As `seeknal.state.record_store.RecordStore.commit`; the old content stands.
        """


def records(store: Reading) -> Iterator[Record]:
    """Yield everything a store holds: each run followed by its nodes, in creation order, then the work of nodes."""
    for run in store.scan_runs():
        yield run
        yield from store.read_nodes(run.run_id).values()
    for node_id in store.read_worked_nodes():
        yield from work_records(store, node_id)


def work_records(store: Reading, node_id: str) -> Iterator[WorkRecord]:
    """Yield what a node has completed, and what is expected of it.

    Of provenance these are the parts that another run has completed than the one that their interval names: there are
    none where each interval is one run's, so nothing has to be written down then.
    """
    intervals = store.read_intervals(node_id)
    yield from intervals
    if intervals:
        yield from parts_by_others(intervals, store.read_provenance(node_id))
    yield from store.read_partitions(node_id)
    yield from (ExpectedPartition(node_id, key) for key in store.read_expected(node_id))
