"""What a store holds: frozen records.

Instants are aware UTC. ``version`` counts the writes of one record from 1. ``sequence`` is issued
by the store: it orders runs by their creation and the states of one node by when they were written;
only its order means anything, and it is 0 in what a transaction returns before its commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from seeknal.model.ids import MAX_ID_BYTES
from seeknal.model.status import ClaimStatus, NodeStatus, PartitionStatus, RunStatus

MAX_RANGE_KEY_BYTES = MAX_ID_BYTES + 10
"""Of a `Claim.range_key`: a word and a key; two instants with microseconds are 74 bytes long."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a pipeline."""

    run_id: str
    status: RunStatus = RunStatus.PENDING
    started_at: datetime | None = None
    finished_at: datetime | None = None
    config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    version: int = 0
    sequence: int = 0


class NodeState(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # its metadata is JSON, which holds no cycle
    """What happened to a node in a run.

    ``run_id`` and ``node_id`` may be left empty in a state that is passed to ``set_node_state``:
    the call names them.
    """

    run_id: str = ""
    node_id: str = ""
    status: NodeStatus = NodeStatus.PENDING
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    row_count: int | None = None
    fingerprint: str | None = None
    error_message: str | None = None
    attempt: int = 1
    metadata: dict[str, Any] = {}
    version: int = 0
    sequence: int = 0


class CompletedInterval(msgspec.Struct, frozen=True, gc=False):  # as an Interval, never part of a cycle
    """A half-open span of data time ``[start, end)`` that a node has completed.

    ``run_id`` is the run that completed it last; where touching spans were merged, the run of the
    last addition.
    """

    node_id: str
    start: datetime
    end: datetime
    run_id: str


class IntervalProvenance(msgspec.Struct, frozen=True, gc=False):
    """A part of what a node has completed, ``[start, end)`` of data time, that one run was the last to complete."""

    node_id: str
    start: datetime
    end: datetime
    run_id: str


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """A named slice that a node has completed; ``run_id`` is the run that completed it last."""

    node_id: str
    partition: str
    run_id: str
    completed_at: datetime
    row_count: int | None = None
    metadata: dict[str, Any] = {}


class ExpectedPartition(msgspec.Struct, frozen=True, gc=False):
    """A named slice that a node is expected to complete, as the store was told."""

    node_id: str
    partition: str


class PartitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a partition stands.

    Attributes:
        node_id: The node.
        partition: Its key.
        status: Whether it is completed, somebody works on it, its last attempt failed, or none was made.
        run_id: The run that completed it, or tried last; ``None`` if none did.
        row_count: How many rows it has, as far as whoever completed it has said.
        at: When it was completed, taken, or failed; ``None`` if nothing happened yet.
        attempt: How many attempts there were of what is claimed; ``None`` of what is completed or was never claimed.
        is_parked: Whether it failed for the last time, and waits for `retry_parked`.
        error_message: How the last attempt went wrong.
    """

    node_id: str
    partition: str
    status: PartitionStatus
    run_id: str | None = None
    row_count: int | None = None
    at: datetime | None = None
    attempt: int | None = None
    is_parked: bool = False
    error_message: str | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A range of a node's work that somebody took, or that waits to be taken again: an interval or a partition.

    It lives exactly as long as the lease that it was taken under.

    Attributes:
        node_id: Whose work it is.
        start: Where the interval begins; ``None`` for a partition.
        end: Where it ends, itself not in it.
        partition: The key of the partition; ``None`` for an interval.
        run_id: The run that took it last.
        status: Whether somebody works on it, and what is to become of it if not.
        attempt: How many attempts were made, this one included; 0 after `retry_parked`.
        max_attempts: After so many it is parked.
        error_message: How the last attempt that has ended went wrong; ``None`` if none did.
        since: When it was taken, or ended, by the clock of whoever did that; for people.
        lease_run_id: The run of the lock it was last taken under.
        lease_node_id: The node of that lock, or ``None``.
        lease_token: The token of that lease.
        lease_owner: Its owner.
        sequence: Which taking of the node's ranges it was: a later one has a higher number. So a claim is never taken
            for one of the same range that came after it.
    """

    node_id: str
    start: datetime | None = None
    end: datetime | None = None
    partition: str | None = None
    run_id: str
    status: ClaimStatus = ClaimStatus.CLAIMED
    attempt: int = 1
    max_attempts: int
    error_message: str | None = None
    since: datetime
    lease_run_id: str
    lease_node_id: str | None = None
    lease_token: int
    lease_owner: str
    sequence: int = 0

    @property
    def range_key(self) -> str:
        """What is claimed, as a text; another one for every other range of the node."""
        if self.start is not None and self.end is not None:
            return f"interval {self.start.isoformat()}/{self.end.isoformat()}"
        return f"partition {self.partition}"


class LockInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock.

    ``node_id`` is ``None`` for the lock of a whole run. ``token`` is the fencing token: it grows by
    one with every grant of the same key, and never goes back. ``owner`` names one grant to one
    process and is never reused.
    """

    run_id: str
    node_id: str | None = None
    token: int
    owner: str
    host: str
    pid: int
    acquired_at: datetime
    expires_at: datetime
    ttl_ms: int


class LockToken(msgspec.Struct, frozen=True):
    """The fencing token that was last granted of a lock, whether somebody holds it or not."""

    run_id: str
    node_id: str | None
    token: int


class LoggedChange(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did to a store, beside what pipelines write: a lock broken, runs cleaned away, a repair.

    Attributes:
        change_id: Unique everywhere; the order of the texts is the order of time (`seeknal.state.change_log`).
        at: When, by the clock of whoever did it.
        action: A word: ``unlock``, ``restate``, ``cleanup``, ``import`` and so on.
        run_id: The run it was done to, if it was one.
        node_id: The node, if it was one; without a run it is the node across runs.
        reason: Why, in the words of who did it; empty if nobody said.
        detail: What else there is to know, as JSON.
        actor: Who, as the system names the user.
        host: On which machine.
        pid: In which process.
    """

    change_id: str
    at: datetime
    action: str
    run_id: str | None = None
    node_id: str | None = None
    reason: str = ""
    detail: dict[str, Any] = {}
    actor: str
    host: str
    pid: int


class CleanedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a cleanup removed, with so many node states."""

    run_id: str
    status: RunStatus
    finished_at: datetime | None
    nodes: int


class CleanupReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a cleanup removed, and why it left what it left.

    All in creation order. A reason is one of ``unfinished``, ``another status``, ``too young``, ``pinned``, ``among the
    last``, ``locked``, ``newest success``, ``written meanwhile`` and ``not archived``; after a colon and a space may
    follow what it is about.

    Attributes:
        cutoff: What finished before was old enough.
        deleted: The ids of the runs that went.
        kept: The runs that stayed, and why, as far as they were looked at.
        runs: Those that went, with how much each held.
        is_complete: Whether it came to the end within its budget.
        remaining: How many runs it did not look at any more, or did not delete yet.
        hint: What is left to do by hand to get the space back; empty if nothing.
    """

    cutoff: datetime
    deleted: list[str]
    kept: dict[str, str]
    runs: list[CleanedRun] = []
    is_complete: bool = True
    remaining: int = 0
    hint: str = ""
