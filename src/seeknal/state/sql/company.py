"""Leaving a file to others between long transactions: it has one writer at a time, and no queue of those who wait."""

from __future__ import annotations

from seeknal.clock import Clock
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Session

MOST_S = 0.1
"""The longest that a file is left to others at a time, whatever made the transaction before so long."""


class Company:
    """Who else writes to a file while somebody does so in many transactions; nobody on a server, which locks rows.

    Args:
        database: The store.
        clock: What is waited by.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen = self._version()

    def leave_it_to_others(self, since_us: int) -> None:
        """Wait as long as the last transaction took, if anybody else wrote since this was made.

        So the file is free at least half of the time, and most writers do not find it held.

        Args:
            since_us: The tick at which that transaction began, or began to wait.
        """
        if self._version() != self._seen:
            self._clock.sleep(min((self._clock.ticks_us() - since_us) / 1_000_000, MOST_S))

    def _version(self) -> int:
        return 0 if self._database.dialect.is_shared else self._database.read(_version_of)


def _version_of(session: Session) -> int:
    """Return what another connection's commits change; one of this process counts as well, and makes for a wait.

    Source: https://www.sqlite.org/pragma.html#pragma_data_version.
    """
    session.cursor.execute("PRAGMA data_version")
    return int(session.cursor.fetchall()[0][0])
