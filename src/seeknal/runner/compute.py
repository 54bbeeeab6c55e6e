"""Compute one node and write its Parquet file, beside the old one and renamed. Knows nothing of the store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import msgspec

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.pipeline.nodes import PYTHON, Node, literal, quoted, resolved_sql
from seeknal.pipeline.python_nodes import load_module

READERS = {"csv": "read_csv", "json": "read_json", "jsonl": "read_json", "parquet": "read_parquet"}
OUTPUT_OF_COMMAND_CHARS = 2000
MOST_NAME_CHARS = 120
"""Under the 255 bytes that file systems allow, with room for suffixes."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One node to compute; picklable.

    Attributes:
        node: The node.
        project_path: Where the project's files are.
        run_id: For the environment of a command.
        facts: What the output is to say of itself: ``fingerprint`` and ``intervals``.
        ranges: The spans to compute, for a scheduled node.
        keeps_rows: Whether the rows of the standing output stay, since only what is missing is computed.
    """

    node: Node
    project_path: Path
    run_id: str
    facts: dict[str, str]
    ranges: tuple[Interval, ...] = ()
    keeps_rows: bool = False


class NodeContext:
    """What a Python node is given.

    Attributes:
        duckdb: A DuckDB connection of this node's own; its inputs are views named by their ids.
        run_id: The run.
        project_path: The project.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, task: Task) -> None:
        self.duckdb = connection
        self.run_id = task.run_id
        self.project_path = task.project_path
        self._inputs = task.node.inputs

    def ref(self, node_id: str) -> duckdb.DuckDBPyRelation:
        """Return the output of an input as a relation.

        Raises:
            NodeFailedError: It is not an input of this node.
        """
        if node_id not in self._inputs:
            raise NodeFailedError(
                f"{node_id} is not an input of this node",
                hint=f"Add it to `inputs`. They are: {', '.join(self._inputs) or 'none'}.",
            )
        return self.duckdb.table(quoted(node_id))


def output_path(project_path: Path, node_id: str) -> Path:
    """Return where the output of a node is; the id is quoted, so it is never a path."""
    name = quote(node_id, safe="")
    if len(name) > MOST_NAME_CHARS:
        name = f"{name[:40]}~{hashlib.sha256(node_id.encode()).hexdigest()}"
    return project_path / "target" / "outputs" / f"{name}.parquet"


def output_facts(path: Path) -> dict[str, str]:
    """Return what an output says of itself; empty if it is missing or cannot be read."""
    try:
        rows = duckdb.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(path)]).fetchall()
        return {bytes(key).decode(): bytes(value).decode() for key, value in rows}
    except (duckdb.Error, UnicodeDecodeError):
        return {}


def spans_text(spans: list[Interval]) -> str:
    """Return completed spans as an output states them."""
    return json.dumps([[span.start.isoformat(), span.end.isoformat()] for span in spans])


def compute(task: Task) -> int | None:
    """Compute a node, replace its output, and return its number of rows; ``None`` for a command.

    Raises:
        NodeFailedError: The query, the function or the command failed, or the output could not be written.
    """
    if task.node.kind == "command":
        _run_command(task)
        return None
    target = output_path(task.project_path, task.node.node_id)
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection:
            for input_id in task.node.inputs:
                path = output_path(task.project_path, input_id)
                if path.exists():  # a command has no output
                    _execute(connection, f"CREATE VIEW {quoted(input_id)} AS FROM read_parquet({literal(str(path))})")
            _fill(connection, task)
            if task.keeps_rows:
                _execute(connection, f"INSERT INTO output BY NAME FROM read_parquet({literal(str(target))})")
            facts = ", ".join(f"{key}: {literal(value)}" for key, value in task.facts.items())
            _execute(connection, f"COPY output TO {literal(str(beside))} (FORMAT parquet, KV_METADATA {{{facts}}})")
            rows = connection.execute("SELECT count(*) FROM output").fetchone()
        beside.replace(target)
    except duckdb.Error as error:
        raise NodeFailedError(str(error), hint=f"Correct {task.node.file} and run again.") from error
    except RuntimeError as error:
        if _is_interruption(error):
            raise KeyboardInterrupt from error
        raise
    except OSError as error:
        raise NodeFailedError(f"{target} cannot be written: {error.strerror}", hint="Check the disk.") from error
    finally:
        beside.unlink(missing_ok=True)
    return int(rows[0]) if rows else 0


def _fill(connection: duckdb.DuckDBPyConnection, task: Task) -> None:
    """Make the table ``output``."""
    node = task.node
    if node.format == PYTHON:
        _fill_from_function(connection, task)
    elif node.kind == "source":
        path = literal(str(task.project_path / node.content))
        _execute(connection, f"CREATE TABLE output AS FROM {READERS[node.format]}({path})")
    elif node.schedule is None:
        _execute(connection, f"CREATE TABLE output AS {resolved_sql(node.content)}")
    else:
        assert node.start is not None
        sql = resolved_sql(node.content)
        nothing = Interval(node.start, node.start)
        _execute(connection, f"CREATE TABLE output AS FROM ({_of_span(sql, nothing)}\n) LIMIT 0")
        for span in task.ranges:
            _execute(connection, f"INSERT INTO output {_of_span(sql, span)}")


def _of_span(sql: str, span: Interval) -> str:
    """Return a query with its span filled in, as naive UTC timestamps."""
    query = sql.strip().rstrip(";")
    for name, bound in (("start", span.start), ("end", span.end)):
        text = f"{bound:%Y-%m-%d %H:%M:%S}"
        query = query.replace("{{ " + name + " }}", text).replace("{{" + name + "}}", text)
    return query


def _fill_from_function(connection: duckdb.DuckDBPyConnection, task: Task) -> None:
    node = task.node
    try:
        # What the node prints goes where remarks go: stdout may be read by a program.
        with contextlib.redirect_stdout(sys.stderr):
            function = getattr(load_module(task.project_path / node.file), node.function)
            result = function(NodeContext(connection, task))
    except NodeFailedError:
        raise
    except (Exception, SystemExit) as error:  # a node's own code may raise anything, and must not end the runner
        if _is_interruption(error):
            raise
        raise NodeFailedError(
            f"{type(error).__name__}: {error}", hint=f"Correct {node.function} in {node.file} and run again."
        ) from error
    if isinstance(result, duckdb.DuckDBPyRelation):
        result.create("output")
    elif isinstance(result, list):
        _fill_from_rows(connection, node, result)
    elif result is None:
        raise NodeFailedError(
            f"{node.function} returned nothing", hint="Return a relation, a table, or a list of rows."
        )
    else:
        connection.register("returned", result)  # pandas, pyarrow and polars tables
        _execute(connection, "CREATE TABLE output AS FROM returned")


def _fill_from_rows(connection: duckdb.DuckDBPyConnection, node: Node, rows: list[Any]) -> None:
    if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise NodeFailedError(
            f"{node.function} returned a list that is empty or not of dictionaries with the same keys",
            hint="Return a relation or a table where there may be no rows.",
        )
    connection.execute("CREATE TABLE output AS SELECT row.* FROM (SELECT unnest($rows) AS row)", {"rows": rows})


def _run_command(task: Task) -> None:
    environment = os.environ | {"SEEKNAL_RUN_ID": task.run_id, "SEEKNAL_NODE_ID": task.node.node_id}
    done = subprocess.run(  # noqa: S602 - running a shell command is what such a node is
        task.node.content, shell=True, check=False, cwd=task.project_path, env=environment, capture_output=True
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-OUTPUT_OF_COMMAND_CHARS:]
        raise NodeFailedError(
            f"exit code {done.returncode}{': ' if said else ''}{said}", hint=f"Correct {task.node.file} and run again."
        )


def _is_interruption(error: BaseException) -> bool:
    """Return whether this is what DuckDB makes of a KeyboardInterrupt during a query."""
    return type(error) is RuntimeError and str(error) == "Query interrupted"


def _execute(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    connection.execute(sql)
