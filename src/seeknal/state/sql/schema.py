"""The schema: made, brought up to date, or refused; forwards only, while nobody else changes it."""

from __future__ import annotations

from io import StringIO
from typing import Any
from uuid import uuid4

import msgspec
from sqlalchemy import Connection, delete, insert, inspect, select, update

from seeknal.errors import AccessDeniedError, CorruptStateError
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Session, Target
from seeknal.state.sql.store import GET, too_new
from seeknal.state.sql.tables import SCHEMA_VERSION, Tables

PROVENANCE_SINCE = 4
"""The first schema that tells which run completed each part of an interval."""

PUBLISHED_TABLES = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('run_state', 'node_state')"
"""Two are there, and no store, where the published platform keeps its state; see `seeknal.state.published`."""

SQL_HINT = "Grant it, or have somebody who may run what `seeknal state schema --sql` prints."


class SchemaReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a store's schema stands.

    Attributes:
        location: Where it is, without secrets.
        found: The number of its revision; 0 if there is no store yet.
        wanted: The newest one that this program knows.
        missing_rights: What this user is not granted, each like ``UPDATE on runs``.
    """

    location: str
    found: int
    wanted: int
    missing_rights: list[str]


def prepare(database: Database) -> None:
    """Make the store ready.

    Raises:
        AccessDeniedError: It has to be made or changed, and this user may not; or the user lacks a right.
        BackendUnavailableError: It cannot be opened or written.
        CorruptStateError: The file is not a database, or holds something else.
        SchemaVersionError: A newer program wrote it.
    """
    if not database.dialect.is_shared:
        database.dialect.make_place(database.address)
        database.read(lambda session: _settle(session, database))
    try:
        found = found_version(database)
    except AccessDeniedError:
        _check_rights(database)  # it says more
        raise
    if found != SCHEMA_VERSION:
        collation = text_collation(database)
        try:
            database.change_schema(lambda connection: _upgrade(connection, database, collation))
        except AccessDeniedError as error:
            lacking = "has no store yet" if not found else f"has schema {found}, and {SCHEMA_VERSION} is needed"
            raise AccessDeniedError(
                f"{database.location} {lacking}, which this user may not change: {error}", hint=SQL_HINT
            ) from error
    _check_rights(database)


def _check_rights(database: Database) -> None:
    missing = missing_rights(database)
    if missing:
        raise AccessDeniedError(
            f"{database.location} grants this user too little; it lacks {', '.join(missing)}",
            hint="Have these granted, or use another user.",
        )


def _settle(session: Session, database: Database) -> None:
    """Settle a file that is a store or becomes one; one that the published platform keeps is not touched."""
    session.cursor.execute(PUBLISHED_TABLES)
    if session.cursor.fetchone()[0] == 2 and not session.target.tables.prefix:  # beside others a store has a prefix
        raise CorruptStateError(
            f"{database.location} is a state database of the published Seeknal platform",
            hint="Take it in with `seeknal state adopt`, which previews first, or name another file.",
            location=database.location,
        )
    database.dialect.settle(session.cursor)


def report(database: Database) -> SchemaReport:
    """Return how the schema stands; changes nothing.

    Raises:
        SeeknalError: As `prepare`, where the store cannot be looked at.
    """
    found = version_there(database)
    rights = missing_rights(database) if found == SCHEMA_VERSION else []
    return SchemaReport(location=database.location, found=found, wanted=SCHEMA_VERSION, missing_rights=rights)


def version_there(database: Database) -> int:
    """Return the revision of the store, as `found_version`, without making the file of one."""
    path = database.address.path
    return 0 if path is not None and not path.exists() else found_version(database)


def found_version(database: Database) -> int:
    """Return the revision of the store; 0 if there is none, or none that was finished."""
    try:
        return database.read(lambda session: _found(session, database.location))
    except CorruptStateError as error:
        if isinstance(error.__cause__, database.dialect.driver_error) and "column" in str(error).lower():
            raise _foreign(database.target, database.location, database.target.tables.store.name) from error
        raise


def missing_rights(database: Database) -> list[str]:
    """Return what this user lacks; nothing if it may read everything and write nothing, as a report does."""
    tables = used_tables(database.target)
    missing = database.read(lambda session: database.dialect.missing_rights(session.cursor, tables))
    reads = [each for each in missing if each.startswith("SELECT ")]
    return [] if not reads and len(missing) >= 3 * len(tables) else missing


def text_collation(database: Database) -> str | None:
    """Return what compares text byte for byte on the server, where tables have to be told."""
    if not database.dialect.is_shared:
        return None
    return database.read(lambda session: database.dialect.collation(session.cursor))


def used_tables(target: Target) -> list[Any]:
    """Return the tables that a store of this kind has."""
    tables, dialect = target.tables, target.dialect
    unused = ([] if dialect.is_shared else [tables.receipts]) + ([] if dialect.locks_rows else [tables.worked_nodes])
    return [table for table in tables.metadata.sorted_tables if table not in unused]


def sql_text(target: Target, collation: str | None, store_id: str | None = None, found: int = 0) -> str:
    """Return the statements for somebody to run by hand.

    Args:
        target: What they are for.
        collation: As `text_collation`.
        store_id: The identity of a new store; another one each time when ``None``.
        found: The revision of the store that they bring up to date; 0 to make a new one.
    """
    buffer = StringIO()
    config = _config(target, collation)
    config.output_buffer = buffer
    config.attributes["dialect"] = target.dialect.sql.name
    from alembic import command

    command.upgrade(config, f"{found:04}:head" if found else "head", sql=True)
    row: Any = update(target.tables.store).values(schema_version=SCHEMA_VERSION)
    if not found:
        new_id = store_id or str(uuid4())
        row = insert(target.tables.store).values(one=1, store_id=new_id, schema_version=SCHEMA_VERSION)
    made = row.compile(dialect=target.dialect.sql, compile_kwargs={"literal_binds": True})
    schema = target.tables.metadata.schema
    parts = [f"CREATE SCHEMA IF NOT EXISTS {schema};"] if schema and not found else []
    parts += [buffer.getvalue().strip(), f"{made};"]
    if target.dialect.has_atomic_ddl:
        parts = ["BEGIN;", *parts, "COMMIT;"]
    return "\n\n".join(parts) + "\n"


def _found(session: Session, location: str) -> int:
    session.cursor.execute(session.target.dialect.has_table(session.target.tables.store))
    if not session.cursor.fetchone()[0]:
        return 0
    row = session.one(GET)
    if row is None and session.target.dialect.has_atomic_ddl:
        raise _nameless(location)
    return 0 if row is None else _check(row[1], location)


def _check(version: int, location: str) -> int:
    if version > SCHEMA_VERSION:
        raise too_new(version, location)
    return int(version)


def _nameless(location: str) -> CorruptStateError:
    return CorruptStateError(
        f"{location} has lost the row that names its schema", hint="Restore it from a backup.", location=location
    )


def _upgrade(connection: Connection, database: Database, collation: str | None) -> None:
    """Run what is missing; another process may have been first, or a half of one store may stand."""
    target, location = database.target, database.location
    tables = target.tables
    names = set(inspect(connection).get_table_names(schema=tables.metadata.schema))
    version = 0
    if tables.store.name in names:
        row = connection.execute(select(tables.store.c.schema_version)).first()
        version = _unfinished(connection, tables, names, location) if row is None else _check(row[0], location)
        if version == SCHEMA_VERSION:
            return
    else:
        _check_place(names, target, location)
    from alembic import command

    config = _config(target, collation)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if version:
        if version < PROVENANCE_SINCE:
            # In the transaction of the new version: until that stands, an older program may go on completing intervals.
            connection.execute(delete(tables.interval_provenance))
            connection.execute(insert(tables.interval_provenance).from_select(*known_provenance(tables)))
        connection.execute(update(tables.store).values(schema_version=SCHEMA_VERSION))
    else:
        connection.execute(insert(tables.store).values(one=1, store_id=str(uuid4()), schema_version=SCHEMA_VERSION))


def known_provenance(tables: Tables) -> tuple[list[str], Any]:
    """Return all that an older store knows: the run that each interval names."""
    spans = tables.completed_intervals
    return [column.name for column in spans.c], select(spans)


def _unfinished(connection: Connection, tables: Tables, names: set[str], location: str) -> int:
    """Return 0 for a store whose making was interrupted, where each change of a table commits by itself."""
    if tables.runs.name in names and connection.execute(select(tables.runs.c.run_id).limit(1)).first() is not None:
        raise _nameless(location)
    return 0


def _check_place(names: set[str], target: Target, location: str) -> None:
    """Raise unless a new store can be made beside these tables."""
    ours = {table.name for table in used_tables(target)}
    foreign = names if _is_a_file(target) else names & ours
    if foreign:
        raise _foreign(target, location, min(foreign))


def _is_a_file(target: Target) -> bool:
    """Return whether a store has the database for itself."""
    return not target.dialect.is_shared and not target.tables.prefix


def _foreign(target: Target, location: str, name: str) -> CorruptStateError:
    another = "Name another database, or choose a schema with state_options."
    return CorruptStateError(
        f"{location} is a database of something else: it has tables ({name}), but no store",
        hint="Name another file." if _is_a_file(target) else another,
        location=location,
    )


def _config(target: Target, collation: str | None) -> Any:
    # Imported here and not above: an up-to-date store is opened without Alembic, which takes longer than all the rest.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "seeknal.state.sql:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes.update(
        tables=target.tables,
        is_shared=target.dialect.is_shared,
        locks_rows=target.dialect.locks_rows,
        collation=collation,
    )
    return config
