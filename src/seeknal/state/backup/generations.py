"""Generations: the backups in a directory, each a directory of its own.

::

    20240110T120000Z-3fa9c1/
      manifest.json           what it is of, and the digest of the payload; checksummed itself
      state.jsonl.gz          the state, as `seeknal state export` writes it
    20240110T130000Z-08b2d4.part/   one that is being made or removed, or whose process was killed over it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from seeknal.errors import CorruptStateError, NotFoundError, SchemaVersionError, SeeknalError
from seeknal.state.dump.format import ExportCounts
from seeknal.state.file.documents import Document, read_document

FORMAT = "seeknal-backup"
VERSION = 1

MANIFEST = "manifest.json"
PAYLOAD = "state.jsonl.gz"
PART = ".part"
LATEST = "latest"

_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{6}")


class Manifest(Document, kw_only=True):
    """``manifest.json``: what a backup is of.

    Attributes:
        format: `FORMAT`.
        version: Of this file; that of the payload stands in the payload.
        program: What made it, and its version.
        created_at: When it was begun.
        store_id: The identity of the store.
        schema_version: The version of the store's own schema.
        kind: Of the store: the name of the backend.
        before_restore_of: The backup whose restore this one can undo; ``None`` for one that somebody made.
        counts: How many records.
        state_sha256: Of the records; equal for stores that hold the same.
        size: Of the payload, in bytes.
        sha256: Of the payload.
    """

    format: str = FORMAT
    version: int = VERSION
    program: str
    created_at: datetime
    store_id: str
    schema_version: str
    kind: str
    before_restore_of: str | None = None
    counts: ExportCounts
    state_sha256: str
    size: int
    sha256: str


class Standing(StrEnum):
    """How a generation stands, as far as its manifest says."""

    COMPLETE = "complete"
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One backup, or what is left of it.

    Attributes:
        name: Of its directory, without `PART`.
        path: Its directory.
        standing: How it stands.
        manifest: What it is of, if that can be read.
        problem: Why it cannot; empty if it can.
    """

    name: str
    path: Path
    standing: Standing
    manifest: Manifest | None = None
    problem: str = ""

    @property
    def begun_at(self) -> datetime:
        """When it was begun; to the second only, where that is all there is."""
        if self.manifest is not None:
            return self.manifest.created_at
        return datetime.strptime(self.name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def generations(directory: Path) -> list[Generation]:
    """Return what stands in a directory, the newest first; nothing if it does not exist."""
    return sorted(_found(directory), key=lambda each: (each.begun_at, each.name), reverse=True)


def _found(directory: Path) -> Iterator[Generation]:
    for path in directory.iterdir() if directory.is_dir() else ():
        name = path.name.removesuffix(PART)
        if not _NAME.fullmatch(name) or not path.is_dir():
            continue  # somebody else's
        if path.name.endswith(PART):
            yield Generation(name=name, path=path, standing=Standing.UNFINISHED)
            continue
        try:
            yield Generation(name=name, path=path, standing=Standing.COMPLETE, manifest=read_manifest(path))
        except SeeknalError as problem:
            yield Generation(name=name, path=path, standing=Standing.DAMAGED, problem=str(problem))


def find(directory: Path, name: str, store_id: str | None = None) -> Generation:
    """Return a backup by its name, or the latest one that somebody made.

    Args:
        directory: Where to look.
        name: Its name, or `LATEST`.
        store_id: The latest of this store; when ``None``, of any one, and one that holds something if there is one.

    Raises:
        NotFoundError: There is none.
        CorruptStateError, SchemaVersionError, BackendUnavailableError: One that is newer than the latest that can be
            read cannot be read: nobody should get an older state than the one that they mean.
    """
    there = [each for each in generations(directory) if each.standing is not Standing.UNFINISHED]
    if name == LATEST:
        return _latest(directory, there, store_id)
    for each in there:
        if name == each.name:
            return each
    raise NotFoundError(
        f"there is no backup {name!a} in {directory}",
        hint="List what there is with `seeknal state backups`, or name its directory with --from.",
    )


def _latest(directory: Path, there: list[Generation], store_id: str | None) -> Generation:
    ours = [
        (each, each.manifest)
        for each in there
        if each.manifest is not None
        and each.manifest.before_restore_of is None
        and store_id in (None, each.manifest.store_id)
    ]
    holding = [each for each, manifest in ours if store_id is not None or manifest.counts.total]
    found = next(iter(holding or [each for each, _ in ours]), None)
    for each in there:
        # The name of one that cannot be read tells its time to the second only.
        if each.manifest is None and (found is None or each.begun_at >= found.begun_at.replace(microsecond=0)):
            read_manifest(each.path)
    if found is not None:
        return found
    others = [each for each in there if each.manifest is not None and each.manifest.store_id != store_id]
    if others and store_id is not None:
        newest = others[0].name
        raise NotFoundError(
            f"there is no backup of this store in {directory}, but {len(others)} of others, the newest {newest}",
            hint="Restore one of another store by its name, with --force; `seeknal state backups` lists them.",
        )
    raise NotFoundError(
        f"there is no backup in {directory}" + (" but those that undo a restore" if there else ""),
        hint="List what there is with `seeknal state backups`, or name another directory with --from.",
    )


def read_manifest(path: Path) -> Manifest:
    """Return what the manifest in a generation's directory says.

    Raises:
        CorruptStateError: It is missing, damaged, or something else.
        SchemaVersionError: A newer program wrote it.
        BackendUnavailableError: It cannot be read.
    """
    try:
        manifest = read_document(path / MANIFEST, Manifest)
    except CorruptStateError as error:
        raise damaged(path, str(error)) from error
    if manifest.format != FORMAT or manifest.version < 1:
        raise damaged(path, f"{MANIFEST} is none of a backup")
    if manifest.version > VERSION:
        raise SchemaVersionError(
            f"{path / MANIFEST} has version {manifest.version}; this program reads {VERSION}",
            hint="Use the newer version of seeknal-state that wrote it.",
            found=str(manifest.version),
            wanted=str(VERSION),
        )
    return manifest


def damaged(path: Path, what: str) -> CorruptStateError:
    """Return the error of a backup that is not what was written."""
    return CorruptStateError(
        f"backup {path.name} is damaged: {what}",
        hint="Nothing was changed. Use another one (`seeknal state backups`), and make a new one.",
        location=str(path),
    )
