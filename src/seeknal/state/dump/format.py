"""The lines of an export: what they hold, their canonical bytes, and what is counted and digested of them.

The format is described in ``docs/reference/export.md`` and, line by line, in ``export.schema.json`` beside it. What
one version of it says never changes; anything else is a new version.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TypeAlias

import msgspec

from seeknal.model.codec import encode
from seeknal.model.records import (
    CompletedInterval,
    ExpectedPartition,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.transfer import Counts, Record

FORMAT = "seeknal-state"
VERSION = 2
"""Version 1 had no parts of intervals by other runs, and no expected partitions; it is read, too."""

MAX_LINE_BYTES = 64 << 20
"""No line is longer: two texts of `seeknal.model.changes.MAX_TEXT_BYTES`, six bytes for each of theirs, are 48 MB."""


class ExportCounts(Counts, kw_only=True, forbid_unknown_fields=True):
    """How many records of each kind, and entries of the change log, which is no part of the state."""

    changes: int = 0


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="header", forbid_unknown_fields=True):
    """The first line.

    Attributes:
        format: `FORMAT`.
        version: Of the format.
        store_id: The identity of the store.
        schema_version: The version of the store's own schema.
        program: What wrote it, and its version.
        exported_at: When it was begun.
        counts: How many records follow.
    """

    format: str
    version: int
    store_id: str
    schema_version: str
    program: str
    exported_at: datetime
    counts: ExportCounts


class Trailer(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="end", forbid_unknown_fields=True):
    """The last line.

    Attributes:
        counts: How many records there were.
        state_sha256: Of the records without the change log, as `seeknal.state.transfer.digest_of` has it: equal for
            stores that hold the same.
        sha256: Of all bytes before this line.
    """

    counts: ExportCounts
    state_sha256: str
    sha256: str


class RunLine(RunState, frozen=True, kw_only=True, tag_field="kind", tag="run", forbid_unknown_fields=True):
    """A run."""


class NodeLine(NodeState, frozen=True, kw_only=True, tag_field="kind", tag="node", forbid_unknown_fields=True):
    """A node state."""


class IntervalLine(CompletedInterval, frozen=True, tag_field="kind", tag="interval", forbid_unknown_fields=True):
    """A completed interval."""


class PartitionLine(
    PartitionState, frozen=True, kw_only=True, tag_field="kind", tag="partition", forbid_unknown_fields=True
):
    """A completed partition."""


class ProvenanceLine(IntervalProvenance, frozen=True, tag_field="kind", tag="provenance", forbid_unknown_fields=True):
    """A part of an interval that another run completed than the one which the interval names."""


class ExpectedLine(ExpectedPartition, frozen=True, tag_field="kind", tag="expected", forbid_unknown_fields=True):
    """A partition that is expected."""


class ChangeLine(LoggedChange, frozen=True, kw_only=True, tag_field="kind", tag="change", forbid_unknown_fields=True):
    """An entry of the change log."""


Line: TypeAlias = (
    Header | RunLine | NodeLine | IntervalLine | ProvenanceLine | PartitionLine | ExpectedLine | ChangeLine | Trailer
)

_STARTS: dict[type[Record], bytes] = {
    RunState: b'{"kind":"run",',
    NodeState: b'{"kind":"node",',
    CompletedInterval: b'{"kind":"interval",',
    IntervalProvenance: b'{"kind":"provenance",',
    PartitionState: b'{"kind":"partition",',
    ExpectedPartition: b'{"kind":"expected",',
}
_CHANGE_START = b'{"kind":"change",'
_decoder = msgspec.json.Decoder(Line)


def decode_line(line: bytes) -> Header | Trailer | Record | LoggedChange:
    """Return what a line holds.

    Raises:
        msgspec.DecodeError: It is not JSON, or not a line of this version.
    """
    found: Line = _decoder.decode(line)
    match found:
        case RunLine():
            return RunState(**{name: getattr(found, name) for name in RunState.__struct_fields__})
        case NodeLine():
            return NodeState(**{name: getattr(found, name) for name in NodeState.__struct_fields__})
        case PartitionLine():
            return PartitionState(**{name: getattr(found, name) for name in PartitionState.__struct_fields__})
        case ChangeLine():
            return LoggedChange(**{name: getattr(found, name) for name in LoggedChange.__struct_fields__})
        case IntervalLine():
            return CompletedInterval(found.node_id, found.start, found.end, found.run_id)
        case ProvenanceLine():
            return IntervalProvenance(found.node_id, found.start, found.end, found.run_id)
        case ExpectedLine():
            return ExpectedPartition(found.node_id, found.partition)
        case _:
            return found


class Tally:
    """Counts and digests what an export holds, in writing as in reading."""

    def __init__(self) -> None:
        self.counts = ExportCounts()
        self.records = 0
        self._state = hashlib.sha256()
        self._lines = hashlib.sha256()

    def line_of(self, record: Record) -> bytes:
        """Count a record and return its canonical line."""
        kind = type(record)
        encoded = encode(record)
        self._state.update(kind.__name__.encode() + b" " + encoded + b"\n")
        self.records += 1
        self.counts.add(kind)
        return _STARTS[kind] + encoded[1:] + b"\n"

    def line_of_change(self, change: LoggedChange) -> bytes:
        """Count an entry of the change log and return its canonical line; the digest of the state has no part in it."""
        self.counts.changes += 1
        return _CHANGE_START + encode(change)[1:] + b"\n"

    def add_line(self, line: bytes) -> None:
        """Digest a line as it stands."""
        self._lines.update(line)

    @property
    def state_sha256(self) -> str:
        """The digest of the records so far, whoever holds them."""
        return self._state.hexdigest()

    def trailer(self) -> Trailer:
        """Return the line that ends what was counted."""
        return Trailer(counts=self.counts, state_sha256=self.state_sha256, sha256=self._lines.hexdigest())


def total_of(counts: Counts) -> int:
    """Return how many records of the state there are."""
    return counts.total
