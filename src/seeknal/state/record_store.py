"""A store of records, and the life of one instance on it: open, keep leases, fork, close, exit.

The methods that are abstract here are what a backend built the short way provides; see
`seeknal.state.record_backend`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, ClassVar

from seeknal.clock import Clock, SystemClock
from seeknal.errors import BackendUnavailableError, CapabilityError, InvalidFieldError, SeeknalError
from seeknal.model.records import (
    Claim,
    IntervalProvenance,
    LockInfo,
    LockToken,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.state.ahead import Page
from seeknal.state.batch import Batch, Sequences
from seeknal.state.checks import record_findings
from seeknal.state.claims import no_claims
from seeknal.state.contract import StateBackend
from seeknal.state.finding import Finding
from seeknal.state.lease import Lease, LeaseKeeper, LockKey
from seeknal.state.reader import no_log
from seeknal.state.record_reader import RecordReader
from seeknal.state.store_info import ANY_SUCCESSOR, StoreInfo
from seeknal.state.unit import UnitOfWork
from seeknal.state.whole import LoggedReading, SideStore
from seeknal.state.work import all_parts

if TYPE_CHECKING:
    from seeknal.state.transaction_block import TransactionBlock

DEFAULT_BUSY_TIMEOUT_MS = 30_000
MOST_BUSY_TIMEOUT_MS = 24 * 60 * 60 * 1000


class _Local(threading.local):
    """What one thread has open: its unit of work and the blocks around it, innermost last."""

    def __init__(self) -> None:
        self.unit: UnitOfWork | None = None
        self.blocks: list[TransactionBlock] = []


class RecordStore(StateBackend, RecordReader):
    """A store that reads records and commits batches.

    Args:
        clock: Where time comes from.
        busy_timeout_ms: The one budget for waiting on other writers, per call.
    """

    current_schema: ClassVar[str] = ""
    """The schema of a store that this program made, as `peek_store` tells it; empty where there is only one."""

    def __init__(self, *, clock: Clock | None = None, busy_timeout_ms: int = DEFAULT_BUSY_TIMEOUT_MS) -> None:
        if not isinstance(busy_timeout_ms, int) or not 0 <= busy_timeout_ms <= MOST_BUSY_TIMEOUT_MS:
            raise InvalidFieldError(
                f"busy_timeout_ms is {busy_timeout_ms!r}; it must be a whole number of milliseconds, from 0 to a day",
                hint="Pass busy_timeout_ms as an int.",
                field="busy_timeout_ms",
            )
        self.clock = clock or SystemClock()
        self.busy_timeout_ms = busy_timeout_ms
        self._local = _Local()
        self._closed = False
        self._keeper = LeaseKeeper(self.renew_lock)
        _open_backends.add(self)

    @abstractmethod
    def _forget_leases(self, run_id: str) -> None:
        """Stop keeping the leases of a run whose locks a commit has freed."""

    # ---- what a store provides, beside the reads of RecordReader ----

    @abstractmethod
    def read_store(self) -> StoreInfo:
        """Return what the store says of itself."""

    @abstractmethod
    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed intervals or partitions, sorted by their bytes."""

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order, those created meanwhile perhaps; a store of very many reads them in pages.

        A run that is deleted while this goes on may be among them or not, and hides no other.
        """
        for run_id in self.read_run_ids(None, newest_first=False, limit=None):
            run = self.read_run(run_id)
            if run is not None:
                yield run

    def read_log(self, after: str, limit: int) -> list[LoggedChange]:
        """Return the entries of the change log that follow a change id, in the order of the ids, at most ``limit``.

        A store that declares `Capability.LOG` provides this and `read_tokens`, commits what a batch has in ``log`` and
        ``tokens``, and logs in `seize_lock` what that did.

        Raises:
            CapabilityError: It keeps no log.
        """
        raise no_log(self)

    def read_tokens(self) -> Iterable[LockToken]:
        """Return the token counters of all locks that were ever granted, in any order; many come in pages.

        Raises:
            CapabilityError: It does not tell them.
        """
        raise no_log(self)

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node, in any order, and the version they stand at, which is never newer than they are.

        A store that declares `Capability.CLAIMS` provides this and `read_claimed_nodes`, and commits what a batch has
        in ``ended_claims``, ``claims`` and ``claim_versions``.

        Raises:
            CapabilityError: It keeps none.
        """
        raise no_claims(self)

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of the completed intervals of a node, in order.

        Touching parts of one run are one. A store that declares `Capability.PROVENANCE` provides this and commits an
        `IntervalAttributed`. Of another, all that is known is the run that each interval names.
        """
        return all_parts(self.read_intervals(node_id), [])

    def read_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return one completed partition; a store may have it for less than all of them."""
        return next((state for state in self.read_partitions(node_id) if state.partition == partition), None)

    def read_partition_count(self, node_id: str) -> int:
        """Return how many partitions a node has completed; a store may know it for less."""
        return len(self.read_partitions(node_id))

    def read_expected(self, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Return keys of partitions that are expected of a node, in the order of their bytes, those behind one.

        A store that declares `Capability.EXPECTED` provides this, and commits `PartitionExpected` and
        `PartitionUnexpected`. Another one expects nothing.
        """
        return []

    def read_is_expected(self, node_id: str, partition: str) -> bool:
        """Return whether one partition is expected of a node; a store may know it for less than all of them."""
        return partition in self.read_expected(node_id)

    def read_partition_keys(self, node_id: str) -> set[str]:
        """Return the keys of the completed partitions of a node; a store may have them for less than the records."""
        return {state.partition for state in self.read_partitions(node_id)}

    def read_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims, sorted by their bytes.

        Raises:
            CapabilityError: It keeps none.
        """
        raise no_claims(self)

    def snapshot(self) -> AbstractContextManager[LoggedReading | None]:
        """Hold the whole store as of one instant for a block, keeping no writer waiting; its records are read there.

        It is ``None`` for a store that can only be read as it changes. One thread at a time reads of it, and not for
        ever: a database keeps what was deleted as long as somebody may still read it.

        Raises:
            BackendUnavailableError: Here or while it is read: the store is away, or gave the snapshot up.
        """
        return nullcontext()

    def replacing(self, by: str) -> AbstractContextManager[SideStore]:
        """Make an empty side store for a block, whose content can take the place of this one's in one step.

        What a process that was killed has left of one is removed first. Whoever calls this holds a lease, so that
        nobody else does at the same time; who was frozen and taken for dead cannot write into the next one's.

        Args:
            by: Who does this since when: another text each time.

        Raises:
            CapabilityError: This store cannot do so.
            SeeknalError: The side store cannot be made.
        """
        raise CapabilityError(
            f"a {type(self).__name__} cannot replace its content in one step",
            hint="Import the backup into an empty store with `seeknal state import`, and point the project at it.",
        )

    def guessing(self) -> Callable[[str, str], NodeState | None] | None:
        """Return what says, without a read, what a node state most likely is; ``None`` where reads cost little.

        A write may rest on it, since the guards of its commit find out if it was wrong.
        """
        return None

    @property
    def copied_rows(self) -> int:
        """How many rows a copy of another store commits at once: fewer fsyncs, and still little in memory."""
        return 10_000

    def paging(self) -> Page | None:
        """Return what reads several node states of a run at once; ``None`` where reads cost little."""
        return None

    def examine(self) -> Iterator[Finding]:
        """Yield what is wrong with this store; changes nothing and keeps no writer waiting.

        A store that can look at itself without being opened also examines one that `initialize` refuses. This one
        opens it and checks the records.

        Raises:
            SeeknalError: As `initialize` and the reads.
        """
        self.initialize()
        yield from record_findings(self, type(self).__name__)

    def peek_store(self) -> StoreInfo | None:
        """Return what the store says of itself, without opening it; ``None`` if there is none, or it cannot tell.

        Raises:
            SeeknalError: It cannot be read.
        """
        return None

    @abstractmethod
    def write_successor(self, store_id: str, successor: str | None, *, expected: str | None = ANY_SUCCESSOR) -> None:
        """Set the store's identity and where its state moved to; ``None`` makes it current again.

        Called by a migration only. From then on `commit` and `grant_lock` raise `SupersededError`
        (`seeknal.state.store_info.superseded`) in every process, those that are open included.

        Args:
            store_id: The identity that it gets.
            successor: Where the state went.
            expected: Write only if it says this now, in the same atomic step; `ANY_SUCCESSOR` does not look.

        Raises:
            SupersededError, ConcurrencyError: It says something else (`seeknal.state.store_info.misplaced`).
        """

    @abstractmethod
    def commit(self, batch: Batch) -> Sequences:
        """Apply a batch atomically and durably if its guards hold; return the sequences it gave out.

        Of a batch with several records a store may return none: whoever commits one does not show them.

        Raises:
            SupersededError, ConcurrencyError: The store is not where the batch demands it to be
                (`seeknal.state.store_info.misplaced`).
            StaleVersionError: A record, or what a node has of claims, is not at its version
                (`seeknal.model.changes.stale`), or a run has not so many nodes (`seeknal.model.changes.added_to`).
            ConcurrencyError: Somebody holds a lock of a run that nobody may hold one of
                (`seeknal.state.lease.locked_meanwhile`).
            RunNotFoundError: A needed run is missing (`seeknal.model.changes.missing_run`).
            LeaseLostError: A lease is not held any more (`seeknal.state.lease.lost`).
            ClaimEndedError: A claim that ends does not stand as it is given (`seeknal.model.claims.over`).
            BackendUnavailableError: Nothing was written.
        """

    @abstractmethod
    def grant_lock(self, key: LockKey, owner: str, ttl_ms: int) -> LockInfo:
        """Grant the lock of ``key`` if nobody holds it; return who holds it then, perhaps ``owner``.

        A grant raises the key's token by one, for good: also across releases and deleted runs.
        """

    @abstractmethod
    def renew_lock(self, lease: Lease, ttl_ms: int) -> bool:
        """Extend a lease to ``ttl_ms`` from now; return whether it was still held."""

    @abstractmethod
    def free_lock(self, lease: Lease) -> bool:
        """End a lease; return whether it was still held."""

    @abstractmethod
    def seize_lock(self, key: LockKey, reason: str) -> LockInfo | None:
        """End whatever lease holds ``key``, keeping ``reason`` where the store can; return who held it.

        A store with `Capability.LOG` logs it in the same step (`seeknal.state.change_log.unlocked`).
        """

    @abstractmethod
    def read_locks(self) -> list[LockInfo]:
        """Return the locks that are held now, in any order."""

    def close_store(self) -> None:
        """Release what the store holds open; called once."""

    def prepare_fork(self) -> None:
        """Bring the store, right before a fork, into a state that a child can inherit."""

    def resume_after_fork(self) -> None:
        """Go on in the parent; called after each `prepare_fork`."""

    def reset_after_fork(self) -> None:
        """Forget, in a forked child, connections and mutexes that belong to the parent."""

    # ---- life ----

    def close(self) -> None:
        """Free this instance's locks and release its resources."""
        if self._closed:
            return
        with ExitStack() as undo:  # each of these is tried, whatever the others raise; the first error comes out
            undo.callback(self.close_store)
            undo.callback(_open_backends.discard, self)
            undo.callback(setattr, self, "_closed", True)
            for lease in self._keeper.drop_all():
                undo.callback(self.free_lock, lease)

    def _after_fork(self) -> None:
        """Start the child with no transaction and no lease: both belong to the parent."""
        self._local = _Local()
        self._keeper = LeaseKeeper(self.renew_lock)
        self.reset_after_fork()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendUnavailableError("the backend is closed", hint="Open another one.")


_logger = logging.getLogger(__name__)
_open_backends: weakref.WeakSet[RecordStore] = weakref.WeakSet()


def _close_all() -> None:
    """Give back, at the exit of the interpreter, the locks of every instance that was left open."""
    for backend in list(_open_backends):
        try:
            backend.close()
        except SeeknalError:  # the others must still be closed, and nobody is left to raise to
            _logger.warning("a %s could not be closed at exit", type(backend).__name__, exc_info=True)


_forking = threading.Lock()
_prepared: list[RecordStore] = []


def _prepare_all() -> None:
    """Prepare every store for a fork; a second thread that forks waits for the first."""
    _forking.acquire()
    for backend in list(_open_backends):
        _prepared.append(backend)  # first: whatever happens, it is resumed
        try:
            backend.prepare_fork()
        except SeeknalError:  # the fork goes on whatever happens here, and the others must be prepared for it
            _logger.warning("a %s could not be prepared for a fork", type(backend).__name__, exc_info=True)


def _resume_all() -> None:
    while _prepared:
        _prepared.pop().resume_after_fork()
    _forking.release()


def _reset_all() -> None:
    _prepared.clear()
    _forking.release()
    for backend in list(_open_backends):
        backend._after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_prepare_all, after_in_parent=_resume_all, after_in_child=_reset_all)
