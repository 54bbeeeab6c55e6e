"""A Prefect flow that records into a Seeknal store: a run for each flow run, a node for each task.

``python nightly.py 2024-01-10`` runs it for one day, or for several in turn. What is current is not done again.
"""

import csv
import hashlib
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

from prefect import flow, task
from prefect.runtime import flow_run

from seeknal.state.backend import create_state_backend
from seeknal.tracking import end_run, track_node

DATA = Path(os.environ.get("DATA", Path(__file__).parent / "data"))
OUT = Path(os.environ.get("OUT", "out"))
VERSION = "1"
"""Of the code below: another one makes everything anew."""


def open_state():
    """Every task opens the store for itself: it may run in another process."""
    backend = create_state_backend("file", base_path=os.environ.get("STATE", "state"))
    backend.initialize()
    return backend


def made_of(path: Path) -> str:
    return f"{VERSION}:{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def name_of(flow_run_id: object) -> str:
    return f"prefect_{flow_run_id}"


def end(flow, flow_run, state):
    with open_state() as backend:
        end_run(backend, name_of(flow_run.id))


@task
def orders(run_id: str, day: datetime) -> None:
    """Take in the orders of a day."""
    with open_state() as backend, track_node(backend, run_id, "orders") as node:
        source = DATA / f"{day:%Y-%m-%d}.csv"
        node.fingerprint = made_of(source)
        if node.is_current():
            node.skip_cached()
            return
        rows = [(row["id"], int(row["amount"])) for row in csv.DictReader(source.open())]
        OUT.mkdir(exist_ok=True)
        (OUT / source.name).write_text("".join(f"{number},{amount}\n" for number, amount in rows))
        node.row_count = len(rows)
        node.complete_interval(day, day + timedelta(days=1))


@task
def totals(run_id: str, day: datetime) -> None:
    """Add the orders of a day up."""
    with open_state() as backend, track_node(backend, run_id, "totals") as node:
        source = OUT / f"{day:%Y-%m-%d}.csv"
        node.fingerprint = made_of(source)
        if node.is_current():
            node.skip_cached()
            return
        total = sum(int(line.split(",")[1]) for line in source.read_text().splitlines())
        source.with_suffix(".total").write_text(f"{total}\n")
        node.row_count = 1


@flow(on_completion=[end], on_failure=[end], on_crashed=[end], on_cancellation=[end])
def nightly(day: datetime) -> None:
    run_id = name_of(flow_run.get_id())
    orders(run_id, day)
    totals(run_id, day)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        nightly(datetime.fromisoformat(argument))
