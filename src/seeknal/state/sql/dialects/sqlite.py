"""All that differs between databases: one frozen record for each. No other module asks which one it is on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import Dialect as SqlDialect

from seeknal.errors import BackendUnavailableError, CommitUnknownError, CorruptStateError, StateBackendError


class BusyError(BackendUnavailableError):
    """Another writer has the store; nothing was written, and the same call may be repeated at once."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of database needs.

    Attributes:
        sql: SQLAlchemy's compiler for it.
        begin: The statement that begins a transaction which will write, and waits for other writers there.
        driver_error: The root of the driver's exceptions.
        classify: Turns one into a typed error: the exception, where the store is, and whether the
            statement that failed could have committed.
    """

    sql: SqlDialect
    begin: str
    driver_error: type[Exception]
    classify: Callable[[Exception, str, bool], StateBackendError]


_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT: "is damaged", sqlite3.SQLITE_NOTADB: "is not a SQLite database"}
_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Check that the path is a file, and who owns it and its directory."),
    sqlite3.SQLITE_READONLY: ("cannot be written", "Check who owns the file and its directory, or that it was moved."),
    sqlite3.SQLITE_PERM: ("may not be used", "Check who owns the file and its directory."),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "Free space on the disk and repeat the call."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "Check the disk: is it full, failing or gone?"),
    sqlite3.SQLITE_NOMEM: ("needs more memory than there is", "Free memory and repeat the call."),
}


def classify_sqlite(error: Exception, location: str, committing: bool) -> StateBackendError:
    """Return the typed error of a `sqlite3` exception. Source: https://www.sqlite.org/rescode.html."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the low byte is the primary code
    if code in _BUSY:
        return BusyError(
            f"{location} is busy: another writer did not finish in time",
            hint="Repeat the call, or raise busy_timeout_ms.",
        )
    if code in _DAMAGED:
        return CorruptStateError(
            f"{location} {_DAMAGED[code]}: {error}",
            hint="Restore it from a backup, or name another file.",
            location=location,
        )
    if code == sqlite3.SQLITE_IOERR and committing:
        return CommitUnknownError(
            f"the disk failed while {location} committed: {error}",
            hint="Check the disk, then read the record back to see whether it was written.",
        )
    if code in _UNUSABLE:
        what, hint = _UNUSABLE[code]
        return BackendUnavailableError(f"{location} {what}: {error}", hint=hint)
    if isinstance(error, sqlite3.IntegrityError) or str(error).startswith(("no such table", "no such column")):
        return CorruptStateError(
            f"{location} does not hold what a state store must: {error}",
            hint="Restore it from a backup, and keep a copy of the damaged one.",
            location=location,
        )
    return BackendUnavailableError(
        f"{location} refused a statement: {error}", hint="Repeat the call once the cause is gone."
    )


SQLITE = Dialect(
    sql=sqlite.dialect(paramstyle="qmark"),
    begin="BEGIN IMMEDIATE",  # the lock now, or waiting could end in SQLITE_BUSY_SNAPSHOT halfway
    driver_error=sqlite3.Error,
    classify=classify_sqlite,
)
