"""What a store says of itself."""

from __future__ import annotations

import msgspec

from seeknal.errors import SupersededError


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a store.

    ``store_id`` is a UUID, made once, that a migration carries along. ``superseded_by`` names, with its
    secrets masked, the store that the state moved to; then this one refuses writes.
    """

    store_id: str
    schema_version: str
    superseded_by: str | None = None


def superseded(successor: str) -> SupersededError:
    """Return the error of a write to a store that the state moved away from."""
    return SupersededError(
        f"this store is superseded: its state moved to {successor}",
        hint="Point the project at that store, or go back with `seeknal state rollback`.",
        successor=successor,
    )
