"""The whole content of a small store, in memory: what the memory backend is, and what a file store caches.

Everything is keyed for the questions that are asked: a run and its nodes by id, the states of one node
in the order of their writing. Not safe from threads; whoever holds it guards it.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from seeknal.model.changes import added_to, missing_run, stale
from seeknal.model.claims import over
from seeknal.model.instants import EPOCH
from seeknal.model.records import Claim, LockInfo, LockToken, LoggedChange, NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.batch import Batch, Changes, NodeKey, Sequences
from seeknal.state.history import History
from seeknal.state.lease import Lease, LockKey, held, locked_meanwhile, lost
from seeknal.state.store_info import misplaced
from seeknal.state.work import NodeWork, node_of


class LockEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a store keeps of a lock: the last grant, and whether it still stands.

    ``expires_us`` is in ticks (`seeknal.clock`); ``broken_for`` says why somebody else freed it. An entry
    outlives its lease, since its token may never go back.
    """

    holder: LockInfo
    expires_us: int
    is_free: bool = False
    broken_for: str = ""

    def is_held(self, now_us: int) -> bool:
        """Return whether the lease stands at this tick.

        More than a whole time to live ahead means that the ticks began anew: the machine was started
        again, and the owner is gone.
        """
        left_us = self.expires_us - now_us
        return not self.is_free and 0 < left_us <= self.holder.ttl_ms * 1000


def counted(entry: LockEntry | None, token: LockToken) -> LockEntry:
    """Return the entry whose counter stands at ``token`` or higher; where there was none, nobody holds it."""
    if entry is not None:
        raised = max(token.token, entry.holder.token)
        return msgspec.structs.replace(entry, holder=msgspec.structs.replace(entry.holder, token=raised))
    nobody = LockInfo(
        run_id=token.run_id,
        node_id=token.node_id,
        token=token.token,
        owner="",
        host="",
        pid=0,
        acquired_at=EPOCH,
        expires_at=EPOCH,
        ttl_ms=0,
    )
    return LockEntry(holder=nobody, expires_us=0, is_free=True)


class Image:
    """Records by key. Lists and dictionaries that are returned are the caller's; records are frozen."""

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}
        """In the order of their sequence."""
        self.history = History()
        self.work: dict[str, NodeWork] = {}
        self.locks: dict[LockKey, LockEntry] = {}
        self.superseded_by: str | None = None
        """Where the state lives now, if it moved away from here."""
        self.sequence = 0
        """The last sequence given out, to a run or a node state."""
        self.claims: dict[str, dict[str, Claim]] = {}
        """By node id, then by what is claimed."""
        self.claim_versions: dict[str, int] = {}
        self._nodes: dict[str, dict[str, NodeState]] = {}
        self._log: dict[str, LoggedChange] = {}

    def nodes_of(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, the image's own; empty for a missing run. A subclass may load them here."""
        return self._nodes.get(run_id, {})

    def log(self) -> dict[str, LoggedChange]:
        """Return the change log by change id. A subclass may load it here."""
        return self._log

    # ---- reading ----

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order."""
        runs = reversed(self.runs.values()) if newest_first else iter(self.runs.values())
        return list(islice((run.run_id for run in runs if status in (None, run.status)), limit))

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by the bytes of their ids."""
        nodes = self.nodes_of(run_id)
        return {node_id: nodes[node_id] for node_id in sorted(nodes, key=str.encode)}

    def read_latest(self, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
        """Return the state of a node that was written last."""
        for run_id in self.history.newest_first(node_id, status):
            if run_id not in hidden:
                return self.nodes_of(run_id)[node_id]
        return None

    def work_of(self, node_id: str) -> NodeWork:
        """Return what a node has completed, the image's own. A subclass may load it here."""
        return self.work.get(node_id) or NodeWork()

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have work, sorted by their bytes."""
        return sorted((node_id for node_id, work in self.work.items() if work), key=str.encode)

    def read_log(self, after: str, limit: int) -> list[LoggedChange]:
        """Return the entries that follow a change id."""
        log = self.log()
        return [log[change_id] for change_id in sorted(log) if change_id > after][:limit]

    def read_claims(self, node_id: str) -> tuple[int, list[Claim]]:
        """Return the claims of a node and the version they stand at."""
        return self.claim_versions.get(node_id, 0), list(self.claims.get(node_id, {}).values())

    def read_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims, sorted by their bytes."""
        return sorted((node_id for node_id, claims in self.claims.items() if claims), key=str.encode)

    def read_tokens(self) -> list[LockToken]:
        """Return the token counters of all locks."""
        holders = (entry.holder for entry in self.locks.values())
        return [LockToken(holder.run_id, holder.node_id, holder.token) for holder in holders]

    def held_locks(self, now_us: int) -> list[LockInfo]:
        """Return the locks that are held at this tick."""
        return [entry.holder for entry in self.locks.values() if entry.is_held(now_us)]

    def holds(self, lease: Lease, now_us: int) -> bool:
        """Return whether a lease is held at this tick."""
        entry = self.locks.get(lease.key)
        return entry is not None and entry.holder.owner == lease.owner and entry.is_held(now_us)

    # ---- writing ----

    def check(self, batch: Batch, now_us: int) -> None:
        """Raise unless every guard of the batch holds.

        Raises:
            SupersededError: The state moved away from this store.
            ConcurrencyError: It is not being moved any more, and the batch is a part of that.
            LeaseLostError, StaleVersionError, RunNotFoundError, ClaimEndedError, ConcurrencyError: As
                `RecordStore.commit`.
        """
        if self.superseded_by != batch.successor:
            raise misplaced(self.superseded_by, batch.successor)
        for lease in batch.leases:
            if not self.holds(lease, now_us):
                raise lost(lease)
        for run_id, expected in batch.run_versions.items():
            run = self.runs.get(run_id)
            if (run.version if run else 0) != expected:
                raise stale(f"run {run_id!a}", expected, run.version if run else 0)
        for run_id in batch.runs_needed:
            if run_id not in self.runs:
                raise missing_run(run_id)
        for (run_id, node_id), expected in batch.node_versions.items():
            state = self.nodes_of(run_id).get(node_id)
            if (state.version if state else 0) != expected:
                what = f"node {node_id!a} of run {run_id!a}"
                raise stale(what, expected, state.version if state else 0)
        for run_id, count in batch.node_counts.items():
            if len(self.nodes_of(run_id)) != count:
                raise added_to(run_id)
        for node_id, expected in batch.claim_versions.items():
            if self.claim_versions.get(node_id, 0) != expected:
                raise stale(f"the claims of node {node_id!a}", expected, self.claim_versions.get(node_id, 0))
        for claim in batch.ended_claims:
            found = self.claims.get(claim.node_id, {}).get(claim.range_key)
            if found is None or _attempt_of(found) != _attempt_of(claim):
                raise over(claim)
        for run_id in batch.runs_unlocked & {lock.run_id for lock in self.held_locks(now_us)}:
            raise locked_meanwhile(run_id)

    def check_alone(self, batch: Batch, now_us: int) -> None:
        """Raise unless the guards of the batch hold, and nobody holds a lock but the owner of its lease.

        Raises:
            SupersededError, ConcurrencyError, LeaseLostError, LockHeldError: As they say.
        """
        self.check(batch, now_us)
        owners = {lease.owner for lease in batch.leases}
        for lock in self.held_locks(now_us):
            if lock.owner not in owners:
                raise held(lock.run_id, lock.node_id, lock)

    def take_over(self, other: Image) -> None:
        """Hold the records of another image, which is used up; locks, log and mark stay, and no sequence comes back.

        Claims end.
        """
        self.claims = {}
        self.runs, self.history, self._nodes = other.runs, other.history, other._nodes
        self.work = other.work
        self.sequence = max(self.sequence, other.sequence)

    def numbered(self, batch: Batch) -> Changes:
        """Return the changes of a batch with their sequences given out, and without its guards."""
        following = self.sequence
        runs: list[RunState] = []
        nodes: list[NodeState] = []
        for run in batch.runs:
            following += run.sequence == 0
            runs.append(msgspec.structs.replace(run, sequence=run.sequence or following))
        for state in batch.nodes:
            following += state.sequence == 0
            nodes.append(msgspec.structs.replace(state, sequence=state.sequence or following))
        return Changes(
            deleted_runs=batch.deleted_runs,
            runs=runs,
            deleted_nodes=batch.deleted_nodes,
            nodes=nodes,
            work=batch.work,
            freed_runs=batch.freed_runs,
            log=batch.log,
            tokens=batch.tokens,
            ended_claims=batch.ended_claims,
            claims=batch.claims,
            claim_sets={node_id: version + 1 for node_id, version in batch.claim_versions.items()},
        )

    def apply(self, batch: Changes) -> None:
        """Apply numbered changes; applying them again changes nothing more."""
        for run_id in batch.deleted_runs:
            self.drop_run(run_id)
        for run in batch.runs:
            self.put_run(run)
        for run_id, node_id in batch.deleted_nodes:
            self.drop_node(run_id, node_id)
        for state in batch.nodes:
            self.put_node(state)
        for change in batch.work:
            self.work.setdefault(node_of(change), NodeWork()).change(change)
        for run_id in batch.freed_runs:
            for key, entry in self.locks.items():
                if key[0] == run_id:
                    self.locks[key] = msgspec.structs.replace(entry, is_free=True)
        for token in batch.tokens:
            key = (token.run_id, token.node_id)
            self.locks[key] = counted(self.locks.get(key), token)
        for claim in batch.ended_claims:
            self.claims.get(claim.node_id, {}).pop(claim.range_key, None)
        for claim in batch.claims:
            self.claims.setdefault(claim.node_id, {})[claim.range_key] = claim
        self.claim_versions |= batch.claim_sets
        for logged in batch.log:
            self.put_change(logged)

    def put_change(self, change: LoggedChange) -> None:
        """Store an entry of the change log; one that is there stays as it is."""
        self._log.setdefault(change.change_id, change)

    def put_run(self, run: RunState) -> None:
        """Store a run at the place of its sequence."""
        last = next(reversed(self.runs.values())).sequence if self.runs else 0
        is_new = run.run_id not in self.runs
        if is_new:
            self._nodes[run.run_id] = {}
            self.history.begin(run.run_id)
        self.runs[run.run_id] = run
        if is_new and run.sequence < last:
            self.runs = dict(sorted(self.runs.items(), key=lambda item: item[1].sequence))
        self.sequence = max(self.sequence, run.sequence)

    def put_node(self, state: NodeState) -> None:
        """Store a node state at the place of its sequence."""
        nodes = self.nodes_of(state.run_id)
        self.history.put(state, nodes.get(state.node_id))
        nodes[state.node_id] = state
        self.sequence = max(self.sequence, state.sequence)

    def drop_run(self, run_id: str) -> None:
        """Remove a run and its node states."""
        for node_id in list(self.nodes_of(run_id)):
            self.drop_node(run_id, node_id)
        self.runs.pop(run_id, None)
        self._nodes.pop(run_id, None)
        self.history.end(run_id)

    def drop_node(self, run_id: str, node_id: str) -> None:
        """Remove a node state."""
        self.history.drop(run_id, node_id, self.nodes_of(run_id).pop(node_id, None))


def _attempt_of(claim: Claim) -> tuple[object, ...]:
    """Return what tells an attempt at a range from every other one, and how it stands."""
    return claim.status, claim.lease_owner, claim.sequence


def sequences_of(numbered: Changes) -> Sequences:
    """Return what `Image.numbered` gave out."""
    nodes: dict[NodeKey, int] = {(state.run_id, state.node_id): state.sequence for state in numbered.nodes}
    return Sequences(runs={run.run_id: run.sequence for run in numbered.runs}, nodes=nodes)
