"""The unit of work: what one transaction has read and wants to write, before anybody else sees it.

Nothing reaches the store before the commit, and then all of it does, in one batch. So a transaction
holds no lock while user code runs, a refused write leaves it usable, a savepoint is a frame that is
kept or thrown away, and the meaning is the same on every store. A record that is written was read
first, and the batch commits only if it still stands at the version that was read: optimistic
concurrency control with backward validation.

Source: H. T. Kung, J. T. Robinson, "On Optimistic Methods for Concurrency Control", ACM TODS 6(2), 1981.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from seeknal.model.changes import missing_run
from seeknal.model.claims import over
from seeknal.model.records import (
    Claim,
    CompletedInterval,
    IntervalProvenance,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.ahead import Page, ReadAhead
from seeknal.state.batch import Batch, NodeKey, Work
from seeknal.state.frame import Frame
from seeknal.state.lease import Lease
from seeknal.state.record_reader import RecordReader
from seeknal.state.work import NodeWork, node_of

FEW = 20
"""Up to so many partitions are looked for one by one; of more, all keys of the node are read at once."""

Guess = Callable[[str, str], NodeState | None]


class UnitOfWork:
    """Reads through what it has written; belongs to one thread.

    Args:
        store: The committed records.
        single: Whether it serves one operation that commits at once. Then whether a run exists is
            left to the commit, which saves a read.
        guess: Says what a node state most likely is, which may save another. The commit finds out if it is wrong.
        page: Reads several node states at once, where that is worth it.
    """

    def __init__(
        self, store: RecordReader, *, single: bool = False, guess: Guess | None = None, page: Page | None = None
    ) -> None:
        self._store = store
        self._single = single
        self._guess = guess
        self._ahead = None if page is None else ReadAhead(page)
        self.has_guessed = False
        self._base_runs: dict[str, RunState | None] = {}
        self._base_nodes: dict[NodeKey, NodeState | None] = {}
        self._listed: set[str] = set()
        """Runs whose nodes were listed: those that were not among them are known to be absent."""
        self._newest: set[NodeKey] = set()
        """Node states that were found to be the latest of their node."""
        self._frames = [Frame()]

    # ---- savepoints ----

    @property
    def depth(self) -> int:
        """How many savepoints are open, the transaction itself included."""
        return len(self._frames)

    def push(self) -> None:
        """Set a savepoint."""
        self._frames.append(Frame())

    def keep(self) -> None:
        """Release the last savepoint: what was written since stays."""
        later = self._frames.pop()
        self._frames[-1].absorb(later)

    def discard(self) -> None:
        """Roll back to the last savepoint."""
        self._frames.pop()

    # ---- reading through what was written ----

    def run(self, run_id: str) -> RunState | None:
        """Return a run as this transaction sees it."""
        for frame in reversed(self._frames):
            if run_id in frame.runs:
                return frame.runs[run_id]
        if run_id not in self._base_runs:
            self._base_runs[run_id] = self._store.read_run(run_id)
        return self._base_runs[run_id]

    def node(self, run_id: str, node_id: str, *, is_guess_enough: bool = False) -> NodeState | None:
        """Return a node state as this transaction sees it; a guess is enough for one that is going to be written."""
        key = (run_id, node_id)
        for frame in reversed(self._frames):
            if key in frame.nodes:
                return frame.nodes[key]
            if run_id in frame.dropped:
                return None
        if key not in self._base_nodes and is_guess_enough and self._guess is not None:
            self.has_guessed = True
            self._base_nodes[key] = self._guess(run_id, node_id)
        if key not in self._base_nodes:
            self._base_nodes[key] = None if run_id in self._listed else self._read_node(run_id, node_id)
        return self._base_nodes[key]

    def _read_node(self, run_id: str, node_id: str) -> NodeState | None:
        if self._ahead is None:
            return self._store.read_node(run_id, node_id)
        for state in self._ahead.states(run_id, node_id):
            self._base_nodes.setdefault((run_id, state.node_id), state)
        return self._base_nodes.get((run_id, node_id))

    def nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run as this transaction sees them, sorted by node id."""
        found: dict[str, NodeState | None] = {}
        if not self._is_dropped(run_id):
            if run_id not in self._listed:
                self._listed.add(run_id)
                for node_id, state in self._store.read_nodes(run_id).items():
                    self._base_nodes.setdefault((run_id, node_id), state)
            found.update((node_id, state) for (run, node_id), state in self._base_nodes.items() if run == run_id)
        for frame in self._frames:
            if run_id in frame.dropped:
                found.clear()
            found.update((node_id, state) for (run, node_id), state in frame.nodes.items() if run == run_id)
        return {node_id: state for node_id, state in sorted(found.items(), key=_by_bytes) if state is not None}

    def run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order as this transaction sees them; its own come last."""
        seen_as_one = Frame()
        for frame in self._frames:
            seen_as_one.absorb(frame)
        touched = list(seen_as_one.runs)
        if not touched:
            return self._store.read_run_ids(status, newest_first, limit)
        base = self._store.read_run_ids(None, newest_first=False, limit=None)
        ids = [run_id for run_id in base if run_id not in seen_as_one.dropped]
        ids += [run_id for run_id in touched if run_id not in ids]
        seen = [run for run in map(self.run, ids) if run is not None and status in (None, run.status)]
        found = [run.run_id for run in seen]
        return (found[::-1] if newest_first else found)[:limit]

    def latest(self, node_id: str, status: NodeStatus | None) -> NodeState | None:
        """Return the state of a node that was written last, as this transaction sees it."""
        written: dict[str, NodeState | None] = {}
        hidden: set[str] = set()
        for frame in self._frames:
            hidden |= frame.dropped
            written = {run_id: state for run_id, state in written.items() if run_id not in frame.dropped}
            for (run_id, node), state in frame.nodes.items():
                if node == node_id:
                    written.pop(run_id, None)
                    written[run_id] = state
        for state in reversed(written.values()):
            if state is not None and status in (None, state.status):
                return state
        latest = self._store.read_latest(node_id, status, frozenset(hidden | written.keys()))
        if latest is None:
            return None
        key = (latest.run_id, node_id)
        self._newest.add(key)
        return self._base_nodes.setdefault(key, latest) or latest

    def worked_nodes(self) -> list[str]:
        """Return the ids of the nodes with work as this transaction sees it, sorted by their bytes."""
        touched = {node_of(change) for change in self._work()}
        found = set(self._store.read_worked_nodes()) - touched
        found |= {node_id for node_id in touched if self._seen(node_id, is_whole=True)}
        return sorted(found, key=str.encode)

    def intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node as this transaction sees them."""
        found = NodeWork(self._store.read_intervals(node_id))
        return self._changed(node_id, found).intervals

    def provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part as this transaction sees it."""
        found = NodeWork((), self._store.read_provenance(node_id))
        return self._changed(node_id, found).provenance

    def partitions(
        self, node_id: str, after: str = "", limit: int | None = None, *, descending: bool = False
    ) -> list[PartitionState]:
        """Return partitions of a node as this transaction sees them."""
        if not self._touches(node_id):
            return self._store.read_partitions(node_id, after, limit, descending=descending)
        return self._seen(node_id).page(after, limit, descending=descending)

    def partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return a partition as this transaction sees it."""
        for frame in reversed(self._frames):
            if (node_id, partition) in frame.partitions:
                return frame.partitions[node_id, partition]
        return self._store.read_partition(node_id, partition)

    def expected_among(self, node_id: str, partitions: Collection[str]) -> set[str]:
        """Return which of these partitions are expected as this transaction sees it."""
        seen: dict[str, bool] = {}
        for frame in self._frames:
            seen |= {key: frame.expected[node_id, key] for key in partitions if (node_id, key) in frame.expected}
        unseen = [key for key in partitions if key not in seen]
        if len(unseen) > FEW:
            there = set(self._store.read_expected(node_id))
            seen |= {key: key in there for key in unseen}
        else:
            seen |= {key: self._store.read_is_expected(node_id, key) for key in unseen}
        return {key for key, is_expected in seen.items() if is_expected}

    def completed_among(self, node_id: str, partitions: Collection[str]) -> set[str]:
        """Return which of these partitions are completed as this transaction sees it."""
        if len(partitions) <= FEW:
            return {key for key in partitions if self.partition(node_id, key) is not None}
        there = self._store.read_partition_keys(node_id)
        for frame in self._frames:
            there |= {key for node, key in frame.partitions if node == node_id}
            there -= {key for (node, key), state in frame.partitions.items() if node == node_id and state is None}
        return there & set(partitions)

    def expected(self, node_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Return expected partitions of a node as this transaction sees them."""
        if not self._touches(node_id):
            return self._store.read_expected(node_id, after, limit)
        found = NodeWork(expected=self._store.read_expected(node_id))
        return self._changed(node_id, found).expected_page(after, limit)

    def _touches(self, node_id: str) -> bool:
        return any(node_of(change) == node_id for change in self._work())

    def _seen(self, node_id: str, *, is_whole: bool = False) -> NodeWork:
        """Return the partitions of a node as this transaction sees them, or all of its work but its provenance."""
        found = NodeWork(partitions=self._store.read_partitions(node_id))
        if is_whole:
            found = NodeWork(
                self._store.read_intervals(node_id), (), found.partitions.values(), self._store.read_expected(node_id)
            )
        return self._changed(node_id, found)

    def _changed(self, node_id: str, found: NodeWork) -> NodeWork:
        """Take in what this transaction has done to a node."""
        for change in self._work():
            if node_of(change) == node_id:
                found.change(change)
        return found

    def claims(self, node_id: str) -> list[Claim]:
        """Return the claims of a node as this transaction sees them."""
        found = {claim.range_key: claim for claim in self._store.read_claims(node_id)[1]}
        for frame in self._frames:
            for claim in frame.ended:
                if claim.node_id == node_id:
                    found.pop(claim.range_key, None)
            found.update((claim.range_key, claim) for claim in frame.claims if claim.node_id == node_id)
        return list(found.values())

    def logged(self) -> list[LoggedChange]:
        """Return what this transaction has logged, in that order."""
        return [change for frame in self._frames for change in frame.log]

    # ---- writing ----

    def require_run(self, run_id: str) -> None:
        """Demand that a run exists, now and at the commit.

        Raises:
            RunNotFoundError: It does not; a single operation learns that at the commit.
        """
        if not self._single and self.run(run_id) is None:
            raise missing_run(run_id)
        self._frames[-1].needed.add(run_id)

    def put_run(self, run: RunState) -> None:
        """Write a run that was read before."""
        self._frames[-1].put_run(run)

    def drop_run(self, run_id: str) -> None:
        """Delete a run that was read before, with its node states."""
        self._frames[-1].drop_run(run_id)

    def put_node(self, state: NodeState) -> None:
        """Write a node state that was read before."""
        nodes = self._frames[-1].nodes
        key = (state.run_id, state.node_id)
        nodes.pop(key, None)
        nodes[key] = state

    def drop_node(self, run_id: str, node_id: str) -> None:
        """Delete a node state that was read before."""
        self._frames[-1].nodes[run_id, node_id] = None

    def do(self, change: Work) -> None:
        """Record completed or restated work."""
        self._frames[-1].do(change)

    def free_locks(self, run_id: str) -> None:
        """Free the locks of a run and of its nodes at the commit."""
        self._frames[-1].freed.add(run_id)

    def demand_unlocked(self, run_id: str) -> None:
        """Commit only if nobody holds a lock of a run or of its nodes then."""
        self._frames[-1].unlocked.add(run_id)

    def demand(self, lease: Lease) -> None:
        """Commit only if this lease is still held."""
        self._frames[-1].leases.append(lease)

    def end_claim(self, claim: Claim, new: Claim | None = None) -> None:
        """End a claim at the commit, if it stands as it is given, and put a new one in its place.

        Raises:
            ClaimEndedError: This transaction has ended it already.
        """
        if claim in (each for frame in self._frames for each in frame.ended):
            raise over(claim)
        self._frames[-1].ended.append(claim)
        if new is not None:
            self._frames[-1].claims.append(new)

    def put_claims(self, claims: list[Claim], node_id: str, version: int) -> None:
        """Write claims of a node, of which those that were read stood at this version."""
        self._frames[-1].claims += claims
        self._frames[-1].claim_versions[node_id] = version

    def log(self, change: LoggedChange) -> None:
        """Add an entry to the change log at the commit."""
        self._frames[-1].log.append(change)

    # ---- the end ----

    def batch(self) -> Batch:
        """Return everything as one batch; all savepoints but the transaction itself are closed by then."""
        frame = self._frames[0]
        written = [run for run in frame.runs.values() if run is not None]
        created = {run.run_id for run in written if self._base_runs.get(run.run_id) is None}
        dropped = [run_id for run_id in frame.dropped if self._base_runs.get(run_id) is not None]
        nodes = [(key, state) for key, state in frame.nodes.items() if key[0] not in frame.dropped]
        guarded = {key for key, _ in nodes}
        if dropped:
            # A run is deleted because of what its nodes, and newer ones, were: they must still be that.
            guarded |= self._newest | {key for key in self._base_nodes if key[0] in dropped}
        gone = frame.dropped - {run.run_id for run in written}
        return Batch(
            deleted_runs=dropped,
            runs=written,
            deleted_nodes=[key for key, state in nodes if state is None and self._base_nodes.get(key) is not None],
            nodes=[state for state in frame.nodes.values() if state is not None],
            work=frame.work,
            freed_runs=sorted(frame.freed),
            log=frame.log,
            ended_claims=frame.ended,
            claims=frame.claims,
            claim_versions=frame.claim_versions,
            run_versions={run_id: run.version if (run := self._base_runs.get(run_id)) else 0 for run_id in frame.runs},
            node_versions={key: base.version if (base := self._base_nodes.get(key)) else 0 for key in guarded},
            node_sequences={key: base.sequence for key in guarded if (base := self._base_nodes.get(key))},
            node_counts={run_id: self._count(run_id) for run_id in dropped if run_id in self._listed},
            runs_needed=frame.needed - created - gone,
            runs_unlocked=frame.unlocked,
            leases=frame.leases,
            is_guess=self.has_guessed,
        )

    def _count(self, run_id: str) -> int:
        """Return how many node states a run had when they were listed."""
        return sum(state is not None for (run, _), state in self._base_nodes.items() if run == run_id)

    def _is_dropped(self, run_id: str) -> bool:
        return any(run_id in frame.dropped for frame in self._frames)

    def _work(self) -> list[Work]:
        return [change for frame in self._frames for change in frame.work]


def _by_bytes(item: tuple[str, object]) -> bytes:
    return item[0].encode()
