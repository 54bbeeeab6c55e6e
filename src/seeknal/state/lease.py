"""Leases: what a lock grants, and the thread that keeps it granted.

A lease is a lock with an owner, a fencing token and an expiry. Its token names one grant; it fences
only where a store compares it, which `StateBackend.transaction(lease=...)` does in the very commit.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from queue import Empty, SimpleQueue
from uuid import uuid4

import msgspec

from seeknal.clock import SystemClock
from seeknal.errors import ConcurrencyError, LeaseLostError, LockHeldError, StateBackendError
from seeknal.model.records import LockInfo

LockKey = tuple[str, str | None]
"""A run id, and a node id or ``None`` for the lock of the run itself."""


class Lease(msgspec.Struct, frozen=True):
    """One grant of a lock. ``token`` grows by one with every grant of the same key."""

    run_id: str
    node_id: str | None
    token: int
    owner: str

    @property
    def key(self) -> LockKey:
        """What is locked."""
        return (self.run_id, self.node_id)


def new_owner() -> str:
    """Return a name for one grant that is never used again."""
    return uuid4().hex


@lru_cache(maxsize=1)
def this_host() -> str:
    """Return this machine's name, for messages only."""
    return socket.gethostname()


def is_gone(holder: LockInfo) -> bool:
    """Return whether the process that holds a lock is one of this machine and not there any more.

    One in a container may share the name of the machine and not its processes: that one is taken for gone while it
    lives. A move that this happens to is refused from then on, as it does not know the new mark.
    """
    if holder.host != this_host() or os.name != "posix":
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is there, and somebody else's
        return False
    return False


def describe_key(run_id: str, node_id: str | None) -> str:
    """Return what a lock guards, in words."""
    return f"run {run_id!a}" + (f", node {node_id!a}" if node_id is not None else "")


def held(run_id: str, node_id: str | None, holder: LockInfo | None) -> LockHeldError:
    """Return the error of a lock that somebody else holds."""
    who = (
        f"held by {holder.host}, process {holder.pid}, since {holder.acquired_at.isoformat(timespec='seconds')}"
        if holder
        else "held by somebody who has given it back meanwhile"
    )
    return LockHeldError(
        f"the lock of {describe_key(run_id, node_id)} is {who}",
        hint="Wait for it, or break it with `seeknal state unlock` if its owner is gone.",
        holder=holder,
    )


def lost(lease: Lease) -> LeaseLostError:
    """Return the error of a commit under a lease that is no longer held."""
    return LeaseLostError(
        f"the lease of {describe_key(*lease.key)} (token {lease.token}) is no longer held; nothing was written",
        hint="Somebody else may hold it now: stop this work, or take the lock again and start from what is stored.",
    )


def locked_meanwhile(run_id: str) -> ConcurrencyError:
    """Return the error of a commit that demands that nobody holds a lock of a run."""
    error = ConcurrencyError(
        f"somebody took a lock of run {run_id!a} meanwhile; nothing was written",
        hint="Repeat the call once it is given back; `seeknal state locks` says who holds it.",
    )
    error.retriable = True
    return error


_real = SystemClock()
"""Renewing is for real time: a thread waits in no other."""


class LeaseKeeper:
    """Renews the leases of one backend instance at a third of their time to live.

    One daemon thread, started with the first lease and gone with the last. A lease that could not be
    renewed in time is dropped: the store decides at the next commit, and says so.

    Args:
        renew: Extends one lease; returns ``False`` when it is no longer held.
    """

    def __init__(self, renew: Callable[[Lease, int], bool]) -> None:
        self._renew = renew
        # Not a Condition: what the interpreter runs of it is Python, and a Ctrl-C in the middle of it would leave it
        # locked for ever.
        self._mutex = threading.RLock()  # a signal handler may take a lease, too
        self._changes: SimpleQueue[None] = SimpleQueue()
        """Wakes the thread."""
        self._leases: dict[LockKey, tuple[Lease, int]] = {}
        self._due_us: dict[LockKey, int] = {}
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease, ttl_ms: int) -> None:
        """Keep a lease that was just granted."""
        with self._mutex:
            self._leases[lease.key] = (lease, ttl_ms)
            self._due_us[lease.key] = _real.ticks_us() + ttl_ms * 1000 // 3
            if self._thread is None:
                self._changes = SimpleQueue()  # without what the former thread had no need to read
                thread = threading.Thread(target=self._keep, name="seeknal-leases", daemon=True)
                thread.start()
                self._thread = thread
            self._changes.put(None)

    def get(self, key: LockKey) -> Lease | None:
        """Return the lease this instance holds of a key, as far as it knows."""
        with self._mutex:
            kept = self._leases.get(key)
        return kept[0] if kept else None

    def kept(self) -> list[Lease]:
        """Return the leases this instance holds, as far as it knows."""
        with self._mutex:
            return [lease for lease, _ in self._leases.values()]

    def drop(self, lease: Lease) -> None:
        """Stop keeping a lease; nothing happens if it is not kept."""
        with self._mutex:
            kept = self._leases.get(lease.key)
            if kept and kept[0] == lease:
                del self._leases[lease.key], self._due_us[lease.key]
                self._changes.put(None)

    def drop_all(self) -> list[Lease]:
        """Stop keeping anything, wait for the thread to end, and return what was kept."""
        with self._mutex:
            leases = [lease for lease, _ in self._leases.values()]
            self._leases.clear()
            self._due_us.clear()
            self._changes.put(None)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        return leases

    def _keep(self) -> None:
        """Renew until nothing is left to keep."""
        while True:
            with self._mutex:
                if not self._leases:
                    self._thread = None
                    return
                now = _real.ticks_us()
                due = [kept for key, kept in self._leases.items() if self._due_us[key] <= now]
                for lease, ttl_ms in due:
                    self._due_us[lease.key] = now + ttl_ms * 1000 // 3
                pause_us = min(self._due_us.values()) - now
            if due:
                for lease, ttl_ms in due:
                    self._renew_one(lease, ttl_ms)
            else:
                with suppress(Empty):
                    self._changes.get(timeout=pause_us / 1_000_000)

    def _renew_one(self, lease: Lease, ttl_ms: int) -> None:
        try:
            renewed = self._renew(lease, ttl_ms)
        except StateBackendError:
            # Busy or unreachable: the lease stands until its expiry, and the next round tries again.
            # Whether it was lost meanwhile is for the commit to find out, from the store.
            return
        if not renewed:
            self.drop(lease)
