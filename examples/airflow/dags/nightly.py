"""An Airflow DAG that records into a Seeknal store: a run for each DAG run, a node for each task.

``airflow dags test nightly 2024-01-10 -f dags/nightly.py`` runs it for one day. What is current is not done again.
"""

import csv
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import CronDataIntervalTimetable, dag, task, teardown

from seeknal.state.backend import create_state_backend
from seeknal.tracking import end_run, track_node

DATA = Path(os.environ.get("DATA", Path(__file__).parent.parent / "data"))
OUT = Path(os.environ.get("OUT", "out"))
VERSION = "1"
"""Of the code below: another one makes everything anew."""


def open_state():
    """Every task opens the store for itself: each has a process of its own."""
    backend = create_state_backend("file", base_path=os.environ.get("STATE", "state"))
    backend.initialize()
    return backend


def made_of(path: Path) -> str:
    return f"{VERSION}:{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def name_of(dag_run) -> str:
    """The ids of Airflow's runs are unique within a DAG only."""
    return f"{dag_run.dag_id}/{dag_run.run_id}"


# With `schedule="@daily"` Airflow 3 gives runs an interval without a length.
@dag(
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2024, 1, 9, tzinfo=UTC),
    catchup=False,
)
def nightly():
    @task
    def orders(dag_run=None, data_interval_start=None, data_interval_end=None):
        """Take in the orders of a day."""
        with open_state() as backend, track_node(backend, name_of(dag_run), "orders") as node:
            source = DATA / f"{data_interval_start:%Y-%m-%d}.csv"
            node.fingerprint = made_of(source)
            if node.is_current():
                node.skip_cached()
                return
            rows = [(row["id"], int(row["amount"])) for row in csv.DictReader(source.open())]
            OUT.mkdir(exist_ok=True)
            (OUT / source.name).write_text("".join(f"{number},{amount}\n" for number, amount in rows))
            node.row_count = len(rows)
            node.complete_interval(data_interval_start, data_interval_end)

    @task
    def totals(dag_run=None, data_interval_start=None):
        """Add the orders of a day up."""
        with open_state() as backend, track_node(backend, name_of(dag_run), "totals") as node:
            source = OUT / f"{data_interval_start:%Y-%m-%d}.csv"
            node.fingerprint = made_of(source)
            if node.is_current():
                node.skip_cached()
                return
            total = sum(int(line.split(",")[1]) for line in source.read_text().splitlines())
            source.with_suffix(".total").write_text(f"{total}\n")
            node.row_count = 1

    # A teardown runs whatever became of the others, and what becomes of it does not count for the DAG run.
    @teardown
    def end(dag_run=None):
        with open_state() as backend:
            end_run(backend, name_of(dag_run))

    orders() >> totals() >> end()


nightly()
