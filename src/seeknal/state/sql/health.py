"""Whether a database keeps what it acknowledges, and its clock: what is set where no store can see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, literal_column, select

from seeknal.clock import Clock
from seeknal.model.instants import to_us
from seeknal.state.finding import Finding, error, warning
from seeknal.state.record_store import RecordStore
from seeknal.state.sql import space
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Session, Statement

MOST_SKEW_US = 5_000_000
MOST_RECEIPTS = 20_000
"""Far more than a hundred processes leave lying, which remove theirs in portions of 256."""

MUCH_FREE_BYTES = 64 << 20
MOST_TOLD = 10

_NOW = Statement(lambda on: select(on.dialect.now_us()))
_RECEIPTS = Statement(lambda on: select(func.count()).select_from(on.tables.receipts))
_VOID = Statement(
    lambda on: (
        select(func.count()).select_from(on.tables.receipts).where(on.tables.receipts.c.is_void == literal_column("1"))
    )
)

DURABILITY = {
    "postgresql": (("fsync", "SHOW fsync", "on"), ("full_page_writes", "SHOW full_page_writes", "on")),
    "mysql": (("innodb_flush_log_at_trx_commit", "SELECT @@global.innodb_flush_log_at_trx_commit", "1"),),
}
"""By kind of database: a setting, how it is asked for, and what it has to be for a commit to survive a power cut.

Source: https://www.postgresql.org/docs/current/runtime-config-wal.html,
https://dev.mysql.com/doc/refman/8.4/en/innodb-parameters.html
"""


def health_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    """Check the settings of a database, its clock, and what piles up in it."""
    where = database.location
    for name, query, wanted in DURABILITY.get(database.address.kind, ()):
        found = str(_asked(database, query)[0][0])
        if found != wanted:
            yield warning(
                "durability",
                f"the server has {name} = {found}: a power cut may lose what it acknowledged, or damage it",
                where=where,
                fix=f"Have its administrator set {name} = {wanted}.",
            )
    if database.dialect.is_shared:
        yield from _skew_findings(database, store.clock)
        yield from _receipt_findings(database)
    else:
        yield from _file_findings(database, store)


def _skew_findings(database: Database, clock: Clock) -> Iterator[Finding]:
    before = to_us(clock.now())
    theirs = int(database.read(lambda session: _one(session, _NOW)))
    after = to_us(clock.now())
    skew = max(before - theirs, theirs - after, 0)
    if skew > MOST_SKEW_US:
        yield warning(
            "clock-skew",
            f"the clocks of this machine and of the server are {skew / 1_000_000:.0f} s apart",
            where=database.location,
            fix="Leases are measured by the server's clock and hold; the times that people see differ. Set up NTP.",
        )


def _receipt_findings(database: Database) -> Iterator[Finding]:
    count = int(database.read(lambda session: _one(session, _RECEIPTS)))
    if count > MOST_RECEIPTS:
        void = int(database.read(lambda session: _one(session, _VOID)))
        yield warning(
            "receipts-piled",
            f"{count} receipts of commits lie about, {void} of them void: processes that are killed leave theirs",
            where=f"{database.location}, table {database.target.tables.receipts.name}",
            fix="They cost space only, and go by themselves. Delete them while no process uses the store.",
        )


def _file_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    """Check what a SQLite file says of itself. Source: https://www.sqlite.org/pragma.html."""
    where = database.location
    mode = str(_asked(database, "PRAGMA journal_mode")[0][0])
    if mode != "wal":
        yield error(
            "journal-mode",
            f"journal_mode is {mode} and not wal, so that readers and writers wait for each other",
            where=where,
            fix="Any command that opens the store sets it; then examine the store again, which also reads every page.",
            mend=store.initialize,
        )
        return  # in that mode a check of all pages would make writers wait
    for (line,) in _asked(database, f"PRAGMA quick_check({MOST_TOLD})"):
        if line != "ok":
            yield error(
                "store-damaged",
                f"a page is damaged: {' '.join(str(line).split())}",
                where=where,
                fix="Restore a backup, and keep a copy of the damaged file.",
            )
    yield from _space_findings(database)
    broken = _asked(database, "PRAGMA foreign_key_check")
    if broken:
        tables = ", ".join(sorted({str(row[0]) for row in broken}))
        yield error(
            "foreign-key",
            f"{len(broken)} rows of {tables} refer to a row that is not there",
            where=where,
            fix="Something wrote to the file with foreign keys switched off; node-orphan says which rows.",
        )


def _space_findings(database: Database) -> Iterator[Finding]:
    """Check whether a file keeps much more space than its records need, and cannot give it back by itself."""
    free, size, mode = space.free_pages(database)
    if mode != space.INCREMENTAL and free * size >= MUCH_FREE_BYTES:
        yield warning(
            "space-kept",
            f"{free * size / 2**20:.1f} MiB are free and stay in the file, which an older version made",
            where=database.location,
            fix=f"Nothing is wrong. To shrink it, once, while nobody writes: {space.vacuum_command(database)}",
        )


def _asked(database: Database, query: str) -> list[Any]:
    def ask(session: Session) -> list[Any]:
        session.cursor.execute(query)
        return session.cursor.fetchall()

    return database.read(ask)


def _one(session: Session, statement: Statement) -> Any:
    row = session.one(statement)
    assert row is not None
    return row[0]
