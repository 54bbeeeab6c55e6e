"""Read all of a backup: its bytes against the manifest, its records against the rules of an export."""

from __future__ import annotations

import hashlib
from pathlib import Path

from seeknal.errors import CorruptStateError, TransferError
from seeknal.state.backup.generations import MANIFEST, PAYLOAD, Manifest, damaged, read_manifest
from seeknal.state.dump.importing import ImportPlan, plan_import
from seeknal.state.dump.reading import dump_file
from seeknal.state.dump.writing import Progress, silent

READ_BYTES = 1 << 20


def verify(path: Path, *, on_progress: Progress = silent) -> tuple[Manifest, ImportPlan]:
    """Read a backup and find it whole; return its manifest and what bringing it into a store would do.

    Args:
        path: The generation's directory.
        on_progress: Called now and then.

    Raises:
        CorruptStateError: A byte of it is not what was written, or a file is missing; ``location`` names it.
        SchemaVersionError: A newer program made it.
        TransferError: It cannot be read.
    """
    manifest = read_manifest(path)
    payload = path / PAYLOAD
    size, sha256 = digest_of_file(payload)
    if (size, sha256) != (manifest.size, manifest.sha256):
        what = (
            f"has {size} bytes where {manifest.size} were written"
            if size != manifest.size
            else "is not what was written"
        )
        raise damaged(path, f"{PAYLOAD} {what}")
    try:
        with dump_file(payload) as dump:
            plan = plan_import(dump, None, on_progress=on_progress)
    except CorruptStateError as error:
        raise damaged(path, str(error)) from error
    said = (manifest.store_id, manifest.schema_version, manifest.counts, manifest.state_sha256)
    if said != (plan.header.store_id, plan.header.schema_version, plan.counts, plan.state_sha256):
        raise damaged(path, f"{MANIFEST} is of another export")
    return manifest, plan


def digest_of_file(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes, and its SHA-256.

    Raises:
        CorruptStateError: It is missing.
        TransferError: It cannot be read.
    """
    size, digest = 0, hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(READ_BYTES):
                size += len(part)
                digest.update(part)
    except FileNotFoundError:
        raise damaged(path.parent, f"{path.name} is missing") from None
    except OSError as error:
        raise TransferError(
            f"cannot read {path}: {error.strerror or error}", hint="Check the disk, and that you may read the file."
        ) from error
    return size, digest.hexdigest()
