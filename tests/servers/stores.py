"""The servers that the tests share, and a place of its own for each test on them.

A server's address comes from one environment variable, and from nowhere else. A place is what the option
``schema`` of the database backend names: a schema of PostgreSQL; elsewhere all tables whose names begin so.
"""

from __future__ import annotations

import os
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.servers.process import HOST, ServerProcess, ServerUnavailableError

STALE_AFTER_S = 3600
SCHEMA = re.compile(r"skt_([0-9a-f]{8})_[0-9a-f]{6}")
WAIT_S = 10
"""How long to wait for a lock or an answer before a test is told that it left something open."""


def new_schema() -> str:
    """Return a name that nobody else uses, with the time in it."""
    return f"skt_{int(time.time()):08x}_{secrets.token_hex(3)}"


def stale_schemas(tables: Iterable[str]) -> set[str]:
    """Return the schemas of tests that were killed, of names that begin with a schema's."""
    found = (SCHEMA.match(name) for name in tables)
    return {match[0] for match in found if match and int(match[1], 16) < time.time() - STALE_AFTER_S}


class Server:
    """A database server, spoken to without the package that is tested.

    Args:
        url: Its address.
    """

    kind: ClassVar[str]
    variable: ClassVar[str]

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def from_environment(cls) -> Server:
        """Return the server that the environment names.

        Raises:
            ServerUnavailableError: It names none.
        """
        url = os.environ.get(cls.variable)
        if not url:
            raise ServerUnavailableError(f"no {cls.kind} server: {cls.variable} is not set")
        return cls(url)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements on a connection of their own, each committed by itself; return the rows of the last."""
        raise NotImplementedError

    def table(self, schema: str, name: str) -> str:
        """Return how SQL names a table of a schema."""
        return f"{schema}_{name}"

    def tables(self, schema: str) -> list[str]:
        """Return the tables of a schema, as SQL names them."""
        return sorted(name for name in self._all_tables() if name.startswith(self.table(schema, "")))

    def drop(self, schema: str) -> None:
        """Drop everything of a schema."""
        raise NotImplementedError

    def drop_stale(self) -> None:
        """Drop what tests left behind that were killed."""
        for schema in stale_schemas(self._all_tables()):
            self.drop(schema)

    def _all_tables(self) -> list[str]:
        """Return all tables of the database, as SQL names them."""
        raise NotImplementedError


class PostgresServer(Server):
    kind = "postgresql"
    variable = "SEEKNAL_TEST_POSTGRES_URL"

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=WAIT_S) as connection:
            connection.execute(f"SET lock_timeout = '{WAIT_S}s'")
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def table(self, schema: str, name: str) -> str:
        return f"{schema}.{name}"

    def drop(self, schema: str) -> None:
        self.run("SET client_min_messages = warning", f"DROP SCHEMA IF EXISTS {schema} CASCADE")

    def drop_stale(self) -> None:
        for schema in stale_schemas(name for (name,) in self.run("SELECT nspname FROM pg_namespace")):
            self.drop(schema)

    def _all_tables(self) -> list[str]:
        return [name for (name,) in self.run("SELECT schemaname || '.' || tablename FROM pg_tables")]


class MysqlServer(Server):
    kind = "mysql"
    variable = "SEEKNAL_TEST_MYSQL_URL"

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        import pymysql

        parts = urlsplit(self.url)
        connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=parts.path.strip("/"),
            autocommit=True,
            connect_timeout=WAIT_S,
            ssl_disabled=parts.hostname == HOST,  # otherwise the certificates are read for nothing, for 20 ms
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET lock_wait_timeout = {WAIT_S}, foreign_key_checks = 0")
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def drop(self, schema: str) -> None:
        if tables := self.tables(schema):
            self.run(f"DROP TABLE IF EXISTS {', '.join(tables)}")

    def _all_tables(self) -> list[str]:
        rows = self.run("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
        return [name for (name,) in rows]


class LibsqlServer(Server):
    kind = "libsql"
    variable = "SEEKNAL_TEST_LIBSQL_URL"

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        import httpx

        parts = urlsplit(self.url)
        scheme = "http" if parts.scheme == "http" else "https"
        token = parse_qs(parts.query).get("authToken", [None])[0] or parts.username
        requests = [{"type": "execute", "stmt": {"sql": statement}} for statement in statements]
        answer = httpx.post(
            f"{scheme}://{parts.netloc.rpartition('@')[2]}/v3/pipeline",
            json={"requests": [*requests, {"type": "close"}]},
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=WAIT_S,
            trust_env=False,
            verify=scheme == "https",  # the same
        )
        answer.raise_for_status()
        results = answer.json()["results"]
        if errors := [result["error"] for result in results if result["type"] == "error"]:
            raise RuntimeError(f"{errors[0]['message']}: {statements}")
        return [tuple(map(_plain, row)) for row in results[-2]["response"]["result"]["rows"]]

    def drop(self, schema: str) -> None:
        if tables := self.tables(schema):
            self.run("PRAGMA foreign_keys = off", *(f"DROP TABLE IF EXISTS {name}" for name in tables))

    def _all_tables(self) -> list[str]:
        return [
            name
            for (name,) in self.run("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        ]


def _plain(value: dict[str, Any]) -> object:
    """Return a value as Python has it."""
    return {"null": lambda _: None, "integer": int, "float": float}.get(value["type"], str)(value.get("value"))


SERVERS: dict[str, type[Server]] = {each.kind: each for each in (PostgresServer, MysqlServer, LibsqlServer)}


@dataclass(frozen=True)
class ServerStore:
    """A place for one state store on a server."""

    server: Server
    schema: str
    process: ServerProcess | None = None
    """What can be stopped, killed and started again, if the server is the test's own."""

    @property
    def kind(self) -> str:
        return self.server.kind

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def options(self) -> dict[str, str]:
        """The options for ``create_state_backend("database", **options)``."""
        return self.options_at(self.url)

    def options_at(self, url: str) -> dict[str, str]:
        """Return the options for the same place by another way, such as through a proxy."""
        return {"url": url, "schema": self.schema}

    def table(self, name: str) -> str:
        """Return how SQL names one of the store's tables."""
        return self.server.table(self.schema, name)

    def tables(self) -> list[str]:
        """Return the store's tables, as SQL names them."""
        return self.server.tables(self.schema)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run SQL of the test's own; see `Server.run`."""
        return self.server.run(*statements)

    def age_leases(self, seconds: float) -> None:
        """Let so much time pass for all leases, which the server measures by its clock."""
        us = round(seconds * 1_000_000)
        self.run(
            f"UPDATE {self.table('locks')} SET expires_us = expires_us - {us}, expires_at_us = expires_at_us - {us}"
        )


@contextmanager
def fresh_store(server: Server, process: ServerProcess | None = None) -> Iterator[ServerStore]:
    """Give a new place on a server, and drop everything of it in the end."""
    store = ServerStore(server, new_schema(), process)
    try:
        yield store
    finally:
        if process is not None:
            process.start()
        server.drop(store.schema)


class EmptiedStores:
    """Stores on one server that stand already and are empty, each as if it had just been made.

    To make a store takes twenty times as long as to empty it, so one that a test is done with is given to another:
    without a row, and with another identity. Only for what uses a store as a program does: whoever changes tables, or
    looks at how they are made, takes a `fresh_store`.

    Args:
        server: Where they are.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._made = ExitStack()
        self._free: list[tuple[ServerStore, list[str]]] = []

    @contextmanager
    def one(self) -> Iterator[ServerStore]:
        """Give a store to one test, or to one program of a test; nobody else has it meanwhile.

        It is given to nobody again if the block fails.

        Raises:
            Exception: Of the driver, in the end: somebody still holds what the test wrote, or a table is gone.
        """
        store, tables = self._free.pop() if self._free else self._make()
        yield store
        identity = f"UPDATE {store.table('store')} SET store_id = '{uuid.uuid4()}', superseded_by = NULL"
        store.run("BEGIN", *(f"DELETE FROM {name}" for name in tables), identity, "COMMIT")
        self._free.append((store, tables))

    def close(self) -> None:
        """Drop them."""
        self._made.close()

    def _make(self) -> tuple[ServerStore, list[str]]:
        """Return a new store, and the tables that its records are in; those that refer to others come first."""
        from seeknal.state.backend import create_state_backend

        store = self._made.enter_context(fresh_store(self._server))
        with create_state_backend("database", **store.options) as backend:
            backend.initialize()
        kept = {store.table("store"), store.table("alembic_version")}
        return store, [name for name in store.tables() if name not in kept]
