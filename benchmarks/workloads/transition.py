"""One node transition, to what it cannot cost less than; and the same in a run of many nodes.

The limit of a file is an append of as many bytes and an fsync; that of SQLite an upsert of a row and a commit at the
same ``synchronous``; that of a server the same statements by the driver alone. One update of the row, which is what a
server would be sent without any promise, stands beside it: between the two lies what it costs to know after a lost
answer whether a commit was made, to order commits over all runs, and to refuse in a store that was moved away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.limits import bare_update, raw_append, raw_sqlite, same_statements
from benchmarks.places import Place
from benchmarks.rounds import Work, clocked, ratios, take_turns

from seeknal.state.backend import StateBackend

NAME = "transition"
SMALL, MEDIUM, LARGE = 100, 1_000, 10_000
GROWTH = 1.1
BARS = {"file": 1.5, "sqlite": 1.5, "postgresql": 1.3, "mysql": 1.3, "libsql": 1.3}
TIMES, LONG = 200, 1000
"""Transitions in a turn. A file store also writes its view, which may take a twentieth of the time, and more after a
pause: its turns are longer, so that what was saved up while others had theirs does not count for much."""


def measure(place: Place, folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield what a transition costs in one store."""
    with ExitStack() as stack:
        stores = {nodes: stack.enter_context(filled(place, nodes)) for nodes in (SMALL, MEDIUM, LARGE)}
        works: dict[str, Work] = {f"{nodes} nodes": transitions(store) for nodes, store in stores.items()}
        limit, limits = limits_of(place, folder, stores[SMALL], stack)
        times = LONG if place.kind == "file" else TIMES
        took = take_turns({**works, **limits}, rounds=rounds, times=times)
        yield found(place, took, limit)


def found(place: Place, took: dict[str, list[float]], limit: str) -> Finding:
    """Return the figures of the turns."""
    finding = Finding(NAME, place.kind)
    ours = f"{SMALL} nodes"
    finding.add(f"ours / {limit}", ratios(took, ours, limit), most=BARS[place.kind])
    for other in took:
        if other != limit and not re.fullmatch(r"\d+ nodes", other):
            finding.add(f"ours / {other}", ratios(took, ours, other))
    for nodes in (MEDIUM, LARGE):
        finding.add(f"{nodes:,} nodes in the run / {SMALL}", ratios(took, f"{nodes} nodes", ours), most=GROWTH)
    for name, micros in took.items():
        finding.add(name, micros, "us")
    return finding


def transitions(backend: StateBackend) -> Work:
    """Return a transition of one node."""
    return clocked(lambda number: backend.set_node_state("run", "node 5", row_count=number))


def filled(place: Place, nodes: int) -> StateBackend:
    """Return a store with a run of so many nodes."""
    backend = place.opened(f"transition {nodes}")
    backend.initialize()
    backend.create_run("run")
    for first in range(0, nodes, 1000):
        with backend.transaction():
            for number in range(first, min(first + 1000, nodes)):
                backend.set_node_state("run", f"node {number}", status="running")
    return backend


def limits_of(place: Place, folder: Path, backend: StateBackend, stack: ExitStack) -> tuple[str, dict[str, Work]]:
    """Return what a transition is measured against: by which name, and all that stands beside it."""
    if place.kind == "file":
        name = "raw append and fsync"
        return name, {name: clocked(raw_append(stack, folder / "raw.log", frame_length(folder, backend)))}
    if place.kind == "sqlite":
        name = "raw upsert and commit"
        return name, {name: clocked(raw_sqlite(stack, folder / "raw.db"))}
    assert place.driver is not None
    assert place.url is not None
    name, url = "the same statements by the driver", place.url(f"transition {SMALL}")
    driver, table = place.driver(f"transition {SMALL}")
    same = same_statements(place.kind, backend, stack, url)
    return name, {name: clocked(same), "one bare update": clocked(bare_update(driver, table("node_states")))}


def frame_length(folder: Path, backend: StateBackend) -> int:
    """Return how many bytes a transition appends to the journal of a file store."""
    (journal,) = (folder / f"transition {SMALL}" / "run_state").glob("journal-*.log")
    before = journal.stat().st_size
    backend.set_node_state("run", "node 5", row_count=100)
    return journal.stat().st_size - before
