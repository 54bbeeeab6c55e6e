"""The two ends of a move: what is done to each, and how it is put back.

Each is put back only where it still bears the mark of this very move: one that was frozen and taken for dead leaves
alone what its successor has done.
"""

from __future__ import annotations

from seeknal.state.migration.undo import Undo
from seeknal.state.record_backend import RecordStateBackend

KEY = "seeknal migrate-state"
"""The key of the lease of a move, in the place of a run id."""


class Leaving:
    """A source that nobody writes to.

    Args:
        source: The store, current.
        mark: What it bears from `begin` on.
    """

    def __init__(self, source: RecordStateBackend, mark: str) -> None:
        self._source = source
        self._store_id = source.read_store().store_id
        self._marks = [mark]

    def begin(self) -> None:
        """Let nobody write to it."""
        self._source.write_successor(self._store_id, self._marks[0])

    def leave(self, target_where: str) -> None:
        """Let it name its successor to its writers."""
        self._marks.append(target_where)
        self._source.write_successor(self._store_id, target_where)

    def put_back(self) -> None:
        """Let it take writes again."""
        if self._source.read_store().superseded_by in self._marks:
            self._source.write_successor(self._store_id, None)


class Filling:
    """A target that only this move writes to.

    Args:
        target: The store.
        store_id: The identity that it gets at once: what a kill leaves is then known as a part of a copy.
        mark: What it bears from `begin` on.
        undo: Where the inverse of each commit is kept.
    """

    def __init__(self, target: RecordStateBackend, store_id: str, mark: str, undo: Undo) -> None:
        self.undo = undo
        self.store_id = store_id
        self.mark = mark
        self._target = target
        self._found = target.read_store()
        self._is_open = False

    def begin(self) -> None:
        """Let nobody else write to it."""
        self._target.write_successor(self.store_id, self.mark)

    def open(self) -> None:
        """Let everybody write to it."""
        self._is_open = True
        self._target.write_successor(self.store_id, None)

    def put_back(self) -> None:
        """Take out what was put in."""
        info = self._target.read_store()
        if self._is_open and info.superseded_by is None:
            self._target.write_successor(info.store_id, self.mark)
        elif info.superseded_by != self.mark:
            return
        self.undo.play(self._target, self.mark)
        self._target.write_successor(self._found.store_id, self._found.superseded_by)
