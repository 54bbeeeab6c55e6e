"""Reading on in a journal that others append to, and going on to the next one when a checkpoint has begun it."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TypeAlias

import msgspec

from seeknal.errors import BackendUnavailableError, CorruptStateError
from seeknal.model.codec import decode
from seeknal.state.file import durable
from seeknal.state.file.checkpoint import FileImage
from seeknal.state.file.documents import Entry, StoreDocument, check_format, corrupt, read_document
from seeknal.state.file.journal import read_frames
from seeknal.state.file.layout import Layout

Stamp: TypeAlias = tuple[int, int, int]


class Follower:
    """An image of a store that keeps up with its journal. One thread at a time.

    Args:
        layout: Where the store is.
        checkpoint_bytes: How long the journal may grow at least before its files are written.
    """

    def __init__(self, layout: Layout, checkpoint_bytes: int) -> None:
        self.layout = layout
        self.image = FileImage(layout)
        self.store_id = ""
        self._least_checkpoint_bytes = checkpoint_bytes
        self._checkpoint_bytes = checkpoint_bytes
        self._must_reload = True
        self._is_synced = True
        self._generation = 0
        self._position = self._settled = 0
        self._journal: FileIO | None = None
        self._journal_path = layout.journal(0)
        self._stamp: Stamp | None = None

    def _catch_up(self) -> None:
        if self._must_reload:
            self._reload()
            return
        try:
            if stamp_of(self.layout.store) != self._stamp:
                self._follow()
            else:
                self._read_on()
        except CorruptStateError:
            # A checkpoint removes the files of runs that the journal before it deletes, and holds all that follows.
            if stamp_of(self.layout.store) == self._stamp:
                raise
            self._reload()

    def _follow(self) -> None:
        """Go on to the next journal, or load everything if more than one checkpoint was missed."""
        stamp, document = self._read_store()
        if document.generation == self._generation + 1:
            # The journal we have is complete: it was left under the lock. All of it is in the new checkpoint.
            self._read_on()
            self.image.settle()
            if self._open_journal(document.generation):
                self.store_id, self._stamp = document.store_id, stamp
                self._read_on()
                return
        elif document.generation == self._generation:
            self.store_id, self._stamp = document.store_id, stamp
            self._read_on()
            return
        self._reload()

    def _reload(self) -> None:
        """Read the current checkpoint and its journal; again if a newer one replaces it meanwhile."""
        while True:
            stamp, document = self._read_store()
            path = self.layout.index(document.generation)
            if self._open_journal(document.generation) and path.exists():
                break
            if self._read_store()[0] == stamp:
                missing = path if self._generation == document.generation else self.layout.journal(document.generation)
                raise corrupt(missing, "the file is missing")
        self.store_id, self._stamp = document.store_id, stamp
        self.image.load(path)
        with suppress(FileNotFoundError):  # another process has made a newer one, which is followed next
            self._put_off_checkpoint(path.stat().st_size)
        self._must_reload = False
        self._read_on()

    def _read_store(self) -> tuple[Stamp, StoreDocument]:
        check_format(self.layout.store)
        return stamp_of(self.layout.store), read_document(self.layout.store, StoreDocument)

    def _open_journal(self, generation: int) -> bool:
        path = self.layout.journal(generation)
        with durable.unavailable(path, "open"):
            try:
                opened = durable.open_file(path, os.O_RDWR | os.O_APPEND)
            except FileNotFoundError:
                return False
        if self._journal is not None:
            self._journal.close()
        self._journal, self._journal_path, self._generation = opened, path, generation
        self._position = self._settled = 0
        self._is_synced = True
        return True

    def _read_on(self) -> None:
        """Apply the commits that others appended since."""
        path = self._journal_path
        with durable.unavailable(path, "read"):
            size = os.fstat(self._descriptor).st_size
            if size == self._position:
                return
        if size < self._position:
            raise corrupt(path, f"it was cut from {self._position} to {size} bytes while it was open", size)
        for frame in read_frames(self._descriptor, self._position, size, path):
            try:
                self._apply(decode(frame.payload, Entry))
            except (msgspec.MsgspecError, ValueError) as error:
                raise corrupt(path, f"a frame cannot be read: {error}", self._position) from error
            self._position = frame.end

    def _put_off_checkpoint(self, written: int) -> None:
        """Let the journal grow until a checkpoint of so many bytes costs a bounded share of all that is written."""
        self._checkpoint_bytes = max(self._least_checkpoint_bytes, 2 * written)

    def _apply(self, entry: Entry) -> None:
        if entry.changes is not None:
            self.image.apply(entry.changes)
        for lock in entry.locks:
            self.image.locks[lock.holder.run_id, lock.holder.node_id] = lock
        if entry.moved is not None:
            self.store_id = entry.moved.store_id
            self.image.superseded_by = entry.moved.successor
        if entry.is_settled:
            self.image.settle()
            self._settled = self._position

    @property
    def _descriptor(self) -> int:
        if self._journal is None:
            raise BackendUnavailableError(
                f"{self.layout.directory} is not open", hint="Call initialize() first, and nothing after close()."
            )
        return self._journal.fileno()


def stamp_of(path: Path) -> Stamp:
    """Return what changes whenever a file is replaced."""
    with durable.unavailable(path, "read"):
        found = os.stat(path)  # noqa: PTH116 - the hot path of every read
    return (found.st_ino, found.st_mtime_ns, found.st_size)
