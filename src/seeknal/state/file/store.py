"""One instance's hold on a file store: catch up with the journal, append to it, start it anew.

The journal is the truth. Every process that has the store open keeps an image of it in memory and reads
on in the journal before each answer; a writer appends one frame under the lock file. When the journal has
grown, the files it leads to are written (a *checkpoint*), and a new journal begins.

Replaying a journal over newer files changes nothing: frames hold whole records and set operations,
so the last one that touches a thing decides. A checkpoint may therefore write its files in any order
before ``store.json`` names it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import TypeAlias, TypeVar

import msgspec

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, CommitUnknownError, CorruptStateError, StateBackendError
from seeknal.model.codec import decode, encode
from seeknal.state.batch import Batch
from seeknal.state.file import durable
from seeknal.state.file.checkpoint import (
    FileImage,
    leftovers,
    remove_leftovers,
    remove_run_files,
    sync_directories,
    write_documents,
    write_index,
)
from seeknal.state.file.documents import (
    FORMAT,
    Entry,
    StoreDocument,
    check_format,
    corrupt,
    read_document,
    write_document,
)
from seeknal.state.file.filelock import FileLock
from seeknal.state.file.journal import encode_frame, read_frames
from seeknal.state.file.layout import Layout

T = TypeVar("T")

Stamp: TypeAlias = tuple[int, int, int]

_logger = logging.getLogger(__name__)


class FileStore:
    """The engine of the file backend. Safe from threads through its own mutex."""

    def __init__(self, layout: Layout, clock: Clock, *, budget_ms: int, checkpoint_bytes: int) -> None:
        self.layout = layout
        self.image = FileImage(layout)
        self.store_id = ""
        self._clock = clock
        self._budget_ms = budget_ms
        self._least_checkpoint_bytes = checkpoint_bytes
        self._checkpoint_bytes = checkpoint_bytes
        self._mutex = Lock()
        self._failed = self._is_closed = False
        self._must_reload = True
        self._generation = 0
        self._position = self._settled = 0
        self._journal: FileIO | None = None
        self._journal_path = layout.journal(0)
        self._stamp: Stamp | None = None
        self._lock = FileLock(layout.lock, clock)

    # ---- entering ----

    def read(self, question: Callable[[FileImage], T]) -> T:
        """Return an answer as of the last commit. Takes no file lock: a writer is never waited for.

        The answer is asked for again if a checkpoint, or a restore, replaced a file that it may have read.
        """
        with self._entered():
            while True:
                self._catch_up()
                seen = self._stamp
                try:
                    answer = question(self.image)
                except (CorruptStateError, LookupError):
                    if _stamp(self.layout.store) == seen:
                        raise
                else:
                    if _stamp(self.layout.store) == seen:
                        return answer

    @contextmanager
    def writing(self) -> Iterator[FileImage]:
        """Yield the image as of the last commit while no other process can commit.

        Raises:
            BackendUnavailableError: Others kept the store locked for the whole budget.
        """
        with self._entered(), self._lock.held(self._budget_ms):
            self._catch_up()
            self._cut_unfinished()
            yield self.image

    @contextmanager
    def _entered(self) -> Iterator[None]:
        if not self._mutex.acquire(timeout=max(self._budget_ms, 1) / 1000):
            raise BackendUnavailableError(
                f"other threads kept {self.layout.directory} busy for {self._budget_ms} ms", hint="Try again."
            )
        try:
            if self._is_closed:  # while this thread waited for the mutex
                raise BackendUnavailableError(f"{self.layout.directory} was closed", hint="Open the backend again.")
            if self._failed:
                raise BackendUnavailableError(
                    f"an earlier commit to {self.layout.directory} could not be made certain",
                    hint="Close this backend and open it again: it then reads what the disk has.",
                )
            yield
        finally:
            self._mutex.release()

    # ---- opening ----

    def is_adopting(self) -> bool:
        """Return whether ``run_state.json`` is still to be taken in."""
        return self._read_store()[1].is_adopting

    def upgrade(self) -> None:
        """Bring a store that an older program wrote to the format of this one; from then on that one refuses it."""
        if self._read_store()[1].format < FORMAT:
            with self.writing():
                if self._read_store()[1].format < FORMAT:  # another process may have been first
                    self.checkpoint()

    def adopt(self, found: Batch | None) -> None:
        """Take in what ``run_state.json`` held before there was a store, unless another process did."""
        with self.writing() as image:
            if found is not None and not image.runs:
                self.append(Entry(changes=image.numbered(found)))
            with durable.unavailable(self.layout.store, "write"):
                document = read_document(self.layout.store, StoreDocument)
                document.is_adopting = False
                write_document(self.layout.store, document)
                durable.sync_directory(self.layout.directory)

    def last_commit_ns(self) -> int:
        """Return the time of the last commit or checkpoint, in the file system's nanoseconds since the epoch."""
        return self.read(lambda _: max(os.fstat(self._descriptor).st_mtime_ns, self._stamp[1] if self._stamp else 0))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock file without reading anything; for creating and opening."""
        with self._entered(), self._lock.held(self._budget_ms):
            yield

    def tidy(self) -> None:
        """Remove what an interrupted checkpoint left, if there is anything."""
        with durable.unavailable(self.layout.directory, "tidy up"):
            if leftovers(self.layout, self.read(lambda _: self._generation)):
                with self.writing():
                    remove_leftovers(self.layout, self._generation)

    def write_documents(self) -> None:
        """Bring the files of runs and of completed work up to date; the caller is writing.

        Now and then the journal tells, and whoever reads it keeps no more in memory than what follows.
        """
        with durable.unavailable(self.layout.directory, "write the files of"):
            write_documents(self.layout, self.image)
            if self._position - self._settled < self._least_checkpoint_bytes:
                return
            sync_directories(self.layout)
        self.append(Entry(is_settled=True), sync=False)

    def close(self) -> None:
        """Close the files."""
        with self._mutex:
            self._is_closed = True
            self._lock.close()
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    def reset_after_fork(self) -> None:
        """Start anew in a child: another thread of the parent may have been in the middle of anything."""
        self._mutex = Lock()
        self._lock.reopen()
        self._must_reload = True

    # ---- reading on ----

    def _catch_up(self) -> None:
        if self._must_reload:
            self._reload()
            return
        try:
            if _stamp(self.layout.store) != self._stamp:
                self._follow()
            else:
                self._read_on()
        except CorruptStateError:
            # A checkpoint removes the files of runs that the journal before it deletes, and holds all that follows.
            if _stamp(self.layout.store) == self._stamp:
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
            try:
                if self._open_journal(document.generation):
                    self.image.load(path)
                    break
            except CorruptStateError:  # of its index, which a newer checkpoint has removed, or which is damaged
                if self._read_store()[0] == stamp:
                    raise
            else:
                if self._read_store()[0] == stamp:
                    raise corrupt(self.layout.journal(document.generation), "the file is missing")
        self.store_id, self._stamp = document.store_id, stamp
        with suppress(FileNotFoundError):  # another process has made a newer one, which is followed next
            self._put_off_checkpoint(path.stat().st_size)
        self._must_reload = False
        self._read_on()

    def _read_store(self) -> tuple[Stamp, StoreDocument]:
        check_format(self.layout.store)
        return _stamp(self.layout.store), read_document(self.layout.store, StoreDocument)

    def _open_journal(self, generation: int) -> bool:
        path = self.layout.journal(generation)
        with durable.unavailable(path, "open"):
            try:
                opened = durable.open_file(path, os.O_RDWR | os.O_APPEND)
            except FileNotFoundError:
                return False
        left = self._journal
        self._journal, self._journal_path, self._generation = opened, path, generation
        self._position = self._settled = 0
        if left is not None:  # last of all: who is interrupted before this has a journal that is open
            left.close()
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

    def _cut_unfinished(self) -> None:
        """Cut off the beginning of a frame that its writer never finished; the lock is held."""
        with durable.unavailable(self._journal_path, "write"):
            if os.fstat(self._descriptor).st_size > self._position:
                durable.truncate(self._descriptor, self._position)

    # ---- writing ----

    def append(self, entry: Entry, *, sync: bool = True) -> None:
        """Commit an entry; the caller is writing, and has checked it.

        Raises:
            BackendUnavailableError: Nothing was written.
            CommitUnknownError: It was written, but the disk did not confirm it.
        """
        frame = encode_frame(encode(entry))
        path = self._journal_path
        with durable.unavailable(path, "write"):
            try:
                durable.append(self._descriptor, frame, self._position, sync=sync)
            except durable.SyncError as error:
                self._failed = True
                raise CommitUnknownError(
                    f"{path}: the disk did not confirm the commit: {error.strerror}",
                    hint="Check the disk, open the store again and read whether the change is there.",
                ) from error
        self._position += len(frame)
        self._apply(entry)
        if self._position >= self._checkpoint_bytes:
            self.checkpoint_in_passing()

    def checkpoint(self) -> None:
        """Write the files that the journal leads to, and begin a new journal; the caller is writing.

        Raises:
            BackendUnavailableError: The former checkpoint and its journal still stand; nothing is lost.
        """
        layout, following = self.layout, self._generation + 1
        with durable.unavailable(layout.directory, "write a checkpoint in"):
            written = write_documents(layout, self.image) + write_index(layout.index(following), self.image)
            durable.create_file(layout.journal(following))
            sync_directories(layout)
            document = read_document(layout.store, StoreDocument)
            document.format, document.generation, document.store_id = FORMAT, following, self.store_id
            write_document(layout.store, document)
            durable.sync_directory(layout.directory)
            self._stamp = _stamp(layout.store)
            self._open_journal(following)
            self._put_off_checkpoint(written)
            remove_leftovers(layout, following)
            remove_run_files(layout, self.image)

    def _put_off_checkpoint(self, written: int) -> None:
        """Let the journal grow until a checkpoint of so many bytes costs a bounded share of all that is written."""
        self._checkpoint_bytes = max(self._least_checkpoint_bytes, 2 * written)

    def checkpoint_in_passing(self) -> None:
        """Write a checkpoint after a commit that stands whether this works or not."""
        try:
            self.checkpoint()
        except StateBackendError:
            # The commit is durable, so its caller must not see a failure. Try again when the journal has doubled.
            self._checkpoint_bytes = 2 * self._position
            _logger.warning(
                "the journal of %s could not be shortened; it goes on", self.layout.directory, exc_info=True
            )

    def write_documents_in_passing(self) -> None:
        """Bring the files up to date after a commit that stands whether this works or not."""
        try:
            self.write_documents()
        except StateBackendError:
            _logger.warning("the files of %s are behind its journal", self.layout.directory, exc_info=True)

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


def _stamp(path: Path) -> Stamp:
    """Return what changes whenever a file is replaced."""
    with durable.unavailable(path, "read"):
        found = os.stat(path)  # noqa: PTH116 - the hot path of every read
    return (found.st_ino, found.st_mtime_ns, found.st_size)
