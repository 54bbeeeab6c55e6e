"""What two states do not have in common: a join of two streams of records, both in the order of `key_of`.

A stream may come from anything that yields records in this order; `ordered` is that of an open store. Of each side it
keeps one run's nodes, or one node's work, in memory at a time, and the ids of all runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Any, TypeAlias, get_args

import msgspec

from seeknal.errors import CapabilityError, TransferError
from seeknal.model.records import (
    CompletedInterval,
    ExpectedPartition,
    IntervalProvenance,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.contract import StateBackend
from seeknal.state.record_store import RecordStore
from seeknal.state.whole import Record, work_records
from seeknal.state.work import WorkRecord

Key: TypeAlias = tuple[int, bytes, int, bytes | datetime]

_KINDS: dict[type[Any], tuple[str, tuple[str, ...]]] = {
    RunState: ("run", ("run_id",)),
    NodeState: ("node", ("run_id", "node_id")),
    CompletedInterval: ("interval", ("node_id", "start")),
    IntervalProvenance: ("provenance", ("node_id", "start")),
    PartitionState: ("partition", ("node_id", "partition")),
    ExpectedPartition: ("expected", ("node_id", "partition")),
}
"""Of each record: what it is called, and the fields that name it."""

_PLACES = {kind: place for place, kind in enumerate(get_args(WorkRecord))}
"""The order of the kinds within a node's work."""

OF_THE_STORE = ("version", "sequence")
"""How often and in which order a store was written: two stores may differ in it and hold the same."""


class Found(StrEnum):
    """Where a record is."""

    ONLY_IN_A = "only in A"
    ONLY_IN_B = "only in B"
    DIFFERS = "differs"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One record that the two sides do not hold equally.

    Attributes:
        kind: ``run``, ``node``, ``interval``, ``provenance`` (a part of an interval by another run), ``partition`` or
            ``expected``.
        key: The fields that name it.
        found: Where it is.
        fields: Where it differs, what is in ``a`` and in ``b``: by the name of a field, or of an entry in one as in
            ``metadata.owner``. A side that lacks an entry is left out.
    """

    kind: str
    key: dict[str, Any]
    found: Found
    fields: dict[str, dict[str, Any]] = {}


def ordered(store: StateBackend) -> Iterator[Record]:
    """Yield all records of an open store in the order of `key_of`.

    What others write meanwhile may be among them or not, record by record.

    Raises:
        CapabilityError: It was not built on `RecordStateBackend`.
    """
    if not isinstance(store, RecordStore):
        raise CapabilityError(
            f"a {type(store).__name__} cannot be compared",
            hint="Derive it from seeknal.state.backend.RecordStateBackend.",
        )
    for run_id in sorted(store.read_run_ids(None, newest_first=False, limit=None), key=str.encode):
        run = store.read_run(run_id)
        if run is not None:
            yield run
            yield from store.read_nodes(run_id).values()
    for node_id in store.read_worked_nodes():
        yield from work_records(store, node_id)


def key_of(record: Record) -> Key:
    """Return what a record is found by, and its place: each run before its nodes, then completed work by node."""
    if isinstance(record, RunState):
        return 0, record.run_id.encode(), 0, b""
    if isinstance(record, NodeState):
        return 0, record.run_id.encode(), 1, record.node_id.encode()
    kind = _PLACES[type(record)]
    if isinstance(record, CompletedInterval | IntervalProvenance):
        return 1, record.node_id.encode(), kind, record.start
    return 1, record.node_id.encode(), kind, record.partition.encode()


def differences(a: Iterable[Record], b: Iterable[Record], *, exact: bool = False) -> Iterator[Difference]:
    """Yield what is not equal in two streams of records, in their order.

    Args:
        a: The records of one side, in the order of `key_of`.
        b: Those of the other.
        exact: Whether versions and sequences count, too.

    Raises:
        TransferError: A side is not in order.
    """
    ignored = () if exact else OF_THE_STORE
    left, right = _keyed(a, "A"), _keyed(b, "B")
    ours, theirs = next(left, None), next(right, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            assert ours is not None
            yield _difference(ours[1], Found.ONLY_IN_A)
            ours = next(left, None)
        elif ours is None or theirs[0] < ours[0]:
            yield _difference(theirs[1], Found.ONLY_IN_B)
            theirs = next(right, None)
        else:
            fields = _fields(ours[1], theirs[1], ignored)
            if fields:
                yield _difference(ours[1], Found.DIFFERS, fields)
            ours, theirs = next(left, None), next(right, None)


def _keyed(records: Iterable[Record], side: str) -> Iterator[tuple[Key, Record]]:
    last: Key | None = None
    for record in records:
        key = key_of(record)
        if last is not None and key <= last:
            kind, names = _KINDS[type(record)]
            name = ", ".join(f"{getattr(record, each)!s:.200}" for each in names)
            raise TransferError(
                f"the records of {side} are out of order at {kind} {name}",
                hint="See what is wrong with that store with `seeknal state doctor`.",
            )
        last = key
        yield key, record


def _difference(record: Record, found: Found, fields: dict[str, dict[str, Any]] | None = None) -> Difference:
    kind, names = _KINDS[type(record)]
    key = {name: getattr(record, name) for name in names}
    return Difference(kind=kind, key=key, found=found, fields=fields or {})


def _fields(ours: Record, theirs: Record, ignored: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in ours.__struct_fields__:
        a, b = getattr(ours, name), getattr(theirs, name)
        if name in ignored or _is_same(a, b):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            for entry in sorted(set(chain(a, b))):
                sides = {side: values[entry] for side, values in (("a", a), ("b", b)) if entry in values}
                if len(sides) < 2 or not _is_same(sides["a"], sides["b"]):
                    found[f"{name}.{entry}"] = sides
        else:
            found[name] = {"a": a, "b": b}
    return found


def _is_same(a: Any, b: Any) -> bool:
    """Return whether two values are one value in JSON too, where 1, 1.0 and true are three."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_is_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return bool(a == b)
