"""What is read of a database, each answer in one read."""

from __future__ import annotations

from collections.abc import Iterator

from seeknal.model.records import (
    Claim,
    CompletedInterval,
    IntervalProvenance,
    LockInfo,
    LockToken,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.sql import change_log, claims, intervals, leases, nodes, partitions, runs, store, work
from seeknal.state.sql.whole import WholeDatabase
from seeknal.state.store_info import StoreInfo


class ReadDatabase(WholeDatabase):
    """The records of a database."""

    def read_store(self) -> StoreInfo:
        """Return what the store says of itself."""
        database = self._open
        return database.read(lambda session: store.read_store(session, database.location))

    def read_run(self, run_id: str) -> RunState | None:
        """Return one run."""
        return self._open.read(lambda session: runs.read_run(session, run_id))

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order."""
        return self._open.read(lambda session: runs.read_run_ids(session, status, newest_first, limit))

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order, a page at a time."""
        after: RunState | None = None
        while page := self._open.read(lambda session, after=after: runs.read_page(session, after)):  # type: ignore[misc]
            yield from page
            after = page[-1]

    def read_node(self, run_id: str, node_id: str) -> NodeState | None:
        """Return one node state."""
        return self._open.read(lambda session: nodes.read_node(session, run_id, node_id))

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by node id."""
        return self._open.read(lambda session: nodes.read_nodes(session, run_id))

    def read_nodes_from(self, run_id: str, node_id: str, most: int) -> list[NodeState]:
        """Return at most so many node states of a run from a node id on, in the order of the bytes of the ids."""
        return self._open.read(lambda session: nodes.read_nodes_from(session, run_id, node_id, most))

    def read_latest(self, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
        """Return the state of a node that was written last."""
        return self._open.read(lambda session: nodes.read_latest(session, node_id, status, hidden))

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node."""
        return self._open.read(lambda session: intervals.read_intervals(session, node_id))

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of them."""
        return self._open.read(lambda session: intervals.read_provenance(session, node_id))

    def read_partitions(
        self, node_id: str, after: str = "", limit: int | None = None, *, descending: bool = False
    ) -> list[PartitionState]:
        """Return completed partitions of a node."""
        read = partitions.read_partitions
        return self._open.read(lambda session: read(session, node_id, after, limit, descending=descending))

    def read_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return one completed partition."""
        return self._open.read(lambda session: partitions.read_partition(session, node_id, partition))

    def read_partition_keys(self, node_id: str) -> set[str]:
        """Return the keys of the completed partitions of a node."""
        return self._open.read(lambda session: partitions.read_partition_keys(session, node_id))

    def read_partition_count(self, node_id: str) -> int:
        """Return how many partitions a node has completed."""
        return self._open.read(lambda session: partitions.read_partition_count(session, node_id))

    def read_expected(self, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Return keys of partitions that are expected of a node."""
        return self._open.read(lambda session: partitions.read_expected(session, node_id, after, limit))

    def read_is_expected(self, node_id: str, partition: str) -> bool:
        """Return whether one partition is expected of a node."""
        return self._open.read(lambda session: partitions.read_is_expected(session, node_id, partition))

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work."""
        return self._open.read(work.read_worked_nodes)

    def read_locks(self) -> list[LockInfo]:
        """Return the locks that are held now."""
        return self._open.read(lambda session: leases.read_held(session, self.clock))

    # ---- beside runs and work ----

    def read_log(self, after: str, limit: int) -> list[LoggedChange]:
        """Return the entries of the change log that follow a change id."""
        return self._open.read(lambda session: change_log.read_log(session, after, limit))

    def read_tokens(self) -> Iterator[LockToken]:
        """Yield the token counters of all locks, a page at a time."""
        after: LockToken | None = None
        while page := self._open.read(lambda session, after=after: leases.read_tokens(session, after)):  # type: ignore[misc]
            yield from page
            after = page[-1]

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node and the version they stand at."""
        return self._open.read(lambda session: claims.read_claims(session, node_id))

    def read_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims."""
        return self._open.read(claims.read_claimed_nodes)
