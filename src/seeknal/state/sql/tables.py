"""The tables, as SQLAlchemy knows them.

Portable columns only: instants are microseconds since the Unix epoch in UTC, ids fit a MySQL index and
compare byte for byte, payloads are JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

from seeknal.model.ids import MAX_ID_BYTES

metadata = MetaData()


def _id(name: str, *constraints: ForeignKey, primary_key: bool = False) -> Column[str]:
    return Column(name, String(MAX_ID_BYTES), *constraints, primary_key=primary_key, nullable=False)


store = Table(
    "store",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("store_id", String(36), nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("superseded_by", Text),
)
"""A single row, whose key is 1."""

runs = Table(
    "runs",
    metadata,
    _id("run_id", primary_key=True),
    Column("status", String(16), nullable=False),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    Column("config", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("runs_by_sequence", "sequence"),
    Index("runs_by_finish", "finished_us"),
)

node_states = Table(
    "node_states",
    metadata,
    _id("run_id", ForeignKey("runs.run_id"), primary_key=True),
    _id("node_id", primary_key=True),
    Column("status", String(16), nullable=False),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    Column("duration_ms", BigInteger),
    Column("row_count", BigInteger),
    Column("fingerprint", Text),
    Column("error_message", Text),
    Column("attempt", BigInteger, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("node_states_by_status", "node_id", "status", "sequence"),
)

completed_intervals = Table(
    "completed_intervals",
    metadata,
    _id("node_id", primary_key=True),
    Column("start_us", BigInteger, primary_key=True, autoincrement=False),
    Column("end_us", BigInteger, nullable=False),
    _id("run_id"),
    sqlite_with_rowid=False,
)

partitions = Table(
    "partitions",
    metadata,
    _id("node_id", primary_key=True),
    _id("partition", primary_key=True),
    _id("run_id"),
    Column("completed_us", BigInteger, nullable=False),
    Column("row_count", BigInteger),
    Column("metadata", Text, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    _id("run_id", primary_key=True),
    _id("node_id", primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("acquired_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("ttl_ms", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("is_free", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)
"""``node_id`` is empty for the lock of a run; ``expires_us`` is in ticks. Rows outlive runs."""
