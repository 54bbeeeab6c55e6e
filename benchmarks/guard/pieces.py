"""The pieces of work that are counted: short ones, each as a user's program does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count

from benchmarks.places import Place

from seeknal.state.backend import StateBackend

Piece = tuple[str, Callable[[], object]]

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SMALL, LARGE = 100, 5_000
AT_ONCE = 100


def pieces(place: Place, stack: ExitStack) -> Iterator[Piece]:
    """Yield what is to be counted in one store; each may be done again and again."""
    small, large = (stack.enter_context(filled(place, nodes)) for nodes in (SMALL, LARGE))
    numbers = count(1)

    def transition(backend: StateBackend) -> Callable[[], object]:
        return lambda: backend.set_node_state("run", "node 5", status="success", row_count=next(numbers))

    def lease() -> None:
        with small.lock("run", "worker"):
            pass

    def together() -> None:
        with small.transaction():
            for node in range(AT_ONCE):
                small.set_node_state("run", f"node {node}", status="running", row_count=next(numbers))

    def add() -> None:
        at = NOON + 2 * next(numbers) * HOUR
        small.add_completed_interval("run", "node 5", at, at + HOUR)

    yield f"a transition, {SMALL} nodes in the run", transition(small)
    yield f"a transition, {LARGE} nodes in the run", transition(large)
    yield "a new node", lambda: small.set_node_state("run", f"new {next(numbers)}", status="running")
    yield f"{AT_ONCE} transitions in a transaction", together
    yield "a lease taken and given back", lease
    yield "a completed interval", add
    yield "a completed partition", lambda: small.add_completed_partition("run", "node 5", f"key {next(numbers)}")
    yield "the latest state of a node", lambda: small.get_latest_node_state("node 7")
    yield f"the states of {LARGE} nodes", lambda: large.get_all_node_states("run")
    yield (
        "a year of hours that are missing",
        lambda: small.get_missing_intervals("node 9", NOON, NOON + 365 * 24 * HOUR, "@hourly"),
    )
    yield "a store opened and closed", lambda: reopened(place)


def filled(place: Place, nodes: int) -> StateBackend:
    """Return a store with a run of so many nodes."""
    backend = place.opened(f"guard {nodes}")
    backend.initialize()
    backend.create_run("run")
    with backend.transaction():
        for number in range(nodes):
            backend.set_node_state("run", f"node {number}", status="running", metadata={"output": f"{number}.parquet"})
    return backend


def reopened(place: Place) -> None:
    """Open a store and close it."""
    with place.opened(f"guard {SMALL}") as backend:
        backend.initialize()
