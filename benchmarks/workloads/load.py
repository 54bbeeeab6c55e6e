"""All states of a run of 10,000 nodes, to reading and decoding the same by itself.

Of a file store the limit reads the documents that it opens and has `json` decode them; ours opens the store, which
checks them, and reads the run. Elsewhere the limit selects the same columns of the same rows with the driver alone,
and has `json` decode the metadata; it makes no records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.places import Place
from benchmarks.rounds import Work, clocked, ratios, take_turns

from seeknal.state.backend import StateBackend

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
        limit, raw, ours = on_file(place, folder) if place.driver is None else on_database(place, stack)
        took = take_turns({"ours": clocked(ours), limit: clocked(raw)}, rounds=rounds, times=2)
        finding = Finding(NAME, place.kind)
        finding.add(f"ours / {limit}", ratios(took, "ours", limit), most=BAR)
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


def on_file(place: Place, folder: Path) -> tuple[str, Work, Work]:
    state = folder / "load" / "run_state"

    def ours(_: int) -> float:
        with place.opened("load") as backend:
            backend.initialize()
            return len(backend.get_all_node_states("run"))

    def raw(_: int) -> float:
        documents = [json.loads(path.read_bytes()) for path in (*state.glob("*.json"), *state.glob("runs/*.json"))]
        return len(documents)

    return "reading and decoding its JSON files", raw, ours


def on_database(place: Place, stack: ExitStack) -> tuple[str, Work, Work]:
    assert place.driver is not None
    backend = stack.enter_context(place.opened("load"))
    backend.initialize()
    driver, table = place.driver("load")
    sql = f"SELECT {COLUMNS} FROM {table('node_states')} WHERE run_id = {driver.mark}"

    def raw(_: int) -> float:
        return len({row[1]: (row, json.loads(row[METADATA])) for row in driver.fetch(sql, ("run",))})

    return "selecting and decoding its rows", raw, lambda _: len(backend.get_all_node_states("run"))
