"""The whole content of a store as one stream of records, in an order that every store has, and its digest."""

from __future__ import annotations

import hashlib

import msgspec

from seeknal.errors import CapabilityError
from seeknal.model.codec import encode
from seeknal.model.records import CompletedInterval, IntervalProvenance, NodeState, PartitionState, RunState
from seeknal.state.contract import StateBackend
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.whole import Reading, Record, records

__all__ = ["BATCH_ROWS", "Counts", "Record", "digest_of", "record_store", "records"]

BATCH_ROWS = 2000
"""Rows of one commit: many enough that round trips do not count, few enough to stay small in memory."""


class Counts(msgspec.Struct, kw_only=True):
    """How many records of each kind."""

    runs: int = 0
    node_states: int = 0
    intervals: int = 0
    partitions: int = 0
    provenance: int = 0
    expected: int = 0

    def add(self, kind: type[Record], count: int = 1) -> None:
        """Count records of this kind."""
        if kind is NodeState:
            self.node_states += count
        elif kind is RunState:
            self.runs += count
        elif kind is CompletedInterval:
            self.intervals += count
        elif kind is PartitionState:
            self.partitions += count
        elif kind is IntervalProvenance:
            self.provenance += count
        else:
            self.expected += count

    @property
    def total(self) -> int:
        """How many records of all kinds."""
        return sum(getattr(self, kind) for kind in Counts.__struct_fields__)


def record_store(backend: StateBackend) -> RecordStateBackend:
    """Return a backend that can be copied record by record.

    Raises:
        CapabilityError: It was not built on `RecordStateBackend`.
    """
    if not isinstance(backend, RecordStateBackend):
        raise CapabilityError(
            f"a {type(backend).__name__} cannot be copied from or to",
            hint="Derive it from seeknal.state.backend.RecordStateBackend.",
        )
    return backend


def digest_of(store: Reading) -> str:
    """Return the SHA-256 of everything a store holds, versions and sequences included."""
    digest = hashlib.sha256()
    for record in records(store):
        digest.update(type(record).__name__.encode() + b" " + encode(record) + b"\n")
    return digest.hexdigest()
