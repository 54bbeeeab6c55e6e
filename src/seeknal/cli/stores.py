"""Open stores for commands that deal with two of them, or with one that may not be made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import StateSettings


def looked_at(stack: ExitStack, settings: StateSettings) -> RecordStateBackend | None:
    """Return a store, open for the time of ``stack``, if there is one to look at without making or changing it."""
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.transfer import record_store

    backend = stack.enter_context(StateBackendFactory.create(settings.backend, **settings.options))
    store = record_store(backend)
    if store.peek_store() is None:
        return None
    store.initialize()
    return store
