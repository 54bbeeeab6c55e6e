"""SQLMesh: an interval of a snapshot for each node, added to its state.

python sqlmesh_transitions.py FOLDER
python sqlmesh_transitions.py FOLDER URL SCHEMA

Without a URL the state is in DuckDB, which is how SQLMesh comes; its documentation advises PostgreSQL, or another
database for transactions, where it matters.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

os.environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"

import psycopg2
from records import NODES
from settings import of_postgresql
from sqlmesh import Context
from sqlmesh.core.config import (
    Config,
    DuckDBConnectionConfig,
    GatewayConfig,
    ModelDefaultsConfig,
    PostgresConnectionConfig,
)
from sqlmesh.core.dialect import parse
from sqlmesh.core.model import load_sql_based_model
from sqlmesh.core.snapshot import SnapshotChangeCategory
from turns import serve

START, STEP = datetime(2000, 1, 1, tzinfo=UTC), timedelta(minutes=5)
MODEL = """
MODEL (name transform.node_{number}, kind INCREMENTAL_BY_TIME_RANGE (time_column at), cron '*/5 * * * *',
       start '2000-01-01');
SELECT 1 AS one, @start_dt AS at WHERE TRUE
"""

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
connections: list[Any] = []
connect = psycopg2.connect


def heard(*arguments: Any, **named: Any) -> Any:
    connections.append(connect(*arguments, **named))
    return connections[-1]


def gateway() -> GatewayConfig:
    warehouse = DuckDBConnectionConfig(database=str(folder / "warehouse.db"))
    if len(sys.argv) == 2:
        return GatewayConfig(
            connection=warehouse, state_connection=DuckDBConnectionConfig(database=str(folder / "state.db"))
        )
    url, schema = urlsplit(sys.argv[2]), sys.argv[3]
    psycopg2.connect = heard
    state = PostgresConnectionConfig(
        host=url.hostname or "",
        port=url.port or 5432,
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        database=url.path.lstrip("/"),
    )
    return GatewayConfig(connection=warehouse, state_connection=state, state_schema=schema)


context = Context(
    paths=str(folder),
    config=Config(gateways={"": gateway()}, model_defaults=ModelDefaultsConfig(dialect="duckdb")),
)
for number in range(NODES):
    context.upsert_model(load_sql_based_model(parse(MODEL.format(number=number)), default_catalog="warehouse"))
snapshots = [context.get_snapshot(f"transform.node_{number}", raise_if_missing=True) for number in range(NODES)]
for snapshot in snapshots:
    snapshot.categorize_as(SnapshotChangeCategory.BREAKING)
state = context.state_sync
state.push_snapshots(snapshots)


def complete(number: int) -> None:
    start = START + number // NODES * STEP
    state.add_interval(snapshots[number % NODES], start, start + STEP)


complete(0)
serve(
    complete,
    {
        "version": version("sqlmesh"),
        "durability": of_postgresql(connections[-1]) if connections else "DuckDB, a write-ahead log without a setting",
        "work": "StateSync.add_interval",
    },
)
