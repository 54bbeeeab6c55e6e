"""What a store says of itself."""

from __future__ import annotations

import msgspec

from seeknal.errors import ConcurrencyError, MoveInProgressError, StateBackendError, SupersededError

_MOVING = "being moved to "
_FILLING = "being filled from "
_RESTORING = "being restored from "

ANY_SUCCESSOR = "\x00any"
"""What `RecordStore.write_successor` is given where it does not matter what stands there; no store ever says so."""


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a store.

    ``store_id`` is a UUID, made once, that a migration carries along. ``superseded_by`` names, with its
    secrets masked, the store that the state moved to, or says that it is on its way; then this one refuses writes.
    """

    store_id: str
    schema_version: str
    superseded_by: str | None = None


def misplaced(found: str | None, wanted: str | None) -> StateBackendError:
    """Return the error of a commit to a store whose mark is not the one that the commit demands.

    Args:
        found: What the store says of where its state went.
        wanted: What the commit demands; see `seeknal.state.batch.Batch`.
    """
    if found is not None and wanted is None:
        return superseded(found)
    return ConcurrencyError(
        "this store is not being moved any more: another command ended that",
        hint="Look at both stores with `seeknal state list`, then move again.",
    )


def just_ended() -> MoveInProgressError:
    """Return the error of a write to a store that bore a mark, and bears none by the time that one asks."""
    error = MoveInProgressError(
        "this store took no writes for a moment: a move or a restore of it has just ended", hint="Write again."
    )
    error.retriable = True
    return error


def check_successor(found: str | None, expected: str | None) -> None:
    """Raise unless a store says what `RecordStore.write_successor` expects.

    Raises:
        SupersededError, ConcurrencyError: It says something else.
    """
    if expected not in (ANY_SUCCESSOR, found):
        raise misplaced(found, expected)


def superseded(successor: str) -> SupersededError:
    """Return the error of a write to a store that the state moved away from, or that is a part of a move."""
    if is_being_restored(successor):
        error = MoveInProgressError(
            f"this store is {successor}",
            hint="Wait for that. If its process is gone, run `seeknal state restore NAME --no-dry-run` again.",
            successor=successor,
        )
        error.retriable = True  # it stays where it is, and soon takes writes again
        return error
    if is_unfinished(successor):
        return MoveInProgressError(
            f"this store is {successor}",
            hint="Wait for that. If its process is gone, run the same `seeknal migrate-state` again, or go back with "
            "`seeknal state rollback`.",
            successor=successor,
        )
    return SupersededError(
        f"this store is superseded: its state moved to {successor}",
        hint="Point the project at that store, or go back with `seeknal state rollback`.",
        successor=successor,
    )


def moving_mark(target_where: str, by: str) -> str:
    """Return what a store bears while its state is being moved to another one.

    Args:
        target_where: The other store in words, without secrets.
        by: Who moves it, since when: another text for every attempt, so that an attempt which was taken for dead
            cannot write any more.
    """
    return f"{_MOVING}{target_where}, {by}"


def filling_mark(source_where: str, by: str) -> str:
    """Return what a store bears while the state of another one is being copied into it; see `moving_mark`."""
    return f"{_FILLING}{source_where}, {by}"


def restoring_mark(backup: str, by: str) -> str:
    """Return what a store bears while what it holds is replaced by a backup; see `moving_mark`."""
    return f"{_RESTORING}backup {backup}, {by}"


def is_unfinished(successor: str | None) -> bool:
    """Return whether a store bears the mark of a move or a restore that has not come to its end."""
    return successor is not None and successor.startswith((_MOVING, _FILLING, _RESTORING))


def is_being_restored(successor: str | None) -> bool:
    """Return whether a store bears the mark of a restore: it holds all of what was there, or all of the backup."""
    return successor is not None and successor.startswith(_RESTORING)


def is_being_filled(successor: str | None) -> bool:
    """Return whether a store holds a copy that is not whole."""
    return successor is not None and successor.startswith(_FILLING)
