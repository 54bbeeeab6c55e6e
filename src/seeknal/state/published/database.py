"""The SQLite database of the published platform: known by its tables, read without a write.

A row becomes the object that the platform would have written as JSON. The numbers of the rows and the table
``backend_locks`` are left: the first name nothing, and who held the second is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.errors import BackendUnavailableError, CorruptStateError
from seeknal.model.codec import decode
from seeknal.state.published.found import FoundNode, FoundRun, refused

if TYPE_CHECKING:
    import sqlite3

TABLES = frozenset({"run_state", "node_state"})
_JSON = "_json"


def is_published_database(path: Path) -> bool:
    """Return whether a file is a state database of the platform.

    Raises:
        CorruptStateError: It is SQLite, but its tables cannot be listed.
        BackendUnavailableError: It cannot be read.
    """
    # Only SQLite itself may open it: a plain file that is closed again would take away the locks that this process
    # has on it, if it is a store of ours and open. Source: https://www.sqlite.org/howtocorrupt.html §2.2.
    if not path.is_file():
        return False
    try:
        with _opened(path) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except CorruptStateError as error:
        if getattr(error.__cause__, "sqlite_errorname", "") == "SQLITE_NOTADB":
            return False  # a file of somebody else that has this name
        raise
    return tables >= TABLES


def runs_in_database(path: Path) -> list[FoundRun]:
    """Return the runs of a state database; nodes that were written without their run make one.

    Raises:
        CorruptStateError: The file is damaged, or a column holds what cannot be its content.
        BackendUnavailableError: It cannot be read, or somebody is writing to it.
    """
    with _opened(path) as connection:
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise _damaged(path, problem)
        runs = {
            str(row.pop("run_id")): row
            for row in _rows(connection, path, "run_state", "SELECT * FROM run_state ORDER BY created_at, run_id")
        }
        nodes: dict[str, dict[str, FoundNode]] = {}
        for row in _rows(connection, path, "node_state", "SELECT * FROM node_state ORDER BY id"):
            run_id, node_id = str(row.pop("run_id")), str(row.pop("node_id"))
            location = f"{path}, node_state of run {run_id!a}, node {node_id!a}"
            nodes.setdefault(run_id, {})[node_id] = FoundNode(row, location)
    return [
        FoundRun(run_id, runs.get(run_id, {}), nodes.get(run_id, {}), f"{path}, run_state of run {run_id!a}")
        for run_id in [*runs, *(run_id for run_id in nodes if run_id not in runs)]
    ]


def _rows(connection: sqlite3.Connection, path: Path, table: str, query: str) -> Iterator[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    for values in cursor:
        row: dict[str, Any] = {}
        for name, value in zip(names, values, strict=True):
            if isinstance(value, bytes):
                raise refused(f"{path}, table {table}", f"column {name} holds bytes")
            if not name.endswith(_JSON):
                row[name] = value
            elif value:
                row[name.removesuffix(_JSON)] = _decoded(value, f"{path}, table {table}", name)
        row.pop("id", None)
        yield row


def _decoded(value: Any, location: str, column: str) -> Any:
    try:
        return decode(str(value), Any)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise refused(location, f"column {column}: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # Imported here: nobody who has no such database needs it.
    import sqlite3

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        if "malformed" in str(error) or "decode" in str(error) or "no such column" in str(error):
            raise _damaged(path, str(error)) from error
        raise _unreadable(path, str(error)) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"{path} is damaged: {' '.join(what.split())}",
        hint="Restore it from a backup, or move it away to go on without what it holds.",
        location=str(path),
    )


def _unreadable(path: Path, what: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"cannot read {path}: {what}", hint="Stop what writes to it, and check that it can be read."
    )
