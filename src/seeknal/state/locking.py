"""The lock verbs of the contract, over the five lock steps of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seeknal.errors import InvalidFieldError
from seeknal.model.ids import check_id
from seeknal.model.records import LockInfo
from seeknal.state.contract import DEFAULT_TTL_MS
from seeknal.state.lease import Lease, LockKey, held, new_owner
from seeknal.state.record_store import RecordStore
from seeknal.state.transaction import backoff

MAX_TTL_MS = 365 * 24 * 3600 * 1000
"""The longest time to live: a year."""


class LockVerbs(RecordStore):
    """Waiting for locks, giving them back, breaking them. A lock step commits at once, inside a transaction too."""

    def acquire_lock(
        self, run_id: str, node_id: str | None = None, timeout_ms: int = 5000, *, ttl_ms: int = DEFAULT_TTL_MS
    ) -> bool:
        """Take the lock of a run, or of a node in it; return whether it was granted."""
        return self._acquire(run_id, node_id, timeout_ms, ttl_ms) is not None

    @contextmanager
    def lock(
        self, run_id: str, node_id: str | None = None, timeout_ms: int = 5000, *, ttl_ms: int = DEFAULT_TTL_MS
    ) -> Iterator[Lease]:
        """Hold a lock for a block and yield its lease."""
        lease = self._acquire(run_id, node_id, timeout_ms, ttl_ms)
        if lease is None:
            raise held(run_id, node_id, self._holder(run_id, node_id))
        try:
            yield lease
        finally:
            # This very lease: if it was lost, whoever holds the lock now keeps it, another thread of ours included.
            self._keeper.drop(lease)
            if not self._closed:
                self.free_lock(lease)

    def _acquire(self, run_id: str, node_id: str | None, timeout_ms: int, ttl_ms: int) -> Lease | None:
        key = _checked_key(run_id, node_id)
        for field, value, least in (("timeout_ms", timeout_ms, 0), ("ttl_ms", ttl_ms, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidFieldError(
                    f"{field} is {value!r}; it must be a whole number of milliseconds, {least} or more",
                    hint=f"Pass {field} as an int.",
                    field=field,
                )
        if ttl_ms > MAX_TTL_MS:
            raise InvalidFieldError(
                f"ttl_ms is {ttl_ms}; at most {MAX_TTL_MS}, a year, is allowed",
                hint="A lease is renewed while its owner lives; a short time to live will do.",
                field="ttl_ms",
            )
        self._check_open()
        owner = new_owner()
        deadline = self.clock.ticks_us() + timeout_ms * 1000
        for pause in backoff():
            holder = self.grant_lock(key, owner, ttl_ms)
            if holder.owner == owner:
                lease = Lease(run_id, node_id, holder.token, owner)
                self._keeper.add(lease, ttl_ms)
                return lease
            left = (deadline - self.clock.ticks_us()) / 1_000_000
            if left <= 0:
                return None
            self.clock.sleep(min(pause, left))
        raise AssertionError("the pauses never end")  # pragma: no cover

    def release_lock(self, run_id: str, node_id: str | None = None) -> bool:
        """Give a lock back; return whether this instance held it."""
        key = _checked_key(run_id, node_id)
        self._check_open()
        lease = self._keeper.get(key)
        if lease is None:
            return False
        self._keeper.drop(lease)
        return self.free_lock(lease)

    def list_locks(self) -> list[LockInfo]:
        """Return the locks that are held now, by run id, then node id."""
        self._check_open()
        return sorted(self.read_locks(), key=lambda lock: (lock.run_id.encode(), (lock.node_id or "").encode()))

    def break_lock(self, run_id: str, node_id: str | None = None, *, reason: str) -> LockInfo | None:
        """Free anybody's lock; return who held it, or ``None``."""
        key = _checked_key(run_id, node_id)
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidFieldError("reason is empty", hint="Say why the lock is broken.", field="reason")
        self._check_open()
        return self.seize_lock(key, reason)

    def _forget_leases(self, run_id: str) -> None:
        """Stop keeping the leases of a run whose locks a commit has freed."""
        for lease in self._keeper.kept():
            if lease.run_id == run_id:
                self._keeper.drop(lease)


def _checked_key(run_id: str, node_id: str | None) -> LockKey:
    return check_id(run_id, "run_id"), None if node_id is None else check_id(node_id, "node_id")
