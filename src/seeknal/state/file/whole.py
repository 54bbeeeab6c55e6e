"""A file store as a whole: read through links to its files, and replaced by a journal that was written beside.

Files of a store are replaced and never written into, so a link to one holds what it was. Only a journal grows, and of
it as much is copied as was committed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from seeknal.clock import Clock
from seeknal.errors import CorruptStateError
from seeknal.model.codec import decode, encode
from seeknal.model.records import (
    CompletedInterval,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.batch import Batch, Changes
from seeknal.state.file import durable
from seeknal.state.file.checkpoint import FileImage, left_copies, write_index
from seeknal.state.file.documents import Entry, StoreDocument, read_document, write_document
from seeknal.state.file.filelock import FileLock
from seeknal.state.file.journal import encode_frame, frames
from seeknal.state.file.layout import Layout
from seeknal.state.file.snapshot import snapshot
from seeknal.state.file.store import FileStore
from seeknal.state.whole import LoggedReading, Record, SideStore
from seeknal.state.work import record_of

COPY_BYTES = 1 << 20

LOOK_MS = 1000
"""Somebody who looks whether a copy is locked keeps it locked for less than this."""


@contextmanager
def frozen(store: FileStore, clock: Clock) -> Iterator[LoggedReading]:
    """Yield what the store holds now; its writers wait for as long as it takes to link its files.

    Raises:
        BackendUnavailableError: There is no space for the end of the journal.
    """
    layout = store.layout
    with ExitStack() as undo:
        with store.writing():
            generation = read_document(layout.store, StoreDocument).generation
            with durable.unavailable(layout.directory, "copy"):
                for path in left_copies(layout):
                    durable.remove_tree(path)
                copy = Layout(Path(tempfile.mkdtemp(prefix="snapshot-", suffix=".tmp", dir=layout.directory)))
                for directory in (copy.directory, copy.runs, copy.nodes):
                    directory.mkdir(mode=durable.DIRECTORY_MODE)
                # Whoever can lock it knows that the process is gone that made the copy.
                lock = FileLock(copy.lock, clock)
                undo.callback(lock.close)
                undo.enter_context(lock.held(LOOK_MS))
                # While it is locked: others remove one that is not. They see that it is not once its lock is deleted.
                undo.callback(durable.remove_tree, copy.base)
                for theirs, ours in (
                    (layout.directory, copy.directory),
                    (layout.runs, copy.runs),
                    (layout.nodes, copy.nodes),
                ):
                    for path in theirs.glob("*.json"):
                        _link(path, ours / path.name)
                journal = undo.enter_context(layout.journal(generation).open("rb"))
                committed = os.fstat(journal.fileno()).st_size
        path = copy.journal(generation)
        with durable.unavailable(path, "write"):
            path.touch(durable.FILE_MODE, exist_ok=False)
        with durable.unavailable(path, "write"), path.open("wb") as ours_journal:
            while committed and (part := journal.read(min(committed, COPY_BYTES))):
                ours_journal.write(part)
                committed -= len(part)
        try:
            yield _Frozen(snapshot(copy).image)
        except CorruptStateError as error:
            raise _of_the_store(error, copy, layout) from error


def _of_the_store(error: CorruptStateError, copy: Layout, layout: Layout) -> CorruptStateError:
    """Return an error that names the file of the store, which is still there to be looked at."""
    message, location = (text.replace(str(copy.base), str(layout.base)) for text in (str(error), error.location))
    return CorruptStateError(message, hint=error.hint, location=location, offset=error.offset)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except PermissionError:  # a file system without links
        shutil.copyfile(path, to)


class _Frozen:
    """All records of an image that nobody changes."""

    def __init__(self, image: FileImage) -> None:
        self._image = image

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order."""
        yield from self._image.runs.values()

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run."""
        return self._image.read_nodes(run_id)

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work."""
        return self._image.read_worked_nodes()

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node."""
        return list(self._image.work_of(node_id).intervals)

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of them."""
        return list(self._image.work_of(node_id).provenance)

    def read_partitions(self, node_id: str) -> list[PartitionState]:
        """Return the completed partitions of a node."""
        return self._image.work_of(node_id).page("", None)

    def read_expected(self, node_id: str) -> list[str]:
        """Return the keys of partitions that are expected of a node."""
        return self._image.work_of(node_id).expected_page("", None)

    def scan_log(self) -> Iterator[LoggedChange]:
        """Yield the change log in the order of time."""
        yield from self._image.read_log("", len(self._image.log()))


@contextmanager
def replacing(store: FileStore, clock: Clock, on_swap: Callable[[], object]) -> Iterator[SideStore]:
    """Yield a journal beside the store's, which nobody reads; it is gone in the end.

    Args:
        store: The store.
        clock: What leases are measured by.
        on_swap: Called when the content was replaced.
    """
    path = store.layout.restored
    with store.writing(), durable.unavailable(path, "write"):
        # Of a process that was killed; one that only sleeps goes on in a file without name.
        path.unlink(missing_ok=True)
        file = durable.open_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        fcntl.flock(file, fcntl.LOCK_EX)  # whoever can lock it knows that the process is gone that writes it
    with file:
        try:
            yield _Side(store, clock, path, file, on_swap)
        finally:
            path.unlink(missing_ok=True)


class _Side:
    """A journal that holds the content which a store shall have, from the first frame on."""

    def __init__(self, store: FileStore, clock: Clock, path: Path, file: FileIO, on_swap: Callable[[], object]) -> None:
        self._store = store
        self._clock = clock
        self._path = path
        self._file = file
        self._on_swap = on_swap
        self._size = 0

    def put(self, batch: Batch) -> None:
        """Append a frame; the disk has to have it by the time of `swap` only."""
        self._append(Changes(runs=batch.runs, nodes=batch.nodes, work=batch.work))

    def _append(self, changes: Changes) -> None:
        frame = encode_frame(encode(Entry(changes=changes)))
        with durable.unavailable(self._path, "write"):
            durable.append(self._file.fileno(), frame, self._size, sync=False)
        self._size += len(frame)

    def records(self) -> Iterator[Record]:
        """Yield what the frames hold."""
        with durable.unavailable(self._path, "read"):
            file = self._path.open("rb")
        with file:
            for line in file:  # a frame is a line
                for frame in frames(line, 0, str(self._path)):
                    changes = decode(frame.payload, Entry).changes
                    assert changes is not None
                    yield from _in_order(changes)

    def swap(self, batch: Batch, store_id: str) -> None:
        """Make the journal that of a checkpoint without records; ``store.json`` says from when on.

        Processes that have an earlier checkpoint load this one, since they know none right before it.
        """
        store, layout = self._store, self._store.layout
        with store.writing() as image:
            image.check_alone(batch, self._clock.ticks_us())
            store.checkpoint()  # the log of changes, too, is in its file then
            self._append(Changes(log=batch.log))
            document = read_document(layout.store, StoreDocument)
            document.generation += 2
            document.store_id = store_id
            empty = FileImage(layout)
            empty.sequence, empty.locks = image.sequence, image.locks
            empty.claim_versions = image.claim_versions  # the claims themselves end
            with durable.unavailable(layout.directory, "write"):
                os.fsync(self._file.fileno())
                write_index(layout.index(document.generation), empty)
                durable.at("replace")
                self._path.replace(layout.journal(document.generation))
                durable.sync_directory(layout.directory)
                write_document(layout.store, document)
                durable.sync_directory(layout.directory)
        with store.writing():
            store.checkpoint_in_passing()
        self._on_swap()


def _in_order(changes: Changes) -> Iterator[Record]:
    """Yield the records of a frame in the order in which they were put: a run before its nodes, then work."""
    left, begun = deque(changes.nodes), {run.run_id for run in changes.runs}
    while left and left[0].run_id not in begun:  # of the run that the frame before has ended with
        yield left.popleft()
    for run in changes.runs:
        yield run
        while left and left[0].run_id == run.run_id:
            yield left.popleft()
    for change in changes.work:
        record = record_of(change)
        if record is not None:
            yield record
