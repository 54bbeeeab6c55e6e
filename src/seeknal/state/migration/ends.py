"""The two ends of a move: what is done to each, and how it is put back.

Each is put back only where it still bears the mark of this very move: one that was frozen and taken for dead leaves
alone what its successor has done.
"""

from __future__ import annotations

from seeknal.state.migration.undo import Undo
from seeknal.state.record_backend import RecordStateBackend

KEY = "seeknal move, import or restore"
"""The key of the lease of whatever fills a store as a whole, in the place of a run id; it shows in `state locks`."""


class Leaving:
    """A source that nobody writes to.

    Args:
        source: The store, current.
        mark: What it bears from `begin` on.
    """

    def __init__(self, source: RecordStateBackend, mark: str) -> None:
        self._source = source
        self._store_id = source.read_store().store_id
        self._mark = mark
        self._left: tuple[str, Filling | None] | None = None

    def begin(self) -> None:
        """Let nobody write to it."""
        self._source.write_successor(self._store_id, self._mark, expected=None)

    def leave(self, target_where: str, filling: Filling | None = None) -> None:
        """Let it name its successor to its writers.

        Args:
            target_where: The target in words, without secrets.
            filling: The target, if it bears a mark: of two moves to the same place, it knows which one has it.
        """
        self._left = target_where, filling
        self._source.write_successor(self._store_id, target_where, expected=self._mark)

    def put_back(self) -> None:
        """Let it take writes again; a target that was marked is put back before."""
        found = self._source.read_store().superseded_by
        left, filling = self._left or (self._mark, None)
        if found == self._mark or (found == left and (filling is None or filling.is_put_back)):
            self._source.write_successor(self._store_id, None, expected=found)


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
        self.is_put_back = False

    def begin(self) -> None:
        """Let nobody else write to it."""
        self._target.write_successor(self.store_id, self.mark, expected=self._found.superseded_by)

    def open(self) -> None:
        """Let everybody write to it."""
        self._target.write_successor(self.store_id, None, expected=self.mark)
        self._is_open = True

    def put_back(self) -> None:
        """Take out what was put in."""
        info = self._target.read_store()
        if self._is_open and info.superseded_by is None:
            self._target.write_successor(info.store_id, self.mark, expected=None)
        elif info.superseded_by != self.mark:
            return
        self.undo.play(self._target, self.mark)
        self._target.write_successor(self._found.store_id, self._found.superseded_by, expected=self.mark)
        self.is_put_back = True
