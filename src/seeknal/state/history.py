"""Where each node was written, newest last: what answers `get_latest_node_state`, in 13 bytes for each node state.

A run goes by a number here, given when it is made and never again: an entry whose number has no run any more is of a
run that is gone, and counts for nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import compress

import msgspec

from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus

_LETTERS = {
    NodeStatus.PENDING: "p",
    NodeStatus.RUNNING: "r",
    NodeStatus.SUCCESS: "s",
    NodeStatus.FAILED: "f",
    NodeStatus.SKIPPED: "k",
    NodeStatus.CACHED: "c",
}


class Columns(msgspec.Struct, kw_only=True):
    """Where one node was written, as text: an entry of each, in the order of the sequences.

    Attributes:
        runs: Places of runs in creation order, from 0, with spaces between.
        sequences: With spaces between.
        statuses: A letter each: p for pending, r running, s success, f failed, k skipped, c cached.
    """

    runs: str
    sequences: str
    statuses: str


class _Written:
    """The entries of one node, in the order of the sequences."""

    __slots__ = ("runs", "sequences", "statuses")

    def __init__(self, runs: Iterable[int] = (), sequences: Iterable[int] = (), statuses: bytes = b"") -> None:
        self.runs = array("I", runs)
        self.sequences = array("q", sequences)
        self.statuses = bytearray(statuses)


class History:
    """The runs that each node was written in; of a run at most one entry. Not safe from threads."""

    def __init__(self, run_ids: Iterable[str] = ()) -> None:
        self._run_ids = dict(enumerate(run_ids))
        self._numbers = {run_id: number for number, run_id in self._run_ids.items()}
        self._given = self._loaded = len(self._run_ids)
        self._nodes: dict[str, _Written] = {}

    # ---- as text ----

    def load(self, node_id: str, found: Columns) -> None:
        """Take in what `columns` returned; the runs are numbered in the order in which they were passed.

        Raises:
            ValueError: These columns do not belong together, or name a run that there is not.
        """
        places, sequences = map(int, found.runs.split()), map(int, found.sequences.split())
        written = _Written(places, sequences, found.statuses.encode())
        if not len(written.runs) == len(written.sequences) == len(written.statuses):
            raise ValueError(f"the history of node {node_id!a} has columns of different lengths")
        if max(written.runs, default=-1) >= self._loaded:
            raise ValueError(f"the history of node {node_id!a} names a run that there is not")
        self._nodes[node_id] = written

    def columns(self, run_ids: Iterable[str]) -> dict[str, Columns]:
        """Return all of it for a file in which these runs stand in this order."""
        places = {self._numbers[run_id]: str(place) for place, run_id in enumerate(run_ids)}
        texts = ((node_id, _as_text(written, places)) for node_id, written in self._nodes.items())
        return {node_id: text for node_id, text in texts if text.runs}

    # ---- reading ----

    def newest_first(self, node_id: str, status: NodeStatus | None) -> Iterator[str]:
        """Yield the ids of the runs in which the node is, and has this status, the one that was written last first."""
        written = self._nodes.get(node_id)
        if written is None:
            return
        at = len(written.runs)
        while True:
            at = at - 1 if status is None else written.statuses.rfind(_LETTERS[status].encode(), 0, at)
            if at < 0:
                return
            run_id = self._run_ids.get(written.runs[at])
            if run_id is not None:
                yield run_id

    def sequences(self) -> Iterator[tuple[str, list[int]]]:
        """Yield each node with its sequences in their order."""
        for node_id, written in self._nodes.items():
            entries = zip(written.runs, written.sequences, strict=True)
            yield node_id, [sequence for number, sequence in entries if number in self._run_ids]

    # ---- writing ----

    def begin(self, run_id: str) -> None:
        """Enter a new run."""
        self._numbers[run_id] = self._given
        self._run_ids[self._given] = run_id
        self._given += 1

    def end(self, run_id: str) -> None:
        """Take out a run, with all entries of it."""
        number = self._numbers.pop(run_id, None)
        if number is not None:
            del self._run_ids[number]

    def put(self, state: NodeState, former: NodeState | None) -> None:
        """Enter a node state at the place of its sequence.

        Args:
            state: Of a run that was entered.
            former: What it replaces, as far as that is known: see `drop`.
        """
        self.drop(state.run_id, state.node_id, former)
        written = self._nodes.get(state.node_id)
        if written is None:
            written = self._nodes[state.node_id] = _Written()
        at = bisect_right(written.sequences, state.sequence)
        written.runs.insert(at, self._numbers[state.run_id])
        written.sequences.insert(at, state.sequence)
        written.statuses.insert(at, ord(_LETTERS[state.status]))

    def drop(self, run_id: str, node_id: str, former: NodeState | None) -> None:
        """Take out the entry of a node in a run.

        Args:
            run_id: The run.
            node_id: The node.
            former: The node state, where one is known. It may have been read from a file that is newer than this
                history, so it only says where the entry is most likely, and of a run that was loaded it says nothing
                that there is none.
        """
        written, number = self._nodes.get(node_id), self._numbers.get(run_id)
        if written is None or number is None:
            return
        at = _place(written, number, former, is_exact=number >= self._loaded)
        if at is not None:
            del written.runs[at], written.sequences[at], written.statuses[at]
            if not written.runs:
                del self._nodes[node_id]


def _place(written: _Written, number: int, former: NodeState | None, *, is_exact: bool) -> int | None:
    """Return where the entry of a run is."""
    if former is not None:
        at = bisect_left(written.sequences, former.sequence)
        if at < len(written.runs) and written.runs[at] == number:
            return at
    elif is_exact:
        return None
    return written.runs.index(number) if number in written.runs else None


def columns_of(entries: Iterable[tuple[int, int, NodeStatus]]) -> Columns:
    """Return entries, each the place of a run, a sequence and a status, in the order of the sequences, as columns."""
    found = list(entries)
    return Columns(
        runs=" ".join(str(place) for place, _, _ in found),
        sequences=" ".join(str(sequence) for _, sequence, _ in found),
        statuses="".join(_LETTERS[status] for _, _, status in found),
    )


def _as_text(written: _Written, places: dict[int, str]) -> Columns:
    kept = [number in places for number in written.runs]
    return Columns(
        runs=" ".join(map(places.__getitem__, compress(written.runs, kept))),
        sequences=" ".join(map(str, compress(written.sequences, kept))),
        statuses=bytes(compress(written.statuses, kept)).decode(),
    )
