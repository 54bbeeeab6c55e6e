"""The recorder of one node: a block that becomes a node state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from seeknal.errors import InvalidFieldError, SeeknalError, TransactionError
from seeknal.model.ids import check_id
from seeknal.model.intervals import Interval, as_interval
from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus
from seeknal.state.contract import StateBackend

T = TypeVar("T")

MOST_MESSAGE_CHARS = 10_000


class Recording(Protocol):
    """What a node needs of the run that it belongs to."""

    run_id: str
    backend: StateBackend

    def write(self, change: Callable[[], T]) -> T:
        """Run ``change`` in a transaction under the lease of the run."""


class NodeRecorder:
    """One execution of a node, entered once; made by `RunRecorder.node`.

    What it is told is written when the block ends, in one transaction with the final status.

    Attributes:
        row_count: How many rows the node produced.
        fingerprint: What the node is made of.
        metadata: Merged into the metadata of the node state.
        attempt: Counted from 1 within the run.
    """

    def __init__(self, run: Recording, node_id: str, fingerprint: str | None = None) -> None:
        self.node_id = node_id
        self.row_count: int | None = None
        self.fingerprint = fingerprint
        self.metadata: dict[str, Any] = {}
        self.attempt = 0
        self._run = run
        self._cached: NodeState | None = None
        self._done: list[Interval] = []
        self._undone: list[tuple[Interval, str | None]] = []
        self._partitions: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        if self.attempt:
            raise TransactionError("a node block is entered once", hint="Call run.node() again.")

        def begin() -> int:
            found = self._run.backend.get_node_state(self._run.run_id, self.node_id)
            attempt = 1 if found is None or found.status is NodeStatus.PENDING else found.attempt + 1
            self._set(
                status="running", attempt=attempt, error_message=None, row_count=None, fingerprint=self.fingerprint
            )
            return attempt

        self.attempt = self._run.write(begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._run.write(self._succeed)
            except InvalidFieldError as refused:
                # What the node was told cannot be stored: it did not succeed, and must not stay `running`.
                self.row_count, self.metadata = None, {}
                self._fail(refused)
                raise
            return
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        message = describe(error)
        try:
            self._run.write(lambda: self._set(status="failed", error_message=message))
        except InvalidFieldError:
            # The metadata that the node gathered until it failed cannot be stored; its failure must be.
            self.metadata = {}
            self._run.write(lambda: self._set(status="failed", error_message=message))
        except SeeknalError as refused:
            error.add_note(f"The failure of {self.node_id} could not be recorded: {refused}")

    def is_current(self, fingerprint: str | None = None) -> bool:
        """Return whether the newest success of the node has this fingerprint; its own when none is given."""
        return current_state(self._run.backend, self.node_id, fingerprint or self.fingerprint) is not None

    def skip_cached(self) -> None:
        """Let the block end as ``cached``, with the fingerprint and row count of the newest success.

        Raises:
            TransactionError: The node has never succeeded.
        """
        self._cached = self._run.backend.get_latest_node_state(self.node_id, "success")
        if self._cached is None:
            raise TransactionError(f"{self.node_id} has never succeeded", hint="Ask is_current() first.")

    def complete_interval(self, start: datetime, end: datetime) -> None:
        """Record ``[start, end)`` as completed, together with the success of the node.

        Raises:
            IntervalError: ``end <= start``.
        """
        self._done.append(as_interval(start, end))

    def restate_interval(self, start: datetime, end: datetime, *, reason: str | None = None) -> None:
        """Un-complete ``[start, end)`` together with the success of the node, before what it completes anew.

        Args:
            start: Where it begins.
            end: Where it ends, itself not in it.
            reason: Why; ``None`` leaves it out of the log of changes.

        Raises:
            IntervalError: ``end <= start``.
        """
        self._undone.append((as_interval(start, end), reason))

    def complete_partition(
        self, partition: str, *, row_count: int | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Record a partition as completed, together with the success of the node; the same key again replaces it.

        Args:
            partition: Its key.
            row_count: How many rows it has.
            metadata: What else there is to know; JSON. What cannot be stored fails the node at the end of the block.

        Raises:
            InvalidIdError: It is no key.
        """
        self._partitions[check_id(partition, "partition")] = {"row_count": row_count, "metadata": metadata}

    def _succeed(self) -> None:
        for span, reason in self._undone:
            self._run.backend.restate_intervals(self.node_id, span.start, span.end, reason=reason)
        for span in self._done:
            self._run.backend.add_completed_interval(self._run.run_id, self.node_id, span.start, span.end)
        for key, given in self._partitions.items():
            self._run.backend.add_completed_partition(self._run.run_id, self.node_id, key, **given)
        if self._cached is not None:
            self._set(status="cached", row_count=self._cached.row_count, fingerprint=self._cached.fingerprint)
        else:
            self._set(status="success", row_count=self.row_count, fingerprint=self.fingerprint)

    def _set(self, **fields: Any) -> None:
        self._run.backend.set_node_state(self._run.run_id, self.node_id, metadata=self.metadata, **fields)


def current_state(backend: StateBackend, node_id: str, fingerprint: str | None) -> NodeState | None:
    """Return the newest success of a node if it has this fingerprint, else ``None``."""
    state = backend.get_latest_node_state(node_id, "success")
    return state if state is not None and fingerprint is not None and state.fingerprint == fingerprint else None


def describe(error: BaseException) -> str:
    """Return the message of an exception as text that any store takes, or its class where it has none."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "cancelled"
    text = str(error).encode(errors="backslashreplace").decode()[:MOST_MESSAGE_CHARS]
    return text or type(error).__name__
