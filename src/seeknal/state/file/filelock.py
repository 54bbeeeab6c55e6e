"""An exclusive lock between processes: ``flock`` on a file, with one bounded budget for waiting.

The kernel frees it when its holder dies, however it dies. It belongs to an open file description, so a
forked child must open its own (`FileLock.reopen`).

Source: flock(2).
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError
from seeknal.state.file import durable

PAUSE_S = 0.0003
"""Between two attempts, before jitter: shorter than most commits. It does not grow for a second. If it did, who has
waited longest would ask least often, and among several busy processes some would hardly ever have their turn."""

LONG_PAUSE_S = 0.01
"""Once somebody has kept it for `PATIENCE_S`: that is no commit, and asking costs a waiter's processor time."""

PATIENCE_S = 1


def is_locked(path: Path) -> bool:
    """Return whether somebody holds the lock of a file; nobody does of one that is missing. Nothing is waited for."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class LockedError(BackendUnavailableError):
    """Others held the lock for the whole budget."""


class FileLock:
    """A lock file. One thread at a time; the caller's mutex sees to that."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._file = self._open()

    def _open(self) -> FileIO:
        with durable.unavailable(self._path, "open"):
            return durable.open_file(self._path, os.O_RDWR | os.O_CREAT)

    def reopen(self) -> None:
        """Leave the parent's lock to the parent, after a fork."""
        self.close()
        self._file = self._open()

    def close(self) -> None:
        """Close the file, which frees the lock if it is held."""
        self._file.close()

    @contextmanager
    def held(self, budget_ms: int) -> Iterator[None]:
        """Hold the lock for a block.

        Raises:
            LockedError: Others held it for the whole budget.
        """
        self._acquire(budget_ms)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _acquire(self, budget_ms: int) -> None:
        durable.at("lock")
        begun: int | None = None
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = self._clock.ticks_us()
                begun = now if begun is None else begun
                if now >= begun + budget_ms * 1000:
                    raise LockedError(
                        f"other processes kept {self._path} locked for {budget_ms} ms",
                        hint="Try again; a process that is stopped or debugged in the middle of a commit keeps it.",
                    ) from None
                pause = PAUSE_S if now < begun + PATIENCE_S * 1_000_000 else LONG_PAUSE_S
                self._clock.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            except OSError as error:
                raise BackendUnavailableError(
                    f"cannot lock {self._path}: {error.strerror}",
                    hint="The file system must support flock; keep the state on a local disk or in a database.",
                ) from error
            else:
                return
