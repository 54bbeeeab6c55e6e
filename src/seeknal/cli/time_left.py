"""How long a run still takes, judged by how long its nodes took before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend

MOST_RUNS_READ = 5
"""Of the newest ones; each is one read of the store, however many nodes it has."""


class Left(NamedTuple):
    """What is left: so many seconds, and whether that is all of it, or the least that it can be."""

    seconds: float
    is_whole: bool


class TimeLeft:
    """Judges what is left of a run.

    That is the longest chain of nodes that need one another, or the work of all nodes shared by those that may run at
    once, whichever is more; as if nothing of it were up to date. A node that never succeeded counts as nothing, and one
    that takes longer than it did as about to end: then the judgement is the least that it can be.

    Args:
        inputs: The inputs of each node that may run, in an order in which inputs stand before those that need them.
        usual_ms: How long nodes took, as far as is known.
        parallel: How many run at once.
    """

    def __init__(self, inputs: Mapping[str, Sequence[str]], usual_ms: Mapping[str, int], parallel: int) -> None:
        self._left = dict(inputs)
        self._usual_ms = dict(usual_ms)
        self._parallel = parallel

    def learn(self, node_id: str, usual_ms: int) -> None:
        """Take up how long a node took the last time."""
        self._usual_ms[node_id] = usual_ms

    def end(self, node_id: str) -> None:
        """Take up that a node needs no more time."""
        self._left.pop(node_id, None)

    def judge(self, running: Mapping[str, float], batches: Mapping[str, float] | None = None) -> Left | None:
        """Return what is left; ``None`` where nothing is known of any node that is left.

        Args:
            running: For each node that is running, how many seconds it has been.
            batches: How many seconds the batches take that a node has left, judged by those that it has done.
        """
        is_whole, is_known = True, False
        work = 0.0
        chains: dict[str, float] = {}
        for node_id, inputs in self._left.items():
            usual = self._usual_ms.get(node_id)
            left = None if usual is None else usual / 1000 - running.get(node_id, 0.0)
            left = (batches or {}).get(node_id, left)
            seconds = left if left is not None else 0.0
            is_whole = is_whole and left is not None and seconds >= 0
            is_known = is_known or left is not None
            work += max(0.0, seconds)
            chains[node_id] = max(0.0, seconds) + max((chains.get(each, 0.0) for each in inputs), default=0.0)
        if not is_known:
            return None
        return Left(max(work / self._parallel, *chains.values()), is_whole)


def usual_durations(store: StateBackend, node_ids: Collection[str]) -> dict[str, int]:
    """Return how many milliseconds nodes took when they last succeeded, as far as the newest runs know.

    At most `MOST_RUNS_READ` runs are read, instead of the newest success of each node: on a server, that would be a
    round trip for each of them.
    """
    found: dict[str, int] = {}
    wanted = set(node_ids)
    for run_id in store.list_runs(newest_first=True, limit=MOST_RUNS_READ):
        for node_id, state in store.get_all_node_states(run_id).items():
            if node_id in wanted and state.status == "success" and state.duration_ms is not None:
                found[node_id] = state.duration_ms
                wanted.discard(node_id)
        if not wanted:
            break
    return found
