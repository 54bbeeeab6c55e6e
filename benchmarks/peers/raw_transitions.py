"""What a store cannot be faster than: as many bytes, or the same columns, with nothing but what it is made of.

python raw_transitions.py file PATH BYTES
python raw_transitions.py sqlite PATH
python raw_transitions.py postgresql URL TABLE
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Callable

from records import NODES, NOTE, node_of
from settings import of_postgresql, of_sqlite
from turns import serve

COLUMNS = "run TEXT, node TEXT, status TEXT, row_count INTEGER, note TEXT, PRIMARY KEY (run, node)"
UPSERT = (
    "INSERT INTO {table} VALUES ({marks}) ON CONFLICT (run, node) DO UPDATE SET"
    " status = excluded.status, row_count = excluded.row_count, note = excluded.note"
)


def upserting(execute: Callable[..., object], table: str, mark: str) -> Callable[[int], None]:
    """Return what completes a node in a new table, with a connection that commits each statement."""
    execute(f"CREATE TABLE {table} ({COLUMNS})")
    sql = UPSERT.format(table=table, marks=", ".join([mark] * 5))

    def complete(number: int) -> None:
        execute(sql, ("run", node_of(number), "success", number, NOTE))

    for number in range(NODES):  # otherwise than later: SQLite writes nothing where a row stays what it is
        execute(sql, ("run", node_of(number), "running", 0, ""))
    return complete


def on_file(path: str, length: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    record = b"x" * int(length)

    def append(_: int) -> None:
        os.write(descriptor, record)
        os.fsync(descriptor)

    serve(
        append,
        {
            "version": platform.python_version(),
            "durability": "fsync after each write",
            "work": f"{length} bytes appended",
        },
    )


def on_sqlite(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    serve(
        upserting(connection.execute, "transitions", "?"),
        {
            "version": sqlite3.sqlite_version,
            "durability": of_sqlite(connection),
            "work": "an upsert, committed",
        },
    )


def on_postgresql(url: str, table: str) -> None:
    import psycopg

    connection = psycopg.connect(url, autocommit=True)
    serve(
        upserting(connection.execute, table, "%s"),
        {
            "version": psycopg.__version__,
            "durability": of_postgresql(connection),
            "work": "an upsert, committed",
        },
    )


{"file": on_file, "sqlite": on_sqlite, "postgresql": on_postgresql}[sys.argv[1]](*sys.argv[2:])
