"""The standard streams of a process that was started without some of them, as with ``>&-`` in a shell."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Open those that are closed: standard output as a pipe that nobody reads, the others as the null device.

    So who prints gets `BrokenPipeError`, as where the reader has gone, and no file that is opened later, such as that
    of a store, gets the number of a standard stream, to which any library may write.
    """
    # In the order of their numbers, since what is opened gets the lowest one that is free: 0, 1 and 2 in turn. Where a
    # program that calls the command has taken the number for something else, the stream has another one.
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        reader, writer = os.pipe()
        if reader == 1:
            os.dup2(writer, reader)  # which closes the end that is read
            os.close(writer)
            writer = reader
        else:
            os.close(reader)
        sys.stdout = os.fdopen(writer, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
