"""Compute one node and write its Parquet file, beside the old one and renamed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import duckdb

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.pipeline.nodes import Node, Project, resolved_sql

READERS = {"csv": "read_csv", "json": "read_json", "jsonl": "read_json", "parquet": "read_parquet"}


def output_path(project: Project, node_id: str) -> Path:
    """Return where the output of a node is; the id is quoted, so it is never a path."""
    return project.path / "target" / "outputs" / f"{quote(node_id, safe='')}.parquet"


def stored_facts(path: Path) -> dict[str, str]:
    """Return what an output says it was made of; empty if it is missing or unreadable."""
    try:
        rows = duckdb.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(path)]).fetchall()
    except duckdb.Error:
        return {}
    return {bytes(key).decode(): bytes(value).decode() for key, value in rows}


def spans_text(spans: list[Interval]) -> str:
    """Return completed spans as an output stores them."""
    return json.dumps([[span.start.isoformat(), span.end.isoformat()] for span in spans])


def produce(
    project: Project, node: Node, facts: dict[str, str], ranges: list[Interval], *, append: bool, run_id: str
) -> int | None:
    """Compute a node, replace its output, and return its rows.

    Raises:
        NodeFailedError: The query or the command failed.
    """
    if node.kind == "command":
        _command(project, node, run_id)
        return None
    target = output_path(project, node.node_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with duckdb.connect() as connection:
            for input_id in node.inputs:
                path = output_path(project, input_id)
                if path.exists():
                    name = input_id.replace('"', '""')
                    connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet({_text(str(path))})')  # noqa: S608
            for number, query in enumerate(_queries(project, node, ranges)):
                connection.execute(f"{'INSERT INTO output' if number else 'CREATE TABLE output AS'} {query}")
            if append:
                connection.execute(f"INSERT INTO output SELECT * FROM read_parquet({_text(str(target))})")  # noqa: S608
            pairs = ", ".join(f"{key}: {_text(value)}" for key, value in facts.items())
            connection.execute(f"COPY output TO {_text(str(beside))} (FORMAT parquet, KV_METADATA {{{pairs}}})")
            row = connection.execute("SELECT count(*) FROM output").fetchone()
        beside.replace(target)
    except duckdb.Error as error:
        raise NodeFailedError(f"{node.node_id}: {error}", hint="Correct the node and run again.") from error
    finally:
        beside.unlink(missing_ok=True)
    return int(row[0]) if row else None


def _queries(project: Project, node: Node, ranges: list[Interval]) -> list[str]:
    if node.kind == "source":
        return [f"SELECT * FROM {READERS[node.format]}({_text(str(project.path / node.content))})"]  # noqa: S608
    sql = resolved_sql(node.content)
    if not node.schedule:
        return [sql]
    return [
        sql.replace("{{ start }}", f"{span.start:%Y-%m-%d %H:%M:%S}").replace(
            "{{ end }}", f"{span.end:%Y-%m-%d %H:%M:%S}"
        )
        for span in ranges
    ]


def _command(project: Project, node: Node, run_id: str) -> None:
    environment = os.environ | {"SEEKNAL_RUN_ID": run_id, "SEEKNAL_NODE_ID": node.node_id}
    done = subprocess.run(  # noqa: S602
        node.content, shell=True, check=False, cwd=project.path, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        tail = done.stderr.strip()[-2000:]
        raise NodeFailedError(f"{node.node_id}: exit code {done.returncode}: {tail}", hint="Correct the command.")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
