"""Whether the tables in a database are those of `tables`: what is missing, by name, and what is of another kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Index, String

from seeknal.state.finding import Finding, error, warning
from seeknal.state.sql.engine import Database
from seeknal.state.sql.schema import used_tables
from seeknal.state.sql.statements import Session

LACKING = "Restore a backup; `seeknal state schema --sql` prints how it has to be."

_SQLITE = (
    "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'",
    "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index'",
)
_POSTGRESQL = (
    "SELECT t.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a "
    "JOIN pg_class t ON t.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped AND t.oid IN ({names})",
    "SELECT t.relname, i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
    "JOIN pg_class t ON t.oid = x.indrelid WHERE x.indisvalid AND t.oid IN ({names})",
)
_MYSQL = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = DATABASE()",
    "SELECT table_name, index_name FROM information_schema.statistics WHERE table_schema = DATABASE()",
)
QUERIES = {"sqlite": _SQLITE, "libsql": _SQLITE, "postgresql": _POSTGRESQL, "mysql": _MYSQL}
"""By kind of database: the columns with their types, and the indexes that can be used, each after its table."""


class Drift(NamedTuple):
    """What a database lacks of a store; ``kinds`` says what a column is and should be."""

    tables: list[str]
    columns: list[str]
    kinds: list[str]
    indexes: list[Index]

    @property
    def can_be_read(self) -> bool:
        """Whether all records can be asked for."""
        return not self.tables and not self.columns and not self.kinds


def drift_of(database: Database) -> Drift:
    """Return what is missing, or of another kind."""
    tables, kind = used_tables(database.target), database.address.kind
    names = ", ".join(f"to_regclass('{table.fullname}')" for table in tables)
    asked = [query.format(names=names) for query in QUERIES[kind]]
    columns, indexes = (database.read(lambda session, query=query: _found(session, query)) for query in asked)  # type: ignore[misc]
    there = {table for table, _ in columns}
    return Drift(
        tables=[table.name for table in tables if table.name not in there],
        columns=[
            f"{table.name}.{column.name}"
            for table in tables
            if table.name in there
            for column in table.columns
            if (table.name, column.name) not in columns
        ],
        kinds=[
            f"{table.name}.{column.name} is {columns[table.name, column.name]}, and should be {_wanted(column)}"
            for table in tables
            for column in table.columns
            if (table.name, column.name) in columns and not _holds(columns[table.name, column.name], column, kind=kind)
        ],
        indexes=[
            index
            for table in tables
            if table.name in there
            for index in sorted(table.indexes, key=lambda index: str(index.name))
            if (table.name, index.name) not in indexes
        ],
    )


def drift_findings(database: Database, drift: Drift) -> Iterator[Finding]:
    """Tell what is missing."""
    where = database.location
    for name in drift.tables:
        yield error("schema-table", f"the table {name} is missing", where=where, fix=LACKING)
    for name in drift.columns:
        yield error("schema-column", f"the column {name} is missing", where=where, fix=LACKING)
    for what in drift.kinds:
        yield error("schema-kind", f"the column {what}", where=where, fix=LACKING)
    for index in drift.indexes:
        yield warning(
            "schema-index",
            f"the index {index.name} is missing, so reads take longer the more there is",
            where=where,
            fix="Make it; writers wait until it is there.",
            mend=lambda index=index: database.change_schema(index.create),  # type: ignore[misc]
        )


def _found(session: Session, query: str) -> dict[tuple[str, str], str]:
    """Return the names of things with those of their tables, and of columns the type in small letters."""
    session.cursor.execute(query)
    return {(row[0], row[1]): str(row[2]).lower() if len(row) > 2 else "" for row in session.cursor.fetchall()}


def _wanted(column: Column[Any]) -> str:
    if isinstance(column.type, String):
        return "text"
    return "a number of 64 bits" if isinstance(column.type, BigInteger) else "a number"


def _holds(found: str, column: Column[Any], *, kind: str) -> bool:
    """Return whether a column of this type can hold what it should. How long a text may be does not count.

    In SQLite it depends on a part of the name: https://www.sqlite.org/datatype3.html section 3.1.
    """
    if kind in ("sqlite", "libsql"):
        is_number = "int" in found
        return is_number != isinstance(column.type, String) and (is_number or "char" in found or "text" in found)
    if isinstance(column.type, String):
        return "char" in found or "text" in found
    return found == "bigint" or (found in ("int", "integer") and not isinstance(column.type, BigInteger))
