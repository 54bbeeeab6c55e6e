"""Make a backup while others write to the store, and remove the oldest ones.

It is put together in a directory of another name, which takes its own when all of it is on the disk and was read back.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from seeknal import __version__
from seeknal.errors import ConfigurationError
from seeknal.state.backup.generations import (
    MANIFEST,
    PART,
    PAYLOAD,
    Generation,
    Manifest,
    Standing,
    generations,
)
from seeknal.state.backup.verifying import digest_of_file, verify
from seeknal.state.dump.writing import Progress, export_to_file, silent, writable
from seeknal.state.file import durable
from seeknal.state.file.documents import write_document
from seeknal.state.record_backend import RecordStateBackend


def back_up(
    source: RecordStateBackend,
    directory: Path,
    *,
    kind: str,
    before_restore_of: str | None = None,
    on_progress: Progress = silent,
) -> Generation:
    """Write the state of a store, as of one instant, into a new generation, and read it back.

    What processes that were killed have left of others is removed.

    Args:
        source: The store, open.
        directory: Where the generations are; it is made if it is missing.
        kind: What the manifest calls the store.
        before_restore_of: The backup that is to be restored next.
        on_progress: Called now and then.

    Raises:
        TransferError: It cannot be written, or a store without snapshots did not stop changing.
        CorruptStateError: The disk does not give back what was written to it.
        SeeknalError: As the reads of the store. Nothing new is left then.
    """
    created_at = source.clock.now()
    name = f"{created_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    with writable(directory), _part(directory, name) as part:
        report = export_to_file(source, part / PAYLOAD, on_progress=on_progress)
        size, sha256 = digest_of_file(part / PAYLOAD)
        manifest = Manifest(
            program=f"seeknal {__version__}",
            created_at=created_at,
            store_id=report.store_id,
            schema_version=source.read_store().schema_version,
            kind=kind,
            before_restore_of=before_restore_of,
            counts=report.counts,
            state_sha256=report.state_sha256,
            size=size,
            sha256=sha256,
        )
        write_document(part / MANIFEST, manifest)
        verify(part, on_progress=on_progress)
        durable.sync_directory(part)
        durable.at("replace")
        with _locked(directory, fcntl.LOCK_EX):  # or another backup could look at it in the middle
            part.replace(directory / name)
        durable.sync_directory(directory)
    return Generation(name=name, path=directory / name, standing=Standing.COMPLETE, manifest=manifest)


def remove_older(directory: Path, store_id: str, keep: int, *, newest: str = "") -> list[str]:
    """Remove the backups of a store that are older than the newest ``keep`` that somebody made; return their names.

    What cannot be read as a backup of this store is never removed. One process at a time does this in a directory.

    Args:
        directory: Where the generations are.
        store_id: The identity of the store.
        keep: How many stay, 1 or more.
        newest: The one that was just made, which stays whatever the clock says of it.

    Raises:
        ConfigurationError: ``keep`` is less than 1.
        TransferError: One of them cannot be removed.
    """
    check_keep(keep)
    with writable(directory), _locked(directory, fcntl.LOCK_EX):
        older = _older(generations(directory), store_id, keep, newest)
        for each in older:
            # Under the other name first: a kill in the middle leaves no backup that only looks like one.
            doomed = each.path.with_name(each.name + PART)
            each.path.replace(doomed)
            shutil.rmtree(doomed)
    return [each.name for each in older]


def _older(there: list[Generation], store_id: str, keep: int, newest: str) -> list[Generation]:
    ours = [(each, each.manifest) for each in there if each.manifest is not None and each.manifest.store_id == store_id]
    made = [each for each, manifest in ours if manifest.before_restore_of is None]
    if len(made) <= keep:
        return []
    made.sort(key=lambda each: each.name != newest)  # the others stay in their order, the newest first
    return [each for each, _ in ours if each.begun_at < made[keep - 1].begun_at and each.name != newest]


def check_keep(keep: int) -> None:
    """Raise unless so many backups can be kept.

    Raises:
        ConfigurationError: It is less than 1.
    """
    if keep < 1:
        raise ConfigurationError(f"{keep} backups cannot be kept", hint="Keep 1 or more.")


@contextmanager
def _part(directory: Path, name: str) -> Iterator[Path]:
    """Yield a new directory, which gets another name in the block; it is locked, and an error removes it."""
    directory.mkdir(mode=durable.DIRECTORY_MODE, parents=True, exist_ok=True)
    part = directory / (name + PART)
    with _locked(directory, fcntl.LOCK_EX):  # or another backup could take it for one that is left
        _remove_unfinished(directory)
        part.mkdir(mode=durable.DIRECTORY_MODE)
        ours = _locked(part)
    with ours:
        try:
            yield part
        except BaseException:  # else it has its own name by now, and one of this name is of somebody who removes it
            with _locked(directory, fcntl.LOCK_EX):
                if part.exists():
                    shutil.rmtree(part)
            raise


def _remove_unfinished(directory: Path) -> None:
    """Remove what no process is working on any more."""
    for each in generations(directory):
        if each.standing is Standing.UNFINISHED:
            with suppress(BlockingIOError), _locked(each.path):
                shutil.rmtree(each.path)


def _locked(path: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> ExitStack:
    """Return what holds the lock of a directory until it is closed.

    Raises:
        BlockingIOError: Somebody else holds it.
        OSError: It is gone, or its file system has no locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, how)
        return stack.pop_all()
