"""Builds what the published platform makes: a state database with the columns of its own tables, folders of runs."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE run_state (run_id TEXT PRIMARY KEY, schema_version TEXT, seeknal_version TEXT, last_run TEXT,
    config_json TEXT, created_at TEXT DEFAULT CURRENT_TIMESTAMP, updated_at TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE node_state (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, node_id TEXT NOT NULL, hash TEXT,
    last_run TEXT, status TEXT, duration_ms INTEGER, row_count INTEGER, version INTEGER, metadata_json TEXT,
    fingerprint_json TEXT, iceberg_snapshot_id TEXT, iceberg_snapshot_timestamp TEXT, iceberg_table_ref TEXT,
    iceberg_schema_version INTEGER, completed_intervals_json TEXT, completed_partitions_json TEXT,
    restatement_intervals_json TEXT, created_at TEXT DEFAULT CURRENT_TIMESTAMP,
    updated_at TEXT DEFAULT CURRENT_TIMESTAMP, UNIQUE (run_id, node_id));
CREATE TABLE backend_locks (lock_key TEXT PRIMARY KEY, locked_at TEXT, locked_by TEXT);
INSERT INTO backend_locks VALUES ('a run of long ago:', '2026-01-01 00:00:00', 'MainThread');
"""
JSON = ("metadata", "fingerprint", "completed_intervals", "completed_partitions", "restatement_intervals")


HERE = Path(__file__).parent


def document(name: str) -> dict[str, Any]:
    """Return a JSON file that stands here."""
    found: dict[str, Any] = json.loads((HERE / name).read_bytes())
    return found


def write(path: Path, content: object) -> Path:
    """Write JSON as the platform does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def folder(directory: Path, run: dict[str, Any]) -> Path:
    """Write a run as a folder of its own, its nodes also one by one."""
    for node_id, node in run["nodes"].items():
        write(directory / run["run_id"] / "nodes" / f"{node_id.replace('/', '')}.json", node)
    return write(directory / run["run_id"] / "run_state.json", run)


def database(path: Path, *runs: dict[str, Any]) -> Path:
    """Write ``run_state.json`` documents of schema 2.0 into a new database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLES)
        for run in runs:
            row = {name: run[name] for name in ("run_id", "schema_version", "seeknal_version", "last_run")}
            _insert(connection, "run_state", row | {"config_json": json.dumps(run["config"])})
            for node_id, node in run["nodes"].items():
                known = {name: value for name, value in node.items() if name in TABLES and name not in JSON}
                packed = {f"{name}_json": json.dumps(node[name]) for name in JSON if node.get(name)}
                _insert(connection, "node_state", {"run_id": run["run_id"], "node_id": node_id} | known | packed)
        connection.commit()
    return path


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
