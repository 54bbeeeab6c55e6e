"""How a file store begins: made in an order that a kill cannot mistake for a store that lost its files."""

from __future__ import annotations

from uuid import uuid4

from seeknal.clock import Clock
from seeknal.state.file import durable
from seeknal.state.file.documents import IndexDocument, LogDocument, StoreDocument, corrupt, write_document
from seeknal.state.file.layout import Layout


def create(layout: Layout, clock: Clock, *, is_adopting: bool) -> None:
    """Make an empty store in a directory without one; the lock is held.

    Args:
        layout: Where.
        clock: What time it is.
        is_adopting: Whether the content of ``run_state.json`` is still to be taken in (`adopt`).
    """
    durable.make_directory(layout.runs)
    durable.make_directory(layout.nodes)
    with durable.unavailable(layout.directory, "write"):
        index = IndexDocument(sequence=0, runs=[], history={}, worked=[], locks=[], has_log=True)
        write_document(layout.log, LogDocument(changes=[]))
        write_document(layout.index(1), index)
        durable.create_file(layout.journal(1))
        durable.sync_directory(layout.directory)
        document = StoreDocument(store_id=str(uuid4()), created_at=clock.now(), generation=1, is_adopting=is_adopting)
        write_document(layout.store, document)
        durable.sync_directory(layout.directory)
        durable.sync_directory(layout.base)


def exists(layout: Layout) -> bool:
    """Return whether there is a store.

    Raises:
        CorruptStateError: Its ``store.json`` is gone, but its journals are there.
    """
    if layout.store.exists():
        return True
    # A creation that was cut short leaves an empty first journal and its index, and nothing else.
    begun = {layout.journal(1), layout.index(1)}
    found = [*layout.directory.glob("journal-*.log"), *layout.directory.glob("index-*.json")]
    rest = [path for path in found if path not in begun or (path == layout.journal(1) and path.stat().st_size)]
    rest += layout.runs.glob("*.json")
    if rest:
        raise corrupt(layout.store, f"the file is missing, but {rest[0].name} is there")
    return False
