"""Open stores for commands that deal with two of them, or with one that may not be made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.record_store import RecordStore
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


def _older_schema(store: RecordStore) -> str:
    info = store.peek_store()
    is_older = info is not None and store.current_schema not in ("", info.schema_version)
    return info.schema_version if info is not None and is_older else ""


def unchanged(stack: ExitStack, settings: StateSettings) -> StateBackend:
    """Return a store, open for the time of ``stack``, that is there and that opening it does not change.

    Raises:
        NotFoundError: There is none; of a kind that cannot tell (`RecordStore.peek_store`), there always is.
        SchemaVersionError: As `check_unchanged`.
    """
    from seeknal.errors import NotFoundError
    from seeknal.state.record_store import RecordStore
    from seeknal.state.registry import StateBackendFactory

    backend = stack.enter_context(StateBackendFactory.create(settings.backend, **settings.options))
    if isinstance(backend, RecordStore) and can_tell(backend) and backend.peek_store() is None:
        raise NotFoundError(
            f"there is no state in {settings.where}", hint="See which store the project names; none was made."
        )
    check_unchanged(backend, settings.where)
    backend.initialize()
    return backend


def can_tell(store: RecordStore) -> bool:
    """Return whether a store of this kind says whether it is there, without being opened, which would make it."""
    from seeknal.state.record_store import RecordStore

    return type(store).peek_store is not RecordStore.peek_store


def check_unchanged(store: StateBackend, where: str) -> None:
    """Raise if opening a store would bring it up to date: looking at one must not lock older programs out of it.

    Raises:
        SchemaVersionError: It is older than this program.
    """
    from seeknal.errors import SchemaVersionError
    from seeknal.state.record_store import RecordStore

    if isinstance(store, RecordStore) and (older := _older_schema(store)):
        wanted = store.current_schema
        raise SchemaVersionError(
            f"{where} has schema {older}, and this program reads schema {wanted}; nothing was changed",
            hint="Look with the program that writes to it. Once no program of that age does, `seeknal state list` "
            "brings it up to date.",
            found=older,
            wanted=wanted,
        )


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
