"""Whether the tables in a database are those of `tables`: what is missing, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Index

from seeknal.state.finding import Finding, error, warning
from seeknal.state.sql.engine import Database
from seeknal.state.sql.schema import used_tables
from seeknal.state.sql.statements import Session

LACKING = "Restore a backup; `seeknal state schema --sql` prints how it has to be."

_SQLITE = (
    "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'",
    "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index'",
)
_POSTGRESQL = (
    "SELECT t.relname, a.attname FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid "
    "WHERE a.attnum > 0 AND NOT a.attisdropped AND t.oid IN ({names})",
    "SELECT t.relname, i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
    "JOIN pg_class t ON t.oid = x.indrelid WHERE x.indisvalid AND t.oid IN ({names})",
)
_MYSQL = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()",
    "SELECT table_name, index_name FROM information_schema.statistics WHERE table_schema = DATABASE()",
)
QUERIES = {"sqlite": _SQLITE, "libsql": _SQLITE, "postgresql": _POSTGRESQL, "mysql": _MYSQL}
"""By kind of database: the columns, and the indexes that can be used, each with its table."""


class Drift(NamedTuple):
    """What a database lacks of a store."""

    tables: list[str]
    columns: list[str]
    indexes: list[Index]

    @property
    def can_be_read(self) -> bool:
        """Whether all records can be asked for."""
        return not self.tables and not self.columns


def drift_of(database: Database) -> Drift:
    """Return what is missing."""
    tables = used_tables(database.target)
    names = ", ".join(f"to_regclass('{table.fullname}')" for table in tables)
    asked = [query.format(names=names) for query in QUERIES[database.address.kind]]
    columns, indexes = (database.read(lambda session, query=query: _pairs(session, query)) for query in asked)  # type: ignore[misc]
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
    for index in drift.indexes:
        yield warning(
            "schema-index",
            f"the index {index.name} is missing, so reads take longer the more there is",
            where=where,
            fix="Make it; writers wait until it is there.",
            mend=lambda index=index: database.change_schema(index.create),  # type: ignore[misc]
        )


def _pairs(session: Session, query: str) -> set[tuple[Any, Any]]:
    session.cursor.execute(query)
    return {(row[0], row[1]) for row in session.cursor.fetchall()}
