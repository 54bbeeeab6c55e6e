"""What a database keeps beside runs and work: the change log, token counters, claims."""

from __future__ import annotations

from collections.abc import Iterator

from seeknal.model.records import Claim, LockToken, LoggedChange
from seeknal.state.sql import change_log, claims, leases
from seeknal.state.sql.whole import WholeDatabase


class KeepingDatabase(WholeDatabase):
    """The reads of it."""

    def read_log(self, after: str, limit: int) -> list[LoggedChange]:
        """Return the entries of the change log that follow a change id."""
        return self._open.read(lambda session: change_log.read_log(session, after, limit))

    def read_tokens(self) -> Iterator[LockToken]:
        """Yield the token counters of all locks, a page at a time."""
        after: LockToken | None = None
        while page := self._open.read(lambda session, after=after: leases.read_tokens(session, after)):  # type: ignore[misc]
            yield from page
            after = page[-1]

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node and the version they stand at."""
        return self._open.read(lambda session: claims.read_claims(session, node_id))

    def read_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims."""
        return self._open.read(claims.read_claimed_nodes)
