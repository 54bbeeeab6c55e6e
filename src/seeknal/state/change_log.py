"""The change log: what people and commands did to a store, beside what its pipelines write.

An entry names who did what, where, when and why. It is written in the commit that does it, or right after it, and no
entry is ever changed. Entries are few: one for each thing that somebody does by hand or by a nightly command.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import count, islice
from typing import Any
from uuid import UUID

import msgspec

from seeknal.clock import Clock
from seeknal.model.changes import check_limit, checked_change
from seeknal.model.codec import json_copy
from seeknal.model.ids import check_id
from seeknal.model.instants import to_us
from seeknal.model.records import LockInfo, LoggedChange
from seeknal.state.batch import Batch
from seeknal.state.capabilities import Capability
from seeknal.state.lease import this_host
from seeknal.state.reader import no_log
from seeknal.state.record_store import RecordStore

PAGE_CHANGES = 500
"""Entries that are read at once."""

MOST_NAME = 200
"""Characters of a user's or a machine's name that are kept; both come from outside."""

_nth = count()


class LogVerbs(RecordStore):
    """The verbs of the change log, over the pages of a store that keeps one."""

    def log_change(
        self,
        action: str,
        *,
        run_id: str | None = None,
        node_id: str | None = None,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> LoggedChange:
        """Write down what was done to the store; return the entry."""
        self._check_open()
        self._check_logs()
        given = {"run_id": run_id, "node_id": node_id, "reason": reason, "detail": {} if detail is None else detail}
        change = new_change(self.clock, action, **given)
        if self._local.unit is not None:
            self._local.unit.log(change)
        else:
            self.commit(Batch(log=[change]))
        return _change_out(change)

    def list_changes(
        self,
        *,
        run_id: str | None = None,
        node_id: str | None = None,
        action: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[LoggedChange]:
        """Return what was done to the store, in the order of time."""
        for field, value in (("run_id", run_id), ("node_id", node_id)):
            if value is not None:
                check_id(value, field)
        check_limit(limit)
        self._check_open()
        self._check_logs()
        wanted = {"run_id": run_id, "node_id": node_id, "action": action}
        asked = {name: value for name, value in wanted.items() if value is not None}
        found = (change for change in self._changes() if all(getattr(change, name) == asked[name] for name in asked))
        if not newest_first:
            return [_change_out(change) for change in islice(found, limit)]
        return [_change_out(change) for change in reversed(deque(found, limit))]

    @property
    def keeps_log(self) -> bool:
        """Whether there is a log, and token counters that can be carried."""
        return Capability.LOG in self.capabilities

    def add_to_log(self, changes: Iterable[LoggedChange]) -> None:
        """Add entries of another store's log, a page in each commit; those that are there stay as they are.

        Raises:
            CapabilityError: The store keeps no log.
            StateBackendError: As `commit`; a part of them may be there, and the same call adds the rest.
        """
        self._check_logs()
        rest = iter(changes)
        while page := list(islice(rest, PAGE_CHANGES)):
            self.commit(Batch(log=page))

    def scan_log(self) -> Iterator[LoggedChange]:
        """Yield the whole change log as it was committed, in the order of time, a page at a time.

        Raises:
            CapabilityError: The store keeps none.
        """
        after = ""
        while page := self.read_log(after, PAGE_CHANGES):
            yield from page
            after = page[-1].change_id

    def _changes(self) -> Iterator[LoggedChange]:
        """Yield the log as this thread sees it: what its transaction has logged comes last."""
        yield from self.scan_log()
        if self._local.unit is not None:
            yield from self._local.unit.logged()

    def _check_logs(self) -> None:
        if not self.keeps_log:
            raise no_log(self)


def new_change(clock: Clock, action: str, **fields: Any) -> LoggedChange:
    """Return an entry about what this process does now.

    Args:
        clock: Where time comes from.
        action: A word.
        **fields: ``run_id``, ``node_id``, ``reason``, ``detail``.

    Raises:
        InvalidIdError, InvalidFieldError: Naming the field.
    """
    at = clock.now()
    change = LoggedChange(
        change_id=new_change_id(at),
        at=at,
        action=action,
        actor=current_actor(),
        host=_readable(this_host()),
        pid=os.getpid(),
        **fields,
    )
    return checked_change(change)


def unlocked(holder: LockInfo, reason: str, clock: Clock) -> LoggedChange:
    """Return the entry of a lock that was broken."""
    detail = {
        "token": holder.token,
        "host": holder.host,
        "pid": holder.pid,
        "acquired_at": holder.acquired_at.isoformat(),
    }
    return new_change(clock, "unlock", run_id=holder.run_id, node_id=holder.node_id, reason=reason, detail=detail)


def new_change_id(at: datetime) -> str:
    """Return an id that is never used again; the order of such texts is the order of time.

    A UUID of version 7, since what is unique everywhere lets the logs of two stores be united, and its text sorts by
    the microsecond and then, within one process, by the order in which the ids were made.

    Source: https://www.rfc-editor.org/rfc/rfc9562.html, sections 5.7 and 6.2: milliseconds in 48 bits, the rest of the
    microsecond in 12, a counter in 24, chance in 38.
    """
    ms, us = divmod(max(to_us(at), 0), 1000)
    tail = (next(_nth) & 0xFF_FFFF) << 38 | secrets.randbits(38)
    return str(UUID(int=ms << 80 | 7 << 76 | us << 64 | 2 << 62 | tail))


def current_actor() -> str:
    """Return who this process works for: ``SEEKNAL_ACTOR``, else the user's name, else the number of the user.

    The variable is for a scheduler or a CI job, which works under one user for many.
    """
    named = os.environ.get("SEEKNAL_ACTOR", "").strip()
    return _readable(named or _user())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under a user that nobody has named
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _readable(text: str) -> str:
    """Return a text of the environment, whose bytes may be no UTF-8, as text that every store can hold."""
    return text.encode(errors="replace").decode()[:MOST_NAME]


def _change_out(change: LoggedChange) -> LoggedChange:
    """Return an entry that shares nothing with the store."""
    return msgspec.structs.replace(change, detail=json_copy(change.detail))
