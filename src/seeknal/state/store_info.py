"""What a store says of itself."""

from __future__ import annotations

import msgspec

from seeknal.errors import ConcurrencyError, StateBackendError, SupersededError


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a store.

    ``store_id`` is a UUID, made once, that a migration carries along. ``superseded_by`` names, with its
    secrets masked, the store that the state moved to; then this one refuses writes.
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


def superseded(successor: str) -> SupersededError:
    """Return the error of a write to a store that the state moved away from."""
    return SupersededError(
        f"this store is superseded: its state moved to {successor}",
        hint="Point the project at that store, or go back with `seeknal state rollback`.",
        successor=successor,
    )
