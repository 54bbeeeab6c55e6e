"""What a transaction wrote between two savepoints."""

from __future__ import annotations

from seeknal.model.records import Claim, LoggedChange, NodeState, PartitionState, RunState
from seeknal.state.batch import (
    NodeKey,
    PartitionCompleted,
    PartitionExpected,
    PartitionRestated,
    PartitionUnexpected,
    Work,
)
from seeknal.state.lease import Lease


class Frame:
    """What was written since one savepoint. ``None`` stands for a deletion."""

    __slots__ = (
        "claim_versions",
        "claims",
        "dropped",
        "ended",
        "expected",
        "freed",
        "leases",
        "log",
        "needed",
        "nodes",
        "partitions",
        "runs",
        "unlocked",
        "work",
    )

    def __init__(self) -> None:
        self.dropped: set[str] = set()
        self.runs: dict[str, RunState | None] = {}
        self.nodes: dict[NodeKey, NodeState | None] = {}
        self.work: list[Work] = []
        self.partitions: dict[NodeKey, PartitionState | None] = {}
        """What ``work`` does to partitions, by node and key."""
        self.expected: dict[NodeKey, bool] = {}
        """What ``work`` does to what is expected, by node and key."""
        self.freed: set[str] = set()
        self.unlocked: set[str] = set()
        self.needed: set[str] = set()
        self.leases: list[Lease] = []
        self.log: list[LoggedChange] = []
        self.ended: list[Claim] = []
        self.claims: list[Claim] = []
        self.claim_versions: dict[str, int] = {}

    def put_run(self, run: RunState) -> None:
        """Write a run."""
        if self.runs.get(run.run_id) is None:
            # Created: at its place in time, also where one of that name was deleted before.
            self.runs.pop(run.run_id, None)
        self.runs[run.run_id] = run

    def drop_run(self, run_id: str) -> None:
        """Delete a run with its nodes."""
        self.dropped.add(run_id)
        self.runs[run_id] = None
        for key in [key for key in self.nodes if key[0] == run_id]:
            del self.nodes[key]

    def do(self, change: Work) -> None:
        """Record completed, restated or expected work."""
        self.work.append(change)
        match change:
            case PartitionCompleted():
                self.partitions[change.state.node_id, change.state.partition] = change.state
            case PartitionRestated():
                self.partitions[change.node_id, change.partition] = None
            case PartitionExpected() | PartitionUnexpected():
                self.expected[change.node_id, change.partition] = isinstance(change, PartitionExpected)

    def absorb(self, later: Frame) -> None:
        """Take over what was written since, after the savepoint that it was written behind is released."""
        for run_id in later.dropped:
            self.drop_run(run_id)
        for run in later.runs.values():
            if run is not None:
                self.put_run(run)
        for key, written in later.nodes.items():
            # Written anew: at its place in time, so that sequences are given out in the order of writing.
            self.nodes.pop(key, None)
            self.nodes[key] = written
        self.work += later.work
        self.partitions |= later.partitions
        self.expected |= later.expected
        self.freed |= later.freed
        self.unlocked |= later.unlocked
        self.needed |= later.needed
        self.leases += later.leases
        self.log += later.log
        self.ended += later.ended
        self.claims += later.claims
        self.claim_versions |= later.claim_versions
