"""What a piece of work does, counted: whatever else the machine is at, the numbers stay the same.

- ``instructions``: of the Python interpreter, by the opcode events of `sys.settrace`. They differ between minor
  versions of Python, and are compared for the same one alone.
- ``calls``: of functions written in C, by the events of `sys.setprofile`; among them
- ``syncs``: of ``fsync`` and ``fdatasync``, and of directories as well.
- ``statements``: that SQLite ran, by its trace callback, and ``steps``: of its virtual machine, by its progress
  handler. Steps differ between versions of SQLite.
- ``round_trips``: to a server, on the way to it.

Source: https://docs.python.org/3/library/sys.html#sys.settrace, https://www.sqlite.org/c3ref/progress_handler.html.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

from seeknal.state.sql.dialects.sqlite import SqliteDialect

Counts = dict[str, int]
SYNCS = frozenset({"fsync", "fdatasync"})


def counted(work: Callable[[], object], sqlite: SqliteCounter | None = None) -> Counts:
    """Return what a piece of work does in this thread; it is done two times, or three."""
    instructions = _instructions(work)
    called = _calls(work)
    found = {
        "instructions": instructions,
        "calls": sum(called.values()),
        "syncs": sum(number for name, number in called.items() if name in SYNCS),
    }
    return found if sqlite is None else found | sqlite.counted(work)


def _instructions(work: Callable[[], object]) -> int:
    count = 0

    def local(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "opcode"
        return local

    def entered(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return local

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def _calls(work: Callable[[], object]) -> dict[str, int]:
    called: dict[str, int] = {}

    def note(_: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            called[function.__name__] = called.get(function.__name__, 0) + 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    called["setprofile"] -= 1
    return called


class SqliteCounter:
    """What the SQLite connections do that our stores open in a block of `watching`."""

    def __init__(self) -> None:
        self._connections: list[sqlite3.Connection] = []

    @contextmanager
    def watching(self) -> Iterator[SqliteCounter]:
        """Take note of every connection that our stores open in a block."""
        connect = SqliteDialect.connect

        def noted(dialect: SqliteDialect, *given: Any) -> Any:
            connection = connect(dialect, *given)
            self._connections.append(connection)
            return connection

        with mock.patch.object(SqliteDialect, "connect", noted):
            yield self

    def counted(self, work: Callable[[], object]) -> Counts:
        """Return what a piece of work has SQLite do, on connections that were open before it."""
        found = {"statements": 0, "steps": 0}

        def note_statement(_: str) -> None:
            found["statements"] += 1

        def note_step() -> int:
            found["steps"] += 1
            return 0

        self._connections = [each for each in self._connections if _is_open(each)]
        for connection in self._connections:
            connection.set_trace_callback(note_statement)
            connection.set_progress_handler(note_step, 1)
        try:
            work()
        finally:
            for connection in filter(_is_open, self._connections):
                connection.set_trace_callback(None)
                connection.set_progress_handler(None, 0)
        return found


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False
