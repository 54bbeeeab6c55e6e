"""What is wrong with a file store, seen from outside: nothing is opened for writing, and no lock is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from seeknal.clock import Clock
from seeknal.errors import CorruptStateError, SeeknalError, StateBackendError
from seeknal.model.codec import pretty
from seeknal.model.instants import EPOCH
from seeknal.model.records import CompletedInterval, ExpectedPartition, IntervalProvenance, LockInfo
from seeknal.state.checks import (
    abandoned_findings,
    coverage_findings,
    duplicate_finding,
    expected_findings,
    file_findings,
    lease_finding,
    node_findings,
    orphan_finding,
    run_findings,
    work_findings,
)
from seeknal.state.file.checkpoint import FileImage, leftovers
from seeknal.state.file.documents import FORMAT, NodeDocument, RunDocument, read_document
from seeknal.state.file.layout import Layout
from seeknal.state.file.snapshot import Snapshot, snapshot, stamp
from seeknal.state.file.view import view_of
from seeknal.state.finding import Finding, error, no_store, older_schema, refusal, warning

ATTEMPTS = 5
"""How often a store is looked at anew whose files a checkpoint replaced meanwhile."""

SETTLED_S = 60
"""What is younger may belong to a checkpoint that is being written, or to a commit whose view is still to follow."""

VIEW_SETTLED_S = 2
"""A living writer whose view missed a commit writes it again before that."""


class Menders(NamedTuple):
    """How a store is mended.

    Attributes:
        tidy: Removes what interrupted writes left, and brings ``run_state.json`` up to date.
        free_expired: Marks leases that ran out as given back.
        merge: Makes the intervals of a node canonical.
        attribute: Makes its provenance that of its intervals.
    """

    tidy: Callable[[], object]
    free_expired: Callable[[], object]
    merge: Callable[[str], object]
    attribute: Callable[[str], object]


def findings(layout: Layout, clock: Clock, menders: Menders) -> list[Finding]:
    """Return what is wrong with a file store."""
    for _ in range(ATTEMPTS):
        seen = stamp(layout)
        found = list(_findings(layout, clock, menders))
        if stamp(layout) == seen:
            break
    return found


def _findings(layout: Layout, clock: Clock, menders: Menders) -> Iterator[Finding]:
    where = str(layout.base)
    yield from file_findings(_paths(layout), where)
    if stamp(layout) is None:
        yield _without_store(layout)
        return
    yield from _damaged_documents(layout)
    shown = _shown(layout.view)  # first: a commit that comes now is then newer than it
    try:
        found = snapshot(layout)
    except StateBackendError as problem:
        yield refusal(problem, where)
        return
    if found.document.format < FORMAT:
        yield older_schema(where, found.document.format, FORMAT)
    yield from _leftover_findings(layout, found, clock, menders)
    yield from _view_findings(layout, found, shown, clock, menders)
    yield from _content_findings(layout, found.image, clock, where, menders)
    yield from _lock_findings(found.image, clock, where, menders)


def _paths(layout: Layout) -> Iterator[Path]:
    yield from (layout.view, layout.backup)
    if layout.directory.is_dir():
        yield layout.directory
        private = set(layout.snapshots())  # they let nobody in, so the modes of what is in them do not matter
        yield from (path for path in sorted(layout.directory.rglob("*")) if private.isdisjoint(path.parents))


def _without_store(layout: Layout) -> Finding:
    """Return what it means that there is no ``store.json``."""
    rest = [path for path in (layout.runs, layout.nodes) for path in path.glob("*.json")]
    rest += [path for path in layout.directory.glob("journal-*.log") if path.stat().st_size]
    if rest:
        return error(
            "store-damaged",
            f"{layout.store} is missing, but {rest[0].name} is there",
            where=str(layout.store),
            fix="Restore the file from a backup, and keep a copy of the directory.",
        )
    return no_store(str(layout.base))


def _damaged_documents(layout: Layout) -> Iterator[Finding]:
    """Read every file of a run or a node by itself, whether it is needed now or not."""
    kinds: tuple[tuple[Path, type[RunDocument] | type[NodeDocument]], ...]
    kinds = ((layout.runs, RunDocument), (layout.nodes, NodeDocument))
    for directory, kind in kinds:
        for path in sorted(directory.glob("*.json")):
            try:
                read_document(path, kind)
            except SeeknalError as problem:
                if not isinstance(problem, CorruptStateError) or path.exists():
                    yield _damaged_document(path, problem)


def _damaged_document(path: Path, problem: SeeknalError) -> Finding:
    return error("document-damaged", str(problem), where=str(path), fix=problem.hint)


# ---- files beside the records ----


def _age_s(changed_ns: int, clock: Clock) -> float:
    return (clock.now() - EPOCH).total_seconds() - changed_ns / 1_000_000_000


def _leftover_findings(layout: Layout, found: Snapshot, clock: Clock, menders: Menders) -> Iterator[Finding]:
    paths = [*leftovers(layout, found.document.generation), *layout.base.glob("run_state.json.*.tmp")]
    old = []
    for path in paths:
        try:
            if _age_s(path.stat().st_mtime_ns, clock) > SETTLED_S:
                old.append(path)
        except FileNotFoundError:
            continue  # it belonged to a write that has ended
    if old:
        yield warning(
            "file-leftover",
            f"{len(old)} files were left by writes that were interrupted, such as {old[0].name}",
            where=str(old[0].parent),
            fix="Remove them: nothing reads them.",
            mend=menders.tidy,
        )


def _shown(view: Path) -> tuple[bytes, int]:
    """Return what stands in ``run_state.json``, and since when."""
    try:
        return view.read_bytes(), view.stat().st_mtime_ns
    except FileNotFoundError:
        return b"", 0


def _view_findings(
    layout: Layout, found: Snapshot, shown: tuple[bytes, int], clock: Clock, menders: Menders
) -> Iterator[Finding]:
    """Check that ``run_state.json`` shows the latest run. What it holds is never read as state."""
    if found.document.is_adopting:
        return  # it is still to be taken in
    content, changed_ns = shown
    try:
        is_right = content == pretty(view_of(found.image))
    except CorruptStateError:
        return  # the file of the latest run is damaged, which is told already
    if is_right:
        return
    if changed_ns > found.committed_ns and _age_s(changed_ns, clock) > VIEW_SETTLED_S:
        yield warning(
            "view-foreign",
            f"{layout.view.name} was changed by somebody else; it shows the state and does not hold it",
            where=str(layout.view),
            fix="The next command moves it aside, to a name that ends in .bak, and writes it anew.",
            mend=menders.tidy,
        )
    elif _age_s(found.committed_ns, clock) > SETTLED_S or not content:
        yield warning(
            "view-behind",
            f"{layout.view.name} does not show the last commit",
            where=str(layout.view),
            fix="The next command that opens the store writes it anew.",
            mend=menders.tidy,
        )


# ---- records ----


def _content_findings(
    layout: Layout, image: FileImage, clock: Clock, where: str, menders: Menders
) -> Iterator[Finding]:
    for run in image.runs.values():
        yield from run_findings(run, where)
        path = layout.run(run.run_id)
        try:
            states = image.nodes_of(run.run_id)
        except SeeknalError as problem:
            if not path.exists():  # one that is there was told already
                yield _damaged_document(path, problem)
            continue
        for state in states.values():
            yield from node_findings(state, where)
            yield from _orphans_in(run.run_id, state.run_id, state.node_id, str(path))
    yield from _sequence_findings(image, where)
    for node_id in image.filed_nodes():
        path = layout.node(node_id)
        try:
            work = image.work_of(node_id)
        except SeeknalError as problem:
            if not path.exists():
                yield _damaged_document(path, problem)
            continue
        merge, attribute = (partial(mend, node_id) for mend in (menders.merge, menders.attribute))
        done, parts = work.intervals, work.provenance
        yield from coverage_findings(node_id, done, parts, where, merge=merge, attribute=attribute)
        for each in work.partitions.values():
            yield from work_findings(each, where)
        for span in chain[CompletedInterval | IntervalProvenance](work.intervals, work.provenance):
            yield from work_findings(span, where)
        for key in work.expected:
            yield from expected_findings(ExpectedPartition(node_id, key), where)
    try:
        image.log()
    except SeeknalError as problem:
        yield _damaged_document(layout.log, problem)
    running = [run for run in image.runs.values() if run.status == "running"]
    yield from abandoned_findings(running, image.held_locks(clock.ticks_us()), where)


def _orphans_in(run_id: str, named: str, node_id: str, where: str) -> Iterator[Finding]:
    if named != run_id:
        yield orphan_finding([(named, node_id)], where, None)


def _sequence_findings(image: FileImage, where: str) -> Iterator[Finding]:
    for sequence, count in Counter(run.sequence for run in image.runs.values()).items():
        if count > 1:
            yield duplicate_finding("runs", sequence, count, where)
    for node_id, sequences in image.history.sequences():
        for sequence, count in Counter(sequences).items():
            if count > 1:
                yield duplicate_finding(f"states of node {node_id!a}", sequence, count, where)


def _lock_findings(image: FileImage, clock: Clock, where: str, menders: Menders) -> Iterator[Finding]:
    expired = expired_locks(image, clock)
    if expired:
        yield lease_finding(expired, where, menders.free_expired)


def expired_locks(image: FileImage, clock: Clock) -> list[LockInfo]:
    """Return the leases that ran out without being given back."""
    ticks = clock.ticks_us()
    return [entry.holder for entry in image.locks.values() if not entry.is_free and not entry.is_held(ticks)]
