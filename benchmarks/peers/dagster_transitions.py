"""Dagster: a materialization of an asset for each node, reported to an instance which stores in SQLite.

python dagster_transitions.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import dagster
from records import NOTE, node_of
from settings import of_sqlite, through_sqlalchemy
from turns import serve

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "dagster.yaml").write_text(f"storage:\n  sqlite:\n    base_dir: {folder}\ntelemetry:\n  enabled: false\n")


def complete(number: int) -> None:
    instance.report_runless_asset_event(
        dagster.AssetMaterialization(node_of(number), metadata={"row_count": number, "note": NOTE})
    )


with dagster.DagsterInstance.local_temp(str(folder)) as instance:
    durability = through_sqlalchemy(lambda: complete(0), of_sqlite)
    serve(
        complete,
        {
            "version": dagster.__version__,
            "durability": durability,
            "work": "report_runless_asset_event",
        },
    )
