"""What takes back the commits that a copy made, kept on disk: a copy may be larger than the memory."""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import Self

import msgspec

from seeknal.model.codec import decode, encode
from seeknal.state.batch import Batch
from seeknal.state.record_backend import RecordStateBackend


class Undo:
    """The inverses of commits, the last one first. Nobody else can open the file, and it is gone with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
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
            OSError: There is no space for it.
        """
        start = self._ends[-1] if self._ends else 0
        written = encode(inverse)
        self._file.seek(start)
        self._file.write(written)
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
            self._file.seek(start)
            inverse = decode(self._file.read(self._ends[-1] - start), Batch)
            target.commit(msgspec.structs.replace(inverse, successor=mark))
            self._ends.pop()
