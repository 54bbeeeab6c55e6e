"""What a store cannot be faster than: the same bytes, or the same statement, with nothing around them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.places import Driver

from seeknal.state.backend import StateBackend

OWNER = ("run", "raw")
"""The row that `same_statements` writes: nobody else does."""
BARE = ("run", "node 7")
"""The row that `bare_update` writes."""
COLUMNS = ("status", "row_count", "metadata", "version", "sequence")
MARKER = 424_242
"""A row count that stands nowhere else in a statement."""

Work = Callable[[int], object]


def raw_append(stack: ExitStack, path: Path, length: int = 400) -> Work:
    """Return what appends so many bytes to a file and makes them durable."""
    raw = stack.enter_context(path.open("ab", buffering=0))
    frame = b"x" * length

    def append(_: int) -> None:
        raw.write(frame)
        os.fsync(raw.fileno())

    return append


def raw_sqlite(stack: ExitStack, path: Path) -> Work:
    """Return what upserts a row of a table that has no other use, and commits, as durably as our stores do."""
    connection = sqlite3.connect(path, isolation_level=None)
    stack.callback(connection.close)
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (run TEXT, node TEXT, rows INT, extra TEXT, PRIMARY KEY (run, node))")
    sql = "INSERT INTO t VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET rows = excluded.rows, extra = excluded.extra"
    return lambda number: connection.execute(sql, ("run", "node 5", number, "x" * 200))


def bare_update(driver: Driver, table: str) -> Work:
    """Return what updates one row by its key and commits."""
    sets = ", ".join(f"{name} = {driver.mark}" for name in COLUMNS)
    sql = f"UPDATE {table} SET {sets} WHERE run_id = {driver.mark} AND node_id = {driver.mark}"
    return lambda number: driver.execute(sql, ("running", number, "{}", number + 2, number, *BARE))


def same_statements(kind: str, backend: StateBackend, stack: ExitStack, url: str) -> Work:
    """Return what sends what a transition of ours sends, by the driver alone, and waits for the answer.

    The statements are those that the driver was given by a transition of the row `OWNER`, but for its guards, which
    are made to hold every time, and what differs each time: the row count, and the id of the receipt.
    """
    backend.set_node_state(*OWNER, status="running")
    backend.set_node_state(*OWNER, row_count=1)
    return {"postgresql": _psycopg, "mysql": _pymysql, "libsql": _hrana}[kind](backend, stack, url)


def _psycopg(backend: StateBackend, stack: ExitStack, url: str) -> Work:
    import psycopg

    with _seen(psycopg.Cursor, "execute") as seen:
        version = backend.set_node_state(*OWNER, row_count=MARKER).version
    (sql, given), *others = seen
    assert not others, "a transition is one statement"
    *values, receipt = _unguarded(given, version)
    at = values.index(MARKER)
    assert receipt > 1 << 48, receipt
    connection = stack.enter_context(psycopg.connect(url, autocommit=True))

    def send(number: int) -> None:
        op_id = int.from_bytes(os.urandom(7))
        ((_,),) = connection.execute(sql, (*values[:at], number, *values[at + 1 :], op_id)).fetchall()

    return send


def _pymysql(backend: StateBackend, stack: ExitStack, url: str) -> Work:
    import pymysql
    from pymysql.constants import CLIENT

    from seeknal.state.sql.address import address_of

    with _seen(pymysql.cursors.Cursor, "execute") as seen:
        version = backend.set_node_state(*OWNER, row_count=MARKER).version
    ((text, *_), *others) = seen
    assert not others, "a transition is one text"
    head, receipt, tail = _split(str(text), "VALUES (", ", 0)")
    tail = tail.replace(f"version = {version - 1} AND", f"version = {version} AND")
    before, _, after = _split(tail, " AND (", " = 0 OR ")
    tail = f"{before}0{after}"
    options = {**address_of(None, url).options, "client_flag": CLIENT.MULTI_STATEMENTS}
    connection = stack.enter_context(pymysql.connect(**options, autocommit=True, ssl_disabled=True))
    cursor = connection.cursor()

    def send(number: int) -> None:
        op_id = int.from_bytes(os.urandom(7))
        rest = tail.replace(receipt, str(op_id)).replace(str(MARKER), str(number))
        cursor.execute(f"{head}{op_id}{rest}")
        while cursor.nextset():
            pass

    return send


def _hrana(backend: StateBackend, stack: ExitStack, url: str) -> Work:
    from seeknal.state.sql.libsql import dbapi
    from seeknal.state.sql.libsql.endpoint import endpoint

    with _seen(dbapi.Connection, "batch") as seen:
        version = backend.set_node_state(*OWNER, row_count=MARKER).version
    ((statements, *_), *others) = seen
    assert not others, "a transition is one batch"
    (_, (receipt, *_)), *_ = statements
    unguarded = [(sql, _unguarded(given, version)) for sql, given in statements]
    connection = dbapi.connect(endpoint(url))
    stack.callback(connection.close)

    def send(number: int) -> None:
        changed = {receipt: int.from_bytes(os.urandom(7)), MARKER: number}
        connection.batch([(sql, tuple(changed.get(each, each) for each in given)) for sql, given in unguarded])

    return send


@contextmanager
def _seen(owner: type, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """Keep what a method is given in a block."""
    found: list[tuple[Any, ...]] = []
    method = getattr(owner, name)

    def spied(self: Any, *given: Any, **named: Any) -> Any:
        found.append(given)
        return method(self, *given, **named)

    with mock.patch.object(owner, name, spied):
        yield found


def _unguarded(given: Any, version: int) -> tuple[Any, ...]:
    """Return parameters of the update such that it changes its row again: it has this version, whatever its sequence.

    Behind the key stand the version that is expected, twice the sequence, where 0 is not known, and perhaps a receipt.
    """
    values = tuple(given)
    if MARKER not in values:
        return values
    behind = values.index(OWNER[1]) + 1
    assert values[behind] == version - 1, values
    assert values[behind + 1] == values[behind + 2], values
    return (*values[:behind], version, 0, 0, *values[behind + 3 :])


def _split(text: str, begin: str, end: str) -> tuple[str, str, str]:
    """Return what stands before, between and behind two marks, which belong to what is around."""
    at = text.index(begin) + len(begin)
    to = text.index(end, at)
    return text[:at], text[at:to], text[to:]
