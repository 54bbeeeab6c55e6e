"""1,000 node states read and written in one transaction, to as many updates by the driver in one transaction.

On a server the round trips are counted on the way to it: what a client of PostgreSQL waits for, and how often the
others began to answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.limits import raw_append
from benchmarks.places import Driver, Place
from benchmarks.rounds import Work, clocked, ratios, take_turns

from seeknal.state.backend import StateBackend, create_state_backend

NAME = "batch"
NODES = 1000
TRIPS = 5
"""A handful."""


def measure(place: Place, folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield what a transaction of so many states costs in one store."""
    with ExitStack() as stack:
        backend = stack.enter_context(place.opened("batch"))
        backend.initialize()
        backend.create_run("run")

        def ours(number: int) -> None:
            with backend.transaction():
                backend.get_all_node_states("run")
                for node in range(NODES):
                    backend.set_node_state("run", f"node {node}", status="running", row_count=number)

        ours(NODES)
        finding = Finding(NAME, place.kind)
        limit, raw = limit_of(place, folder, ours, stack)
        took = take_turns({"ours": clocked(ours), limit: raw}, rounds=rounds, times=1)
        if place.is_server:
            finding.add("round trips", [trips(place, number) for number in range(3)], "round trips", most=TRIPS)
        finding.add(f"ours / {limit}", ratios(took, "ours", limit))
        for name, micros in took.items():
            finding.add(name, [each / 1e3 for each in micros], "ms")
        yield finding


def limit_of(place: Place, folder: Path, ours: Work, stack: ExitStack) -> tuple[str, Work]:
    """Return what a transaction is measured against."""
    if place.driver is None:
        (journal,) = (folder / "batch" / "run_state").glob("journal-*.log")
        before = journal.stat().st_size
        ours(NODES + 1)
        length = journal.stat().st_size - before
        return "raw append and fsync", clocked(raw_append(stack, folder / "batch.log", length))
    driver, table = place.driver("batch")
    return "as many updates by the driver", clocked(updates(driver, table("node_states")))


def updates(driver: Driver, table: str) -> Work:
    """Return what updates as many rows with ``executemany`` and commits."""
    mark = driver.mark
    sql = f"UPDATE {table} SET status = {mark}, row_count = {mark} WHERE run_id = {mark} AND node_id = {mark}"
    nodes = [f"node {number}" for number in range(NODES)]
    return lambda number: driver.together(sql, [("running", number + 2 * NODES, "run", node) for node in nodes])


def trips(place: Place, number: int) -> float:
    """Return how often a transaction that reads and writes waits for the server."""
    from tests.servers.proxy import Proxy
    from tests.servers.round_trips import waits

    assert place.url is not None
    assert place.options is not None
    kind, options = place.options("batch")
    with Proxy.before(place.url("batch")) as proxy:
        backend: StateBackend = create_state_backend(kind, **{**options, "url": proxy.url_for(place.url("batch"))})
        with backend:
            backend.initialize()
            backend.get_run("run")
            with waits(proxy, place.kind) as count, backend.transaction():
                backend.get_all_node_states("run")
                for node in range(NODES):
                    backend.set_node_state("run", f"node {node}", row_count=number + 5_000_000)
            return count()
