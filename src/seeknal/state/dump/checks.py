"""What a record of an export must be, alone and after the one before it, so that every store can take it exactly."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from seeknal.model.changes import MAX_COUNT, MAX_TEXT_BYTES, checked_change
from seeknal.model.codec import encode, json_object
from seeknal.model.ids import check_id
from seeknal.model.records import (
    CompletedInterval,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.transfer import Record

_UTC = timedelta()


class RecordChecker:
    """Checks the records of one export in their order: whatever stands twice, or elsewhere, is out of order."""

    def __init__(self) -> None:
        self._runs: set[str] = set()
        self._run: RunState | None = None
        self._node = b""
        self._work: tuple[bytes, int, Any] | None = None
        self._spans: list[CompletedInterval] = []
        self._part: IntervalProvenance | None = None
        self._change_id = ""

    def check(self, record: Record | LoggedChange) -> None:
        """Raise unless a record can follow those before it.

        Raises:
            ValueError: It cannot; the message says why.
        """
        if self._change_id and not isinstance(record, LoggedChange):
            raise ValueError("a record stands after the change log")
        match record:
            case LoggedChange():
                self._check_change(record)
            case RunState():
                self._check_run(record)
            case NodeState():
                self._check_node(record)
            case CompletedInterval():
                self._check_interval(record)
            case IntervalProvenance():
                self._check_provenance(record)
            case PartitionState():
                self._check_partition(record)
            case _:
                self._advance(record.node_id, 3, check_id(record.partition, "partition").encode())

    def _check_run(self, run: RunState) -> None:
        check_id(run.run_id, "run_id")
        _check_instants(started_at=run.started_at, finished_at=run.finished_at)
        _check_objects(config=run.config, metadata=run.metadata)
        _check_counts(1, version=run.version, sequence=run.sequence)
        if self._work is not None:
            raise ValueError("a run stands after completed work")
        if run.run_id in self._runs:
            raise ValueError(f"run {run.run_id!a} stands here twice")
        if self._run is not None and run.sequence < self._run.sequence:
            raise ValueError(f"run {run.run_id!a} was created before the run that it follows")
        self._runs.add(run.run_id)
        self._run, self._node = run, b""

    def _check_node(self, state: NodeState) -> None:
        check_id(state.node_id, "node_id")
        _check_instants(started_at=state.started_at, finished_at=state.finished_at)
        _check_counts(0, duration_ms=state.duration_ms, row_count=state.row_count)
        _check_texts(fingerprint=state.fingerprint, error_message=state.error_message)
        _check_objects(metadata=state.metadata)
        _check_counts(1, attempt=state.attempt, version=state.version, sequence=state.sequence)
        key = state.node_id.encode()
        if self._work is not None or self._run is None or state.run_id != self._run.run_id:
            raise ValueError(f"node {state.node_id!a} does not follow its run")
        if key <= self._node:
            raise ValueError(f"node {state.node_id!a} is out of order")
        self._node = key

    def _check_interval(self, span: CompletedInterval) -> None:
        check_id(span.run_id, "run_id")
        _check_instants(start=span.start, end=span.end)
        if span.start >= span.end:
            raise ValueError("the interval is empty or runs backwards")
        is_same = self._work is not None and self._work[0] == span.node_id.encode()
        self._advance(span.node_id, 0, span.start)
        self._spans = self._spans if is_same else []
        if self._spans and span.start <= self._spans[-1].end:
            raise ValueError(f"intervals of node {span.node_id!a} touch or overlap")
        self._spans.append(span)
        self._part = None

    def _check_provenance(self, part: IntervalProvenance) -> None:
        check_id(part.run_id, "run_id")
        _check_instants(start=part.start, end=part.end)
        self._advance(part.node_id, 1, part.start)
        spans = self._spans if self._spans and self._spans[0].node_id == part.node_id else []
        at = bisect_right(spans, part.start, key=lambda span: span.start) - 1
        if part.start >= part.end or at < 0 or part.end > spans[at].end:
            raise ValueError(f"a part that a run completed is no part of an interval of node {part.node_id!a}")
        if part.run_id == spans[at].run_id:
            raise ValueError("a part is said to be of another run, and names the run of its interval")
        before = self._part if self._part is not None and self._part.node_id == part.node_id else None
        is_one = before is not None and before.end == part.start and before.run_id == part.run_id
        if before is not None and (part.start < before.end or is_one):
            raise ValueError(f"parts of the intervals of node {part.node_id!a} overlap, or are one")
        self._part = part

    def _check_partition(self, state: PartitionState) -> None:
        check_id(state.run_id, "run_id")
        check_id(state.partition, "partition")
        _check_instants(completed_at=state.completed_at)
        _check_counts(0, row_count=state.row_count)
        _check_objects(metadata=state.metadata)
        self._advance(state.node_id, 2, state.partition.encode())

    def _check_change(self, change: LoggedChange) -> None:
        if str(UUID(change.change_id)) != change.change_id:
            raise ValueError(f"change_id {change.change_id!a} is not a UUID in small letters")
        if change.change_id <= self._change_id:
            raise ValueError(f"change {change.change_id} is out of order")
        checked_change(change)
        _check_instants(at=change.at)
        _check_texts(actor=change.actor, host=change.host)
        _check_counts(0, pid=change.pid)
        self._change_id = change.change_id

    def _advance(self, node_id: str, rank: int, key: Any) -> None:
        place = (check_id(node_id, "node_id").encode(), rank, key)
        if self._work is not None and place <= self._work:
            raise ValueError(f"the work of node {node_id!a} is out of order")
        self._work = place


def _check_instants(**values: datetime | None) -> None:
    for name, value in values.items():
        if value is not None and value.utcoffset() != _UTC:
            raise ValueError(f"{name} is not an instant in UTC")


def _check_counts(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and not least <= value <= MAX_COUNT:
            raise ValueError(f"{name} is {value}; it must lie between {least} and {MAX_COUNT}")


def _check_texts(**values: str | None) -> None:
    for name, value in values.items():
        if value is not None and len(value.encode()) > MAX_TEXT_BYTES:
            raise ValueError(f"{name} is longer than {MAX_TEXT_BYTES} bytes")


def _check_objects(**values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value and len(encode(json_object(value, name))) > MAX_TEXT_BYTES:
            raise ValueError(f"{name} is longer than {MAX_TEXT_BYTES} bytes")
