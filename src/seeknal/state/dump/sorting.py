"""An export in the order in which states are compared: its runs by their ids, and not by when they were made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import BinaryIO

from seeknal.model.records import LoggedChange, NodeState, RunState
from seeknal.state.dump.format import Header, Tally, Trailer, decode_line
from seeknal.state.dump.reading import Dump, unkept
from seeknal.state.transfer import Record


@contextmanager
def sorted_records(dump: Dump) -> Iterator[Iterator[Record]]:
    """Yield the records of an export in the order of `seeknal.state.difference.key_of`; the change log is left out.

    All of it is read and checked before the first one comes, and kept in a nameless file until the end of the block.
    In memory there are the ids of its runs and where each of them begins.

    Raises:
        TransferError: It is not an export, cannot be read, or there is no space to keep it.
        CorruptStateError, SchemaVersionError, MissingDriverError: As `Dump.reading` and its iteration.
    """
    with tempfile.TemporaryFile() as spool:
        try:
            yield _in_order(spool, *_kept(dump, spool))
        except OSError as error:
            raise unkept(dump.where, error) from error


def _kept(dump: Dump, spool: BinaryIO) -> tuple[dict[str, tuple[int, int]], tuple[int, int]]:
    """Write the records of an export down, and return where each run begins and ends, and the completed work."""
    starts: dict[str, int] = {}
    tally, at, work = Tally(), 0, None
    for record in dump.reading():
        if isinstance(record, RunState):
            starts[record.run_id] = at
        elif work is None and not isinstance(record, NodeState):
            work = at
        at += spool.write(tally.line_of(record))
    end_of_runs = at if work is None else work
    return dict(zip(starts, pairwise([*starts.values(), end_of_runs]), strict=True)), (end_of_runs, at)


def _in_order(spool: BinaryIO, runs: dict[str, tuple[int, int]], work: tuple[int, int]) -> Iterator[Record]:
    for run_id in sorted(runs, key=str.encode):
        yield from _between(spool, *runs[run_id])
    yield from _between(spool, *work)


def _between(spool: BinaryIO, start: int, end: int) -> Iterator[Record]:
    spool.seek(start)
    while start < end:
        line = spool.readline()
        start += len(line)
        record = decode_line(line)
        assert not isinstance(record, Header | Trailer | LoggedChange)  # none was kept
        yield record
