"""What a transaction asks of the committed records of a store."""

from __future__ import annotations

from typing import Protocol

from seeknal.model.records import Claim, CompletedInterval, IntervalProvenance, NodeState, PartitionState, RunState
from seeknal.model.status import NodeStatus, RunStatus


class RecordReader(Protocol):
    """The committed records of a store, as `RecordStateBackend` asks for them."""

    def read_run(self, run_id: str) -> RunState | None:
        """Return one run."""

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order."""

    def read_node(self, run_id: str, node_id: str) -> NodeState | None:
        """Return one node state."""

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by node id."""

    def read_latest(self, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
        """Return the state of a node with the highest sequence, leaving out the runs in ``hidden``."""

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work, or expected partitions, sorted by their bytes."""

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node, canonical."""

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of the intervals of a node, in order; those of one run do not touch."""

    def read_partitions(
        self, node_id: str, after: str = "", limit: int | None = None, *, descending: bool = False
    ) -> list[PartitionState]:
        """Return completed partitions of a node in the order of the bytes of their keys, or in the opposite one.

        Args:
            node_id: The node.
            after: Only those that come behind this key; all of them if it is empty.
            limit: At most so many.
            descending: Whether the order is turned around.
        """

    def read_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return one completed partition."""

    def read_partition_keys(self, node_id: str) -> set[str]:
        """Return the keys of the completed partitions of a node, a set of the caller's."""

    def read_is_expected(self, node_id: str, partition: str) -> bool:
        """Return whether one partition is expected of a node."""

    def read_expected(self, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Return keys of partitions that are expected of a node, in order, as `read_partitions` does."""

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node and the version they stand at; never newer than the claims."""
