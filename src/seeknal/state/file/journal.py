r"""The journal's frames: one line of text for each commit, checksummed.

A frame is ``<crc32, 8 hex digits> <length of the JSON in bytes, decimal> <JSON>\\n``; the checksum
covers the JSON. CRC-32 finds every error of one bit and every burst of up to 32 bits.

What can stand after the last whole frame, and what it means:

- nothing: all is well;
- the beginning of a frame, or zeros to the end of the file: a write that was never acknowledged, cut
  short by a kill or a power cut. It is not data, and the next writer cuts it off;
- anything else, a whole frame whose checksum is wrong included: damage. It is never skipped.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seeknal.errors import CorruptStateError
from seeknal.state.file import durable

PIECE_BYTES = 1 << 20

MAX_HEADER_BYTES = 8 + 1 + 10 + 1

_HEADER = re.compile(rb"([0-9a-f]{8}) ([1-9][0-9]{0,9}) ")
_BEGINNING = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} ([1-9][0-9]{0,9})?")


class Frame(NamedTuple):
    """One commit; ``end`` is the offset behind it."""

    payload: bytes
    end: int


def encode_frame(payload: bytes) -> bytes:
    """Return the line that holds a JSON payload."""
    return b"%08x %d %b\n" % (zlib.crc32(payload), len(payload), payload)


def frames(data: bytes, offset: int, path: str) -> Iterator[Frame]:
    """Yield the whole frames of a piece of the journal, in order; stop before an unfinished one.

    Args:
        data: The bytes of the journal from ``offset`` to its end.
        offset: Where ``data`` begins; a frame begins there.
        path: The journal, for the message.

    Raises:
        CorruptStateError: Damage; ``offset`` is where the damaged frame begins.
    """
    at = 0
    while at < len(data):
        header = _HEADER.match(data, at)
        newline = data.find(b"\n", at)
        if newline < 0:
            # JSON on one line holds no newline, so this frame was never written to its end.
            if _is_beginning(data[at:].rstrip(b"\0"), header):
                return
            raise _damaged(path, offset + at, "what follows the last commit is not a frame")
        if header is None:
            raise _damaged(path, offset + at, "a frame has no readable header")
        payload = data[header.end() : newline]
        if len(payload) != int(header[2]) or zlib.crc32(payload) != int(header[1], 16):
            raise _damaged(path, offset + at, "the length or the checksum of a frame is wrong")
        at = newline + 1
        yield Frame(payload, offset + at)


def read_frames(descriptor: int, start: int, end: int, path: Path) -> Iterator[Frame]:
    """Yield the whole frames between two offsets of a journal, a piece of it in memory at a time.

    Raises:
        CorruptStateError: As `frames`.
        BackendUnavailableError: It cannot be read.
    """
    wanted = PIECE_BYTES
    while start < end:
        stop = min(end, start + wanted)
        with durable.unavailable(path, "read"):
            data = durable.read_span(descriptor, start, stop)
        frame = None
        for frame in frames(data, start, str(path)):
            yield frame
        if frame is not None:
            start, wanted = frame.end, PIECE_BYTES
        elif stop < end:
            wanted *= 2  # a frame is longer than the piece
        else:
            return


def _is_beginning(rest: bytes, header: re.Match[bytes] | None) -> bool:
    """Return whether an unfinished line is how a frame begins; zeros behind it do not count."""
    if header is None:
        return len(rest) < MAX_HEADER_BYTES and _BEGINNING.fullmatch(rest) is not None
    return len(rest) <= header.end() - header.start() + int(header[2])


def _damaged(path: str, offset: int, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"{path} is damaged at byte {offset}: {what}",
        hint="Restore a backup; everything before that byte is intact. Keep a copy of the file.",
        location=path,
        offset=offset,
    )
