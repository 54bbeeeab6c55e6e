"""Compute one node and write its Parquet file, beside the old one and renamed. Knows nothing of the store."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote
from uuid import uuid4

import duckdb
import msgspec

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.pipeline.nodes import PYTHON, Node, literal, quoted, resolved_sql
from seeknal.pipeline.python_nodes import load_module
from seeknal.runner.capture import captured, tail
from seeknal.runner.control import Control

READERS = {"csv": "read_csv", "json": "read_json", "jsonl": "read_json", "parquet": "read_parquet"}
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
        log: The file for what it says, relative to the project, as `seeknal.runner.capture.log_file` names it; empty
            for a node that says nothing.
        attempt: Counted from 1 within the run.
    """

    node: Node
    project_path: Path
    run_id: str
    facts: dict[str, str]
    ranges: tuple[Interval, ...] = ()
    keeps_rows: bool = False
    log: str = ""
    attempt: int = 1


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


def compute(task: Task, control: Control | None = None) -> int | None:
    """Compute a node, replace its output, and return its number of rows; ``None`` for a command.

    Args:
        task: What to compute.
        control: Lets another thread end it; not picklable, so only in threads.

    Raises:
        NodeFailedError: The query, the function or the command failed or was ended, or the output could not be written.
    """
    control = control or Control()
    if task.node.kind == "command":
        _run_command(task, control)
        return None
    target = output_path(task.project_path, task.node.node_id)
    beside = target.with_name(f"{target.name}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection, control.connected(connection):
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
        control.publish(beside, target)
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
        with _open_log(task) as log, captured(log):
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


def _run_command(task: Task, control: Control) -> None:
    environment = os.environ | {"SEEKNAL_RUN_ID": task.run_id, "SEEKNAL_NODE_ID": task.node.node_id}
    with _open_log(task) as log:
        begin = log.tell()
        # A session of its own: Ctrl-C reaches the runner alone, which ends the whole group if it has to.
        process = subprocess.Popen(  # noqa: S602 - running a shell command is what such a node is
            task.node.content,
            shell=True,
            cwd=task.project_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = control.wait_for(process)
    if code:
        said = tail(task.project_path / task.log, begin)
        raise NodeFailedError(
            f"exit code {code}{': ' if said else ''}{said}", hint=f"Correct {task.node.file} and run again."
        )


@contextmanager
def _open_log(task: Task) -> Iterator[TextIO]:
    """Open the file for what a node says, behind what earlier attempts have said."""
    path = task.project_path / task.log
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise NodeFailedError(f"{path} cannot be written: {error.strerror}", hint="Check the disk.") from error
    with log:
        if task.attempt > 1:
            log.write(f"-- attempt {task.attempt}\n")
        yield log


def _is_interruption(error: BaseException) -> bool:
    """Return whether this is what DuckDB makes of a KeyboardInterrupt during a query."""
    return type(error) is RuntimeError and str(error) == "Query interrupted"


def _execute(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    connection.execute(sql)
