"""The law: what every backend does, clause by clause.

A clause has an id in square brackets; the conformance kit has a case for each. General clauses:

- [ID-1] Ids (runs, nodes, partitions) are non-empty strings of at most 190 UTF-8 bytes without
  control characters; anything else raises `InvalidIdError` and changes nothing.
- [ID-2] Ids are compared byte for byte: case, accents and trailing spaces count.
- [ID-3] Ids are names, never paths: ``../x`` and ``a/b`` are harmless.
- [TIME-1] Instants are returned aware, in UTC, with microseconds.
- [TIME-2] A naive ``started_at`` or ``finished_at`` is local time; a naive interval bound is UTC.
- [ERR-1] A refused call raises a `SeeknalError` and changes nothing; driver exceptions never escape.
- [FACT-1] A second, independent instance on the same store sees everything that was committed.
- [FACT-2] What a caller does to a dictionary it passed or received never reaches the store.
- [FACT-3] An instance is never pickled: `CapabilityError` says to open the store again.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, NoReturn, Self, TypeVar

from seeknal.errors import CapabilityError, SeeknalError
from seeknal.model.records import LockInfo, LoggedChange, NodeState, PartitionState, RunState
from seeknal.state.capabilities import Capability
from seeknal.state.lease import Lease, held, this_host
from seeknal.state.partitions import PartitionVerbs
from seeknal.state.reader import no_log
from seeknal.state.retention import RetentionVerbs
from seeknal.state.transaction import BegunTransaction, Transaction, backoff, begun

T = TypeVar("T")

DEFAULT_TTL_MS = 30_000


class StateBackend(RetentionVerbs, PartitionVerbs):
    """A store of runs, node states, completed work and locks.

    Safe from threads; one instance serves a whole process. A third party writes the abstract
    methods; everything else stands on them. `RecordStateBackend` asks for less still: reads and one
    atomic commit.
    """

    # ---- the store ----

    @abstractmethod
    def initialize(self) -> None:
        """Make the store ready: create it or bring its schema up to date. [INIT-1] Safe to repeat.

        Raises:
            BackendUnavailableError: It cannot be reached or written.
            CorruptStateError: What is there is not a store, or is damaged.
            SchemaVersionError: A newer program wrote it.
        """

    def close(self) -> None:
        """Release this instance's locks and resources. [INIT-2] Safe to repeat.

        Using the instance afterwards raises `BackendUnavailableError`.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise CapabilityError(
            f"a {type(self).__name__} cannot be pickled",
            hint="Open the store again in the other process, with the same arguments.",
        )

    # ---- runs ----

    @abstractmethod
    def create_run(
        self,
        run_id: str,
        status: str = "running",
        started_at: datetime | None = None,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunState:
        """Create a run and return it. [RUN-1] ``running`` starts it now unless ``started_at`` is given.

        Raises:
            ConcurrencyError: [RUN-2] It exists already.
            InvalidIdError, InvalidFieldError: [RUN-3] Naming the field.
        """

    @abstractmethod
    def update_run(self, run_id: str, *, expected_version: int | None = None, **fields: Any) -> RunState:
        """Patch a run and return it. [RUN-4] What is not named stays; metadata merges by key.

        [RUN-5] A final status sets ``finished_at`` if none was given, and [LOCK-6] frees the locks of the
        run and of its nodes. [RUN-6] Each write raises ``version`` by one.

        Args:
            run_id: The run.
            expected_version: Write only if the run stands at this version.
            **fields: ``status``, ``started_at``, ``finished_at``, ``config``, ``metadata``.

        Raises:
            RunNotFoundError: [RUN-7] There is no such run.
            StaleVersionError: [RUN-8] It stands at another version; nothing changed.
            InvalidFieldError: An unknown field, or a value that its field cannot hold.
        """

    @abstractmethod
    def delete_run(self, run_id: str) -> bool:
        """Delete a run and its node states; return whether it existed. [RUN-11] A pinned one, too: it was named.

        [RUN-12] Intervals and partitions stay, and so do the token counters of its locks.
        """

    def set_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> None:
        """Merge these keys into the metadata of a run. [RUN-15].

        Raises:
            RunNotFoundError: There is no such run.
        """
        self.update_run(run_id, metadata=metadata)

    # ---- node states ----

    @abstractmethod
    def set_node_state(
        self,
        run_id: str,
        node_id: str,
        state: NodeState | None = None,
        *,
        overwrite: bool = True,
        expected_version: int | None = None,
        **fields: Any,
    ) -> NodeState:
        """Write the state of a node in a run and return what is stored.

        [NODE-1] ``fields`` is a patch: what is not named stays, metadata merges by key. [NODE-2] A whole
        ``state`` replaces everything. [NODE-3] ``running`` sets ``started_at``; a final status sets
        ``finished_at`` and ``duration_ms``; all where not given. [NODE-4] Each write raises ``version``
        by one. [NODE-5] Concurrent patches of one node both take effect, or one raises.

        Args:
            run_id: The run.
            node_id: The node.
            state: A whole state; then no fields.
            overwrite: Whether the node may exist already.
            expected_version: Write only at this version; 0 is "no record".
            **fields: ``status``, ``started_at``, ``finished_at``, ``duration_ms``, ``row_count``,
                ``fingerprint``, ``error_message``, ``attempt``, ``metadata``.

        Raises:
            RunNotFoundError: [NODE-6] There is no such run.
            ConcurrencyError: [NODE-7] ``overwrite=False`` and it exists; [NODE-8] a stale
                ``expected_version`` (`StaleVersionError`). Nothing changed.
            InvalidFieldError: [NODE-9] An unknown field or status, a negative count, a value that is
                not JSON. Nothing changed.
        """

    @abstractmethod
    def delete_node_state(self, run_id: str, node_id: str) -> bool:
        """Delete the state of a node in a run; return whether it existed. [NODE-12].

        Raises:
            RunNotFoundError: There is no such run.
        """

    # ---- completed work ----

    @abstractmethod
    def add_completed_interval(self, run_id: str, node_id: str, start: datetime, end: datetime) -> None:
        """Record that a node completed ``[start, end)``. [INT-1] Touching and overlapping ones merge.

        [INT-2] Completed work belongs to the node across runs and survives the deletion of its run.

        Raises:
            RunNotFoundError: [INT-3] There is no such run.
            IntervalError: [INT-4] ``end <= start``, or a bound is not a datetime.
        """

    @abstractmethod
    def restate_intervals(self, node_id: str, start: datetime, end: datetime, *, reason: str | None = None) -> None:
        """Un-complete ``[start, end)`` of a node. [INT-6] A range that is cut keeps its other parts.

        [INT-12] With a reason, be it an empty one, a store that keeps a log has it there, as ``restate``, with the
        bounds, and with the runs that had completed what is undone if it knows them, in the same commit.

        Args:
            node_id: The node.
            start: Where it begins.
            end: Where it ends, itself not in it.
            reason: Why; ``None`` leaves it out of the log.

        Raises:
            IntervalError: ``end <= start``.
        """

    @abstractmethod
    def add_completed_partition(
        self,
        run_id: str,
        node_id: str,
        partition: str,
        *,
        row_count: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        completed_at: datetime | None = None,
    ) -> PartitionState:
        """Record that a node completed a partition and return it. [PART-1] Completing it again replaces it.

        Args:
            run_id: The run that completed it.
            node_id: The node.
            partition: Its key.
            row_count: How many rows it has.
            metadata: What else there is to know; JSON.
            completed_at: [PART-5] When; now unless given. A naive one is local time, as in [TIME-2].

        Raises:
            RunNotFoundError: [PART-2] There is no such run.
            InvalidFieldError: A negative count, metadata that is not JSON, a time that is none. Nothing changed.
        """

    # ---- transactions ----

    @abstractmethod
    def transaction(self, lease: Lease | None = None) -> AbstractContextManager[Transaction]:
        """Open a transaction for this thread; it commits at the end of the block.

        [TX-1] All or nothing. [TX-2] A read inside sees its own writes. [TX-3] Other threads and
        processes see nothing until commit. [TX-4] An exception rolls back and is raised again. [TX-5] A
        nested transaction is a savepoint. [TX-6] A refused write leaves the transaction usable.
        [TX-7] A transaction that read a record and then writes it commits only if nobody wrote it in
        between. [TX-8] It belongs to the thread that opened it.

        Args:
            lease: [LOCK-8] Commit only if this lease is still held.

        Raises:
            ConcurrencyError: [TX-7] At commit; nothing was written.
            LeaseLostError: [LOCK-8] At commit; nothing was written.
            TransactionError: [TX-9] Used after its end, or out of order.
        """

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open on this instance. [TX-10]."""
        return False

    def begin_transaction(self) -> Transaction:
        """Begin a transaction without a block and return it; the same clauses hold. [TX-11]."""
        return BegunTransaction(self.transaction())

    def commit_transaction(self, transaction: Transaction) -> None:
        """Commit what `begin_transaction` returned. [TX-12].

        Raises:
            TransactionError: It ended already, an inner one is open, or another thread began it.
        """
        begun(transaction).commit()

    def rollback_transaction(self, transaction: Transaction) -> None:
        """Undo what `begin_transaction` returned. [TX-13].

        Raises:
            TransactionError: As `commit_transaction`.
        """
        begun(transaction).rollback()

    def run_transaction(self, function: Callable[[], T], *, lease: Lease | None = None, timeout_ms: int = 10_000) -> T:
        """Call ``function`` in a transaction and return its result. [TX-14] Conflicts repeat the whole of it.

        Inside another transaction it runs once, as a savepoint: only the outermost can be repeated.

        Args:
            function: Called with no arguments, once per attempt; it must be safe to repeat.
            lease: As in `transaction`.
            timeout_ms: No new attempt begins after so long.

        Raises:
            ConcurrencyError, BackendUnavailableError: The last attempt's, when time is up.
        """
        deadline = self.clock.ticks_us() + timeout_ms * 1000
        for pause in backoff():
            try:
                with self.transaction(lease=lease):
                    return function()
            except SeeknalError as error:
                if not error.retriable or self.in_transaction or self.clock.ticks_us() >= deadline:
                    raise
            self.clock.sleep(pause)
        raise AssertionError("the pauses never end")  # pragma: no cover

    # ---- locks ----

    @abstractmethod
    def acquire_lock(
        self, run_id: str, node_id: str | None = None, timeout_ms: int = 5000, *, ttl_ms: int = DEFAULT_TTL_MS
    ) -> bool:
        """Take the lock of a run, or of a node in it; return whether it was granted.

        [LOCK-1] At most one holder at a time, across instances and processes. [LOCK-2] Not re-entrant.
        [LOCK-3] Waits at most ``timeout_ms``. [LOCK-4] Renewed in the background while this instance
        lives; free ``ttl_ms`` after its process died. The run need not exist.

        Raises:
            InvalidFieldError: A negative timeout, or a time to live under 1 ms or over a year.
        """

    @abstractmethod
    def release_lock(self, run_id: str, node_id: str | None = None) -> bool:
        """Give a lock back; return whether this instance held it. [LOCK-5] Never frees anybody else's."""

    @abstractmethod
    def break_lock(self, run_id: str, node_id: str | None = None, *, reason: str) -> LockInfo | None:
        """Free anybody's lock; return who held it, or ``None``. [LOCK-10] Its lease counts as lost.

        [LOG-5] A store that keeps a log has it there, as ``unlock``, with the reason and who held it.

        Args:
            run_id: The run.
            node_id: The node, or ``None`` for the run's own lock.
            reason: Why; not empty.
        """

    @contextmanager
    def lock(
        self, run_id: str, node_id: str | None = None, timeout_ms: int = 5000, *, ttl_ms: int = DEFAULT_TTL_MS
    ) -> Iterator[Lease]:
        """Hold a lock for a block and yield its lease. [LOCK-7] ``lease.token`` grows by one with every grant of a key.

        Raises:
            LockHeldError: Somebody else holds it; the message names the host, the process and since when.
        """
        is_granted = self.acquire_lock(run_id, node_id, timeout_ms, ttl_ms=ttl_ms)
        holder = self._holder(run_id, node_id)
        if not is_granted or holder is None or (holder.host, holder.pid) != (this_host(), os.getpid()):
            raise held(run_id, node_id, holder)
        try:
            yield Lease(run_id, node_id, holder.token, holder.owner)
        finally:
            self.release_lock(run_id, node_id)

    def _holder(self, run_id: str, node_id: str | None) -> LockInfo | None:
        return next((lock for lock in self.list_locks() if (lock.run_id, lock.node_id) == (run_id, node_id)), None)

    # ---- the change log ----

    def log_change(
        self,
        action: str,
        *,
        run_id: str | None = None,
        node_id: str | None = None,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> LoggedChange:
        """Write down, for people, what was done to the store; return the entry.

        [LOG-1] It names who did it, where and when, and stays until the store goes. [LOG-2] In a transaction it is
        there if and when that commits. The run and the node need not exist.

        Args:
            action: A word in lower case, such as ``cleanup``; at most 40 letters, digits and hyphens.
            run_id: The run it was done to, if it was one.
            node_id: The node, if it was one.
            reason: Why.
            detail: What else there is to know; JSON. No secrets: whoever reads the store reads it.

        Raises:
            CapabilityError: The backend does not declare `Capability.LOG`.
            InvalidIdError, InvalidFieldError: [LOG-3] Naming the field.
        """
        raise no_log(self)

    def _log_cleanup(self, detail: Mapping[str, Any]) -> None:
        if Capability.LOG in self.capabilities:
            self.log_change("cleanup", detail=detail)
