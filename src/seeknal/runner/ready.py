"""Which nodes can be taken up: a queue over the graph."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


class ReadyQueue:
    """The nodes whose inputs are done, those that stand first in the project first. Not safe from threads.

    Each node is taken once, put back as often as is wanted, and done once. All of it costs O((n + e) log n).

    Args:
        inputs: For each node its inputs, in an order in which inputs stand before those that need them.
    """

    def __init__(self, inputs: Mapping[str, Sequence[str]]) -> None:
        self._order = {node_id: place for place, node_id in enumerate(inputs)}
        self._ids = list(inputs)
        self._open = {node_id: len(needed) for node_id, needed in inputs.items()}
        self._users: dict[str, list[str]] = {node_id: [] for node_id in inputs}
        for node_id, needed in inputs.items():
            for input_id in needed:
                self._users[input_id].append(node_id)
        self._ready = [self._order[node_id] for node_id, count in self._open.items() if not count]

    def __bool__(self) -> bool:
        return bool(self._ready)

    def take(self) -> str:
        """Remove and return the first node that is ready.

        Raises:
            IndexError: None is.
        """
        return self._ids[heapq.heappop(self._ready)]

    def put_back(self, node_id: str) -> None:
        """Let a node that was taken be taken again."""
        heapq.heappush(self._ready, self._order[node_id])

    def done(self, node_id: str) -> None:
        """Let those that waited for nothing else be taken."""
        for user in self._users[node_id]:
            self._open[user] -= 1
            if not self._open[user]:
                self.put_back(user)
