"""The verbs of completed work, over the reads and the commit of a store: intervals, partitions, what is expected."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from seeknal.model.changes import check_limit, new_partition
from seeknal.model.codec import json_copy
from seeknal.model.ids import check_id
from seeknal.model.intervals import Interval, as_interval, intersect
from seeknal.model.records import CompletedInterval, IntervalProvenance, LoggedChange, PartitionState
from seeknal.state.batch import (
    IntervalCompleted,
    IntervalRestated,
    PartitionCompleted,
    PartitionExpected,
    PartitionRestated,
    PartitionUnexpected,
    Sequences,
)
from seeknal.state.capabilities import Capability
from seeknal.state.change_log import new_change
from seeknal.state.partitions import check_keys, no_expected
from seeknal.state.record_store import RecordStore
from seeknal.state.transaction import LONGEST_PAUSE
from seeknal.state.unit import UnitOfWork

T = TypeVar("T")

MOST_NAMED = 100
"""Keys, and runs, that stand in one entry of the log."""


class RecordedWork(RecordStore):
    """Completed work of a store that reads records and commits batches."""

    @abstractmethod
    def _write(self, change: Callable[[UnitOfWork], T], *, longest_pause: float = LONGEST_PAUSE) -> tuple[T, Sequences]:
        """Run ``change`` in the open transaction, or alone until it commits without a conflict."""

    # ---- intervals ----

    def add_completed_interval(self, run_id: str, node_id: str, start: datetime, end: datetime) -> None:
        """Record that a node completed ``[start, end)``."""
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")
        span = as_interval(start, end)

        def add(unit: UnitOfWork) -> None:
            unit.require_run(run_id)
            unit.do(IntervalCompleted(node_id, span.start, span.end, run_id))

        self._write(add)

    def get_completed_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return what a node has completed: canonical."""
        unit = self._unit(node_id)
        return unit.intervals(node_id) if unit else self.read_intervals(node_id)

    def get_interval_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run was the last to complete each part, in order."""
        unit = self._unit(node_id)
        if not self._keeps_provenance:
            return super().get_interval_provenance(node_id)
        return unit.provenance(node_id) if unit else self.read_provenance(node_id)

    def restate_intervals(self, node_id: str, start: datetime, end: datetime, *, reason: str | None = None) -> None:
        """Un-complete ``[start, end)`` of a node."""
        check_id(node_id, "node_id")
        span = as_interval(start, end)
        logged = self._restatement(node_id, reason)

        def restate(unit: UnitOfWork) -> None:
            if logged is not None:
                unit.log(msgspec.structs.replace(logged, detail=self._undone(unit, node_id, span)))
            unit.do(IntervalRestated(node_id, span.start, span.end))

        self._write(restate)

    def _undone(self, unit: UnitOfWork, node_id: str, span: Interval) -> dict[str, Any]:
        """Return what the log says of a restatement: the span, how much of it was completed, and by which runs."""
        parts = unit.provenance(node_id) if self._keeps_provenance else unit.intervals(node_id)
        touched = [part for part in parts if part.start < span.end and span.start < part.end]
        undone = intersect((Interval(part.start, part.end) for part in touched), [span])
        detail = {
            "start": span.start.isoformat(),
            "end": span.end.isoformat(),
            "ranges": len(undone),
            "changed_seconds": sum((each.end - each.start for each in undone), timedelta()).total_seconds(),
        }
        if not self._keeps_provenance:
            return detail
        runs = list(dict.fromkeys(part.run_id for part in touched))
        return {**detail, "runs": runs[:MOST_NAMED], "runs_in_all": len(runs)}

    # ---- partitions ----

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
        """Record that a node completed a partition and return it."""
        given = {"row_count": row_count, "metadata": metadata, "completed_at": completed_at}
        state = new_partition(run_id, node_id, partition, self.clock.now(), **given)

        def add(unit: UnitOfWork) -> None:
            unit.require_run(run_id)
            unit.do(PartitionCompleted(state))

        self._write(add)
        return _partition_out(state)

    def list_partitions(
        self, node_id: str, *, after: str | None = None, limit: int | None = None, descending: bool = False
    ) -> list[PartitionState]:
        """Return partitions that a node has completed, sorted by the bytes of their keys."""
        unit = self._unit(node_id)
        behind = _page_of(after, limit)
        read = unit.partitions if unit else self.read_partitions
        return [_partition_out(state) for state in read(node_id, behind, limit, descending=descending)]

    def get_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return a completed partition, or ``None``."""
        unit = self._unit(node_id)
        check_id(partition, "partition")
        state = unit.partition(node_id, partition) if unit else self.read_partition(node_id, partition)
        return state and _partition_out(state)

    def count_partitions(self, node_id: str) -> int:
        """Return how many partitions a node has completed."""
        unit = self._unit(node_id)
        return len(unit.partitions(node_id)) if unit else self.read_partition_count(node_id)

    def _completed_keys(self, node_id: str) -> set[str]:
        unit = self._unit(node_id)
        if unit is not None:
            return {state.partition for state in unit.partitions(node_id)}
        return self.read_partition_keys(node_id)

    def list_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work, or expected partitions, sorted by their bytes."""
        self._check_open()
        unit = self._local.unit
        return unit.worked_nodes() if unit else self.read_worked_nodes()

    def restate_partition(self, node_id: str, partition: str, *, reason: str | None = None) -> bool:
        """Un-complete a partition; return whether it was completed."""
        return bool(self.restate_partitions(node_id, [partition], reason=reason))

    def restate_partitions(self, node_id: str, partitions: Iterable[str], *, reason: str | None = None) -> list[str]:
        """Un-complete partitions; return the keys of those that were completed, each once."""
        check_id(node_id, "node_id")
        wanted = check_keys(partitions)
        self._restatement(node_id, reason)  # refuses a bad reason, whatever was completed

        def restate(unit: UnitOfWork) -> list[str]:
            there = unit.completed_among(node_id, wanted)
            completed = [key for key in wanted if key in there]
            for key in completed:
                unit.do(PartitionRestated(node_id, key))
            for first in range(0, len(completed), MOST_NAMED):
                logged = self._restatement(node_id, reason)  # each entry has an id of its own
                if logged is not None:
                    named = {"partitions": completed[first : first + MOST_NAMED]}
                    unit.log(msgspec.structs.replace(logged, detail=named))
            return completed

        return self._write(restate)[0]

    # ---- expected partitions ----

    def expect_partitions(self, node_id: str, partitions: Iterable[str]) -> list[str]:
        """Tell the store which partitions are expected of a node; return the keys that are new."""
        return self._expect(node_id, partitions, is_expected=True)

    def drop_expected_partitions(self, node_id: str, partitions: Iterable[str]) -> list[str]:
        """Expect these partitions no longer; return the keys that were expected."""
        return self._expect(node_id, partitions, is_expected=False)

    def _expect(self, node_id: str, partitions: Iterable[str], *, is_expected: bool) -> list[str]:
        self._unit(node_id)
        self._check_keeps_expected()
        wanted = check_keys(partitions)
        change = PartitionExpected if is_expected else PartitionUnexpected

        def expect(unit: UnitOfWork) -> list[str]:
            there = unit.expected_among(node_id, wanted)
            changed = [key for key in wanted if (key in there) is not is_expected]
            for key in changed:
                unit.do(change(node_id, key))
            return changed

        return self._write(expect)[0]

    def list_expected_partitions(
        self, node_id: str, *, after: str | None = None, limit: int | None = None
    ) -> list[str]:
        """Return the keys that the store was told to expect, sorted by their bytes."""
        unit = self._unit(node_id)
        self._check_keeps_expected()
        behind = _page_of(after, limit)
        return unit.expected(node_id, behind, limit) if unit else self.read_expected(node_id, behind, limit)

    # ---- what is checked ----

    def _unit(self, node_id: str) -> UnitOfWork | None:
        """Return the transaction that this thread has open, if it has one, once the node was checked."""
        check_id(node_id, "node_id")
        self._check_open()
        return self._local.unit

    @property
    def _keeps_provenance(self) -> bool:
        return Capability.PROVENANCE in self.capabilities

    def _check_keeps_expected(self) -> None:
        if Capability.EXPECTED not in self.capabilities:
            raise no_expected(self)

    def _restatement(self, node_id: str, reason: str | None) -> LoggedChange | None:
        """Return the entry of a restatement, if there is a reason and a log to put it into."""
        if reason is None or Capability.LOG not in self.capabilities:
            return None
        return new_change(self.clock, "restate", node_id=node_id, reason=reason)


def _page_of(after: str | None, limit: int | None) -> str:
    """Return what a page comes after, checked; nothing comes before the empty text.

    Raises:
        InvalidIdError, InvalidFieldError: Naming the field.
    """
    check_limit(limit)
    return "" if after is None else check_id(after, "after")


def _partition_out(state: PartitionState) -> PartitionState:
    """Return a partition that shares nothing with the store."""
    return msgspec.structs.replace(state, metadata=json_copy(state.metadata))
