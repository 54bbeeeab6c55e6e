"""What a move would do, and why it would be refused; nothing is written."""

from __future__ import annotations

import msgspec

from seeknal.errors import TransferError
from seeknal.model.records import LockInfo
from seeknal.state.contract import StateBackend
from seeknal.state.lease import held, is_gone
from seeknal.state.migration.copying import Ledger, Told
from seeknal.state.migration.ends import KEY
from seeknal.state.migration.merging import merge_problem
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.store_info import StoreInfo, is_being_filled, is_unfinished
from seeknal.state.transfer import BATCH_ROWS, Counts, records

READINGS = 3
"""How often a move reads as much as a preview does: the source once, the target to write it and to compare it."""


ROWS_PER_SECOND = {"file": 40_000, "database": 40_000, "postgresql": 20_000, "mysql": 10_000, "libsql": 10_000}
"""What a store of a kind takes in, by its name or the scheme of its URL: measured with ``benchmarks/migration.py``."""


class MovePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a move would do.

    Attributes:
        counts: What would be moved.
        bytes: How much that is as JSON.
        seconds: An estimate of how long it would take.
        refused: Why it would be refused; empty when it would not.
        is_held: Whether one of the reasons is that somebody is at work.
        is_done: Whether the state is in the target already, and only the project does not know yet.
    """

    counts: Counts
    bytes: int
    seconds: float
    refused: list[str]
    is_held: bool
    is_done: bool


def plan_move(
    source: RecordStateBackend,
    target: RecordStateBackend | None,
    *,
    target_where: str,
    kind: str = "",
    is_merge: bool = False,
    told: Told = lambda _: None,
) -> MovePlan:
    """Read all of a store, and find what forbids moving it.

    Args:
        source: The store to move, open.
        target: Where to, open; ``None`` for a store that does not exist yet.
        target_where: The target in words, without secrets.
        kind: Of the target: a key of `ROWS_PER_SECOND`.
        is_merge: Whether the target keeps what it holds.
        told: Called now and then with how many records were read.
    """
    began = source.clock.ticks_us()
    ledger = Ledger(told)
    for record in records(source):
        ledger.add(record)
    seconds = READINGS * (source.clock.ticks_us() - began) / 1_000_000
    seconds += ledger.counts.total / ROWS_PER_SECOND.get(kind, min(ROWS_PER_SECOND.values()))
    if target is not None:
        began = target.clock.ticks_us()
        target.read_store()
        trips = ledger.counts.total // BATCH_ROWS + ledger.counts.runs
        seconds += trips * (target.clock.ticks_us() - began) / 1_000_000
    was_done = target is not None and is_done(source, target, target_where, is_merge=is_merge)
    busy = work_going_on(source, None if was_done else target)
    refused = [*busy]
    problem = None if was_done else source_problem(source, target, target_where)
    refused += [str(problem)] if problem else []
    if target is not None and not was_done:
        theirs = target_problem(source, target, target.read_store(), is_merge=is_merge)
        refused += [theirs] if theirs else []
    return MovePlan(
        counts=ledger.counts,
        bytes=ledger.bytes,
        seconds=seconds,
        refused=refused,
        is_held=bool(busy),
        is_done=was_done,
    )


def work_going_on(*stores: StateBackend | None) -> list[str]:
    """Return, in words, the locks of stores that forbid moving them now: not those of a move that was killed."""
    locks = [lock for store in stores if store is not None for lock in store.list_locks()]
    told = (_moving(lock) if lock.run_id == KEY else str(held(lock.run_id, lock.node_id, lock)) for lock in locks)
    return [each for each in dict.fromkeys(told) if each]


def _moving(mover: LockInfo) -> str:
    """Return who moves a store; nothing if that was killed. One of another machine is not known to live."""
    who = f"process {mover.pid} on {mover.host}"
    return "" if is_gone(mover) else f"{who} moves it right now, or was killed less than a minute ago"


def check_source(source: RecordStateBackend, target_where: str) -> None:
    """Raise unless a store can be moved away now, as far as that is to be seen without the target.

    Raises:
        LockHeldError: Somebody holds a lock of it; that of a move is judged by the move itself.
        TransferError: Its state moved away before.
    """
    info = source.read_store()
    if info.superseded_by is None:
        for lock in source.list_locks():
            if lock.run_id != KEY:
                raise held(lock.run_id, lock.node_id, lock)
    problem = source_problem(source, None, target_where)
    if problem is not None and info.superseded_by != target_where:
        raise problem


def is_done(source: RecordStateBackend, target: RecordStateBackend, target_where: str, *, is_merge: bool) -> bool:
    """Return whether the state is in the target already, and only the project does not know yet."""
    left, reached = source.read_store(), target.read_store()
    is_there = is_merge or left.store_id == reached.store_id
    return left.superseded_by == target_where and is_there and reached.superseded_by is None


def source_problem(
    source: RecordStateBackend, target: RecordStateBackend | None, target_where: str
) -> TransferError | None:
    """Return why this source cannot be moved, or nothing; locks apart."""
    info = source.read_store()
    if info.superseded_by is None:
        return None
    if is_being_filled(info.superseded_by):
        return TransferError(
            f"the source holds a copy that is not whole: it was {info.superseded_by}",
            hint="Run that `seeknal migrate-state` again, or move the store that it came from.",
        )
    if is_unfinished(info.superseded_by):
        return None
    is_here = target is not None and info.superseded_by == target_where
    if target is not None and is_here and is_being_filled(target.read_store().superseded_by):
        return None  # killed right at its end
    return TransferError(
        f"the source is superseded: its state moved to {info.superseded_by}",
        hint="Go back with `seeknal state rollback`, or migrate from the store that is current.",
    )


def target_problem(
    source: RecordStateBackend, target: RecordStateBackend, theirs: StoreInfo, *, is_merge: bool = False
) -> str:
    """Return why this target cannot take the source, or nothing; locks apart.

    Args:
        source: The store to move.
        target: Where to.
        theirs: What the target says of itself; if it was claimed since, what it said before.
        is_merge: Whether the target keeps what it holds.
    """
    if is_merge:
        return merge_problem(source, target, theirs)
    ours = source.read_store()
    if next(records(target), None) is None:
        return ""
    if ours.store_id == theirs.store_id:
        return "" if theirs.superseded_by is not None else _difference(source, target)
    if is_being_filled(theirs.superseded_by):
        return f"the target holds an unfinished copy of another state: it was {theirs.superseded_by}"
    return "the target already holds another state"


def _difference(source: RecordStateBackend, target: RecordStateBackend) -> str:
    """Return what a current copy of the source holds that the source does not hold equally, or nothing.

    It was written after it was copied, and by whom nobody knows: a move must not take that away.
    """
    for run in target.scan_runs():
        nodes = source.read_nodes(run.run_id)
        is_part = all(nodes.get(node_id) == state for node_id, state in target.read_nodes(run.run_id).items())
        if not is_part or source.read_run(run.run_id) != run:
            return f"the target is a former copy of the source, but run {run.run_id!a} differs there"
    for node_id in target.read_worked_nodes():
        if set(target.read_intervals(node_id)) - set(source.read_intervals(node_id)) or any(
            state not in source.read_partitions(node_id) for state in target.read_partitions(node_id)
        ):
            return f"the target is a former copy of the source, but the work of {node_id!a} differs there"
    return ""
