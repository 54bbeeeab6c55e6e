"""The schema: made, brought up to date, or refused; forwards only, under the store's write lock."""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import Connection, insert, inspect, select, update

from seeknal.errors import CorruptStateError, SchemaVersionError
from seeknal.state.sql import tables
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Cursor, Row, Statement

SCHEMA_VERSION = 1
"""The number of the newest revision in ``migrations/versions``."""

READ_VERSION = Statement(select(tables.store.c.schema_version))
_HAS_STORE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'store'"


def prepare(database: Database) -> None:
    """Make the store ready.

    Raises:
        BackendUnavailableError: It cannot be opened or written.
        CorruptStateError: The file is not a database, or holds something else.
        SchemaVersionError: A newer program wrote it.
    """
    database.create_file()
    database.read(_use_wal)
    if not database.read(lambda cursor: _is_current(cursor, database.location)):
        database.change_schema(lambda connection: _upgrade(connection, database.location))


def _use_wal(cursor: Cursor) -> None:
    cursor.execute("PRAGMA journal_mode = WAL")  # kept in the file; readers then never wait for a writer
    cursor.fetchone()


def _is_current(cursor: Cursor, location: str) -> bool:
    cursor.execute(_HAS_STORE)
    return bool(cursor.fetchone()[0]) and _check(READ_VERSION.one(cursor), location) == SCHEMA_VERSION


def _check(row: Row | None, location: str) -> int:
    if row is None:
        raise CorruptStateError(
            f"{location} has lost the row that names its schema", hint="Restore it from a backup.", location=location
        )
    if row[0] > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{location} has schema {row[0]}; this version reads up to {SCHEMA_VERSION}: a newer program wrote it",
            hint="Upgrade seeknal-state to the version that wrote it.",
            found=str(row[0]),
            wanted=str(SCHEMA_VERSION),
        )
    return int(row[0])


def _upgrade(connection: Connection, location: str) -> None:
    """Run what is missing; another process may have been first, or a half of one store may stand."""
    names = set(inspect(connection).get_table_names())
    is_new = "store" not in names
    if not is_new:
        row = connection.execute(select(tables.store.c.schema_version)).first()
        if _check(None if row is None else tuple(row), location) == SCHEMA_VERSION:
            return
    elif names:
        raise CorruptStateError(
            f"{location} is a database of something else: it has tables ({min(names)}), but no store",
            hint="Name another file.",
            location=location,
        )
    # Imported here and not above: an up-to-date store is opened without Alembic, which takes longer than all the rest.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "seeknal.state.sql:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if is_new:
        connection.execute(insert(tables.store).values(one=1, store_id=str(uuid4()), schema_version=SCHEMA_VERSION))
    else:
        connection.execute(update(tables.store).values(schema_version=SCHEMA_VERSION))
