"""What a node has completed and what is expected of it: held in memory, and changed by the work of a commit.

Intervals are kept twice. As *coverage* they are canonical: touching ones are one, so what is completed in order stays
one range however long it goes on. As *provenance* they tell which run completed each part last: touching parts of one
run are one, those of two runs stay two. Both cover the same instants, and a change of either touches neighbours only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from seeknal.model.intervals import Interval, subtract
from seeknal.model.records import CompletedInterval, ExpectedPartition, IntervalProvenance, PartitionState
from seeknal.state.batch import (
    IntervalAttributed,
    IntervalCompleted,
    IntervalRestated,
    PartitionCompleted,
    PartitionExpected,
    PartitionRestated,
    PartitionUnexpected,
    Work,
)

WorkRecord: TypeAlias = CompletedInterval | IntervalProvenance | PartitionState | ExpectedPartition


def node_of(change: Work) -> str:
    """Return the id of the node that a change is about."""
    return change.state.node_id if isinstance(change, PartitionCompleted) else change.node_id


def doing(record: WorkRecord) -> Work:
    """Return the change after which a store holds a record; a part of an interval follows the interval."""
    match record:
        case CompletedInterval():
            return IntervalCompleted(record.node_id, record.start, record.end, record.run_id)
        case IntervalProvenance():
            return IntervalAttributed(record.node_id, record.start, record.end, record.run_id)
        case PartitionState():
            return PartitionCompleted(record)
        case _:
            return PartitionExpected(record.node_id, record.partition)


def undoing(record: WorkRecord) -> Work | None:
    """Return the change after which a store lacks a record; ``None`` of a part, which goes with its interval."""
    match record:
        case CompletedInterval():
            return IntervalRestated(record.node_id, record.start, record.end)
        case IntervalProvenance():
            return None
        case PartitionState():
            return PartitionRestated(record.node_id, record.partition)
        case _:
            return PartitionUnexpected(record.node_id, record.partition)


def record_of(change: Work) -> WorkRecord | None:
    """Return the record that `doing` gives this change for; ``None`` of one that takes something away."""
    match change:
        case IntervalCompleted():
            return CompletedInterval(change.node_id, change.start, change.end, change.run_id)
        case IntervalAttributed():
            return IntervalProvenance(change.node_id, change.start, change.end, change.run_id)
        case PartitionCompleted():
            return change.state
        case PartitionExpected():
            return ExpectedPartition(change.node_id, change.partition)
        case _:
            return None


class NodeWork:
    """The work of one node. Not safe from threads; lists that are returned are the caller's.

    Args:
        intervals: Canonical.
        provenance: Of the same instants, sorted; those of one run do not touch.
        partitions: By their keys.
        expected: The keys that are expected.
    """

    def __init__(
        self,
        intervals: Iterable[CompletedInterval] = (),
        provenance: Iterable[IntervalProvenance] = (),
        partitions: Iterable[PartitionState] = (),
        expected: Iterable[str] = (),
    ) -> None:
        self.intervals = list(intervals)
        self.provenance = list(provenance)
        self.partitions = {state.partition: state for state in partitions}
        self.expected = dict.fromkeys(expected)
        self._keys: list[str] | None = None
        """The keys of the partitions, sorted, once somebody has asked for a page of them."""
        self._expected_keys: list[str] | None = None

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self.intervals or self.partitions or self.expected)

    def page(self, after: str, limit: int | None, *, descending: bool = False) -> list[PartitionState]:
        """Return partitions in the order of their keys, those behind one; costs as much as there are in the page."""
        if self._keys is None:
            self._keys = sorted(self.partitions)
        return [self.partitions[key] for key in _page(self._keys, after, limit, descending=descending)]

    def expected_page(self, after: str, limit: int | None) -> list[str]:
        """Return the expected keys in their order, those behind one."""
        if self._expected_keys is None:
            self._expected_keys = sorted(self.expected)
        return list(_page(self._expected_keys, after, limit))

    def change(self, change: Work) -> None:
        """Take a change of this node in; the same one once more changes nothing."""
        match change:
            case IntervalCompleted():
                change_intervals(self.intervals, change)
                change_provenance(self.provenance, change)
            case IntervalRestated():
                change_intervals(self.intervals, change)
                change_provenance(self.provenance, change)
            case IntervalAttributed():
                change_provenance(self.provenance, change)
            case PartitionCompleted():
                _enter(self._keys, self.partitions, change.state.partition)
                self.partitions[change.state.partition] = change.state
            case PartitionRestated():
                self.partitions.pop(change.partition, None)
                self._keys = _left(self._keys, change.partition)
            case PartitionExpected():
                _enter(self._expected_keys, self.expected, change.partition)
                self.expected[change.partition] = None
            case PartitionUnexpected():
                self.expected.pop(change.partition, None)
                self._expected_keys = _left(self._expected_keys, change.partition)


# A text of Unicode sorts like its bytes in UTF-8: https://www.unicode.org/versions/Unicode15.0.0/ch02.pdf, 2.5.


def _page(keys: list[str], after: str, limit: int | None, *, descending: bool = False) -> Iterator[str]:
    if descending:
        behind = bisect_left(keys, after) if after else len(keys)
        return islice((keys[n] for n in range(behind - 1, -1, -1)), limit)
    return islice((keys[n] for n in range(bisect_right(keys, after), len(keys))), limit)


def _enter(keys: list[str] | None, known: dict[str, PartitionState] | dict[str, None], key: str) -> None:
    if keys is not None and key not in known:
        insort(keys, key)


def _left(keys: list[str] | None, key: str) -> list[str] | None:
    """Return sorted keys without one."""
    if keys is not None:
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            del keys[at]
    return keys


def change_intervals(done: list[CompletedInterval], change: IntervalCompleted | IntervalRestated) -> None:
    """Complete or restate a span in a canonical list of completed intervals, in place.

    Touching spans merge into one that names the run of the last addition; the parts that a restatement leaves
    keep theirs. What is compared grows with the logarithm of the list; what lies behind the place is moved in memory.
    """
    start, end = change.start, change.end
    # Canonical means sorted by start and by end: everything that is touched stands side by side.
    first = bisect_left(done, start, key=lambda each: each.end)
    behind = bisect_right(done, end, key=lambda each: each.start)
    touched = done[first:behind]
    if isinstance(change, IntervalCompleted):
        start = min([start, *(each.start for each in touched)])
        end = max([end, *(each.end for each in touched)])
        done[first:behind] = [CompletedInterval(change.node_id, start, end, change.run_id)]
        return
    hole = [Interval(start, end)]
    done[first:behind] = [
        CompletedInterval(each.node_id, part.start, part.end, each.run_id)
        for each in touched
        for part in subtract([Interval(each.start, each.end)], hole)
    ]


def change_provenance(
    parts: list[IntervalProvenance], change: IntervalCompleted | IntervalAttributed | IntervalRestated
) -> None:
    """Say of a span which run completed it last, or that none did, in place; the cost is that of `change_intervals`."""
    start, end = change.start, change.end
    first = bisect_left(parts, start, key=lambda each: each.end)
    behind = bisect_right(parts, end, key=lambda each: each.start)
    hole = [Interval(start, end)]
    left = [
        IntervalProvenance(each.node_id, part.start, part.end, each.run_id)
        for each in parts[first:behind]
        for part in subtract([Interval(each.start, each.end)], hole)
    ]
    if not isinstance(change, IntervalRestated):
        same = [each for each in left if each.run_id == change.run_id]
        start = min([start, *(each.start for each in same)])
        end = max([end, *(each.end for each in same)])
        left = [each for each in left if each.run_id != change.run_id]
        insort(left, IntervalProvenance(change.node_id, start, end, change.run_id), key=lambda each: each.start)
    parts[first:behind] = left


def parts_by_others(
    intervals: Iterable[CompletedInterval], provenance: Iterable[IntervalProvenance]
) -> Iterator[IntervalProvenance]:
    """Yield the parts that another run has completed than the one that their interval names, in order.

    They are what a store's records say of provenance: with the intervals they tell all of it (`all_parts`), one by one
    they may be copied or be missing, and there are none where each interval comes from one run. Of parts that a damaged
    store has outside of its intervals nothing is told.
    """
    spans = iter(intervals)
    span = next(spans, None)
    for part in provenance:
        while span is not None and span.end <= part.start:
            span = next(spans, None)
        if span is None:
            return
        start, end = max(part.start, span.start), min(part.end, span.end)
        if part.run_id != span.run_id and start < end:
            whole = (start, end) == (part.start, part.end)
            yield part if whole else IntervalProvenance(part.node_id, start, end, part.run_id)


def all_parts(
    intervals: Iterable[CompletedInterval], by_others: Iterable[IntervalProvenance]
) -> list[IntervalProvenance]:
    """Return the whole provenance, of what `parts_by_others` yields."""
    parts: list[IntervalProvenance] = []
    others = iter(by_others)
    other = next(others, None)
    for span in intervals:
        start = span.start
        while other is not None and other.start < span.end:
            if start < other.start:
                parts.append(IntervalProvenance(span.node_id, start, other.start, span.run_id))
            parts.append(other)
            start = other.end
            other = next(others, None)
        if start < span.end:
            parts.append(IntervalProvenance(span.node_id, start, span.end, span.run_id))
    return parts


def whole_work(records: Iterable[WorkRecord]) -> NodeWork:
    """Return the work of one node of its records, in any order of the kinds."""
    intervals: list[CompletedInterval] = []
    others: list[IntervalProvenance] = []
    partitions: list[PartitionState] = []
    expected: list[str] = []
    for record in records:
        match record:
            case CompletedInterval():
                intervals.append(record)
            case IntervalProvenance():
                others.append(record)
            case PartitionState():
                partitions.append(record)
            case _:
                expected.append(record.partition)
    return NodeWork(intervals, all_parts(intervals, others), partitions, expected)
