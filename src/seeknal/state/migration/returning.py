"""Back to the store that a state came from: what would be given up, and the swap."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from seeknal.errors import TransferError
from seeknal.state.contract import StateBackend
from seeknal.state.lease import held
from seeknal.state.migration.carrying import carry, keeps_log
from seeknal.state.migration.copying import Lookup
from seeknal.state.migration.ends import Leaving
from seeknal.state.migration.merging import holds
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.store_info import is_being_filled
from seeknal.state.transfer import digest_of

OTHER = "completed work, or deleted runs"
"""What was written since and is no run that stands."""


def written_since(new: Lookup, old: Lookup, *, digest: str | None, is_merge: bool = False) -> list[str]:
    """Name the runs of the new store that the old one does not hold equally, or `OTHER`.

    Args:
        new: The store that the state moved to.
        old: The store that it came from.
        digest: Of what was moved, if that is known; else the old store, which took no writes, is compared.
        is_merge: Whether the new store held another state before; then only the runs of the old one count.
    """
    if is_merge:
        return [run.run_id for run in old.scan_runs() if not holds(new, run, old.read_nodes(run.run_id))]
    if digest_of(new) == (digest or digest_of(old)):
        return []
    found = [
        run.run_id
        for run in new.scan_runs()
        if run != old.read_run(run.run_id) or new.read_nodes(run.run_id) != old.read_nodes(run.run_id)
    ]
    return found or [OTHER]


def swap_back(
    new: StateBackend | None,
    old: StateBackend,
    *,
    new_where: str,
    old_where: str,
    is_merge: bool = False,
    on_switch: Callable[[], None],
) -> None:
    """Let the old store take writes again, and the new one refuse them; safe to repeat after a kill.

    One that is written through the verbs of the contract alone took writes all the time, and cannot refuse them.

    Args:
        new: The store that the state moved to; it goes on as it is after a merge. ``None`` if it is gone.
        old: The store that it came from.
        new_where: The new store in words, without secrets.
        old_where: The old store in words, without secrets.
        is_merge: Whether the new store held another state before.
        on_switch: Called when that is done; an error of it undoes it.

    Raises:
        LockHeldError: Somebody is at work in the new store.
        TransferError: The old store holds a part of a copy: it was being filled again, and that was killed.
        SeeknalError: As the writes of both; they are as they were found.
    """
    with ExitStack() as undo:
        if isinstance(old, RecordStateBackend):
            refuse_filling(old, old_where)
        if new is not None and not is_merge:
            _refuse_locks(new)
            if isinstance(new, RecordStateBackend):
                _close(new, old_where, undo)
        if isinstance(old, RecordStateBackend):
            info = old.read_store()
            if isinstance(new, RecordStateBackend):
                carry(new, old, info.superseded_by)
            undo.callback(old.write_successor, info.store_id, info.superseded_by)
            old.write_successor(info.store_id, None, expected=info.superseded_by)
            if keeps_log(old):
                detail = {"from": new_where, "to": old_where}
                old.log_change("rollback", reason=f"from {new_where} to {old_where}", detail=detail)
        on_switch()
        undo.pop_all()


def refuse_filling(old: RecordStateBackend, old_where: str) -> None:
    """Raise `TransferError` if a store that one would go back to holds a part of a copy."""
    mark = old.read_store().superseded_by
    if is_being_filled(mark):
        raise TransferError(
            f"{old_where} holds a part of a copy: it is {mark}",
            hint="Run the `seeknal migrate-state` that was killed again; it goes on where it ended.",
        )


def _close(new: RecordStateBackend, old_where: str, undo: ExitStack) -> None:
    """Let a store refuse writes, and ``undo`` take that back."""
    if new.read_store().superseded_by != old_where:
        leaving = Leaving(new, old_where)
        undo.callback(leaving.put_back)
        leaving.begin()
        _refuse_locks(new)


def _refuse_locks(store: StateBackend) -> None:
    for lock in store.list_locks():
        raise held(lock.run_id, lock.node_id, lock)
