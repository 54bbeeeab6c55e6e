"""End a node that is being computed, from the thread that waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

import duckdb

from seeknal.errors import NodeFailedError


class Control:
    """What one attempt is doing, and how it is ended. Safe from threads.

    A query is interrupted, a command gets SIGTERM and then SIGKILL, with all of its process group. A Python function
    cannot be interrupted unless it is in a query; once its attempt was ended, nobody takes up what it leaves.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ended = self._is_killed = False

    @property
    def has_process(self) -> bool:
        """Whether there is a process that can be killed."""
        with self._lock:
            return self._process is not None

    @contextmanager
    def connected(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let a connection be interrupted while the block runs; it is not closed.

        Raises:
            NodeFailedError: The attempt was ended before.
        """
        with self._lock:
            self._check()
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def wait_for(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the leader of a process group and return its exit code; whoever ends the attempt ends the group."""
        with self._lock:
            self._process = process
            if self._is_ended:  # between its beginning and here: it is asked as every other one
                _signal_group(process, signal.SIGKILL if self._is_killed else signal.SIGTERM)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._process = None
                if self._is_ended:  # what the leader has begun does not outlive it
                    _signal_group(process, signal.SIGKILL)

    def check(self) -> None:
        """Raise if the attempt was ended: then nobody waits for what it leaves.

        Raises:
            NodeFailedError: It was.
        """
        with self._lock:
            self._check()

    def end(self) -> None:
        """Ask the attempt to end; again, until it has: an interruption between two queries is lost."""
        with self._lock:
            if self._process is not None and not self._is_ended:
                _signal_group(self._process, signal.SIGTERM)
            self._is_ended = True
            if self._connection is not None:
                self._connection.interrupt()

    def kill(self) -> None:
        """End a command without asking."""
        with self._lock:
            self._is_ended = self._is_killed = True
            if self._process is not None:
                _signal_group(self._process, signal.SIGKILL)

    def _check(self) -> None:
        if self._is_ended:
            raise NodeFailedError("the attempt was ended", hint="Run again.")


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process group whose leader was started in a session of its own; gone already is fine."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(process.pid, number)
