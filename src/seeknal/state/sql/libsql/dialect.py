"""The dialect of SQLAlchemy: that of SQLite, over the DB-API module of this package.

``create_engine("sqlite+seeknal_libsql://", creator=...)`` works once this module is imported.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Pool, QueuePool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from seeknal.state.sql.libsql import dbapi

NAME = "seeknal_libsql"


class LibSqlDialect(SQLiteDialect_pysqlite):
    """SQLite's SQL, with a transaction that has the write lock from its beginning.

    Under ``AUTOCOMMIT`` a statement is one request and takes no lock before it needs one; ``SERIALIZABLE`` is
    ``BEGIN IMMEDIATE``.
    """

    driver = NAME
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return the DB-API module."""
        return dbapi

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Return the pool for connections that any thread may use, one at a time."""
        return QueuePool

    def create_connect_args(self, url: URL) -> Any:
        """Return nothing: connections are made by the ``creator``, which knows the endpoint."""
        return [], {}

    def on_connect(self) -> Any:
        """Return nothing to do: functions cannot be sent to a server, and a setting would cost a request."""
        return None

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin a transaction; it is sent with its first statement."""
        if not dbapi_connection.autocommit:
            dbapi_connection.run("BEGIN IMMEDIATE")

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the level of a new connection, without asking the server."""
        return "SERIALIZABLE"

    def get_isolation_level_values(self, dbapi_connection: Any) -> Any:
        """Return the levels there are."""
        return ["AUTOCOMMIT", "SERIALIZABLE"]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """Return the level of a connection."""
        return "AUTOCOMMIT" if dbapi_connection.autocommit else "SERIALIZABLE"

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """Set it for what is begun from now on."""
        dbapi_connection.autocommit = level == "AUTOCOMMIT"

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        """Return whether nothing is to be rolled back when the connection is given back."""
        return bool(dbapi_conn.autocommit)

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Return whether the connection is of no more use: only if it was closed. A stream never outlives an error."""
        return isinstance(e, dbapi.ProgrammingError) and "is closed" in str(e)


registry.register(f"sqlite.{NAME}", __name__, "LibSqlDialect")
