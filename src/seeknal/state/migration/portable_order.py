"""Node states in the order in which they were written, sorted on disk: they may be more than fit into memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from seeknal.errors import BackendUnavailableError
from seeknal.model.codec import decode, encode
from seeknal.model.records import NodeState


class WritingOrder:
    """Node states of any runs. Nobody else can open the file, and it is gone with the process; one thread uses it.

    Raises:
        BackendUnavailableError: There is no space for it.
    """

    def __init__(self) -> None:
        with _on_disk():
            self._file = sqlite3.connect("")  # a temporary database, on disk as far as it outgrows its cache
            self._file.execute("CREATE TABLE states (sequence INTEGER NOT NULL, state BLOB NOT NULL)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, state: NodeState) -> None:
        """Take one in."""
        with _on_disk():
            self._file.execute("INSERT INTO states VALUES (?, ?)", (state.sequence, encode(state)))

    def __iter__(self) -> Iterator[NodeState]:
        """Yield them by their sequences."""
        with _on_disk():
            found = self._file.execute("SELECT state FROM states ORDER BY sequence, rowid")
        while True:
            with _on_disk():
                row = found.fetchone()
            if row is None:
                return
            yield decode(row[0], NodeState)


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BackendUnavailableError(
            f"node states cannot be sorted on disk: {error}", hint="Make space in the directory for temporary files."
        ) from error
