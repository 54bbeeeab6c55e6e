"""Node states that a transaction reads before they are asked for, where each reading is a round trip to a server."""

from __future__ import annotations

from collections.abc import Callable

from seeknal.model.records import NodeState

Page = Callable[[str, str, int], list[NodeState]]
"""Returns node states of a run from a node id on, in the order of the bytes of the ids, at most so many."""

ALONE = 2
"""So many nodes of a run are read one by one: most transactions ask for no more."""

SIZES = (64, 1024)
"""Then come pages that begin with the node that is asked for: most transactions ask for nodes in their order. What is
read in vain is at most some sixteen times what was asked for before."""

LARGEST, MOST_LARGEST = 10_000, 10
"""Then the run is read from its beginning, as far as the node that is asked for, in so many pages at most. A thousand
nodes in whatever order are five readings; those behind that are read one by one."""


class ReadAhead:
    """The nodes that one transaction has read in pages. Belongs to one thread."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._runs: dict[str, _Known] = {}

    def states(self, run_id: str, node_id: str) -> list[NodeState]:
        """Return what is read for a node that was not read yet, others included; it is not there if it is not in it."""
        known, place, found = self._runs.setdefault(run_id, _Known()), node_id.encode(), list[NodeState]()
        while not known.holds(place):
            known.readings += 1
            if known.readings <= ALONE or known.largest == MOST_LARGEST:
                known.spans.append((place, place))
                return [*found, *(each for each in self._page(run_id, node_id, 1) if each.node_id == node_id)]
            nth = known.readings - ALONE
            begin, size = (node_id, SIZES[nth - 1]) if nth <= len(SIZES) else (known.scanned, LARGEST)
            page = self._page(run_id, begin, size)
            last = page[-1].node_id if len(page) == size else None
            known.spans.append((begin.encode(), None if last is None else last.encode()))
            if size == LARGEST:
                known.largest += 1
                known.scanned = last or begin
            found += page
        return found


class _Known:
    """What was read of one run: from where to where, ``None`` being the end."""

    def __init__(self) -> None:
        self.spans: list[tuple[bytes, bytes | None]] = []
        self.readings = self.largest = 0
        self.scanned = ""
        """Up to where the run was read from its beginning."""

    def holds(self, place: bytes) -> bool:
        return any(first <= place and (last is None or place <= last) for first, last in self.spans)
