"""Every system call of a commit and of a checkpoint that a kill or a power cut may interrupt.

Each is announced by name through `at`, so that a test can kill the process right there.

Source: what survives what: https://www.kernel.org/doc/html/latest/filesystems/ext4/journal.html and
T. S. Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014 (write beside, fsync, rename,
fsync the directory).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from seeknal.errors import BackendUnavailableError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

at: Callable[[str], None] = lambda point: None  # noqa: E731 - a hook that tests replace
"""Called with the name of the system call that comes next: ``write``, ``fsync``, ``replace``,
``fsync-directory``, ``truncate``, ``unlink``."""

_sync = getattr(os, "fdatasync", os.fsync)
"""fdatasync also writes the size of the file, which is all the metadata an append needs (POSIX)."""


class unavailable:  # noqa: N801 - reads as a verb: `with unavailable(path, "read"):`
    """Turn an operating-system error into a typed one that names the file and what was tried.

    A class and not a generator: it stands on the path of every read and every commit.
    """

    __slots__ = ("_action", "_path")

    def __init__(self, path: Path, action: str) -> None:
        self._path = path
        self._action = action

    def __enter__(self) -> None:
        """Begin to watch."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise BackendUnavailableError(
                f"cannot {self._action} {self._path}: {error.strerror or error}", hint=_advice(error)
            ) from error


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Check who owns the file and its directory, and that they can be written."
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return "Something else stands at this path; move it away, or choose another base_path."
    return "Check the disk: is it full, read-only or gone?"


def make_directory(path: Path) -> None:
    """Make a directory and its parents; nothing happens if it stands."""
    with unavailable(path, "create the directory"):
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)


def open_file(path: Path, flags: int) -> FileIO:
    """Open a file, for its owner only where it is created; it closes itself when it is forgotten, with a warning."""
    return FileIO(os.open(path, flags | os.O_CLOEXEC, FILE_MODE), "r+")


def read_span(descriptor: int, start: int, end: int) -> bytes:
    """Return the bytes of a file from ``start`` to ``end``; fewer if it ends before."""
    parts: list[bytes] = []
    while start < end:
        part = os.pread(descriptor, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def append(descriptor: int, frame: bytes, start: int, *, sync: bool = True) -> None:
    """Append a frame that begins at ``start`` and wait until the disk has it.

    Raises:
        OSError: It could not be written whole; the file was cut back to ``start``.
        SyncError: It was written, but whether the disk has it is unknown.
    """
    at("write")
    try:
        written = os.write(descriptor, frame)
        while written < len(frame):
            written += os.write(descriptor, frame[written:])
    except OSError:
        truncate(descriptor, start)
        raise
    if sync:
        at("fsync")
        try:
            _sync(descriptor)
        except OSError as error:
            raise SyncError(*error.args) from error


class SyncError(OSError):
    """The kernel could not say that the disk has the data."""


def truncate(descriptor: int, size: int) -> None:
    """Cut a file back."""
    at("truncate")
    os.ftruncate(descriptor, size)


def replace_file(path: Path, content: bytes, *, mtime_ns: int | None = None) -> None:
    """Put a whole new content at ``path``: readers see the old one or the new one, never a part.

    The directory is not synced: after a power cut either content may stand.

    Args:
        path: Where.
        content: What.
        mtime_ns: When it was last changed, as the file shall say; now when ``None``.

    Raises:
        OSError: The old content stands.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        at("write")
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if mtime_ns is not None:
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        at("fsync")
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to report
            beside.unlink()
        raise
    finally:
        os.close(descriptor)
    at("replace")
    beside.replace(path)


def create_file(path: Path) -> None:
    """Make an empty file, or empty the one that stands, and wait until the disk has it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        at("fsync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in a directory."""
    at("fsync-directory")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: Path) -> None:
    """Remove a file; nothing happens if it is gone."""
    at("unlink")
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, which another process may be doing at the same time.

    Raises:
        OSError: It cannot be removed.
    """
    while path.exists():
        with contextlib.suppress(FileNotFoundError):  # the other one was faster with one of its files
            shutil.rmtree(path)
