"""Compute one node, or one range of it, into a file beside its output. Knows nothing of the store."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import duckdb
import msgspec
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from seeknal.errors import NodeFailedError, SeeknalError
from seeknal.model.intervals import Interval
from seeknal.pipeline.nodes import PYTHON, Node, literal, quoted, resolved_sql
from seeknal.pipeline.python_nodes import load_module
from seeknal.runner.capture import captured, tail
from seeknal.runner.control import Control
from seeknal.runner.outputs import Unit, file_hash
from seeknal.state.file.layout import file_name

_BOUND = re.compile(r"\{\{\s*(start|end)\s*\}\}")
_PARTITION = re.compile(r"\{\{\s*partition\s*\}\}")

READERS = {"csv": "read_csv", "json": "read_json", "jsonl": "read_json", "parquet": "read_parquet"}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One node to compute, or one range of it; picklable.

    Attributes:
        node: The node.
        project_path: Where the project's files are.
        run_id: For the environment of a command.
        facts: What the output is to say of itself.
        inputs: For each input that has an output, its files, relative to the project.
        unit: The range to compute, of a node that is computed range by range.
        log: The file for what it says, relative to the project, as `seeknal.runner.capture.log_file` names it; empty
            for a node that says nothing.
        attempt: Counted from 1 within the run.
        with_hash: Whether the hash of the output is asked for.
    """

    node: Node
    project_path: Path
    run_id: str
    facts: dict[str, str]
    inputs: dict[str, tuple[str, ...]] = {}
    unit: Unit | None = None
    log: str = ""
    attempt: int = 1
    with_hash: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What was computed: rows in a file that stands beside where it belongs, until who asked for it puts it there.

    Attributes:
        beside: The file, relative to the project; empty for a command, and for a range that has no rows to tell the
            columns of.
        rows: How many rows; ``None`` for a command.
        size: Of the file, in bytes.
        sha256: Its hash, if that was asked for.
    """

    beside: str = ""
    rows: int | None = None
    size: int = 0
    sha256: str = ""


class NodeContext:
    """What a Python node is given.

    Attributes:
        run_id: The run.
        project_path: The project.
        interval: The span ``[start, end)`` to compute, of a node with a schedule; else ``None``.
        partition: The partition to compute, of a node with partitions; else ``None``.
    """

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection], task: Task) -> None:
        self._connect = connect
        self.run_id = task.run_id
        self.project_path = task.project_path
        self.interval = task.unit if isinstance(task.unit, Interval) else None
        self.partition = task.unit if isinstance(task.unit, str) else None
        self._inputs = task.node.inputs

    @cached_property
    def duckdb(self) -> DuckDBPyConnection:
        """A DuckDB connection of this node's own; its inputs are views named by their ids."""
        return self._connect()

    def ref(self, node_id: str) -> DuckDBPyRelation:
        """Return the output of an input as a relation: all of its rows, also where it is computed range by range.

        Raises:
            NodeFailedError: It is not an input of this node.
        """
        if node_id not in self._inputs:
            raise NodeFailedError(
                f"{node_id} is not an input of this node",
                hint=f"Add it to `inputs`. They are: {', '.join(self._inputs) or 'none'}.",
            )
        return self.duckdb.table(quoted(node_id))


def compute(task: Task, control: Control | None = None) -> Outcome:
    """Compute a node, write its rows beside its output, and return what came of it.

    What it leaves is on disk when it returns; nothing that anybody reads has changed.

    Args:
        task: What to compute.
        control: Lets another thread end it; not picklable, so only in threads.

    Raises:
        NodeFailedError: The query, the function or the command failed or was ended, or the output could not be written.
    """
    control = control or Control()
    if not task.node.has_output and task.node.format != PYTHON:
        _run_command(task, control)
        return Outcome()
    outputs = task.project_path / "target" / "outputs"
    beside = outputs / f".{file_name(task.node.node_id)[:40]}.{os.getpid()}.{uuid4().hex}.tmp"
    try:
        with ExitStack() as stack:

            def connect() -> duckdb.DuckDBPyConnection:
                connection = stack.enter_context(duckdb.connect())
                # A process of a pool looks to DuckDB like a notebook, where it draws on stdout.
                _execute(connection, "SET enable_progress_bar = false")
                stack.enter_context(control.connected(connection))
                _read_inputs(connection, task)
                return connection

            context = NodeContext(connect, task)
            if not task.node.has_output:
                _call(context, task)
                return Outcome()
            if not _fill(context, task):
                return Outcome(rows=0)
            rows = _written(context.duckdb, task, beside)
        control.check()
        sha256 = file_hash(beside) if task.with_hash else ""
        return Outcome(str(beside.relative_to(task.project_path)), rows, beside.stat().st_size, sha256)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, duckdb.Error):
            raise NodeFailedError(str(error), hint=f"Correct {task.node.file} and run again.") from error
        if _is_interruption(error):
            raise KeyboardInterrupt from error
        if isinstance(error, OSError) and not isinstance(error, SeeknalError):
            raise NodeFailedError(f"{beside} cannot be written: {error.strerror}", hint="Check the disk.") from error
        raise


def _written(connection: duckdb.DuckDBPyConnection, task: Task, beside: Path) -> int:
    """Write the table ``output`` to a file that is on disk when this returns; return the number of its rows."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    facts = ", ".join(f"{quoted(key)}: {literal(value)}" for key, value in task.facts.items())
    _execute(connection, f"COPY output TO {literal(str(beside))} (FORMAT parquet, KV_METADATA {{{facts}}})")
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    row = connection.execute("SELECT count(*) FROM output").fetchone()
    return int(row[0]) if row else 0


def _read_inputs(connection: duckdb.DuckDBPyConnection, task: Task) -> None:
    """Make a view of each input that has rows."""
    for input_id, files in task.inputs.items():
        if not files:
            continue
        paths = ", ".join(literal(str(task.project_path / file)) for file in files)
        source = f"read_parquet([{paths}], union_by_name = true)" if len(files) > 1 else f"read_parquet({paths})"
        _execute(connection, f"CREATE VIEW {quoted(input_id)} AS FROM {source}")


def _fill(context: NodeContext, task: Task) -> bool:
    """Make the table ``output``; return whether there is one, which a range without any row may lack."""
    node = task.node
    if node.format == PYTHON:
        return _fill_from_function(context, task)
    connection = context.duckdb
    if node.kind == "source":
        path = literal(str(task.project_path / node.content))
        _execute(connection, f"CREATE TABLE output AS FROM {READERS[node.format]}({path})")
        return True
    sql = resolved_sql(node.content).strip().rstrip(";")
    if task.unit is not None:
        is_empty = isinstance(task.unit, Interval) and task.unit.start == task.unit.end
        sql = f"FROM ({filled(sql, task.unit)}\n) {'LIMIT 0' if is_empty else ''}"
    _execute(connection, f"CREATE TABLE output AS {sql}")
    return True


def filled(text: str, unit: Unit, quote: Callable[[str], str] = lambda key: key.replace("'", "''")) -> str:
    """Return a query or a command with its range filled in: instants as naive UTC timestamps.

    Args:
        text: With ``{{ start }}`` and ``{{ end }}``, or with ``{{ partition }}``.
        unit: The range.
        quote: Makes a key harmless where it is filled in; by default within the quotes of an SQL string.
    """
    if isinstance(unit, str):
        return _PARTITION.sub(lambda _: quote(unit), text)
    bounds = {"start": unit.start, "end": unit.end}
    return _BOUND.sub(lambda found: _timestamp(bounds[found[1]]), text)


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _timestamp(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(" ")


def _call(context: NodeContext, task: Task) -> Any:
    """Call the function of a Python node; what it prints and logs goes to its log."""
    node = task.node
    try:
        with _open_log(task) as log, captured(log):
            function = getattr(load_module(task.project_path / node.file), node.function)
            return function(context)
    except NodeFailedError:
        raise
    except (Exception, SystemExit) as error:  # a node's own code may raise anything, and must not end the runner
        if _is_interruption(error):
            raise
        raise NodeFailedError(
            f"{type(error).__name__}: {error}", hint=f"Correct {node.function} in {node.file} and run again."
        ) from error


def _fill_from_function(context: NodeContext, task: Task) -> bool:
    node = task.node
    result = _call(context, task)
    connection = context.duckdb
    if isinstance(result, duckdb.DuckDBPyRelation):
        result.create("output")
    elif isinstance(result, list) and not result and task.unit is not None:
        return False
    elif isinstance(result, list):
        _fill_from_rows(connection, node, result)
    elif result is None:
        raise NodeFailedError(
            f"{node.function} returned nothing",
            hint="Return a relation, a table, or a list of rows; or make it a @command.",
        )
    else:
        connection.register("returned", result)  # pandas, pyarrow and polars tables
        _execute(connection, "CREATE TABLE output AS FROM returned")
    return True


def _fill_from_rows(connection: duckdb.DuckDBPyConnection, node: Node, rows: list[Any]) -> None:
    if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise NodeFailedError(
            f"{node.function} returned a list that is empty or not of dictionaries with the same keys",
            hint="Return a relation or a table where there may be no rows.",
        )
    connection.execute("CREATE TABLE output AS SELECT row.* FROM (SELECT unnest($rows) AS row)", {"rows": rows})


def _run_command(task: Task, control: Control) -> None:
    command = task.node.content
    environment = os.environ | {"SEEKNAL_RUN_ID": task.run_id, "SEEKNAL_NODE_ID": task.node.node_id}
    if isinstance(task.unit, Interval):
        environment |= {"SEEKNAL_START": _iso(task.unit.start), "SEEKNAL_END": _iso(task.unit.end)}
    elif task.unit is not None:
        environment |= {"SEEKNAL_PARTITION": task.unit}
    if task.unit is not None:
        command = filled(command, task.unit, shlex.quote)
    with _open_log(task) as log:
        begin = log.tell()
        # A session of its own: Ctrl-C reaches the runner alone, which ends the whole group if it has to.
        process = subprocess.Popen(  # noqa: S602 - running a shell command is what such a node is
            command,
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
