"""Dagster assets that record into a Seeknal store: a run for each Dagster run, a node for each asset.

``python nightly.py 2024-01-10`` materializes one day, or several in turn; ``dagster dev -f nightly.py`` serves them,
with the sensors that end the runs. What is current is not made again.
"""

import csv
import hashlib
import os
import sys
from pathlib import Path

import dagster as dg

from seeknal.state.backend import create_state_backend
from seeknal.tracking import end_run, track_node

DATA = Path(os.environ.get("DATA", Path(__file__).parent / "data"))
OUT = Path(os.environ.get("OUT", "out"))
VERSION = "1"
"""Of the code below: another one makes everything anew."""

days = dg.DailyPartitionsDefinition(start_date="2024-01-09", end_date="2024-01-12")


def open_state():
    """Every asset opens the store for itself: it may be made in another process."""
    backend = create_state_backend("file", base_path=os.environ.get("STATE", "state"))
    backend.initialize()
    return backend


def made_of(path: Path) -> str:
    return f"{VERSION}:{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def name_of(run_id: str) -> str:
    return f"dagster_{run_id}"


@dg.asset(partitions_def=days)
def orders(context: dg.AssetExecutionContext) -> None:
    """The orders of a day, taken in."""
    day = context.partition_time_window
    with open_state() as backend, track_node(backend, name_of(context.run.run_id), "orders") as node:
        source = DATA / f"{context.partition_key}.csv"
        node.fingerprint = made_of(source)
        if node.is_current():
            node.skip_cached()
            return
        rows = [(row["id"], int(row["amount"])) for row in csv.DictReader(source.open())]
        OUT.mkdir(exist_ok=True)
        (OUT / source.name).write_text("".join(f"{number},{amount}\n" for number, amount in rows))
        node.row_count = len(rows)
        node.complete_interval(day.start, day.end)


@dg.asset(partitions_def=days, deps=[orders])
def totals(context: dg.AssetExecutionContext) -> None:
    """The orders of a day, added up."""
    with open_state() as backend, track_node(backend, name_of(context.run.run_id), "totals") as node:
        source = OUT / f"{context.partition_key}.csv"
        node.fingerprint = made_of(source)
        if node.is_current():
            node.skip_cached()
            return
        total = sum(int(line.split(",")[1]) for line in source.read_text().splitlines())
        source.with_suffix(".total").write_text(f"{total}\n")
        node.row_count = 1


def end(run_id: str) -> None:
    with open_state() as backend:
        end_run(backend, name_of(run_id))


nightly = dg.define_asset_job("nightly", selection=[orders, totals])


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, monitored_jobs=[nightly])
def succeeded(context: dg.RunStatusSensorContext) -> None:
    end(context.dagster_run.run_id)


@dg.run_failure_sensor(monitored_jobs=[nightly])
def failed(context: dg.RunFailureSensorContext) -> None:
    end(context.dagster_run.run_id)


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.CANCELED, monitored_jobs=[nightly])
def canceled(context: dg.RunStatusSensorContext) -> None:
    end(context.dagster_run.run_id)


defs = dg.Definitions(assets=[orders, totals], jobs=[nightly], sensors=[succeeded, failed, canceled])


if __name__ == "__main__":
    for day in sys.argv[1:]:
        result = dg.materialize([orders, totals], partition_key=day, raise_on_error=False)
        end(result.run_id)
        if not result.success:
            sys.exit(1)
