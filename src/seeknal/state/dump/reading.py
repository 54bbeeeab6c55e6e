"""Open an export and read it, believing nothing: every line is checked, and the end must match all before it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn
from uuid import UUID

import msgspec

from seeknal.errors import CorruptStateError, SchemaVersionError, TransferError
from seeknal.model.codec import encode
from seeknal.model.records import LoggedChange
from seeknal.state.dump.checks import RecordChecker
from seeknal.state.dump.format import FORMAT, MAX_LINE_BYTES, VERSION, Header, Tally, Trailer, decode_line
from seeknal.state.dump.packing import unpacked, unpacking_errors
from seeknal.state.transfer import Record


class Dump:
    """An export that can be read more than once; one reading at a time.

    Args:
        file: Where its bytes are; it can be wound back.
        where: What it is called in messages.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self.where = where

    def reading(self) -> DumpReader:
        """Begin to read it from its first line.

        Raises:
            TransferError, CorruptStateError, SchemaVersionError: As `DumpReader`.
            MissingDriverError: It is compressed by zstd and the extra ``zstd`` is not installed.
        """
        return DumpReader(unpacked(self._file), self.where)


@contextmanager
def dump_file(path: str | os.PathLike[str]) -> Iterator[Dump]:
    """Yield the export in a file; compressed or not, whatever its name.

    Raises:
        TransferError: It cannot be opened.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        except OSError as error:
            raise _unreadable(str(path), error) from error
        yield Dump(file, str(path)) if is_file else stack.enter_context(dump_stream(file, str(path)))


@contextmanager
def dump_stream(stream: BinaryIO, where: str = "standard input") -> Iterator[Dump]:
    """Yield the export that a stream brings: all of it is kept in a nameless file until the end of the block.

    Raises:
        TransferError: It cannot be read, or there is no space to keep it.
    """
    with tempfile.TemporaryFile() as spool:  # nobody else can open it, and it is gone with this process
        try:
            shutil.copyfileobj(stream, spool)
            spool.flush()
        except OSError as error:
            raise unkept(where, error) from error
        yield Dump(spool, where)


class _Probe(msgspec.Struct):
    """What every version of the format begins with."""

    format: str
    version: int


class DumpReader:
    """One reading of an export: its header at once, its records by iteration, and when they end, its trailer.

    Attributes:
        header: The first line.
        changes: The entries of the change log that were read; all of them when the iteration has ended.
        trailer: The last line; set when the iteration has ended, and then everything was as it says.
        offset: The first byte of the line that was read last, decompressed.

    Raises:
        TransferError: It is not an export, or cannot be read.
        SchemaVersionError: A newer program wrote it.
        CorruptStateError: It is damaged; ``location`` is its name and the line.
    """

    trailer: Trailer | None = None

    def __init__(self, lines: BinaryIO, where: str) -> None:
        self._lines = lines
        self._where = where
        self._tally = Tally()
        self._number = 0
        self._next_offset = 0
        self.offset = 0
        self.changes: list[LoggedChange] = []
        self.header = self._header()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records, each once it is checked.

        Raises:
            TransferError, CorruptStateError: As above.
        """
        checker = RecordChecker()
        while self.trailer is None:
            line = self._line()
            found = self._decoded(line)
            if isinstance(found, Header):
                self._refuse("a second header")
            elif isinstance(found, Trailer):
                self._end(found)
            else:
                try:
                    checker.check(found)
                    if isinstance(found, LoggedChange):
                        self._tally.line_of_change(found)
                    else:
                        self._tally.line_of(found)
                except (ValueError, RecursionError) as error:
                    self._refuse(str(error), error)
                self._tally.add_line(line)
                if isinstance(found, LoggedChange):
                    self.changes.append(found)  # few: one for each thing that somebody did
                else:
                    yield found

    def _header(self) -> Header:
        line = self._line()
        try:
            probe = msgspec.json.decode(line, type=_Probe)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            if f'"{FORMAT}"'.encode() in line:
                self._refuse(str(error), error)
            raise self._foreign() from error
        if probe.format != FORMAT:
            raise self._foreign()
        if probe.version > VERSION:
            raise SchemaVersionError(
                f"{self._where} has version {probe.version} of the export format; this program reads {VERSION}",
                hint="Import it with a newer version of this package.",
                found=str(probe.version),
                wanted=str(VERSION),
            )
        found = self._decoded(line)
        if not isinstance(found, Header) or found.version < 1:
            self._refuse("it is not a header")
        try:
            UUID(found.store_id)
            is_aware = found.exported_at.tzinfo is not None
        except ValueError as error:
            self._refuse(f"store_id: {error}", error)
        if not is_aware:
            self._refuse("exported_at has no offset from UTC")
        self._tally.add_line(line)
        return found

    def _end(self, trailer: Trailer) -> None:
        """Hold the trailer against all that came before."""
        if encode(trailer) != encode(self._tally.trailer()):
            self._refuse("what it says of the lines before is not what they hold")
        if trailer.counts != self.header.counts:
            self._refuse("it counts otherwise than the first line")
        if self._read():
            self._refuse("something follows the last line")
        self.trailer = trailer

    def _line(self) -> bytes:
        """Return the next line, which must be there, and whole."""
        line = self._read()
        if not line:
            self._refuse("it ends here, without its last line" if self._number > 1 else "it is empty")
        if not line.endswith(b"\n") and self._number > 1:
            self._refuse(
                "it ends in the middle of this line" if len(line) <= MAX_LINE_BYTES else "the line is too long"
            )
        return line

    def _read(self) -> bytes:
        self._number += 1
        self.offset = self._next_offset
        try:
            line = self._lines.readline(MAX_LINE_BYTES + 1)
        except unpacking_errors() as error:
            self._refuse(f"it cannot be decompressed: {error}", error)
        except OSError as error:
            raise _unreadable(self._where, error) from error
        self._next_offset += len(line)
        return line

    def _decoded(self, line: bytes) -> Header | Trailer | Record | LoggedChange:
        if not line.endswith(b"\n"):
            self._refuse("it ends in the middle of this line")
        try:
            return decode_line(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._refuse(str(error), error)

    def _refuse(self, what: str, cause: BaseException | None = None) -> NoReturn:
        raise CorruptStateError(
            f"{self._where} is damaged at line {self._number}: {what}",
            hint="Nothing was imported. Take another copy of it, or export it again.",
            location=f"{self._where}:{self._number}",
            offset=self.offset,
        ) from cause

    def _foreign(self) -> TransferError:
        return TransferError(
            f"{self._where} is not an export of a Seeknal store",
            hint="Make one with `seeknal state export`. Of the published platform's state, name the directory.",
        )


def unkept(where: str, error: OSError) -> TransferError:
    """Return the error of an export that does not fit where temporary files are."""
    return TransferError(
        f"cannot keep {where} in {tempfile.gettempdir()}: {error.strerror or error}",
        hint="Set TMPDIR to a directory with more space.",
    )


def _unreadable(where: str, error: OSError) -> TransferError:
    return TransferError(
        f"cannot read {where}: {error.strerror or error}", hint="Check its name, and that you may read it."
    )
