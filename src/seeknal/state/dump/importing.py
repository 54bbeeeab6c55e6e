"""Bring an export into a store: nothing is written before all of it was read and found whole.

Records are written in the order of the export, in batches that each commit or do not. What a kill leaves is
therefore a part of the export under its identity, and the same import goes on there. Until everything was compared,
every error takes out again what this import put in. Then the change log of the export is united with the target's.

It holds the lease of a move (`seeknal.state.migration.ends.KEY`), and each commit demands it: of two imports at once
one is refused, and one that was frozen and taken for dead writes nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import msgspec

from seeknal.errors import SeeknalError, StateBackendError, TransferError
from seeknal.model.codec import encode
from seeknal.model.records import ExpectedPartition, LoggedChange, NodeState, PartitionState, RunState
from seeknal.state.batch import Batch
from seeknal.state.dump.format import ExportCounts, Header, total_of
from seeknal.state.dump.reading import Dump
from seeknal.state.dump.writing import STEP_RECORDS, Progress, silent
from seeknal.state.lease import Lease, held, is_gone
from seeknal.state.migration.ends import KEY
from seeknal.state.migration.moving import TTL_MS, wait_for_dead_move
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import BATCH_ROWS, Record, digest_of, records
from seeknal.state.work import doing, undoing

BATCH_BYTES = 8 << 20
"""A commit holds no more of an export than this, whatever its rows, but for a single record."""


class ImportPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would do, found by reading all of the export.

    Attributes:
        header: The first line of the export.
        counts: What the export holds.
        state_sha256: Of its records.
        present: How many of them the target holds already.
        held: Which ones those are: a bit for each record; ``None`` for none.
        changes: The change log of the export.
    """

    header: Header
    counts: ExportCounts
    state_sha256: str
    present: int
    held: bytearray | None = None
    changes: list[LoggedChange] = []

    def holds(self, number: int) -> bool:
        """Whether the target held the record of this number, from 0, before the import."""
        return self.held is not None and bool(self.held[number >> 3] & 1 << (number & 7))


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the target now; ``written`` records of it are new, ``state_sha256`` is of all of them.

    ``has_log`` says whether the change log of the export was united with the target's: not if that keeps none.
    """

    counts: ExportCounts
    written: int
    state_sha256: str
    store_id: str
    has_log: bool


def plan_import(dump: Dump, target: RecordStateBackend | None, *, on_progress: Progress = silent) -> ImportPlan:
    """Read all of an export, and hold what the target holds against it; writes nothing.

    Args:
        dump: The export.
        target: Where to, open; ``None`` for a store that does not exist yet.
        on_progress: Called now and then.

    Raises:
        CorruptStateError, SchemaVersionError: The export is damaged, or newer than this program.
        LockHeldError: Somebody holds a lock of the target.
        TransferError: It is not an export, or the target holds something else.
    """
    reader = dump.reading()
    theirs: Iterator[Record] = iter(()) if target is None else _present(target, reader.header)
    next_of_theirs = next(theirs, None)
    bits = bytearray() if next_of_theirs is not None else None
    number, present, total = 0, 0, total_of(reader.header.counts)
    for number, record in enumerate(reader, 1):
        if bits is not None:
            if number & 7 == 1:
                bits.append(0)
            if next_of_theirs is not None and _is_equal(next_of_theirs, record):
                bits[-1] |= 1 << ((number - 1) & 7)
                present += 1
                next_of_theirs = next(theirs, None)
        if number % STEP_RECORDS == 0:
            on_progress("checking", number, max(number, total))
    trailer = reader.trailer
    assert trailer is not None
    if next_of_theirs is not None:
        raise TransferError(
            f"the target holds {_name(next_of_theirs)}, which the export does not hold so",
            hint="It is no unfinished import of this export. Choose an empty store.",
        )
    return ImportPlan(
        header=reader.header,
        counts=trailer.counts,
        state_sha256=trailer.state_sha256,
        present=present,
        held=bits,
        changes=reader.changes,
    )


def import_planned(
    dump: Dump,
    target: RecordStateBackend,
    plan: ImportPlan,
    *,
    batch_rows: int = BATCH_ROWS,
    on_progress: Progress = silent,
) -> ImportReport:
    """Write what the target lacks, and compare.

    Raises:
        LockHeldError: Somebody holds a lock of the target, or imports, restores or moves into it right now.
        TransferError: Somebody wrote to the target meanwhile. It is as it was found.
        StateBackendError: As `RecordStateBackend.commit`. It is as it was found.
    """
    with _claimed(target) as lease:
        there = sum(1 for _ in islice(_present(target, plan.header, lease), plan.present + 1))
        if there != plan.present:
            raise TransferError(
                "the target is not empty any more" if not plan.present else "the target was written to meanwhile",
                hint="Stop what writes to it, then import again; or choose another store.",
            )
        return _import(dump, target, plan, lease, batch_rows, on_progress)


@contextmanager
def _claimed(store: RecordStateBackend) -> Iterator[Lease]:
    """Hold the lease of a move for a block.

    Raises:
        LockHeldError: A move, a restore or an import goes on.
    """
    wait_for_dead_move(store)
    with store.lock(KEY, timeout_ms=0, ttl_ms=TTL_MS) as lease:
        yield lease


def _import(
    dump: Dump, target: RecordStateBackend, plan: ImportPlan, lease: Lease, batch_rows: int, on_progress: Progress
) -> ImportReport:
    found, total = target.read_store(), total_of(plan.counts)
    reached = 0
    try:
        # From the start: what a kill leaves is then known as a part of this export.
        target.write_successor(plan.header.store_id, None, expected=None)
        for batch, end in batches(dump, plan, batch_rows):
            batch.leases.append(lease)
            before, reached = reached, end
            try:
                target.commit(batch)
            except StateBackendError as error:
                if error.outcome == "not applied":
                    reached = before
                raise
            on_progress("importing", end, total)
        if digest_of(target) != plan.state_sha256:
            raise TransferError(
                "the target does not hold what the export holds: somebody else wrote to it during the import",
                hint="Stop what writes to it, then import again. Nothing was imported.",
            )
        if target.keeps_log:
            target.add_to_log(plan.changes)
            _log_import(dump, target, plan)
    except BaseException as error:
        try:
            _take_out(dump, target, plan, lease, reached, batch_rows)
            if target.read_store().store_id == plan.header.store_id:
                target.write_successor(found.store_id, None, expected=None)
        except SeeknalError as second:
            raise TransferError(
                f"the import failed ({str(error) or type(error).__name__}), and a part of it was left there: {second}",
                hint="Run the same import again: it goes on where this one ended.",
            ) from error
        raise
    return ImportReport(
        counts=plan.counts,
        written=total - plan.present,
        state_sha256=plan.state_sha256,
        store_id=plan.header.store_id,
        has_log=target.keeps_log,
    )


def _log_import(dump: Dump, target: RecordStateBackend, plan: ImportPlan) -> None:
    """Log what was imported, unless it was all there before."""
    written = total_of(plan.counts) - plan.present
    if written:
        detail = {"from": dump.where, "records": written, "exported_at": plan.header.exported_at.isoformat()}
        target.log_change("import", detail={**detail, "state_sha256": plan.state_sha256})


def import_dump(
    dump: Dump, target: RecordStateBackend, *, batch_rows: int = BATCH_ROWS, on_progress: Progress = silent
) -> ImportReport:
    """Import an export into an empty store, or go on with an import of it that was not finished.

    Args:
        dump: The export.
        target: The store, open; it takes the identity of the one that was exported.
        batch_rows: Rows per commit.
        on_progress: Called now and then.

    Raises:
        TransferError, CorruptStateError, SchemaVersionError, LockHeldError: As `plan_import` and `import_planned`.
    """
    plan = plan_import(dump, target, on_progress=on_progress)
    return import_planned(dump, target, plan, batch_rows=batch_rows, on_progress=on_progress)


def _present(target: RecordStateBackend, header: Header, lease: Lease | None = None) -> Iterator[Record]:
    """Return what a target holds, if it may be a part of this export.

    Args:
        target: The store.
        header: Of the export.
        lease: The one that this import holds.

    Raises:
        LockHeldError, TransferError: It is not a place to import to.
    """
    for lock in target.list_locks():
        is_ours = lease is not None and lock.owner == lease.owner
        if not (is_ours or (lock.run_id == KEY and is_gone(lock))):  # an import that was killed goes on
            raise held(lock.run_id, lock.node_id, lock)
    info = target.read_store()
    if info.superseded_by is not None:
        raise TransferError(
            f"the target is superseded: its state moved to {info.superseded_by}", hint="Choose another store."
        )
    if info.store_id != header.store_id and next(records(target), None) is not None:
        raise TransferError("the target already holds another state", hint="Choose an empty store.")
    return records(target)


def batches(dump: Dump, plan: ImportPlan, rows: int = BATCH_ROWS) -> Iterator[tuple[Batch, int]]:
    """Yield what the target lacks, and how many records of the export are behind it then."""
    batch, size, begun_at, number = Batch(), 0, 0, 0
    reader = dump.reading()
    for number, record in enumerate(reader, 1):
        if plan.holds(number - 1):
            continue
        if size and (size >= rows or reader.offset - begun_at >= BATCH_BYTES):
            yield batch, number - 1
            batch, size = Batch(), 0
        if not size:
            begun_at = reader.offset
        size += 1
        match record:
            case RunState():
                batch.runs.append(record)
                batch.run_versions[record.run_id] = 0
            case NodeState():
                batch.nodes.append(record)
            case _:
                batch.work.append(doing(record))
    if size:
        yield batch, number


def _take_out(dump: Dump, target: RecordStateBackend, plan: ImportPlan, lease: Lease, reached: int, rows: int) -> None:
    """Remove what was imported of the first ``reached`` records, and nothing else.

    Raises:
        LeaseLostError: Somebody else may go on with the import: what is there is theirs.
    """
    batch, size, is_new_run = Batch(leases=[lease]), 0, False
    for number, record in enumerate(dump.reading()):
        if number == reached:
            break
        is_new = not plan.holds(number)
        is_new_run = is_new if isinstance(record, RunState) else is_new_run
        if isinstance(record, NodeState) and is_new_run:
            size += 1  # it goes with its run
        elif is_new:
            if size >= rows:
                target.commit(batch)
                batch, size = Batch(leases=[lease]), 0
            size += 1
            match record:
                case RunState():
                    batch.deleted_runs.append(record.run_id)
                case NodeState():
                    batch.deleted_nodes.append((record.run_id, record.node_id))
                case _:
                    batch.work += filter(None, [undoing(record)])
    target.commit(batch)


def _is_equal(ours: Record, theirs: Record) -> bool:
    return type(ours) is type(theirs) and encode(ours) == encode(theirs)


def _name(record: Record) -> str:
    match record:
        case RunState():
            return f"run {record.run_id!a}"
        case NodeState():
            return f"node {record.node_id!a} of run {record.run_id!a}"
        case PartitionState() | ExpectedPartition():
            return f"partition {record.partition!a} of node {record.node_id!a}"
        case _:
            return f"the intervals of node {record.node_id!a}"
