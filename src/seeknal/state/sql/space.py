"""The free pages of a SQLite file, and giving them back in steps that are short enough for writers beside it."""

from __future__ import annotations

from typing import Any

from seeknal.clock import Clock
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Session

STEP_PAGES = 256
"""Pages given back in one transaction: 1 MiB, some milliseconds."""

GAP_S = 0.002
"""After each step: who waits for the file looks twice meanwhile whether it is free. Without it hardly ever."""

INCREMENTAL = 2
"""What ``PRAGMA auto_vacuum`` says of a file whose pages can be given back one by one.

Source: https://www.sqlite.org/pragma.html#pragma_auto_vacuum.
"""


def give_back(database: Database, clock: Clock, deadline: int | None) -> str:
    """Shrink a SQLite file by its free pages; return what is left to do by hand, or nothing.

    A server looks after its own space.
    """
    if database.dialect.is_shared:
        return ""
    free, size, mode = free_pages(database)
    if free and mode != INCREMENTAL:
        return (
            f"{free * size / 2**20:.1f} MiB of {database.location} are free and go to the records that come; "
            f"to shrink the file, once, while nobody writes: {vacuum_command(database)}"
        )
    while free and (deadline is None or clock.ticks_us() < deadline):
        database.read(_step)
        clock.sleep(GAP_S)
        before, (free, size, _) = free, free_pages(database)
        if free >= before:
            break  # others delete as fast as this gives back
    # The file shrinks when its log is taken in. Passive: whoever reads or writes now is not waited for.
    database.read(lambda session: _pragma(session, "wal_checkpoint(PASSIVE)"))
    return f"{free * size / 2**20:.1f} MiB of {database.location} are still to be given back; repeat it" if free else ""


def free_pages(database: Database) -> tuple[int, int, int]:
    """Return how many pages of a file are free, their size in bytes, and its auto_vacuum mode."""
    names = ("freelist_count", "page_size", "auto_vacuum")
    free, size, mode = database.read(lambda session: [_pragma(session, name) for name in names])
    return free, size, mode


def vacuum_command(database: Database) -> str:
    """Return what gives the free pages of an older file back, and from then on lets every cleanup do so."""
    return f"sqlite3 '{database.address.path}' 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'"


def _pragma(session: Session, text: str) -> int:
    session.cursor.execute(f"PRAGMA {text}")
    return int(session.cursor.fetchall()[0][0])


def _step(session: Session) -> None:
    # Each row of this statement is a page, and a cursor that finds no columns in it stops after the first; a script
    # goes on to its end.
    cursor: Any = session.cursor
    cursor.executescript(f"PRAGMA incremental_vacuum({STEP_PAGES})")
