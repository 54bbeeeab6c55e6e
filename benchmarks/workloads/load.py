"""All states of a run of 10,000 nodes, to reading and decoding the same by itself.

Of a file store the limit reads the document of the run and has `json` decode it; ours reads the run of a store that is
open, and has not read it before. What it takes to open the store as well stands beside it, to reading and decoding all
of its documents. Elsewhere the limit selects the same columns of the same rows with the driver alone, and has `json`
decode the metadata; it makes no records.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.figures import Finding
from benchmarks.places import Place
from benchmarks.rounds import Work, clocked, ratios, take_turns

from seeknal.state.backend import StateBackend, create_state_backend

NAME = "load"
NODES = 10_000
BAR = 2.0
METADATA = 10
"""Which column of a node state holds JSON."""
COLUMNS = (
    "run_id, node_id, status, started_us, finished_us, duration_ms, row_count, fingerprint, error_message, attempt, "
    "metadata, version, sequence"
)


def measure(place: Place, folder: Path, rounds: int) -> Iterator[Finding]:
    """Yield what it costs to load one run of a store."""
    with ExitStack() as stack:
        with place.opened("load") as backend:
            fill(backend)
        works = on_file(place, folder) if place.driver is None else on_database(place, stack)
        took = take_turns(works, rounds=rounds, times=2)
        finding = Finding(NAME, place.kind)
        for number, (name, limit) in enumerate(pairwise(works)):
            if number % 2 == 0:
                finding.add(f"{name} / {limit}", ratios(took, name, limit), most=BAR)
        for name, micros in took.items():
            finding.add(name, [each / 1e3 for each in micros], "ms")
        yield finding


def fill(backend: StateBackend) -> None:
    """Make the run, as a pipeline records it."""
    backend.initialize()
    backend.create_run("run")
    for status in ("running", "success"):
        for first in range(0, NODES, 1000):
            with backend.transaction():
                for node in range(first, first + 1000):
                    backend.set_node_state(
                        "run",
                        f"transform.node_{node:05}",
                        status=status,
                        row_count=node,
                        fingerprint=f"{node * 7919:064x}",
                        metadata={"output": f"target/node_{node:05}.parquet"},
                    )


def on_file(place: Place, folder: Path) -> dict[str, Work]:
    """Return what is compared: first ours, then its limit, and the same with the opening of the store."""
    state = folder / "load" / "run_state"
    with create_state_backend("file", base_path=folder / "load", checkpoint_bytes=1) as backend:
        backend.initialize()
        backend.set_node_state("run", "transform.node_00000", row_count=1)  # leaves nothing in the journal

    def opened_and_loaded(_: int) -> float:
        with place.opened("load") as backend:
            backend.initialize()
            return len(backend.get_all_node_states("run"))

    def loaded(times: int) -> float:
        spent = 0.0
        for _ in range(times):
            with place.opened("load") as backend:
                backend.initialize()
                begin = time.perf_counter()
                backend.get_all_node_states("run")
                spent += time.perf_counter() - begin
        return spent

    def decoded(*patterns: str) -> list[Any]:
        return [json.loads(path.read_bytes()) for pattern in patterns for path in state.glob(pattern)]

    return {
        "ours, of an open store": loaded,
        "reading and decoding the document": clocked(lambda _: decoded("runs/*.json")),
        "ours, with opening the store": clocked(opened_and_loaded),
        "reading and decoding all its documents": clocked(lambda _: decoded("*.json", "runs/*.json")),
    }


def on_database(place: Place, stack: ExitStack) -> dict[str, Work]:
    """Return what is compared: ours, and its limit."""
    assert place.driver is not None
    backend = stack.enter_context(place.opened("load"))
    backend.initialize()
    driver, table = place.driver("load")
    sql = f"SELECT {COLUMNS} FROM {table('node_states')} WHERE run_id = {driver.mark}"

    def raw(_: int) -> float:
        return len({row[1]: (row, json.loads(row[METADATA])) for row in driver.fetch(sql, ("run",))})

    return {
        "ours": clocked(lambda _: backend.get_all_node_states("run")),
        "selecting and decoding its rows": clocked(raw),
    }
