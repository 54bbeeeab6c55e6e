"""Move a state from or to a store that is written through the verbs of the contract alone.

It differs from `seeknal.state.migration.moving.move` in what such a store cannot do. It tells no identity and cannot be
marked: as a source it is read a second time at the end, and must not have changed; as a target it has to be empty, and
its transactions rest on the lease of the move. It numbers what is written by itself: versions and sequences stay
behind, and instead of them it is compared which state of each node is the newest. It keeps no log, no token counters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from seeknal.errors import CapabilityError, TransferError
from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease
from seeknal.state.migration.copying import Copy, Ledger, Lookup
from seeknal.state.migration.ends import KEY
from seeknal.state.migration.moving import (
    TTL_MS,
    MoveReport,
    Progress,
    attempt,
    claimed_source,
    claimed_target,
    log_move,
    put_back,
    refuse_others,
    silent,
    wait_for_dead_move,
)
from seeknal.state.migration.portable_reading import Unplaced, reading_of
from seeknal.state.migration.portable_writing import Rewriting, kept_copy
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.store_info import StoreInfo, filling_mark, is_being_filled, moving_mark
from seeknal.state.transfer import BATCH_ROWS, Counts, digest_of, records
from seeknal.state.whole import Reading


def is_plain(kind: type[StateBackend]) -> bool:
    """Return whether the stores of a class are written through the verbs of the contract alone."""
    return not issubclass(kind, RecordStateBackend)


def view_of(store: StateBackend, target: type[StateBackend]) -> Lookup:
    """Return what reads of a store that which a move to a store of the class ``target`` carries along."""
    return portable_view(store) if is_plain(target) else reading_of(store)


def portable_view(store: StateBackend) -> Unplaced:
    """Return what reads of any store that which is the same in every other one; the digest of a move is made of it."""
    return Unplaced(reading_of(store))


def move_portably(
    source: StateBackend,
    target: StateBackend,
    *,
    source_where: str,
    target_where: str,
    former: str = "",
    total: int = 0,
    batch_rows: int = BATCH_ROWS,
    on_progress: Progress = silent,
    before_switch: Callable[[], None] | None = None,
    on_switch: Callable[[str], None] | None = None,
) -> MoveReport:
    """Move the state of a store into another one, of which at least one is written through plain verbs.

    Args:
        source: The store to move, open. One that cannot be marked must not be written meanwhile, nor afterwards.
        target: An empty one; one that holds nothing but what a move of this source left that was killed; or the store
            that this state moved away from some time ago, whose content is replaced.
        source_where: The source in words, without secrets.
        target_where: The target in words, without secrets.
        former: The digest of what was moved away from the target then. It tells no identity, so only that shows what it
            is, and that nobody has written to it since.
        total: How many records there are, if that is known.
        batch_rows: Rows per commit.
        on_progress: Called now and then.
        before_switch: Called once the copy is complete, before the source is left.
        on_switch: As in `seeknal.state.migration.moving.move`.

    Raises:
        LockHeldError: Somebody holds a lock of one of them, or moves one of them right now.
        CapabilityError: One of them does not offer what a move needs.
        TransferError: The target holds something else, the two sides differ, or the source changed meanwhile. Both are
            as they were found.
        SeeknalError: As the verbs of both. They are as they were found, if that could be brought about.
    """
    by = attempt(source)
    store_id = target.read_store().store_id if isinstance(target, RecordStateBackend) else ""
    if is_done(source, target, target_where):
        if on_switch is not None:
            on_switch("")
        return MoveReport(counts=Counts(), bytes=0, digest="", store_id=store_id)
    ours = view_of(source, type(target))
    with ExitStack() as stack:
        leave = stack.enter_context(_source_end(source, ours, target_where, by))
        filling = filling_mark(source_where, by)
        end = stack.enter_context(_target_end(target, reading_of(source), source_where, filling, former, batch_rows))
        ledger = Ledger(lambda done: on_progress("copying", done, max(done, total)))
        check = Ledger(lambda done: on_progress("verifying", done, max(done, ledger.counts.total)))
        end.fill(reading_of(source), ledger)
        nodes = _read_through(view_of(target, type(target)), check)
        if check.digest != ledger.digest:
            raise _unequal("the copy is not equal to the source")
        _check_newest(source, target, nodes)
        if before_switch is not None:
            before_switch()
        digest = ledger.digest if is_plain(type(target)) else digest_of(portable_view(target))
        leave(ledger.digest)
        end.open()
        if isinstance(target, RecordStateBackend):
            log_move(target, "migrate", source_where, target_where, digest)
        if on_switch is not None:
            on_switch(digest)
    return MoveReport(counts=ledger.counts, bytes=ledger.bytes, digest=digest, store_id=store_id)


# ---- the source ----


@contextmanager
def _source_end(source: StateBackend, ours: Reading, target_where: str, by: str) -> Iterator[Callable[[str], None]]:
    """Keep others from the source as far as it can, and yield what leaves it, called with the digest of the copy."""
    if isinstance(source, RecordStateBackend):
        with claimed_source(source, None, moving_mark(target_where, by), target_where) as leaving:
            yield lambda _: leaving.leave(target_where)
        return

    def read_again(digest: str) -> None:
        again = Ledger(lambda _: None)
        _read_through(ours, again)
        refuse_others(source)
        if again.digest != digest:
            raise TransferError(
                "the source was written while it was moved, and it cannot refuse that",
                hint="Stop its writers, then move again.",
            )

    with _locked(source):
        yield read_again


# ---- the target ----


class _TargetEnd(NamedTuple):
    """What writes a state into the target, and what opens the target to its writers."""

    fill: Callable[[Lookup, Ledger], None]
    open: Callable[[], None]


@contextmanager
def _target_end(
    target: StateBackend, source: Lookup, source_where: str, mark: str, former: str, rows: int
) -> Iterator[_TargetEnd]:
    """Keep others from the target as far as it can; an error in the block takes out what was put in."""
    if isinstance(target, RecordStateBackend):
        claim = claimed_target(
            target,
            target.read_store().store_id,
            mark,
            problem=lambda found: record_target_problem(target, found, source_where),
            hint="Choose an empty store.",
        )
        with claim as filling:
            yield _TargetEnd(Copy(target, mark=mark, undo=filling.undo, rows=rows).make_equal, filling.open)
        return
    check_offers(type(target))
    check_keeps_expected(source, type(target))
    with _locked(target) as lease, ExitStack() as stack:
        writing = Rewriting(target, lease, rows=rows)
        found = writing.difference(source)
        if found and (not former or former != digest_of(portable_view(target))):
            raise TransferError(f"the target already holds another state: {found}", hint="Choose an empty store.")
        kept = stack.enter_context(kept_copy(target, rows=rows)) if found else None
        try:
            if kept is None:
                writing.take_out(source)  # what a move that was killed has left
            else:
                writing.clear()
            yield _TargetEnd(writing.write, lambda: None)
        except BaseException as error:
            put_back(error, lambda: writing.put_back(source, kept))
            raise


def record_target_problem(target: RecordStateBackend, theirs: StoreInfo, source_where: str) -> str:
    """Return why this target cannot take a source that tells no identity, or nothing; locks apart.

    Args:
        target: The store.
        theirs: What it says of itself; if it was claimed since, what it said before.
        source_where: The source in words: a store whose state moved there takes it back, and one that was being filled
            from there when the move was killed.
    """
    found = theirs.superseded_by or ""
    is_ours = found == source_where or found.startswith(filling_mark(source_where, ""))
    if is_ours or next(records(target), None) is None:
        return ""
    if is_being_filled(found):
        return f"the target holds an unfinished copy of another state: it was {found}"
    return "the target already holds another state"


def check_offers(kind: type[StateBackend]) -> None:
    """Raise unless a state can be written through the verbs of the stores of a class.

    Raises:
        CapabilityError: Something is missing.
    """
    if kind.list_worked_nodes is StateBackend.list_worked_nodes:
        raise CapabilityError(
            f"a {kind.__name__} does not tell which nodes have completed work",
            hint="Whoever maintains that backend has to write its list_worked_nodes().",
        )
    known = inspect.signature(kind.add_completed_partition).parameters
    if "completed_at" not in known and all(each.kind is not each.VAR_KEYWORD for each in known.values()):
        raise CapabilityError(
            f"a {kind.__name__} does not keep when a partition was completed",
            hint="Whoever maintains that backend has to let add_completed_partition() take completed_at.",
        )


def check_keeps_expected(source: StateBackend | Lookup, kind: type[StateBackend]) -> None:
    """Raise if partitions are expected that a class of stores, written through its verbs, would not be told of.

    Raises:
        CapabilityError: The message names a node.
    """
    reading = reading_of(source) if isinstance(source, StateBackend) else source
    for node_id in reading.read_worked_nodes():
        if reading.read_expected(node_id):
            raise CapabilityError(
                f"partitions are expected of node {node_id!a}, which a {kind.__name__} would not be told",
                hint="Keep them elsewhere, and drop_expected_partitions() first.",
            )


# ---- both ----


@contextmanager
def _locked(store: StateBackend) -> Iterator[Lease]:
    """Hold the lease of a move in a store that cannot be marked."""
    wait_for_dead_move(store)
    refuse_others(store)
    with store.lock(KEY, timeout_ms=0, ttl_ms=TTL_MS) as lease:
        refuse_others(store)
        yield lease


def is_done(source: StateBackend, target: StateBackend, target_where: str) -> bool:
    """Return whether the state is in the target already, and only the project does not know yet.

    A move between two stores that cannot be marked is done again instead.
    """
    if isinstance(source, RecordStateBackend):
        is_left = source.read_store().superseded_by == target_where
    else:
        is_left = isinstance(target, RecordStateBackend) and target.read_store().superseded_by is None
    if not is_left or not target.list_runs(limit=1):
        return False
    ours, theirs = Ledger(lambda _: None), Ledger(lambda _: None)
    _read_through(view_of(source, type(target)), ours)
    _read_through(view_of(target, type(target)), theirs)
    return ours.digest == theirs.digest


def _read_through(store: Reading, ledger: Ledger) -> list[str]:
    """Enter everything that a store holds, and return the ids of the nodes that have a state in a run."""
    nodes: set[str] = set()
    for record in records(store):
        ledger.add(record)
        if isinstance(record, NodeState):
            nodes.add(record.node_id)
    return sorted(nodes)


def _check_newest(source: StateBackend, target: StateBackend, nodes: list[str]) -> None:
    """Raise unless both stores name the same state of each node as the newest, and as its newest success.

    Raises:
        TransferError: They do not.
    """
    for node_id in nodes:
        for status in (None, NodeStatus.SUCCESS):
            ours, theirs = (store.get_latest_node_state(node_id, status) for store in (source, target))
            if (ours and ours.run_id) != (theirs and theirs.run_id):
                raise _unequal(f"the two stores do not agree on the newest state of node {node_id!a}")


def _unequal(what: str) -> TransferError:
    return TransferError(
        what, hint="Nothing has changed. Hold both backends to the contract with `seeknal state check-backend`."
    )
