"""What takes back the commits that a copy made, kept on disk: a copy may be larger than the memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import msgspec

from seeknal.errors import TransferError
from seeknal.model.codec import decode, encode
from seeknal.state.batch import Batch
from seeknal.state.record_backend import RecordStateBackend


class Undo:
    """The inverses of commits, the last one first. Nobody else can open the file, and it is gone with the process."""

    def __init__(self) -> None:
        with _space():  # unbuffered: what a full disk did not take must not wait to be written by the next seek
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by __exit__
        self._ends: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def keep(self, inverse: Batch) -> None:
        """Keep what undoes a commit; call it before the commit, whose outcome may stay unknown.

        Raises:
            TransferError: There is no space for it.
        """
        start = self._ends[-1] if self._ends else 0
        written = encode(inverse)
        with _space():
            self._file.seek(start)
            rest = memoryview(written)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._ends.append(start + len(written))

    def play(self, target: RecordStateBackend, mark: str) -> None:
        """Undo everything that was kept; safe to repeat, and where a commit never came to be.

        Args:
            target: The store that was written to.
            mark: What it bears; see `seeknal.state.batch.Batch`.

        Raises:
            SeeknalError: As `RecordStateBackend.commit`. What was not undone is still kept.
        """
        while self._ends:
            start = self._ends[-2] if len(self._ends) > 1 else 0
            with _space():
                self._file.seek(start)
                kept = self._file.read(self._ends[-1] - start)
            inverse = decode(kept, Batch)
            target.commit(msgspec.structs.replace(inverse, successor=mark))
            self._ends.pop()


@contextmanager
def _space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransferError(
            f"what undoes the copy cannot be kept in the directory of temporary files: {error.strerror or error}",
            hint="Set TMPDIR to a directory with room for a second copy of the state, then run the same command again.",
        ) from error
