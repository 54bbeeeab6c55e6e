"""A file store as of its last commit, read without opening it: no lock, no mutex, nothing written."""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from seeknal.model.codec import decode
from seeknal.state.file import durable
from seeknal.state.file.checkpoint import FileImage
from seeknal.state.file.documents import (
    Entry,
    StoreDocument,
    check_format,
    corrupt,
    read_document,
)
from seeknal.state.file.journal import read_frames
from seeknal.state.file.layout import Layout
from seeknal.state.store_info import StoreInfo


class Snapshot(NamedTuple):
    """What a store holds.

    Attributes:
        document: What ``store.json`` says.
        image: The records; files of runs and nodes are read when they are asked for.
        info: What the store says of itself.
        committed_ns: When the last commit was made, by the file system's clock.
    """

    document: StoreDocument
    image: FileImage
    info: StoreInfo
    committed_ns: int


def stamp(layout: Layout) -> tuple[int, int] | None:
    """Return what changes with every checkpoint; ``None`` if there is no store."""
    try:
        found = layout.store.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns


def snapshot(layout: Layout) -> Snapshot:
    """Return a store as of its last commit. A checkpoint may replace the files meanwhile: see `stamp`.

    Raises:
        CorruptStateError: The store cannot be opened; the error names the file and, if it is known, the byte.
        SchemaVersionError: A newer program wrote it.
        BackendUnavailableError: A file cannot be read.
    """
    check_format(layout.store)
    document = read_document(layout.store, StoreDocument)
    path = layout.journal(document.generation)
    image = FileImage(layout)
    with durable.unavailable(path, "read"):
        if not path.exists():
            raise corrupt(path, "the file is missing")
    image.load(layout.index(document.generation))
    store_id, at = document.store_id, 0
    with durable.unavailable(path, "read"), path.open("rb") as journal:
        found = os.fstat(journal.fileno())
        for frame in read_frames(journal.fileno(), 0, found.st_size, path):
            try:
                entry = decode(frame.payload, Entry)
                if entry.changes is not None:
                    image.apply(entry.changes)
            except (msgspec.MsgspecError, ValueError) as error:
                raise corrupt(path, f"a frame cannot be read: {error}", at) from error
            for lock in entry.locks:
                image.locks[lock.holder.run_id, lock.holder.node_id] = lock
            if entry.moved is not None:
                store_id, image.superseded_by = entry.moved.store_id, entry.moved.successor
            if entry.is_settled:
                image.settle()
            at = frame.end
    info = StoreInfo(store_id=store_id, schema_version=str(document.format), superseded_by=image.superseded_by)
    return Snapshot(document, image, info, max(found.st_mtime_ns, layout.store.stat().st_mtime_ns))
