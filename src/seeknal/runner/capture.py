"""What a node says, in a file of its own: the output of commands, and what Python nodes print and log."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from seeknal.state.file.layout import file_name

LOG_KEY = "log"
"""Under which the metadata of a node state has the file, relative to the project, with slashes."""

TAIL_CHARS = 2000
TAIL_LINES = 10


def log_file(run_id: str, node_id: str) -> str:
    """Return where the output of a node is kept, relative to the project; ids are quoted, so they are never paths."""
    return f"target/logs/{file_name(run_id)}/{file_name(node_id)}.log"


def tail(path: Path, begin: int = 0) -> str:
    """Return the last lines of a file, from the byte ``begin`` on; nothing, if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(begin, file.seek(0, os.SEEK_END) - 4 * TAIL_CHARS))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])[-TAIL_CHARS:]


@contextmanager
def captured(log: TextIO) -> Iterator[None]:
    """Write to ``log`` what this thread prints, and what it logs to handlers of stdout and stderr.

    Any number of threads may do so at once, each with its own file. What other threads print goes where it went
    before, but not to stdout: that may be read by a program.
    """
    before = getattr(_here, "log", None)
    _enter()
    _here.log = log
    try:
        yield
    finally:
        _here.log = before
        _leave()


class _Routed:
    """Stands for stdout or stderr, and is the log of the thread that uses it."""

    def __init__(self, otherwise: TextIO, elsewhere: TextIO) -> None:
        self.otherwise = otherwise
        self._elsewhere = elsewhere

    def __getattr__(self, name: str) -> Any:
        log = getattr(_here, "log", None)
        if log is None:
            is_main = threading.current_thread() is threading.main_thread()
            log = self.otherwise if is_main else self._elsewhere
        return getattr(log, name)


_here = threading.local()
_lock = threading.Lock()
_depth = 0
_routed: list[tuple[str, _Routed]] = []
_moved: list[tuple[logging.StreamHandler[Any], Any]] = []


def _enter() -> None:
    """Put routed streams in the place of stdout and stderr, and into the handlers that write there."""
    global _depth
    with _lock:
        _depth += 1
        standing = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        for name, stream in standing.items():
            if isinstance(stream, _Routed):  # another thread did that; or somebody put a stream of theirs there since
                continue
            stderr = standing["stderr"]
            routed = _Routed(stream, stderr.otherwise if isinstance(stderr, _Routed) else stderr)
            _routed.append((name, routed))
            setattr(sys, name, routed)
            for handler in logging.root.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    _moved.append((handler, handler.setStream(cast("TextIO", routed))))


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth:
            return
        for handler, stream in _moved:
            handler.setStream(stream)
        for name, routed in _routed:
            if getattr(sys, name) is routed:
                setattr(sys, name, routed.otherwise)
        _moved.clear()
        _routed.clear()
