"""Move the state of one open store into another, so that not a row is lost and nobody writes into the void.

Both ends refuse writes from the beginning, each with a mark that says who moves what and since when. Then the target is
made equal to the source, read back and compared, and only then the source names its successor and the target opens.
Every error before that puts both as they were found. After a kill the marks stay: nothing can be written that would be
lost, and the same move, begun again, goes on with what it finds.

A lease on `KEY` in both stores tells a move that is going on from one that was killed. What keeps a move that was
frozen, and taken for dead, from writing when it wakes up is its mark: another one than that of its successor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from seeknal.errors import SeeknalError, TransferError
from seeknal.model.records import LockInfo
from seeknal.state.contract import StateBackend
from seeknal.state.lease import held, is_gone, this_host
from seeknal.state.migration.carrying import carry, keeps_log
from seeknal.state.migration.copying import Copy, Ledger
from seeknal.state.migration.ends import KEY, Filling, Leaving
from seeknal.state.migration.merging import Merge
from seeknal.state.migration.planning import is_done, source_problem, target_problem
from seeknal.state.migration.undo import Undo
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.store_info import StoreInfo, filling_mark, moving_mark
from seeknal.state.transaction import backoff
from seeknal.state.transfer import Counts

TTL_MS = 10_000
"""A move that was killed is taken for dead after so long."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many records of it are done, and of how many; 0 where that is not known."""


class MoveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a move did.

    Attributes:
        counts: What is in the target now that came from the source.
        bytes: How much that is as JSON.
        digest: The SHA-256 of what is now in both stores; empty if all had been done before.
        store_id: The identity that the target has now; empty for one that tells none.
    """

    counts: Counts
    bytes: int
    digest: str
    store_id: str


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody of progress."""


def move(
    source: RecordStateBackend,
    target: RecordStateBackend,
    *,
    source_where: str,
    target_where: str,
    is_merge: bool = False,
    total: int = 0,
    batch_rows: int | None = None,
    on_progress: Progress = silent,
    before_switch: Callable[[], None] | None = None,
    on_switch: Callable[[str], None] | None = None,
) -> MoveReport:
    """Copy ``source`` into ``target``, verify it, and make the source refuse writes from now on.

    Args:
        source: The store to move, open.
        target: An empty one; an unfinished copy of this source, which gets what it lacks; or the store that this
            state moved away from some time ago, whose content is replaced.
        source_where: The source in words, without secrets.
        target_where: The target in words, without secrets; the source names it to its writers.
        is_merge: Whether the target keeps what it holds, and its identity.
        total: How many records there are, if that is known.
        batch_rows: Rows per commit; as many as the target says where it is ``None``.
        on_progress: Called now and then.
        before_switch: Called once the copy is complete, before the source is left.
        on_switch: Called with the digest when it was left; an error of it undoes the whole move. The digest is empty if
            all was done before.

    Raises:
        LockHeldError: Somebody holds a lock of one of them, or moves one of them right now.
        TransferError: The target holds something else, or the two sides differ. Both are as they were found.
        SeeknalError: As the reads and commits of both. They are as they were found, if that could be brought about.
    """
    by = attempt(source)
    store_id = source.read_store().store_id
    wait_for_dead_move(source)  # one that lives, and ends meanwhile, is found to be done
    if is_done(source, target, target_where, is_merge=is_merge):
        if on_switch is not None:
            on_switch("")
        return MoveReport(counts=Counts(), bytes=0, digest="", store_id=store_id)
    with ExitStack() as stack:
        leaving = stack.enter_context(claimed_source(source, target, moving_mark(target_where, by), target_where))
        mark = filling_mark(source_where, by)
        claim = claimed_target(
            target,
            (target if is_merge else source).read_store().store_id,
            mark,
            problem=lambda found: target_problem(source, target, found, is_merge=is_merge),
            hint="Choose another store." if is_merge else "Choose an empty store, or add to this one with --merge.",
        )
        filling = stack.enter_context(claim)
        rows = batch_rows or target.copied_rows
        ledger = Ledger(lambda done: on_progress("copying", done, max(done, total)))
        check = Ledger(lambda done: on_progress("verifying", done, max(done, ledger.counts.total)))
        if is_merge:
            merge = Merge(target, mark=mark, undo=filling.undo, rows=rows)
            merge.add(source, ledger)
            merge.verify(source, check)
        else:
            Copy(target, mark=mark, undo=filling.undo, rows=rows).make_equal(source, ledger)
            check.add_store(target)
        if check.digest != ledger.digest:
            raise TransferError(
                "the copy is not equal to the source",
                hint="Nothing has changed. Compare what there is with `seeknal state diff`, and report this.",
            )
        if before_switch is not None:
            before_switch()
        carry(source, target, mark)
        leaving.leave(target_where, filling)
        filling.open()
        log_move(target, "merge" if is_merge else "migrate", source_where, target_where, ledger.digest)
        if on_switch is not None:
            on_switch(ledger.digest)
    return MoveReport(counts=ledger.counts, bytes=ledger.bytes, digest=ledger.digest, store_id=filling.store_id)


def log_move(target: RecordStateBackend, action: str, source_where: str, target_where: str, digest: str) -> None:
    """Write into the log of a target, if it keeps one, what was moved into it."""
    if keeps_log(target):
        detail = {"from": source_where, "to": target_where, "digest": digest}
        target.log_change(action, reason=f"from {source_where} to {target_where}", detail=detail)


def attempt(source: StateBackend) -> str:
    """Return who moves a store since when: another text each time."""
    return f"since {source.clock.now():%Y-%m-%dT%H:%M:%S.%fZ}, by process {os.getpid()} on {this_host()}"


@contextmanager
def claimed_source(
    source: RecordStateBackend, target: RecordStateBackend | None, mark: str, target_where: str
) -> Iterator[Leaving]:
    """Keep everybody from writing to the source; an error in the block lets them write again.

    Args:
        source: The store.
        target: Where its state goes, if that can tell its identity.
        mark: What the source bears in the block.
        target_where: The target in words, without secrets.

    Raises:
        LockHeldError: Somebody holds a lock of it, or moves it right now.
        TransferError: It cannot be moved.
    """
    wait_for_dead_move(source)
    info = source.read_store()
    problem = source_problem(source, target, target_where)
    if problem is not None:
        raise problem
    refuse_others(source)
    if info.superseded_by is not None:
        # A move that was killed. What somebody writes before the next line marks it again is copied like the rest.
        source.write_successor(info.store_id, None, expected=info.superseded_by)
    with source.lock(KEY, timeout_ms=0, ttl_ms=TTL_MS):
        leaving = Leaving(source, mark)
        leaving.begin()
        try:
            refuse_others(source)  # nobody gets a lock any more, so this time it is final
            yield leaving
        except BaseException as error:
            put_back(error, leaving.put_back)
            raise


@contextmanager
def claimed_target(
    target: RecordStateBackend, store_id: str, mark: str, *, problem: Callable[[StoreInfo], str], hint: str
) -> Iterator[Filling]:
    """Let only the holder of the mark write to the target; an error in the block undoes its commits.

    Args:
        target: The store.
        store_id: The identity that it gets.
        mark: What it bears in the block.
        problem: Called with what it said of itself before; says why it cannot take the state, or nothing.
        hint: What to do then.

    Raises:
        LockHeldError: Somebody holds a lock of it, or moves it right now.
        TransferError: There is a problem.
    """
    wait_for_dead_move(target)
    refuse_others(target)
    info = target.read_store()
    found = problem(info)
    if found:
        raise TransferError(found, hint=hint)
    is_current = info.superseded_by is None
    with ExitStack() as stack:
        if is_current:
            stack.enter_context(target.lock(KEY, timeout_ms=0, ttl_ms=TTL_MS))
        filling = Filling(target, store_id, mark, stack.enter_context(Undo()))
        filling.begin()
        try:
            if is_current:
                refuse_others(target)
                found = problem(info)  # nobody changes it any more
                if found:
                    raise TransferError(found, hint=hint)
            yield filling
        except BaseException as error:
            put_back(error, filling.put_back)
            raise


def wait_for_dead_move(store: StateBackend) -> None:
    """Return when no move holds the lease of a store: one that was killed gives it up by its expiry.

    Raises:
        LockHeldError: A move is going on.
    """
    mover = _mover(store)
    if mover is None:
        return
    if is_gone(mover):
        store.break_lock(KEY, reason="its process is gone")
        return
    deadline = store.clock.ticks_us() + 2 * TTL_MS * 1000
    for pause in backoff():
        now = _mover(store)
        if now is None:
            return
        is_alive = now.owner != mover.owner or now.expires_at > mover.expires_at
        if is_alive or store.clock.ticks_us() >= deadline:
            raise held(now.run_id, now.node_id, now)
        store.clock.sleep(pause)


def _mover(store: StateBackend) -> LockInfo | None:
    return next((lock for lock in store.list_locks() if lock.run_id == KEY), None)


def refuse_others(store: StateBackend) -> None:
    """Raise `LockHeldError` if a run holds a lock: it is going on."""
    for lock in store.list_locks():
        if lock.run_id != KEY:
            raise held(lock.run_id, lock.node_id, lock)


def put_back(error: BaseException, action: Callable[[], None]) -> None:
    """Do what puts a store as it was found; where that fails, both errors are told.

    Raises:
        TransferError: It failed.
    """
    try:
        action()
    except SeeknalError as second:
        raise TransferError(
            f"the move failed ({str(error) or type(error).__name__}), and what it did could not be undone: {second}",
            hint="Run the same move again: it goes on where this one ended. Or go back with `seeknal state rollback`.",
        ) from error
