"""Open stores for commands that deal with two of them, or with one that may not be made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import StateSettings


def looked_at(stack: ExitStack, settings: StateSettings) -> RecordStateBackend | None:
    """Return a store, open for the time of ``stack``, if there is one to look at without making or changing it.

    One of an older schema is not: opening it brings it up to date, and programs of that age are then refused.
    """
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.transfer import record_store

    backend = stack.enter_context(StateBackendFactory.create(settings.backend, **settings.options))
    store = record_store(backend)
    if store.peek_store() is None or _older_schema(store):
        return None
    store.initialize()
    return store


def older_schema(settings: StateSettings) -> str:
    """Return the schema of a store that opening it would bring up to date; empty for any other. Nothing is changed."""
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory

    with StateBackendFactory.create(settings.backend, **settings.options) as backend:
        return _older_schema(backend) if isinstance(backend, RecordStateBackend) else ""


def _older_schema(store: RecordStateBackend) -> str:
    info = store.peek_store()
    is_older = info is not None and store.current_schema not in ("", info.schema_version)
    return info.schema_version if info is not None and is_older else ""


def standing(stack: ExitStack, settings: StateSettings) -> RecordStateBackend:
    """Return a store, open for the time of ``stack``, that is there already: what copies a store must not make one.

    Raises:
        NotFoundError: There is none; of a kind that cannot tell (`RecordStore.peek_store`), there always is.
    """
    from seeknal.errors import NotFoundError
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.transfer import record_store

    store = record_store(stack.enter_context(StateBackendFactory.create(settings.backend, **settings.options)))
    if type(store).peek_store is not RecordStateBackend.peek_store and store.peek_store() is None:
        raise NotFoundError(
            f"there is no state in {settings.where}",
            hint="See which store the project names; a state that was lost comes back with `seeknal state restore`.",
        )
    store.initialize()
    return store
