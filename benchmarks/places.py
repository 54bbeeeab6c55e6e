"""Stores that the benchmarks of completed work measure, each with what it cannot be faster than."""

from __future__ import annotations

import os
import sqlite3
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from seeknal.model.instants import to_us
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.memory import MemoryStateBackend, MemoryStore
from seeknal.state.sql.address import address_of
from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.endpoint import endpoint

START, STEP = datetime(2000, 1, 1, tzinfo=UTC), timedelta(minutes=5)
RUN, NODE = "run", "transform.node"
AT_ONCE = 1000
STORES = ("memory", "file", "sqlite", "servers")
COLUMNS = "(node_id, start_us, end_us, run_id)"

Limit = Callable[[Sequence[int]], object]
"""Stores the intervals of some slots in one commit, with nothing but what the store is made of."""

Row = tuple[Any, ...]


class Driver(NamedTuple):
    """The bare driver of a database.

    Attributes:
        execute: Runs a statement and commits.
        together: Runs it for each of many rows and commits.
        fetch: Returns the rows of a query.
        mark: What stands for a parameter.
        quote: What stands around a name.
    """

    execute: Callable[[str, Row], object]
    together: Callable[[str, Sequence[Row]], object]
    fetch: Callable[[str, Row], Sequence[Row]]
    mark: str = "%s"
    quote: str = '"'


class Place(NamedTuple):
    """Where stores of a kind are made, each under a name.

    Attributes:
        kind: Which.
        opened: Returns an instance on the store of a name, not initialized yet.
        limit: Makes what is measured beside it.
        size: Tells the bytes of a closed store.
        driver: Connects to the database of a store, and tells how SQL names a table there.
        options: Tells what `create_state_backend` is given for a store, by whoever opens it in another process.
        url: Tells where the server of a store is.
        is_server: Whether it is given less to do.
    """

    kind: str
    opened: Callable[[str], StateBackend]
    limit: Callable[[str], Limit]
    size: Callable[[str], int] | None = None
    driver: Callable[[str], tuple[Driver, Callable[[str], str]]] | None = None
    options: Callable[[str], tuple[str, dict[str, Any]]] | None = None
    url: Callable[[str], str] | None = None
    is_server: bool = False


def bounds(slot: int) -> tuple[datetime, datetime]:
    return START + slot * STEP, START + (slot + 1) * STEP


def row(slot: int) -> tuple[str, int, int, str]:
    start, end = bounds(slot)
    return NODE, to_us(start), to_us(end), RUN


def created(given: tuple[str, dict[str, Any]]) -> StateBackend:
    kind, options = given
    return create_state_backend(kind, **options)


def begun(backend: StateBackend) -> None:
    backend.initialize()
    if not backend.exists(RUN):
        backend.create_run(RUN)


def add(backend: StateBackend, slots: Iterable[int]) -> None:
    for slot in slots:
        backend.add_completed_interval(RUN, NODE, *bounds(slot))


def add_together(backend: StateBackend, slots: Iterable[int]) -> None:
    with backend.transaction():
        add(backend, slots)


def places(wanted: Sequence[str], folder: Path, stack: ExitStack) -> list[Place]:
    """Return the stores of these kinds; those on servers are dropped when the stack is closed."""
    local = {
        "memory": memory_place,
        "file": lambda: file_place(folder, stack),
        "sqlite": lambda: sqlite_place(folder, stack),
    }
    found = [local[name]() for name in local if name in wanted]
    return [*found, *(server_places(stack) if "servers" in wanted else [])]


def memory_place() -> Place:
    """Return the stores in memory; the limit keeps a sorted list."""
    stores: dict[str, MemoryStore] = {}

    def limit(_: str) -> Limit:
        done: list[tuple[datetime, datetime]] = []

        def insert(slots: Sequence[int]) -> None:
            for slot in slots:
                insort(done, bounds(slot))

        return insert

    return Place("memory", lambda name: MemoryStateBackend(stores.setdefault(name, MemoryStore())), limit)


def file_place(folder: Path, stack: ExitStack) -> Place:
    """Return the stores in files; the limit appends as many bytes as a commit of ours and syncs them."""

    def options(name: str) -> tuple[str, dict[str, Any]]:
        return "file", {"base_path": folder / name}

    def opened(name: str) -> StateBackend:
        return created(options(name))

    def limit(name: str) -> Limit:
        raw = stack.enter_context((folder / f"{name}.log").open("ab", buffering=0))
        lengths: dict[int, int] = {}
        with opened(f"{name}-measured") as backend:
            begun(backend)
            (journal,) = (folder / f"{name}-measured" / "run_state").glob("journal-*.log")
            for count in (1, AT_ONCE):
                before = journal.stat().st_size
                add_together(backend, range(count))
                lengths[count] = journal.stat().st_size - before

        def append(slots: Sequence[int]) -> None:
            raw.write(b"x" * lengths[len(slots)])
            os.fsync(raw.fileno())

        return append

    return Place("file", opened, limit, lambda name: total((folder / name / "run_state").rglob("*")), options=options)


def sqlite_place(folder: Path, stack: ExitStack) -> Place:
    """Return the stores in SQLite; the limit gives each interval a row of its own, and commits."""

    def options(name: str) -> tuple[str, dict[str, Any]]:
        return "database", {"db_path": folder / f"{name}.db"}

    def opened(name: str) -> StateBackend:
        return created(options(name))

    def driver(name: str) -> tuple[Driver, Callable[[str], str]]:
        connection = sqlite3.connect(folder / f"{name}.db", isolation_level=None)
        stack.callback(connection.close)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

        def together(sql: str, rows: Sequence[Row]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql, rows)
            connection.execute("COMMIT")

        def fetch(sql: str, values: Row) -> list[Row]:
            return connection.execute(sql, values).fetchall()

        return Driver(connection.execute, together, fetch, mark="?"), lambda table: table

    def limit(name: str) -> Limit:
        with opened(f"{name}-raw") as backend:
            begun(backend)
        return upserts(*driver(f"{name}-raw"))

    return Place("sqlite", opened, limit, lambda name: total(folder.glob(f"{name}.db*")), driver, options)


def upserts(driver: Driver, table: Callable[[str], str]) -> Limit:
    """Return what gives each interval a row of its own in a store of ours, and commits."""
    change = "ON CONFLICT (node_id, start_us) DO UPDATE SET end_us = excluded.end_us"
    if driver.quote == "`":
        change = "ON DUPLICATE KEY UPDATE end_us = VALUES(end_us)"
    marks = ", ".join([driver.mark] * 4)
    sql = f"INSERT INTO {table('completed_intervals')} {COLUMNS} VALUES ({marks}) {change}"

    def upsert(slots: Sequence[int]) -> None:
        if len(slots) == 1:
            driver.execute(sql, row(slots[0]))
        else:
            driver.together(sql, [row(slot) for slot in slots])

    return upsert


def total(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def server_places(stack: ExitStack) -> list[Place]:
    """Return the stores on the servers that the environment names."""
    from tests.servers.process import ServerUnavailableError
    from tests.servers.stores import SERVERS, fresh_store

    found = []
    for kind, server in SERVERS.items():
        try:
            found.append(server_place(kind, stack, partial(fresh_store, server.from_environment())))
        except ServerUnavailableError as error:
            print(f"{kind}: not measured: {error}")
    return found


def server_place(kind: str, stack: ExitStack, fresh: Callable[[], Any]) -> Place:
    """Return the stores on one server; the limit is an upsert with the bare driver, which commits."""
    stores: dict[str, Any] = {}

    def options(name: str) -> tuple[str, dict[str, Any]]:
        if name not in stores:
            stores[name] = stack.enter_context(fresh())
        return "database", stores[name].options

    def opened(name: str) -> StateBackend:
        return created(options(name))

    def driver(name: str) -> tuple[Driver, Callable[[str], str]]:
        return bare_driver(kind, stores[name].url, stack), stores[name].table

    def limit(name: str) -> Limit:
        with opened(f"{name}-raw") as backend:
            begun(backend)
        return upserts(*driver(f"{name}-raw"))

    def url(name: str) -> str:
        return str(stores[name].url)

    return Place(kind, opened, limit, driver=driver, options=options, url=url, is_server=True)


def bare_driver(kind: str, url: str, stack: ExitStack) -> Driver:
    """Return the driver of a server, connected."""
    if kind == "postgresql":
        import psycopg

        postgres = stack.enter_context(psycopg.connect(url, autocommit=True))

        def piped(sql: str, rows: Sequence[Row]) -> None:
            with postgres.transaction(), postgres.cursor() as cursor:
                cursor.executemany(sql, rows)

        return Driver(postgres.execute, piped, lambda sql, values: postgres.execute(sql, values).fetchall())
    if kind == "mysql":
        import pymysql

        options = address_of(None, url).options
        mysql = stack.enter_context(pymysql.connect(**options, autocommit=True, ssl_disabled=True))
        cursor = mysql.cursor()

        def in_one(sql: str, rows: Sequence[Row]) -> None:
            mysql.begin()
            cursor.executemany(sql, rows)
            mysql.commit()

        def fetched(sql: str, values: Row) -> Sequence[Row]:
            cursor.execute(sql, values)
            return cursor.fetchall()

        return Driver(cursor.execute, in_one, fetched, quote="`")
    libsql = dbapi.connect(endpoint(url))
    stack.callback(libsql.close)
    return Driver(
        libsql.run,
        lambda sql, rows: libsql.batch([(sql, each) for each in rows]),
        lambda sql, values: libsql.run(sql, values).rows,
        mark="?",
    )
