"""Compute one node, or one range of it, into a file beside its output. Knows nothing of the store."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import duckdb
import msgspec

from seeknal.errors import NodeFailedError, SeeknalError
from seeknal.model.intervals import Interval
from seeknal.pipeline.fingerprint import own_parts
from seeknal.pipeline.nodes import PYTHON, Node, literal, quoted, resolved_sql
from seeknal.pipeline.python_nodes import code_stamp, load_module
from seeknal.runner.capture import captured, tail
from seeknal.runner.context import NodeContext
from seeknal.runner.control import Control
from seeknal.runner.outputs import Unit, file_hash
from seeknal.state.file.layout import file_name

_BOUND = re.compile(r"\{\{\s*(start|end)\s*\}\}")
_PARTITION = re.compile(r"\{\{\s*partition\s*\}\}")

_PLAIN_KEY = re.compile(r"[\w.:@%+=,/-]+", re.ASCII)

_MAKE = "CREATE TABLE output AS\n"
_MAKE_RANGE = "CREATE TABLE output AS FROM (\n"
"""What stands before a query: one line, so that DuckDB counts the others from 2."""
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)

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
        stamp: Of the code of a Python node, when it was looked at.
        code: What that was made of then.
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
    stamp: str = ""
    code: dict[str, str] = {}
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

            context = NodeContext(task.node, task.project_path, task.run_id, task.unit, connect)
            if not task.node.has_output:
                _check_ran(_call(context, task), task.node)
                return Outcome()
            if not _fill(context, task):
                return Outcome(rows=0)
            rows = _written(context.duckdb, task, beside)
        control.check()
        sha256 = file_hash(beside) if task.with_hash else ""
        return Outcome(str(beside.relative_to(task.project_path)), rows, beside.stat().st_size, sha256)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, duckdb.CatalogException) and (
            empty := [each for each, files in task.inputs.items() if not files]
        ):
            raise NodeFailedError(
                f"{', '.join(empty)} has no rows and no columns yet: {str(error).splitlines()[0]}",
                hint="Return a relation with columns there, also where it has no rows.",
            ) from error
        if isinstance(error, duckdb.Error):
            raise NodeFailedError(_said(error, task.node), hint=f"Correct {task.node.file} and run again.") from error
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
    sql = resolved_sql(node.content).rstrip().rstrip(";")
    if task.unit is None:
        _execute(connection, f"{_MAKE}{sql}")
    else:
        is_empty = isinstance(task.unit, Interval) and task.unit.start == task.unit.end
        _execute(connection, f"{_MAKE_RANGE}{filled(sql, task.unit)}\n) {'LIMIT 0' if is_empty else ''}")
    return True


def _said(error: duckdb.Error, node: Node) -> str:
    """Return what DuckDB says of a node, with the lines counted as the file of a query has them."""
    text = str(error)
    if node.kind == "transform" and node.format != PYTHON:
        # Padded, since a caret on the next line points at what stands behind it.
        text = _LINE.sub(lambda found: f"LINE {int(found[1]) - 1}:".ljust(len(found[0])), text)
    return f"{node.file}: {text}"


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


def _harmless(key: str) -> str:
    """Return a key that a shell takes for nothing else, wherever it stands.

    Raises:
        NodeFailedError: It might be taken for something else.
    """
    if not _PLAIN_KEY.fullmatch(key):
        raise NodeFailedError(
            f"the partition {key!a} cannot be filled into a shell command",
            hint='Write "$SEEKNAL_PARTITION", in double quotes, in the place of {{ partition }}.',
        )
    return key


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _timestamp(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(" ")


def _call(context: NodeContext, task: Task) -> Any:
    """Call the function of a Python node; what it prints and logs goes to its log."""
    node = task.node
    try:
        with _open_log(task) as log, captured(log):
            module = load_module(task.project_path / node.file)
            _check_code(task)
            return getattr(module, node.function)(context)
    except NodeFailedError:
        raise
    except (Exception, SystemExit) as error:  # a node's own code may raise anything, and must not end the runner
        if _is_interruption(error):
            raise
        raise NodeFailedError(
            f"{type(error).__name__}: {error}", hint=f"Correct {node.function} in {node.file} and run again."
        ) from error


def _check_ran(result: object, node: Node) -> None:
    """Raise if a command has returned what it was to do in place of doing it.

    Raises:
        NodeFailedError: It returned a coroutine or a generator, which does nothing by itself.
    """
    if isinstance(result, Coroutine | Generator):
        result.close()  # else Python warns of a coroutine that nobody has awaited
        raise NodeFailedError(
            f"{node.function} returned a {type(result).__name__}, of which nothing has run",
            hint="Run it in the function: with asyncio.run, or in a loop.",
        )


def _check_code(task: Task) -> None:
    """Raise if the code of a node was edited since it was looked at, which is what its rows are recorded as made of.

    Raises:
        NodeFailedError: It was, in something that counts.
    """
    node, project_path = task.node, task.project_path
    if code_stamp(project_path / node.file) == task.stamp or own_parts(node, project_path).parts == task.code:
        return
    raise NodeFailedError(f"{node.file}, or what it imports, was edited meanwhile", hint="Run again.")


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
        try:
            connection.register("returned", result)  # pandas, pyarrow and polars tables
        except duckdb.InvalidInputException as error:
            if isinstance(result, Coroutine):
                result.close()  # else Python warns that nobody has awaited it
            raise NodeFailedError(
                f"{node.function} returned a value of type {type(result).__name__}; "
                "return a relation, a table or a list of dictionaries",
                hint="A table is one of pandas, pyarrow or polars.",
            ) from error
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
        command = filled(command, task.unit, _harmless)
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
