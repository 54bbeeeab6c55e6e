"""Export a store: read it twice, and end the export only if both readings are equal.

Most stores can be read as of one instant (`RecordStore.snapshot`), and then the two are. Of another one, everything
that the second reading sees was there, unchanged, when the first one ended: versions and sequences never come back, so
two equal readings, one after the other, hold the state of the instant between them. Either way no writer is stopped.

Source: double collect: Y. Afek et al., "Atomic Snapshots of Shared Memory", Journal of the ACM 40(4), 1993.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from seeknal import __version__
from seeknal.errors import TransferError
from seeknal.model.codec import encode
from seeknal.model.records import LoggedChange
from seeknal.state.dump.format import FORMAT, VERSION, ExportCounts, Header, Tally, Trailer, total_of
from seeknal.state.dump.packing import packing
from seeknal.state.file import durable
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import records
from seeknal.state.whole import LoggedReading

ATTEMPTS = 5
"""How often a file is written while the store changes, before that is told."""

STEP_RECORDS = 1000
"""After how many records progress is told."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many records of it are done, and of how many; 0 where that is not known yet."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was exported.

    Attributes:
        counts: How many records.
        store_id: The identity of the store.
        state_sha256: Of the records; equal for stores that hold the same.
        sha256: Of all lines but the last.
    """

    counts: ExportCounts
    store_id: str
    state_sha256: str
    sha256: str


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody of progress."""


def export_to_file(
    source: RecordStateBackend, path: str | os.PathLike[str], *, force: bool = False, on_progress: Progress = silent
) -> ExportReport:
    """Export a store to a file, compressed if its name ends in ``.gz`` or ``.zst``.

    The file is written beside its place, readable by its owner only, and takes it when it is whole. What is not a
    regular file, such as a named pipe, is written to as it is.

    Args:
        source: The store, open.
        path: The file.
        force: Whether a file that stands there is replaced.
        on_progress: Called now and then.

    Raises:
        TransferError: The file stands already or cannot be written, or the store did not stop changing.
        MissingDriverError: Compression needs a package that is not installed.
    """
    place = Path(path)
    with writable(place):
        if place.exists() and not place.is_dir() and not stat.S_ISREG(place.stat().st_mode):
            with place.open("wb") as pipe:
                return export_to_stream(source, pipe, on_progress=on_progress)
        place = place.resolve()  # a link stays a link
        _check_free(place, force=force)
        with _beside(place) as (beside, sink), source.snapshot() as frozen:
            reading = frozen or source
            expected = _surveyed(source, reading, on_progress)
            for _ in range(ATTEMPTS):
                sink.seek(0)
                sink.truncate()
                with packing(place.name, sink) as packed:
                    header, found = _written(source, reading, packed, expected, on_progress)
                    is_whole = _is_equal(found, expected)
                    if is_whole:
                        packed.write(encode(found.trailer()) + b"\n")
                if is_whole:
                    break
                expected = found
            else:
                raise _changed(f"the store changed during each of {ATTEMPTS} attempts to export it")
            sink.flush()
            os.fsync(sink.fileno())
            _check_free(place, force=force)
            durable.at("replace")
            beside.replace(place)
        durable.sync_directory(place.parent)
    return _report(header, found.trailer())


def export_to_stream(source: RecordStateBackend, sink: BinaryIO, *, on_progress: Progress = silent) -> ExportReport:
    """Export a store to a stream, which nothing can be taken back from.

    Raises:
        TransferError: The store changed meanwhile. The last line is missing then, and no import takes what was written.
        OSError: The stream cannot be written to.
    """
    with source.snapshot() as frozen:
        reading = frozen or source
        expected = _surveyed(source, reading, on_progress)
        header, found = _written(source, reading, sink, expected, on_progress)
    if not _is_equal(found, expected):
        sink.flush()
        raise _changed("the store changed while it was exported, so the export was left without its end")
    trailer = found.trailer()
    sink.write(encode(trailer) + b"\n")
    sink.flush()
    return _report(header, trailer)


def _surveyed(source: RecordStateBackend, reading: LoggedReading, on_progress: Progress) -> Tally:
    """Count and digest what a store holds."""
    tally = Tally()
    for record in records(reading):
        tally.line_of(record)
        if tally.records % STEP_RECORDS == 0:
            on_progress("counting", tally.records, 0)
    tally.counts.changes = sum(1 for _ in _log_of(source, reading))
    return tally


def _log_of(source: RecordStateBackend, reading: LoggedReading) -> Iterator[LoggedChange]:
    """Return the change log of a store, of the same instant as its records. Empty where none is kept."""
    return reading.scan_log() if source.keeps_log else iter(())


def _written(
    source: RecordStateBackend, reading: LoggedReading, sink: BinaryIO, expected: Tally, on_progress: Progress
) -> tuple[Header, Tally]:
    """Write everything but the trailer; return what was written."""
    info = source.read_store()
    header = Header(
        format=FORMAT,
        version=VERSION,
        store_id=info.store_id,
        schema_version=info.schema_version,
        program=f"seeknal {__version__}",
        exported_at=source.clock.now(),
        counts=expected.counts,
    )
    tally, total = Tally(), total_of(expected.counts)
    line = encode(header) + b"\n"
    tally.add_line(line)
    sink.write(line)
    for record in records(reading):
        line = tally.line_of(record)
        tally.add_line(line)
        sink.write(line)
        if tally.records % STEP_RECORDS == 0:
            on_progress("exporting", tally.records, max(total, tally.records))
    for change in _log_of(source, reading):
        line = tally.line_of_change(change)
        tally.add_line(line)
        sink.write(line)
    return header, tally


def _is_equal(found: Tally, expected: Tally) -> bool:
    return found.counts == expected.counts and found.state_sha256 == expected.state_sha256


def _report(header: Header, trailer: Trailer) -> ExportReport:
    return ExportReport(
        counts=trailer.counts, store_id=header.store_id, state_sha256=trailer.state_sha256, sha256=trailer.sha256
    )


def _changed(what: str) -> TransferError:
    error = TransferError(what, hint="Export it again when fewer write to it; to a file, which is tried several times.")
    error.retriable = True
    return error


def _check_free(place: Path, *, force: bool) -> None:
    if place.is_dir():
        raise TransferError(f"{place} is a directory", hint="Name a file in it.")
    if place.exists() and not force:
        raise TransferError(f"{place} exists already", hint="Choose another name, or replace it with --force.")


@contextmanager
def _beside(place: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file beside a place, for its owner only; it is removed unless it took the place."""
    descriptor, name = tempfile.mkstemp(prefix=f"{place.name}.", suffix=".tmp", dir=place.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            yield beside, sink
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file; a reader that went away is none of it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TransferError(
            f"cannot write {place}: {error.strerror or error}",
            hint="Check that its directory stands and can be written to, and that the disk is not full.",
        ) from error
