"""What a database itself says about durability, asked on the connection that a peer works with."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LEVELS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
"""Of ``PRAGMA synchronous``, as SQLite's documentation names them."""


def of_sqlite(connection: Any) -> str:
    """Return how durable a commit on a connection to SQLite is."""
    ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
    ((level,),) = connection.execute("PRAGMA synchronous").fetchall()
    return f"SQLite, journal_mode={mode}, synchronous={LEVELS[level]}"


def of_postgresql(connection: Any) -> str:
    """Return how durable a commit on a connection of psycopg is."""
    said = []
    for name in ("fsync", "synchronous_commit"):
        cursor = connection.cursor()
        cursor.execute(f"SELECT current_setting('{name}') AS value")
        row = cursor.fetchone()
        said.append(f"{name}={row['value'] if isinstance(row, dict) else row[0]}")
    return f"PostgreSQL, {', '.join(said)}"


def opened_by(work: Callable[[], object]) -> list[sqlite3.Connection]:
    """Return the connections of the `sqlite3` module that are opened while something is done.

    The interpreter tells of each one to its audit hooks, so that nothing of the peer needs to be known.
    """
    found: list[sqlite3.Connection] = []
    is_watching = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect/handle" and is_watching:
            found.append(arguments[0])

    sys.addaudithook(hear)
    work()
    is_watching = False
    return found


def through_sqlalchemy(work: Callable[[], object], of: Callable[[Any], str]) -> str:
    """Return what is said on the connection that SQLAlchemy gets back last while something is done.

    Args:
        work: Uses engines, whoever made them.
        of: Asks a connection of the driver.
    """
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    said: list[str] = []

    def hear(connection: Any, _: object) -> None:
        if connection is not None:
            said.append(of(connection))
            connection.rollback()

    event.listen(Pool, "checkin", hear)
    work()
    event.remove(Pool, "checkin", hear)
    return said[-1]


def use_wal(path: Path) -> None:
    """Make a database of SQLite, or let it, keep a write-ahead log from now on.

    The file remembers this: <https://sqlite.org/wal.html#persistence_of_wal_mode>.
    """
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.close()
