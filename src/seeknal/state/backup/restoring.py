"""Bring a backup back into the store that it is of, or into another one, so that nobody sees a half of it.

All of it is read and found whole, and the content is put together beside and compared. Then the store refuses writes,
with a mark that says who restores what and since when; what it holds is backed up, so that not a commit is lost which
somebody was told of; and in one step the content takes the place of the old one, and the mark goes. A kill at any
moment leaves the one or the other. What is left beside the store, and the mark, are removed by the next restore.

It holds the lease of a move (`seeknal.state.migration.ends.KEY`), so that there is never more than one of either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from seeknal.errors import CorruptStateError, LockHeldError, SeeknalError, TransferError
from seeknal.model.records import NodeState, RunState
from seeknal.state.backup.generations import PAYLOAD, Generation, Manifest
from seeknal.state.backup.making import back_up
from seeknal.state.backup.verifying import verify
from seeknal.state.batch import Batch
from seeknal.state.change_log import new_change
from seeknal.state.dump.format import ExportCounts, Tally
from seeknal.state.dump.importing import ImportPlan, batches
from seeknal.state.dump.reading import Dump, dump_file
from seeknal.state.dump.writing import STEP_RECORDS, Progress, silent
from seeknal.state.lease import Lease, held
from seeknal.state.migration.ends import KEY
from seeknal.state.migration.moving import TTL_MS, attempt, wait_for_dead_move
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.store_info import is_being_restored, restoring_mark, superseded
from seeknal.state.whole import Reading, Record, SideStore, records


class RestorePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore would do.

    Attributes:
        backup: Its name.
        created_at: When it was made.
        counts: What the store would hold.
        present: What it holds now; ``None`` if that is damaged and cannot be read.
        lost_runs: Runs that are not in the backup: they were created since. ``None``, as the next two, if that is not
            to be seen.
        changed_runs: Runs that would be again what they were, or whose nodes would.
        returning_runs: Runs of the backup that were deleted since.
        refused: Why it would be refused; empty when it would not.
        is_held: Whether that is because of locks.
        problem: What is damaged in the store; empty if nothing is.
    """

    backup: str
    created_at: datetime
    counts: ExportCounts
    present: ExportCounts | None
    lost_runs: int | None
    changed_runs: int | None
    returning_runs: int | None
    refused: list[str]
    is_held: bool
    problem: str = ""


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did; ``undo`` is the backup of what was there before, if one was made."""

    backup: str
    counts: ExportCounts
    state_sha256: str
    store_id: str
    undo: str | None


def plan_restore(
    store: RecordStateBackend | None,
    generation: Generation,
    *,
    is_forced: bool = False,
    problem: str = "",
    on_progress: Progress = silent,
) -> RestorePlan:
    """Read a backup and what the store holds now, and say what a restore would change; writes nothing.

    Args:
        store: Where to, open; ``None`` for one that does not exist yet.
        generation: The backup.
        is_forced: Whether it may be one of another store.
        problem: Why the store cannot be opened, if it stands and cannot.
        on_progress: Called now and then.

    Raises:
        CorruptStateError, SchemaVersionError, TransferError: As `verify`.
    """
    manifest, plan = verify(generation.path, on_progress=on_progress)
    present = Tally()
    lost = changed = returning = 0
    try:
        with ExitStack() as stack:
            dump = stack.enter_context(dump_file(generation.path / PAYLOAD))
            reading = None if store is None else stack.enter_context(store.snapshot()) or store
            for ours, theirs in _joined(_counted(reading, present), dump.reading()):
                lost += theirs is None
                returning += ours is None
                changed += None not in (ours, theirs) and ours != theirs
    except CorruptStateError as error:  # of the store: the backup was found whole
        problem = str(error)
    is_read = not problem
    problems = [] if store is None else list(_problems(store, manifest, is_forced=is_forced))
    return RestorePlan(
        backup=generation.name,
        created_at=manifest.created_at,
        counts=plan.counts,
        present=present.counts if is_read else None,
        lost_runs=lost if is_read else None,
        changed_runs=changed if is_read else None,
        returning_runs=returning if is_read else None,
        refused=[str(each) for each in problems],
        is_held=any(isinstance(each, LockHeldError) for each in problems),
        problem=problem,
    )


def restore(
    store: RecordStateBackend,
    generation: Generation,
    *,
    kind: str,
    is_forced: bool = False,
    undo_in: Path | None = None,
    on_progress: Progress = silent,
) -> RestoreReport:
    """Replace what a store holds by a backup. It keeps its identity, unless it is empty and not that of the backup.

    Others write to it until all is ready; while what it holds is backed up they get `MoveInProgressError`.

    Args:
        store: Where to, open.
        generation: The backup.
        kind: What the manifest of the backup for undoing calls the store.
        is_forced: Whether it may be one of another store.
        undo_in: Where what the store holds is backed up before; ``None`` for nowhere. An empty store is not.
        on_progress: Called now and then.

    Raises:
        CorruptStateError, SchemaVersionError: The backup is damaged, or newer than this program; or what the store
            holds is damaged and cannot be backed up. Nothing was changed.
        LockHeldError: Somebody holds a lock of the store, or moves or restores it. Nothing was changed.
        SupersededError: The state moved away from this store. Nothing was changed.
        TransferError: It is a backup of another store, or the disk or the server does not give back what was written.
        CapabilityError: This kind of store cannot do so. Nothing was changed.
        SeeknalError: As the side store (`seeknal.state.whole.SideStore`).
    """
    manifest, plan = verify(generation.path, on_progress=on_progress)
    mark = restoring_mark(generation.name, attempt(store))
    undo = None
    with ExitStack() as stack:
        lease = _claimed(store, stack)
        _check(store, manifest, lease, is_forced=is_forced)
        side = stack.enter_context(store.replacing(mark))
        _fill(side, stack.enter_context(dump_file(generation.path / PAYLOAD)), plan, on_progress)
        with _marked(store, mark):
            _check(store, manifest, lease, is_forced=is_forced)  # nobody changes it any more, so this time it is final
            was_empty = is_empty(store)
            if undo_in is not None and not was_empty:
                undo = _kept(store, undo_in, generation.name, kind, on_progress)
            detail = {"backup": generation.name, "undo": undo.name if undo else None}
            log = [new_change(store.clock, "restore", detail=detail)] if store.keeps_log else []
            store_id = plan.header.store_id if was_empty else store.read_store().store_id
            side.swap(Batch(leases=[lease], successor=mark, log=log), store_id)
        if store.keeps_log:
            store.add_to_log(plan.changes)
    return RestoreReport(
        backup=generation.name,
        counts=plan.counts,
        state_sha256=plan.state_sha256,
        store_id=store_id,
        undo=detail["undo"],
    )


def _kept(
    store: RecordStateBackend, directory: Path, before_restore_of: str, kind: str, on_progress: Progress
) -> Generation:
    """Back up what a restore is about to replace."""
    try:
        return back_up(store, directory, kind=kind, before_restore_of=before_restore_of, on_progress=on_progress)
    except CorruptStateError as error:
        raise CorruptStateError(
            f"what is there cannot be backed up: {error}",
            hint="Nothing was changed. Restore with --no-backup, or move the damaged store out of the way first.",
            location=error.location,
        ) from error


def _fill(side: SideStore, dump: Dump, plan: ImportPlan, on_progress: Progress) -> None:
    """Put the content of a backup into a side store, and compare what is there then."""
    total = plan.counts.total
    for batch, done in batches(dump, plan):
        side.put(batch)
        on_progress("restoring", done, total)
    found = Tally()
    for record in side.records():
        found.line_of(record)
        if found.records % STEP_RECORDS == 0:
            on_progress("comparing", found.records, total)
    if found.state_sha256 != plan.state_sha256:
        raise TransferError(
            "what was written beside the store is not what the backup holds",
            hint="Nothing was changed. See what is wrong with the store with `seeknal state doctor`.",
        )


@contextmanager
def _marked(store: RecordStateBackend, mark: str) -> Iterator[None]:
    """Keep everybody from writing to a store; an error in the block lets them write again, as does the swap."""
    store_id = store.read_store().store_id
    store.write_successor(store_id, mark, expected=None)
    try:
        yield
    except BaseException as error:
        try:
            if store.read_store().superseded_by == mark:
                store.write_successor(store_id, None, expected=mark)
        except SeeknalError as second:
            raise TransferError(
                f"the restore failed ({str(error) or type(error).__name__}), and the store refuses writes: {second}",
                hint="Run the same restore again; it takes over.",
            ) from error
        raise


def _claimed(store: RecordStateBackend, stack: ExitStack) -> Lease:
    """Take the lease of a move, for the time of ``stack``; the mark of a restore that was killed is taken away.

    Raises:
        LockHeldError: A move or a restore goes on.
    """
    wait_for_dead_move(store)
    left = store.read_store()
    if is_being_restored(left.superseded_by):
        store.write_successor(left.store_id, None, expected=left.superseded_by)
    try:
        return stack.enter_context(store.lock(KEY, timeout_ms=0, ttl_ms=TTL_MS))
    except LockHeldError:
        wait_for_dead_move(store)  # the last request of a process that was killed may arrive a moment after its end
        return stack.enter_context(store.lock(KEY, timeout_ms=0, ttl_ms=TTL_MS))


def _check(store: RecordStateBackend, manifest: Manifest, lease: Lease, *, is_forced: bool) -> None:
    for problem in _problems(store, manifest, is_forced=is_forced, lease=lease):
        raise problem


def _problems(
    store: RecordStateBackend, manifest: Manifest, *, is_forced: bool, lease: Lease | None = None
) -> Iterator[SeeknalError]:
    """Yield what forbids a restore; the mark of another one does not, but its lease does while it lives."""
    info = store.read_store()
    if info.superseded_by is not None and not is_being_restored(info.superseded_by):
        yield superseded(info.superseded_by)
    for lock in store.list_locks():
        if lease is None or lock.owner != lease.owner:
            yield held(lock.run_id, lock.node_id, lock)
    if info.store_id != manifest.store_id and not is_forced and not is_empty(store):
        yield TransferError(
            f"it is a backup of another store ({manifest.store_id}; this one is {info.store_id})",
            hint="Restore it with --force if you want it in the place of what is here.",
        )


def is_empty(store: RecordStateBackend) -> bool:
    """Return whether a store holds nothing; one that is damaged does."""
    try:
        return next(records(store), None) is None
    except CorruptStateError:
        return False  # there is something, though it cannot be read


# ---- what has changed since ----


_Run = tuple[RunState, list[NodeState]]


def _counted(reading: Reading | None, tally: Tally) -> Iterator[Record]:
    for record in () if reading is None else records(reading):
        tally.line_of(record)
        yield record


def _runs(stream: Iterable[Record]) -> Iterator[_Run]:
    """Yield each run with its nodes; all of the stream is read."""
    run: RunState | None = None
    nodes: list[NodeState] = []
    for record in stream:
        if isinstance(record, RunState):
            if run is not None:
                yield run, nodes
            run, nodes = record, []
        elif isinstance(record, NodeState):
            nodes.append(record)
    if run is not None:
        yield run, nodes


def _joined(ours: Iterable[Record], theirs: Iterable[Record]) -> Iterator[tuple[_Run | None, _Run | None]]:
    """Yield the runs of two streams, both in creation order, side by side."""
    left, right = _runs(ours), _runs(theirs)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and _place(a) < _place(b)):
            yield a, None
            a = next(left, None)
        elif a is None or _place(b) < _place(a):
            yield None, b
            b = next(right, None)
        else:
            yield a, b
            a, b = next(left, None), next(right, None)


def _place(run: _Run) -> tuple[int, bytes]:
    return run[0].sequence, run[0].run_id.encode()
