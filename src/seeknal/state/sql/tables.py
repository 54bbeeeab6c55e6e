"""The tables, as SQLAlchemy knows them, under the names that one store gives them.

Portable columns only: instants are microseconds since the Unix epoch in UTC, ids fit a MySQL index and
compare byte for byte, payloads are JSON text. Their exact types are the first revision's to say.
"""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

from seeknal.model.ids import MAX_ID_BYTES
from seeknal.model.records import MAX_RANGE_KEY_BYTES

SCHEMA_VERSION = 4
"""The number of the newest revision in ``migrations/versions``, which makes these tables."""

Columns: TypeAlias = list[Column[str] | Column[int]]


class Tables:
    """The tables of one store.

    Args:
        schema: The database schema they are in, where the database has such a thing.
        prefix: What their names begin with.
    """

    def __init__(self, schema: str | None, prefix: str) -> None:
        self.metadata = MetaData(schema=schema)
        self.prefix = prefix
        self.store = self._table("store", _store_columns())
        self.runs = self._table("runs", _run_columns(), by_sequence=["sequence"], by_finish=["finished_us"])
        run = ForeignKey(self.runs.c.run_id)
        self.node_states = self._table("node_states", _node_columns(run), by_status=["node_id", "status", "sequence"])
        self.completed_intervals = self._table("completed_intervals", _interval_columns())
        self.interval_provenance = self._table("interval_provenance", _interval_columns())
        self.partitions = self._table("partitions", _partition_columns())
        self.expected_partitions = self._table("expected_partitions", _expected_columns())
        self.locks = self._table("locks", _lock_columns())
        self.change_log = self._table("change_log", _change_columns())
        self.claims = self._table("claims", _claim_columns())
        self.claim_sets = self._table("claim_sets", [_id("node_id", primary_key=True), _count("version")])
        self.receipts = self._table("receipts", _receipt_columns())
        self.worked_nodes = self._table("worked_nodes", [_id("node_id", primary_key=True), _count("changes")])

    def _table(self, name: str, columns: Columns, **indexed: list[str]) -> Table:
        indexes = [Index(f"{self.prefix}{name}_{how}", *keys) for how, keys in indexed.items()]
        return Table(f"{self.prefix}{name}", self.metadata, *columns, *indexes)


def _id(name: str, *constraints: ForeignKey, primary_key: bool = False) -> Column[str]:
    return Column(name, String(MAX_ID_BYTES), *constraints, primary_key=primary_key, nullable=False)


def _count(name: str, *, nullable: bool = False, primary_key: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable, primary_key=primary_key, autoincrement=False)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _store_columns() -> Columns:
    """Return those of the single row whose key is 1."""
    return [
        Column("one", Integer, primary_key=True, autoincrement=False),
        Column("store_id", String(36), nullable=False),
        Column("schema_version", Integer, nullable=False),
        _text("superseded_by", nullable=True),
    ]


def _run_columns() -> Columns:
    return [
        _id("run_id", primary_key=True),
        Column("status", String(16), nullable=False),
        _count("started_us", nullable=True),
        _count("finished_us", nullable=True),
        _text("config"),
        _text("metadata"),
        _count("version"),
        _count("sequence"),
    ]


def _node_columns(run: ForeignKey) -> Columns:
    return [
        _id("run_id", run, primary_key=True),
        _id("node_id", primary_key=True),
        Column("status", String(16), nullable=False),
        _count("started_us", nullable=True),
        _count("finished_us", nullable=True),
        _count("duration_ms", nullable=True),
        _count("row_count", nullable=True),
        _text("fingerprint", nullable=True),
        _text("error_message", nullable=True),
        _count("attempt"),
        _text("metadata"),
        _count("version"),
        _count("sequence"),
    ]


def _interval_columns() -> Columns:
    """Return those of canonical coverage, and of its provenance, where touching rows of two runs stay two."""
    return [_id("node_id", primary_key=True), _count("start_us", primary_key=True), _count("end_us"), _id("run_id")]


def _partition_columns() -> Columns:
    return [
        _id("node_id", primary_key=True),
        _id("partition", primary_key=True),
        _id("run_id"),
        _count("completed_us"),
        _count("row_count", nullable=True),
        _text("metadata"),
    ]


def _expected_columns() -> Columns:
    return [_id("node_id", primary_key=True), _id("partition", primary_key=True)]


def _lock_columns() -> Columns:
    """Return those of locks: ``node_id`` is empty for the lock of a run. Rows outlive runs, and their leases.

    ``expires_us`` is in ticks of the machine in a store of one machine, and in microseconds of the server's clock
    elsewhere, where it equals ``expires_at_us``.
    """
    return [
        _id("run_id", primary_key=True),
        _id("node_id", primary_key=True),
        _count("token"),
        Column("owner", String(64), nullable=False),
        _text("host"),
        _count("pid"),
        _count("acquired_us"),
        _count("expires_at_us"),
        _count("ttl_ms"),
        _count("expires_us"),
        Column("is_free", Integer, nullable=False),
        _text("reason"),
    ]


def _change_columns() -> Columns:
    """Return those of the change log; its few rows are read in the order of their key, and never changed."""
    return [
        Column("change_id", String(36), primary_key=True, nullable=False),
        _count("at_us"),
        Column("action", String(40), nullable=False),
        Column("run_id", String(MAX_ID_BYTES), nullable=True),
        Column("node_id", String(MAX_ID_BYTES), nullable=True),
        _text("reason"),
        _text("detail"),
        _text("actor"),
        _text("host"),
        _count("pid"),
    ]


def _claim_columns() -> Columns:
    """Return those of claims, one row for each range; ``lease_node_id`` is empty for the lock of a run.

    ``range_key`` names the range in words: a row is of an interval, or of a partition, and the columns of the other
    are NULL.
    """
    return [
        _id("node_id", primary_key=True),
        Column("range_key", String(MAX_RANGE_KEY_BYTES), primary_key=True, nullable=False),
        _count("start_us", nullable=True),
        _count("end_us", nullable=True),
        Column("partition", String(MAX_ID_BYTES), nullable=True),
        _id("run_id"),
        Column("status", String(16), nullable=False),
        _count("attempt"),
        _count("max_attempts"),
        _text("error_message", nullable=True),
        _count("since_us"),
        _id("lease_run_id"),
        _id("lease_node_id"),
        _count("lease_token"),
        Column("lease_owner", String(64), nullable=False),
        _count("sequence"),
    ]


def _receipt_columns() -> Columns:
    """Return those of receipts: one for each commit whose answer may still be on its way (shared stores only)."""
    return [
        Column("number", BigInteger, primary_key=True, autoincrement=True),
        Column("op_id", BigInteger, nullable=False, unique=True),
        Column("is_void", Integer, nullable=False),
    ]
