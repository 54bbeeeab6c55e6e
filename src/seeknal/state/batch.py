"""What one commit does to a store: everything in it, or nothing.

A batch is *state-based*: it carries whole records, not patches, so applying it twice in a row changes
nothing more. Its guards say what must still be true; they are checked in the same atomic step.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec

from seeknal.model.records import Claim, LockToken, LoggedChange, NodeState, PartitionState, RunState
from seeknal.state.lease import Lease

NodeKey: TypeAlias = tuple[str, str]
"""A run id and a node id."""


class IntervalCompleted(msgspec.Struct, frozen=True, tag="completed", array_like=True):
    """``[start, end)`` of a node was completed by a run."""

    node_id: str
    start: datetime
    end: datetime
    run_id: str


class IntervalRestated(msgspec.Struct, frozen=True, tag="restated", array_like=True):
    """``[start, end)`` of a node is no longer completed."""

    node_id: str
    start: datetime
    end: datetime


class IntervalAttributed(msgspec.Struct, frozen=True, tag="attributed", array_like=True):
    """Of ``[start, end)``, which is completed, this run was the last to complete it; so says a copy of a store."""

    node_id: str
    start: datetime
    end: datetime
    run_id: str


class PartitionCompleted(msgspec.Struct, frozen=True, tag="partition", array_like=True):
    """A partition was completed."""

    state: PartitionState


class PartitionRestated(msgspec.Struct, frozen=True, tag="partition-restated", array_like=True):
    """A partition is no longer completed."""

    node_id: str
    partition: str


class PartitionExpected(msgspec.Struct, frozen=True, tag="expected", array_like=True):
    """A partition is expected of a node."""

    node_id: str
    partition: str


class PartitionUnexpected(msgspec.Struct, frozen=True, tag="unexpected", array_like=True):
    """A partition is no longer expected of a node."""

    node_id: str
    partition: str


Work: TypeAlias = (
    IntervalCompleted
    | IntervalRestated
    | IntervalAttributed
    | PartitionCompleted
    | PartitionRestated
    | PartitionExpected
    | PartitionUnexpected
)


class Changes(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a commit writes, applied in the order of the fields.

    Attributes:
        deleted_runs: Runs that go, with their node states.
        runs: Whole run records; a ``sequence`` of 0 asks the store for the next one.
        deleted_nodes: Node states that go.
        nodes: Whole node states, each key once; a ``sequence`` of 0 asks the store for the next one.
        work: Completions, restatements and expectations, in order.
        freed_runs: Runs whose locks, and whose nodes' locks, are freed whoever holds them.
        log: Entries of the change log; one whose ``change_id`` is there already changes nothing, so copying unites
            two logs. Only for a store with `Capability.LOG`.
        tokens: The token counter of each of these locks is raised to at least that; no lease is granted, and none
            ends. Only for a store with `Capability.LOG`.
        ended_claims: Claims that go. Only for a store with `Capability.CLAIMS`, as are all of them.
        claims: Claims as they shall stand, each key once.
        claim_sets: The version that the claims of a node stand at afterwards; a store says so, and nobody else.
    """

    deleted_runs: list[str] = []
    runs: list[RunState] = []
    deleted_nodes: list[NodeKey] = []
    nodes: list[NodeState] = []
    work: list[Work] = []
    freed_runs: list[str] = []
    log: list[LoggedChange] = []
    tokens: list[LockToken] = []
    ended_claims: list[Claim] = []
    claims: list[Claim] = []
    claim_sets: dict[str, int] = {}


class Batch(Changes, kw_only=True):
    """Changes, and the guards that must hold in the same atomic step.

    Each of the ``ended_claims`` is a guard, too: it must stand with the status and the lease that it has there.

    Attributes:
        run_versions: The version each run must stand at; 0 is "no such run".
        node_versions: The same for node states.
        node_sequences: The sequences of those that were read, or written before by the same instance. A version
            begins again when a record is deleted and made anew, a sequence of most stores does not.
        node_counts: How many node states a run must hold: none was added to those that were listed.
        runs_needed: Runs that must exist.
        runs_unlocked: Runs of which nobody may hold a lock, their own or one of their nodes.
        claim_versions: The version that the claims of a node must stand at, 0 if there never were any; the commit
            raises it by one. Whoever takes ranges has read the claims at that version, so no two take the same.
        leases: Leases that must still be held.
        successor: What the store must say of where its state went; ``None`` is "it is here". A move writes so into
            stores that refuse everybody else.
        is_guess: Whether it rests on what somebody else may have changed. If it is refused, nobody asks why.
    """

    run_versions: dict[str, int] = {}
    node_versions: dict[NodeKey, int] = {}
    node_sequences: dict[NodeKey, int] = {}
    node_counts: dict[str, int] = {}
    runs_needed: set[str] = set()
    runs_unlocked: set[str] = set()
    claim_versions: dict[str, int] = {}
    leases: list[Lease] = []
    successor: str | None = None
    is_guess: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write and nothing to check."""
        changes = (self.deleted_runs, self.runs, self.deleted_nodes, self.nodes, self.work, self.log, self.tokens)
        return not (any(changes) or self.leases or self.claims or self.ended_claims)


class Sequences(msgspec.Struct, frozen=True):
    """The sequences that a commit gave out: to the runs it created, and to the node states it wrote."""

    runs: dict[str, int] = {}
    nodes: dict[NodeKey, int] = {}
