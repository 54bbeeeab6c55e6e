"""MySQL and MariaDB through PyMySQL: a transaction is one text of several statements, and so one round trip."""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT, CR, ER
from sqlalchemy import ColumnElement, Engine, Executable, Pool, Select, Table, create_engine, literal_column, text
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.dialects.mysql import insert
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from seeknal.errors import AccessDeniedError, BackendUnavailableError, StateBackendError
from seeknal.state.sql.address import Address
from seeknal.state.sql.dialects.base import (
    RIGHTS,
    BusyError,
    Change,
    Command,
    Cursor,
    Dialect,
    DisconnectedError,
    Limits,
    RefusedError,
    Rows,
    is_readable,
    missing_tables,
    refused_statement,
    unreachable,
)
from seeknal.state.sql.tables import Tables

PACKET_BYTES = 1_000_000
"""A text is cut into several beyond this: servers take 16 MB or more, a proxy may take less."""

DEMAND = "SELECT IF(ROW_COUNT() > 0, 1, (SELECT 1 UNION SELECT 2))"
"""Fails, and so ends the text, unless the statement before it touched a row."""

MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"

MYSQL_COLLATION = "utf8mb4_0900_bin"
MARIADB_COLLATION = "utf8mb4_nopad_bin"
SNAPSHOT_IDLE_S = 3600
"""How long who reads a snapshot may do something else, such as wait for a slow pipe."""

LOCK_WAIT_S = 5
"""How long one attempt waits for another process that changes the schema."""

_UNMET = ER.SUBQUERY_NO_1_ROW
_BUSY = {ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, ER.CHECKREAD}
_KILLED, _READ_ONLY_MODE, _SOCKET_LOGIN = 1927, 1836, 1698  # ER_CONNECTION_KILLED, ER_READ_ONLY_MODE, and MariaDB's own
_GONE = {
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_CONNECTION_ERROR,
    CR.CR_SERVER_LOST_EXTENDED,
    ER.SERVER_SHUTDOWN,
    ER.NORMAL_SHUTDOWN,
    ER.QUERY_INTERRUPTED,
    ER.ERROR_DURING_COMMIT,
    _KILLED,
    0,
}
_NOT_YET = {ER.CON_COUNT_ERROR, ER.TOO_MANY_USER_CONNECTIONS, ER.OPTION_PREVENTS_STATEMENT, _READ_ONLY_MODE}
_LOGIN = {ER.ACCESS_DENIED_ERROR, ER.HOST_NOT_PRIVILEGED, _SOCKET_LOGIN}
_RIGHTS = {ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR,
           ER.DBACCESS_DENIED_ERROR}  # fmt: skip
_NO_TABLE = {ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR}


@lru_cache(maxsize=16)
def _context(mode: str, ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """Return how to speak TLS."""
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = mode == "verify_identity"
    context.verify_mode = ssl.CERT_NONE if mode == "required" else ssl.CERT_REQUIRED
    if cert:
        context.load_cert_chain(cert, key)
    return context


class _Connection(Connection):  # type: ignore[misc]
    """A connection that shares what it needs for TLS, which takes far longer to make than a connection."""

    _preferred: ClassVar[Any] = None

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        if isinstance(sslp, ssl.SSLContext):
            return sslp
        if _Connection._preferred is None:
            _Connection._preferred = super()._create_ssl_ctx(sslp)
        return _Connection._preferred


class MysqlDialect(Dialect):
    """A MySQL 8 or MariaDB 10.6 server, or a later one, at READ COMMITTED."""

    name = "MySQL"
    has_atomic_ddl: ClassVar[bool] = False
    sql = MySQLDialect_pymysql(paramstyle="format")
    driver_error = pymysql.Error

    def connect(self, address: Address, limits: Limits) -> Any:
        """Connect."""
        options = dict(address.options)
        files = {name: options.pop(f"ssl_{name}", None) for name in ("ca", "cert", "key")}
        mode = options.pop("ssl_mode", "verify_ca" if any(files.values()) else "preferred")
        if mode == "disabled":
            options["ssl_disabled"] = True
        elif mode != "preferred":
            options["ssl"] = _context(mode, **files)
        return _Connection(
            **options,
            charset="utf8mb4",
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
            connect_timeout=max(1, round(limits.connect_s)),
            read_timeout=limits.answer_s,
            write_timeout=limits.answer_s,
            program_name="seeknal",
            init_command=f"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION sql_mode = '{MODE}', "
            f"SESSION innodb_lock_wait_timeout = {_seconds(limits.lock_ms)}",
        )

    def wait_at_most(self, connection: Any, answer_s: float) -> None:
        """Set it for each part of an answer."""
        connection._read_timeout = connection._write_timeout = answer_s

    def has_ended(self, connection: Any) -> bool:
        """Look at its socket; TLS may have something to say of its own."""
        return not connection.open or (not connection._secure and is_readable(connection._sock.fileno()))

    def wait_for_locks(self, connection: Any, lock_ms: int) -> None:
        """Set it for the session, in whole seconds."""
        connection.query(f"SET SESSION innodb_lock_wait_timeout = {_seconds(lock_ms)}")

    def engine(self, pool: Pool) -> Engine:
        """Return SQLAlchemy's engine."""
        return create_engine("mysql+pymysql://", pool=pool)

    def begin_snapshot(self, connection: Any) -> Cursor:
        """Begin a transaction whose statements all see what is committed now."""
        connection.query(f"SET SESSION wait_timeout = {SNAPSHOT_IDLE_S}")
        connection.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        cursor: Cursor = connection.cursor()
        return cursor

    def lock_ranges(self, connection: Any) -> None:
        """Lock the gaps between rows, too, which READ COMMITTED does not.

        Source: https://dev.mysql.com/doc/refman/8.4/en/innodb-locking.html
        """
        connection.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def run(self, connection: Any, commands: Sequence[Command]) -> list[Rows]:
        """Run commands as one text, or as few as their size allows. The first that fails is the last that runs."""
        results: list[Rows] = []
        cursor = connection.cursor()
        owners = [index for index, command in enumerate(commands) for _ in _texts(command)]
        packets = list(_packets(cursor, commands))
        if len(packets) > 1:
            # If the rest never arrives, the server must not keep the locks for its eight hours.
            cursor.execute(f"SET SESSION wait_timeout = {math.ceil(connection._read_timeout)}")
        try:
            for packet in packets:
                cursor.execute(packet)
                results.append(_rows(cursor))
                while cursor.nextset():
                    results.append(_rows(cursor))
        except pymysql.Error as error:
            if connection.open:
                with contextlib.suppress(pymysql.Error):  # what went wrong first is what is told
                    cursor.execute("ROLLBACK")
                    _keep_idle(cursor, packets)
            if isinstance(error, pymysql.IntegrityError) or _code(error) == _UNMET:
                raise RefusedError(owners[len(results) - 1]) from error  # the first result is that of the beginning
            raise
        _keep_idle(cursor, packets)
        asked = {index for index, command in enumerate(commands) if command.is_asked}
        return [rows for owner, rows in zip(owners, results[1:-1], strict=True) if owner in asked]

    def classify(self, error: Exception, location: str, committing: bool) -> StateBackendError:
        """Return the typed error. Source: https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html."""
        code, what = _code(error), _what(error)
        if code in _BUSY:
            return BusyError(f"{location} is busy: {what}", hint="Repeat the call.")
        if code in _LOGIN:
            return AccessDeniedError(
                f"{location} does not let this user in: {what}", hint="Check the user and the password."
            )
        if code in _RIGHTS:
            return AccessDeniedError(
                f"{location} refuses a statement: {what}",
                hint="Grant it to this user; `seeknal state schema --sql` prints what a store needs.",
            )
        if code == ER.BAD_DB_ERROR:
            return BackendUnavailableError(
                f"{location} cannot be opened: {what}", hint="Create the database, or name another."
            )
        if code in _NO_TABLE:
            return missing_tables(location, what)
        if code in _NOT_YET:
            return DisconnectedError(
                f"{location} takes no work now: {what}",
                hint="Is it full, or a replica that only reads? Repeat the call, or point to the primary.",
            )
        if code in _GONE or isinstance(error, pymysql.InterfaceError):
            return unreachable(location, what, committing)
        return refused_statement(location, what)

    def insert(self, table: Table) -> Any:
        """Return MySQL's insert."""
        return insert(table)

    def overwriting(self, row: Any, keys: Sequence[str], change: Change) -> Any:
        """Return ``INSERT ... ON DUPLICATE KEY UPDATE``."""
        return row.on_duplicate_key_update(change(row.inserted))

    def leaving(self, row: Any) -> Any:
        """Return an insert that sets a key to itself; ``INSERT IGNORE`` would let other errors pass, too."""
        key = next(iter(row.table.primary_key))
        return row.on_duplicate_key_update({key.name: key})

    def held(self, rows: Select[Any]) -> Select[Any]:
        """Lock the row, together with others who do."""
        return rows.with_for_update(read=True)

    def now_us(self) -> ColumnElement[int]:
        """Return the server's clock in UTC, whatever the time zone of the session is."""
        return literal_column("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")

    def raise_number(self, receipts: Table) -> Sequence[Executable]:
        """Insert a row of that number and remove it: the counter never goes back, also across restarts.

        Source: https://dev.mysql.com/doc/refman/8.4/en/innodb-auto-increment-handling.html,
        https://mariadb.com/kb/en/auto_increment/ (since 10.2.4).
        """
        name = receipts.name
        return [
            text(f"INSERT IGNORE INTO {name} (number, op_id, is_void) VALUES (:least, -:least, 1)"),
            text(f"DELETE FROM {name} WHERE op_id = -:least"),
        ]

    def has_table(self, table: Table) -> str:
        """Return a query for whether a table is there."""
        return (
            "SELECT count(*) FROM information_schema.tables "
            f"WHERE table_schema = DATABASE() AND table_name = '{table.name}'"
        )

    @contextlib.contextmanager
    def changing(self, connection: SqlConnection, tables: Tables) -> Iterator[None]:
        """Hold a named lock: each change of a table commits by itself here, and is safe to run again.

        Source: https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html
        """
        name = f"CONCAT('seeknal ', MD5(CONCAT(DATABASE(), ' {tables.prefix}')))"
        if not connection.exec_driver_sql(f"SELECT GET_LOCK({name}, {LOCK_WAIT_S})").scalar():
            raise BusyError("another process changes the schema of this store", hint="Repeat the call.")
        try:
            yield
            connection.commit()
        finally:
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK({name})")

    def collation(self, cursor: Cursor) -> str | None:
        """Return the collation that folds neither case nor trailing spaces; MySQL and MariaDB have one each.

        Source: https://dev.mysql.com/doc/refman/8.4/en/charset-unicode-sets.html (NO PAD),
        https://mariadb.com/kb/en/supported-character-sets-and-collations/ (nopad).
        """
        cursor.execute("SELECT VERSION()")
        return MARIADB_COLLATION if "mariadb" in str(cursor.fetchone()[0]).lower() else MYSQL_COLLATION

    def missing_rights(self, cursor: Cursor, tables: Sequence[Table]) -> list[str]:
        """Try all of them at once on no rows; one after the other where something is refused."""
        probes = {(right, table.name): _probe(right, table) for table in tables for right in RIGHTS}
        if not self._is_refused(cursor, ";".join(probes.values())):
            return []
        return sorted(f"{right} on {name}" for (right, name), sql in probes.items() if self._is_refused(cursor, sql))

    def _is_refused(self, cursor: Any, sql: str) -> bool:
        try:
            cursor.execute(sql)
            while cursor.nextset():
                pass
        except pymysql.Error as error:
            if _code(error) in _RIGHTS:
                return True
            raise
        return False


def _seconds(ms: int) -> int:
    return max(1, ms // 1000)


def _probe(right: str, table: Table) -> str:
    """Return a statement that needs a right on a table, and touches no row of it."""
    name, column = f"`{table.name}`", f"`{next(iter(table.c)).name}`"
    return {
        "SELECT": f"SELECT 1 FROM {name} LIMIT 0",
        "INSERT": f"INSERT INTO {name} SELECT * FROM {name} WHERE FALSE",
        "UPDATE": f"UPDATE {name} SET {column} = {column} WHERE FALSE",
        "DELETE": f"DELETE FROM {name} WHERE FALSE",
    }[right]


def _texts(command: Command) -> list[str]:
    if not command.is_demand:
        return [command.sql]
    if command.sql.startswith("SELECT"):
        return [f"SELECT IF(EXISTS({command.sql}), 1, (SELECT 1 UNION SELECT 2))"]
    return [command.sql, DEMAND]


def _packets(cursor: Any, commands: Sequence[Command]) -> Iterator[str]:
    """Yield the whole transaction, in as few texts as are short enough."""
    texts, size = ["START TRANSACTION"], 0
    for command in commands:
        sql, *demand = _texts(command)
        filled = cursor.mogrify(sql, command.parameters)
        if size + len(filled) > PACKET_BYTES and texts:
            yield ";".join(texts)
            texts, size = [], 0
        texts += [filled, *demand]  # a demand looks at the statement before it, on the same connection
        size += len(filled)
    yield ";".join([*texts, "COMMIT"])


def _keep_idle(cursor: Any, packets: Sequence[str]) -> None:
    """Let a connection wait for its next call as long as any other."""
    if len(packets) > 1:
        cursor.execute("SET SESSION wait_timeout = DEFAULT")


def _rows(cursor: Any) -> Rows:
    return list(cursor.fetchall()) if cursor.description else []


def _code(error: Exception) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def _what(error: Exception) -> str:
    return str(error.args[1] if len(error.args) > 1 else error)
