"""Make the tables of the first release. Never edited once released, and so without a look at `tables`.

Each step may run again: MySQL commits every one by itself, and a process may be killed between two of them.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql, postgresql

revision = "0001"
down_revision = None

ID = sa.String(190).with_variant(postgresql.VARCHAR(190, collation="C"), "postgresql")
"""Compared byte for byte: PostgreSQL is told so here, MySQL by the collation of the table, SQLite does so."""

TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""Only a column of this very type numbers itself in SQLite."""


def upgrade() -> None:
    """Create everything."""
    options = context.get_context().opts
    _create(
        "store",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store_id", sa.String(36), nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("superseded_by", TEXT),
    )
    _create(
        "runs",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("config", TEXT, nullable=False),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        indexes={"runs_by_sequence": ["sequence"], "runs_by_finish": ["finished_us"]},
    )
    names, schema = options["tables"], options["tables"].metadata.schema
    run = f"{schema}.{names.prefix}runs.run_id" if schema else f"{names.prefix}runs.run_id"
    _create(
        "node_states",
        sa.Column("run_id", ID, sa.ForeignKey(run), primary_key=True),
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("fingerprint", TEXT),
        sa.Column("error_message", TEXT),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        indexes={"node_states_by_status": ["node_id", "status", "sequence"]},
    )
    _create(
        "completed_intervals",
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sqlite_with_rowid=False,
    )
    _create(
        "partitions",
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("partition", ID, primary_key=True),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("completed_us", sa.BigInteger, nullable=False),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("metadata", TEXT, nullable=False),
    )
    _create(
        "locks",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("node_id", ID, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("acquired_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
        sa.Column("ttl_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("is_free", sa.Integer, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
    )
    if options["is_shared"]:
        _create(
            "receipts",
            sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
            sa.Column("op_id", sa.BigInteger, nullable=False, unique=True),
            sa.Column("is_void", sa.Integer, nullable=False),
            sqlite_autoincrement=True,
        )
    if options["locks_rows"]:
        _create(
            "worked_nodes",
            sa.Column("node_id", ID, primary_key=True),
            sa.Column("changes", sa.BigInteger, nullable=False),
        )


def _create(name: str, *columns: Any, indexes: dict[str, list[str]] | None = None, **options: Any) -> None:
    """Create a table and its indexes, where they are missing."""
    given = context.get_context().opts
    names, schema = given["tables"], given["tables"].metadata.schema
    charset = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": given["collation"]}
    maria = {key.replace("mysql", "mariadb"): value for key, value in charset.items()}
    if given["collation"]:
        options |= charset | maria
    op.create_table(f"{names.prefix}{name}", *columns, schema=schema, if_not_exists=True, **options)
    for index, keys in (indexes or {}).items():
        # MySQL has no CREATE INDEX IF NOT EXISTS, and text for somebody to run can ask nothing.
        if context.is_offline_mode() or not _has_index(f"{names.prefix}{name}", f"{names.prefix}{index}", schema):
            op.create_index(f"{names.prefix}{index}", f"{names.prefix}{name}", keys, schema=schema)


def _has_index(table: str, index: str, schema: str | None) -> bool:
    return any(found["name"] == index for found in sa.inspect(op.get_bind()).get_indexes(table, schema=schema))
