"""Checks of what a store holds: records in, findings out. They read what they are given and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.errors import BackendUnavailableError, InvalidIdError
from seeknal.model.ids import check_id
from seeknal.model.instants import MICROSECOND
from seeknal.model.intervals import Interval, subtract, union
from seeknal.model.records import (
    CompletedInterval,
    ExpectedPartition,
    IntervalProvenance,
    LockInfo,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.abandoned import is_abandoned
from seeknal.state.batch import Batch, IntervalAttributed, IntervalCompleted, IntervalRestated, Work
from seeknal.state.finding import Finding, error, warning

if TYPE_CHECKING:
    from seeknal.state.record_store import RecordStore

OTHERS = 0o077
"""The bits of a mode that let a file's group or the world in."""


# ---- records ----


def run_findings(run: RunState, where: str) -> Iterator[Finding]:
    """Check a run by itself."""
    yield from _name_findings(run.run_id, "run id", f"{where}, run {run.run_id!a}")
    yield from _number_findings(run, f"run {run.run_id!a}", where)


def node_findings(state: NodeState, where: str) -> Iterator[Finding]:
    """Check a node state by itself."""
    yield from _number_findings(state, f"node {state.node_id!a} of run {state.run_id!a}", where)


def work_findings(work: CompletedInterval | IntervalProvenance | PartitionState, where: str) -> Iterator[Finding]:
    """Check that completed work says which run completed it; that run may be deleted since."""
    match work:
        case CompletedInterval():
            name = f"interval from {work.start}"
        case IntervalProvenance():
            name = f"part of an interval from {work.start}"
        case _:
            name = f"partition {work.partition!a}"
    place = f"{where}, node {work.node_id!a}, {name}"
    yield from _name_findings(work.run_id, "run id", place)
    yield from _name_findings(work.node_id, "node id", place)


def expected_findings(wanted: ExpectedPartition, where: str) -> Iterator[Finding]:
    """Check the names of what is expected."""
    place = f"{where}, node {wanted.node_id!a}, expected partition {wanted.partition!a}"
    yield from _name_findings(wanted.partition, "partition", place)
    yield from _name_findings(wanted.node_id, "node id", place)


def _name_findings(name: object, field: str, where: str) -> Iterator[Finding]:
    try:
        check_id(name, field)
    except InvalidIdError as problem:
        yield warning(
            "provenance",
            f"{problem}, so no run or node can have it",
            where=where,
            fix="Something else wrote this record; complete the work again under the id of a run.",
        )


def _number_findings(record: RunState | NodeState, name: str, where: str) -> Iterator[Finding]:
    for field in ("version", "sequence"):
        value = getattr(record, field)
        if not isinstance(value, int) or value < 1:
            yield error(
                "record-number",
                f"{name} has {field} {value!r}; it begins at 1",
                where=where,
                fix="Something else wrote this record; write it again through the API, or restore a backup.",
            )


def orphan_finding(keys: Sequence[tuple[str, str]], where: str, mend: Callable[[], object] | None) -> Finding:
    """Return the finding of node states whose run is missing; there is at least one."""
    names = ", ".join(sorted({f"{run_id!a}" for run_id, _ in keys})[:5])
    return error(
        "node-orphan",
        f"{len(keys)} node states belong to runs that do not exist, such as {names}",
        where=where,
        fix="Delete them: they are returned as the latest states of their nodes." if mend else "Restore a backup.",
        mend=mend,
    )


def duplicate_finding(what: str, sequence: int, count: int, where: str) -> Finding:
    """Return the finding of a sequence that was given out more than once."""
    return error(
        "sequence-duplicate",
        f"{count} {what} have the sequence {sequence}, so which one is the latest is open",
        where=where,
        fix="Write the one that is the latest again, which gives it a new sequence.",
    )


def abandoned_findings(runs: Iterable[RunState], locks: Iterable[LockInfo], where: str) -> Iterator[Finding]:
    """Check for runs that are still ``running`` though their recorder is gone.

    Args:
        runs: Those that are running, read before the locks.
        locks: Those that are held.
        where: The store.
    """
    held = {lock.run_id for lock in locks if lock.node_id is None}
    for run in runs:
        if is_abandoned(run, held):
            yield warning(
                "run-abandoned",
                f"run {run.run_id!a} is running, but the process that recorded it is gone",
                where=where,
                fix="`seeknal run` marks it failed; so does seeknal.tracking.recover_dead_runs(backend).",
            )


def lease_finding(locks: Sequence[LockInfo], where: str, mend: Callable[[], object] | None) -> Finding:
    """Return the finding of leases that ran out without being given back; there is at least one."""
    last = locks[-1]
    return warning(
        "lease-expired",
        f"{len(locks)} leases expired without being given back, such as that of run {last.run_id!a} by "
        f"process {last.pid} on {last.host}",
        where=where,
        fix="Its owner was killed or lost the network; mark them as given back, which frees nothing that is held.",
        mend=mend,
    )


# ---- completed intervals ----


def interval_findings(
    done: Sequence[CompletedInterval], where: str, mend: Callable[[], object] | None
) -> Iterator[Finding]:
    """Check that the intervals of one node are canonical: none empty, in order, apart from each other."""
    if not done:
        return
    place = f"{where}, node {done[0].node_id!a}"
    empty = sum(each.end <= each.start for each in done)
    if empty:
        yield error(
            "intervals-empty",
            f"{empty} completed intervals of node {done[0].node_id!a} end before they begin, or right then",
            where=place,
            fix="Remove them: they cover nothing.",
            mend=mend,
        )
    pairs = list(pairwise(done))
    if any(later.start < earlier.start for earlier, later in pairs):
        yield error(
            "intervals-order",
            f"the completed intervals of node {done[0].node_id!a} are out of order",
            where=place,
            fix="Put them in order.",
            mend=mend,
        )
    latest, overlapping = done[0].end, 0
    for each in sorted(done, key=lambda each: each.start)[1:]:
        overlapping += each.start <= latest and each.end > each.start
        latest = max(latest, each.end)
    if overlapping:
        yield error(
            "intervals-overlap",
            f"{overlapping} completed intervals of node {done[0].node_id!a} overlap or touch the one before",
            where=place,
            fix="Merge them, while nothing restates intervals of this node.",
            mend=mend,
        )


def coverage_findings(
    node_id: str,
    done: Sequence[CompletedInterval],
    parts: Sequence[IntervalProvenance],
    where: str,
    *,
    merge: Callable[[], object] | None,
    attribute: Callable[[], object] | None,
) -> Iterator[Finding]:
    """Check the intervals of a node, and that the parts which runs completed are in order and cover what these cover.

    Of intervals that are not canonical the parts are not looked at, since merging those tells of them anew.

    Args:
        node_id: The node.
        done: Its intervals.
        parts: Their parts.
        where: The store.
        merge: What makes the intervals canonical.
        attribute: What has the parts cover them.
    """
    findings = list(interval_findings(done, where, merge))
    yield from findings
    covered = [(each.start, each.end) for each in done]
    told = [(each.start, each.end) for each in union(Interval(each.start, each.end) for each in parts)]
    if not findings and (told != covered or any(_is_odd(earlier, later) for earlier, later in pairwise(parts))):
        yield error(
            "provenance-drift",
            f"which run completed which part of node {node_id!a} is not told of all that it completed, or told twice",
            where=f"{where}, node {node_id!a}",
            fix="Have each part that is not told rightly name the run that its interval names.",
            mend=attribute,
        )


def _is_odd(earlier: IntervalProvenance, later: IntervalProvenance) -> bool:
    """Return whether two parts in a row overlap, or are one."""
    return later.start < earlier.end or (later.start == earlier.end and later.run_id == earlier.run_id)


def attributing(
    node_id: str, done: Sequence[CompletedInterval], parts: Sequence[IntervalProvenance]
) -> list[IntervalRestated | IntervalAttributed]:
    """Return the changes after which each interval is told of once; one whose parts are right keeps them."""
    covered = union(Interval(each.start, each.end) for each in done)
    outside = subtract([Interval(each.start, each.end) for each in parts if each.end > each.start], covered)
    changes: list[IntervalRestated | IntervalAttributed] = [
        IntervalRestated(node_id, gap.start, gap.end) for gap in outside
    ]
    for span in done:
        within = [each for each in parts if each.start < span.end and span.start < each.end]
        ends = [span.start, *(each.end for each in within)]
        is_right = [each.start for each in within] == ends[:-1] and ends[-1] == span.end
        is_right = is_right and not any(_is_odd(earlier, later) for earlier, later in pairwise(within))
        if not is_right:
            changes.append(IntervalAttributed(node_id, span.start, span.end, span.run_id))
    return changes


def attribute_parts(store: RecordStore, node_id: str) -> None:
    """Let the provenance of a node be that of its intervals, in one commit."""
    store.initialize()
    work = attributing(node_id, store.read_intervals(node_id), store.read_provenance(node_id))
    if work:
        store.commit(Batch(work=[*work]))


def merging(done: Sequence[CompletedInterval]) -> list[Work]:
    """Return the changes after which the intervals of one node are canonical and cover what they covered."""
    if not done:
        return []
    node_id = done[0].node_id
    spans = union(Interval(each.start, each.end) for each in done if each.end > each.start)
    completed: list[Work] = []
    for span in spans:
        parts = [each for each in done if span.start <= each.start and each.end <= span.end]
        is_sound = len(parts) == 1
        if not is_sound or not _is_plain(done):
            completed.append(IntervalCompleted(node_id, span.start, span.end, parts[-1].run_id))
    if _is_plain(done):
        return completed  # each touches its own part only, whatever others add meanwhile
    first = min(min(each.start, each.end) for each in done)
    end = max(max(each.start + MICROSECOND, each.end) for each in done)
    return [IntervalRestated(node_id, first, end), *completed]


def merge_intervals(store: RecordStore, node_id: str) -> None:
    """Make the intervals of a node canonical, in one commit."""
    store.initialize()
    work = merging(store.read_intervals(node_id))
    if work:
        store.commit(Batch(work=work))


def _is_plain(done: Sequence[CompletedInterval]) -> bool:
    """Return whether the intervals are in order and none is empty, which the statements that merge rely on."""
    ordered = all(earlier.start <= later.start for earlier, later in pairwise(done))
    return ordered and all(each.end > each.start for each in done)


# ---- whole stores ----


def record_findings(store: RecordStore, where: str) -> Iterator[Finding]:
    """Check all records of an open store, one run and one node at a time."""
    running: list[RunState] = []
    sequences: Counter[int] = Counter()
    for run_id in store.read_run_ids(None, newest_first=False, limit=None):
        run = store.read_run(run_id)
        if run is None:
            continue  # deleted meanwhile
        sequences[run.sequence] += 1
        yield from run_findings(run, where)
        for state in store.read_nodes(run_id).values():
            yield from node_findings(state, where)
        running += [run] if run.status == "running" else []
    for sequence, count in sequences.items():
        if count > 1:
            yield duplicate_finding("runs", sequence, count, where)
    for node_id in store.read_worked_nodes():
        done = store.read_intervals(node_id)
        merge, attribute = (partial(mend, store, node_id) for mend in (merge_intervals, attribute_parts))
        parts = store.read_provenance(node_id)
        yield from coverage_findings(node_id, done, parts, where, merge=merge, attribute=attribute)
        for each in store.read_partitions(node_id):
            yield from work_findings(each, where)
        for span in chain[CompletedInterval | IntervalProvenance](done, parts):
            yield from work_findings(span, where)
        for key in store.read_expected(node_id):
            yield from expected_findings(ExpectedPartition(node_id, key), where)
    yield from abandoned_findings(running, store.read_locks(), where)


# ---- files ----


def file_findings(paths: Iterable[Path], where: str) -> Iterator[Finding]:
    """Check the modes of a store's files and directories, and that each is where its name says."""
    open_to_others: list[Path] = []
    for path in paths:
        try:
            mode = path.lstat().st_mode
            if path.is_symlink():
                yield warning(
                    "symbolic-link",
                    f"{path} is a symbolic link; the next write replaces the link, not what it leads to",
                    where=str(path),
                    fix="Put the file itself there, or name the directory that it leads to.",
                )
            elif mode & OTHERS:
                open_to_others.append(path)
        except FileNotFoundError:
            continue  # replaced or removed meanwhile
    if open_to_others:
        names = ", ".join(path.name for path in open_to_others[:3])
        more = f" and {len(open_to_others) - 3} more" if len(open_to_others) > 3 else ""
        yield warning(
            "file-mode",
            f"other users may read or write {names}{more}",
            where=where,
            fix="Take the rights of the group and of others away.",
            mend=lambda: _close_to_others(open_to_others),
        )


def _close_to_others(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.chmod(path.stat().st_mode & 0o7777 & ~OTHERS)
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise BackendUnavailableError(
                f"cannot change the mode of {path}: {problem.strerror}", hint="Ask the owner of the file."
            ) from problem
