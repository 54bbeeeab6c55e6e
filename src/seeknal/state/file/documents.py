"""The JSON files of a store: their shapes, and how they are checked when they are read back."""

from __future__ import annotations

import zlib
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from seeknal.errors import CorruptStateError, SchemaVersionError
from seeknal.model.codec import decode, pretty
from seeknal.model.records import (
    Claim,
    CompletedInterval,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.batch import Changes
from seeknal.state.file import durable
from seeknal.state.history import Columns
from seeknal.state.image import LockEntry

FORMAT = 4
"""Of the whole store: 1 had no change log, and named every run in the history of every node; 2 had no claims; 3 did not
tell which run completed each part of an interval, nor which partitions are expected."""

_CHECKSUM = b',\n  "checksum": '
_END = b"\n}\n"

D = TypeVar("D", bound="Document")


class Document(msgspec.Struct, kw_only=True):
    """What a file holds; in the file, the checksum of all bytes before it is its last key."""


class StoreDocument(Document, kw_only=True):
    """``store.json``: what a store is, and which checkpoint is current."""

    format: int = FORMAT
    store_id: str
    created_at: datetime
    generation: int
    is_adopting: bool = False


class RunDocument(Document, kw_only=True):
    """One run with its nodes, in the shape of the guide: ``run_id``, ``started_at``, ``nodes``."""

    run_id: str
    status: RunStatus
    started_at: datetime | None
    finished_at: datetime | None
    config: dict[str, Any]
    metadata: dict[str, Any]
    version: int
    sequence: int
    nodes: dict[str, NodeState]


class NodeDocument(Document, kw_only=True):
    """What a node has completed, across runs.

    Attributes:
        node_id: The node.
        intervals: Canonical.
        partitions: By their keys.
        provenance: The parts that another run has completed than the one that their interval names.
        expected: Keys of partitions that are expected.
    """

    node_id: str
    intervals: list[CompletedInterval]
    partitions: dict[str, PartitionState]
    provenance: list[IntervalProvenance] = []
    expected: list[str] = []


class ClaimSet(msgspec.Struct, frozen=True):
    """The claims of a node, and the version that they stand at, which outlives them."""

    version: int
    claims: list[Claim]


class IndexDocument(Document, kw_only=True):
    """All runs without their nodes, where each node was written, locks and claims, as of a checkpoint."""

    sequence: int
    runs: list[RunState]
    history: dict[str, Columns | list[tuple[str, int, NodeStatus]]]
    worked: list[str]
    locks: list[LockEntry]
    superseded_by: str | None = None
    has_log: bool = False
    claims: dict[str, ClaimSet] = {}


class LogDocument(Document, kw_only=True):
    """What people and commands did to the store, in the order of time."""

    changes: list[LoggedChange]


class Moved(msgspec.Struct, frozen=True):
    """The state moved to another store, or, with ``None``, came back."""

    store_id: str
    successor: str | None


class Entry(msgspec.Struct, omit_defaults=True):
    """What one frame of the journal holds; ``is_settled``: that the files of runs and nodes have all before it."""

    changes: Changes | None = None
    locks: list[LockEntry] = []
    moved: Moved | None = None
    is_settled: bool = False


def run_document(run: RunState, nodes: dict[str, NodeState]) -> RunDocument:
    """Return the document of a run; nodes are sorted by the bytes of their ids."""
    return RunDocument(
        run_id=run.run_id,
        status=run.status,
        started_at=run.started_at,
        finished_at=run.finished_at,
        config=run.config,
        metadata=run.metadata,
        version=run.version,
        sequence=run.sequence,
        nodes={node_id: nodes[node_id] for node_id in sorted(nodes, key=str.encode)},
    )


def to_bytes(document: Document) -> bytes:
    """Return the content of a file: the document, and its checksum as the last key."""
    whole = memoryview(pretty(document))
    body = whole[: -len(_END)]
    return b"".join((body, _checksum_line(body), _END))


def write_document(path: Path, document: Document) -> int:
    """Replace a file durably and return its size in bytes.

    Raises:
        OSError: The old content stands.
    """
    content = to_bytes(document)
    durable.replace_file(path, content)
    return len(content)


def read_document(path: Path, kind: type[D]) -> D:
    """Return what a file holds.

    Raises:
        CorruptStateError: It is missing, not JSON, of another shape, or its checksum is wrong.
        BackendUnavailableError: It cannot be read.
    """
    with durable.unavailable(path, "read"):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise corrupt(path, "the file is missing") from None
    try:
        document = decode(content, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise corrupt(path, str(error), error_offset(error)) from error
    end = max(content.rfind(_CHECKSUM), 0)
    if content[end:] != _checksum_line(memoryview(content)[:end]) + _END:
        raise corrupt(path, "its content does not match its checksum; it was damaged, or edited by hand")
    return document


def check_format(path: Path) -> None:
    """Raise if a newer program wrote the store.

    Raises:
        SchemaVersionError: It did.
    """
    try:
        found = decode(path.read_bytes(), dict[str, Any]).get("format")
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return  # what is wrong with the file is said when it is read
    if isinstance(found, int) and found > FORMAT:
        raise SchemaVersionError(
            f"{path} has format {found}; this program reads formats up to {FORMAT}",
            hint="Use the newer version of seeknal-state that wrote it.",
            found=str(found),
            wanted=str(FORMAT),
        )


def corrupt(path: Path, what: str, offset: int | None = None) -> CorruptStateError:
    """Return the error of a damaged file."""
    return CorruptStateError(
        f"{path} is damaged{'' if offset is None else f' at byte {offset}'}: {what}",
        hint="Restore the file from a backup, and keep a copy of the damaged one.",
        location=str(path),
        offset=offset,
    )


def error_offset(error: Exception) -> int | None:
    """Return the byte at which a decoder gave up, if it says so."""
    if isinstance(error, UnicodeDecodeError):
        return error.start
    _, found, tail = str(error).partition("byte ")
    digits = tail.split(")")[0].strip()
    return int(digits) if found and digits.isdigit() else None


def _checksum_line(body: memoryview) -> bytes:
    return _CHECKSUM + b'"crc32:%08x"' % zlib.crc32(body)
