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
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, CommitUnknownError, CorruptStateError, StateBackendError
from seeknal.model.codec import encode
from seeknal.state.batch import Batch, Changes
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
    read_document,
    write_document,
)
from seeknal.state.file.filelock import FileLock
from seeknal.state.file.following import Follower, stamp_of
from seeknal.state.file.group import Queue, Waiting
from seeknal.state.file.journal import encode_frame
from seeknal.state.file.layout import Layout

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class FileStore(Follower):
    """The engine of the file backend. Safe from threads through its own mutex."""

    def __init__(self, layout: Layout, clock: Clock, *, budget_ms: int, checkpoint_bytes: int) -> None:
        super().__init__(layout, checkpoint_bytes)
        self._clock = clock
        self._budget_ms = budget_ms
        self._mutex = Lock()
        self._queue = Queue(str(layout.directory), budget_ms)
        self._failed = False
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
                    if stamp_of(self.layout.store) == seen:
                        raise
                else:
                    if stamp_of(self.layout.store) == seen:
                        return answer

    @contextmanager
    def writing(self) -> Iterator[FileImage]:
        """Yield the image as of the last commit while no other process can commit.

        Raises:
            BackendUnavailableError: Others kept the store locked for the whole budget.
        """
        with self._queue.turn(), self._lock.held(self._budget_ms), self._entered():
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
        with self._queue.turn(), self._lock.held(self._budget_ms):
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
        self._sync()
        with durable.unavailable(self.layout.directory, "write the files of"):
            write_documents(self.layout, self.image)
            if self._position - self._settled < self._least_checkpoint_bytes:
                return
            sync_directories(self.layout)
        self.append(Entry(is_settled=True), sync=False)

    def close(self) -> None:
        """Close the files."""
        with self._queue.turn(is_last=True), self._mutex:
            self._lock.close()
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    def reset_after_fork(self) -> None:
        """Start anew in a child: another thread of the parent may have been in the middle of anything."""
        self._mutex = Lock()
        self._queue = Queue(str(self.layout.directory), self._budget_ms)
        self._lock.reopen()
        self._must_reload = True

    # ---- writing ----

    def _cut_unfinished(self) -> None:
        """Cut off the beginning of a frame that its writer never finished; the lock is held."""
        with durable.unavailable(self._journal_path, "write"):
            if os.fstat(self._descriptor).st_size > self._position:
                durable.truncate(self._descriptor, self._position)

    def commit(self, batch: Batch) -> Changes:
        """Commit a batch if its guards hold, and those of other threads that wait; return what was written of it.

        Raises:
            BackendUnavailableError: Nothing was written.
            CommitUnknownError: It was written, but the disk did not confirm it.
            SeeknalError: A guard does not hold.
        """
        mine = Waiting(batch)
        with self._queue.turn(mine):
            if not mine.is_over:
                self._lead(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.changes is not None
        return mine.changes

    def _lead(self, mine: Waiting) -> None:
        """Commit all that wait; meanwhile other threads can read, and come to wait for the next turn."""
        with self._lock.held(self._budget_ms):
            with self._entered():
                self._catch_up()
                taken = self._queue.take(mine)
                for each in taken:
                    self._write_checked(each)
            written = [each for each in taken if each.changes is not None]
            try:
                self._sync()
            except CommitUnknownError as error:
                for each in written:  # each of its own, since threads write into what they raise
                    each.error = CommitUnknownError(str(error), hint=error.hint)
                    each.error.__cause__ = error
                return
            for each in written:
                each.is_durable = True
            with self._mutex:
                if any(each.begins_run for each in written) and len(self.image.behind_runs) > 1:
                    self.write_documents_in_passing()
                self._checkpoint_if_due()

    def _write_checked(self, each: Waiting) -> None:
        """Write a commit that waits, or say why not; one that an interrupted thread has written stands already."""
        if each.changes is not None:
            return
        try:
            self.image.check(each.batch, self._clock.ticks_us())
            changes = self.image.numbered(each.batch)
            each.begins_run = any(run.run_id not in self.image.runs for run in changes.runs)
            self._cut_unfinished()  # also what the one before may have left that could not be written
            self._write(Entry(changes=changes))
            each.changes = changes
        except Exception as error:  # noqa: BLE001 - it belongs to another thread, and is raised there
            each.error = error
        except BaseException:
            each.error = CommitUnknownError(
                f"the thread that wrote to {self._journal_path} was interrupted",
                hint="Read the records back to see whether they were written.",
            )
            raise

    def append(self, entry: Entry, *, sync: bool = True) -> None:
        """Commit an entry; the caller is writing, and has checked it.

        Raises:
            BackendUnavailableError: Nothing was written.
            CommitUnknownError: It was written, but the disk did not confirm it.
        """
        self._write(entry)
        if sync:
            self._sync()
        self._checkpoint_if_due()

    def _write(self, entry: Entry) -> None:
        frame = encode_frame(encode(entry))
        with durable.unavailable(self._journal_path, "write"):
            durable.append(self._descriptor, frame, self._position)
        self._is_synced = False
        self._position += len(frame)
        self._apply(entry)

    def _sync(self) -> None:
        """Wait until the disk has all that this instance wrote."""
        if self._is_synced:
            return
        try:
            durable.sync_file(self._descriptor)
        except durable.SyncError as error:
            self._failed = True
            raise CommitUnknownError(
                f"{self._journal_path}: the disk did not confirm the commit: {error.strerror}",
                hint="Check the disk, open the store again and read whether the change is there.",
            ) from error
        self._is_synced = True

    def _checkpoint_if_due(self) -> None:
        if self._position >= self._checkpoint_bytes:
            self.checkpoint_in_passing()

    def checkpoint(self) -> None:
        """Write the files that the journal leads to, and begin a new journal; the caller is writing.

        Raises:
            BackendUnavailableError: The former checkpoint and its journal still stand; nothing is lost.
        """
        layout, following = self.layout, self._generation + 1
        self._sync()  # the files may not be ahead of the journal that they follow
        with durable.unavailable(layout.directory, "write a checkpoint in"):
            written = write_documents(layout, self.image) + write_index(layout.index(following), self.image)
            durable.create_file(layout.journal(following))
            sync_directories(layout)
            document = read_document(layout.store, StoreDocument)
            document.format, document.generation, document.store_id = FORMAT, following, self.store_id
            write_document(layout.store, document)
            durable.sync_directory(layout.directory)
            self._stamp = stamp_of(layout.store)
            self._open_journal(following)
            self._put_off_checkpoint(written)
            remove_leftovers(layout, following)
            remove_run_files(layout, self.image)

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
