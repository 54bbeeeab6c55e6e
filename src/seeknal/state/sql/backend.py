"""The database backend: SQLite through SQLAlchemy, with one transaction for one commit."""

from __future__ import annotations

import os
from typing import ClassVar

import msgspec
from sqlalchemy import bindparam, select, update

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, ConfigurationError, CorruptStateError
from seeknal.model.changes import missing_run, stale
from seeknal.model.records import CompletedInterval, LockInfo, NodeState, PartitionState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.batch import Batch, Sequences
from seeknal.state.capabilities import Capability
from seeknal.state.grants import granted, renewed
from seeknal.state.lease import Lease, LockKey, lost
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.record_store import DEFAULT_BUSY_TIMEOUT_MS
from seeknal.state.sql import intervals, leases, nodes, runs, schema, tables
from seeknal.state.sql.address import database_path
from seeknal.state.sql.engine import Database
from seeknal.state.sql.statements import Cursor, Statement
from seeknal.state.store_info import StoreInfo, superseded

STORE = Statement(select(tables.store.c.store_id, tables.store.c.schema_version, tables.store.c.superseded_by))
MOVE = Statement(update(tables.store).values(store_id=bindparam("id"), superseded_by=bindparam("successor")))


class DatabaseStateBackend(RecordStateBackend):
    """State in a SQLite database. Several processes of one machine may use it at once.

    Args:
        db_path: The file; ``target/state.db`` if no URL is given either.
        url: ``sqlite:///path`` instead.
        clock: Where time comes from.
        busy_timeout_ms: The one budget for waiting on other writers, per call.
        synchronous: ``FULL``: a commit survives a power cut. ``NORMAL``: it survives the death of the process.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.PERSISTENT, Capability.PROCESSES})

    def __init__(
        self,
        db_path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        *,
        clock: Clock | None = None,
        busy_timeout_ms: int = DEFAULT_BUSY_TIMEOUT_MS,
        synchronous: str = "FULL",
    ) -> None:
        path = database_path(db_path, url)
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f"synchronous is {synchronous!r}", hint="Pass FULL or NORMAL.")
        super().__init__(clock=clock, busy_timeout_ms=busy_timeout_ms)
        self._database = Database(path, self.clock, budget_ms=busy_timeout_ms, synchronous=synchronous)
        self._is_ready = False

    # ---- life ----

    def initialize(self) -> None:
        """Make the store, or bring its schema up to date."""
        self._check_open()
        if not self._is_ready:
            try:
                schema.prepare(self._database)
            except BaseException:
                self._database.dispose(close=True)
                raise
            self._is_ready = True

    def close_store(self) -> None:
        """Close the connections."""
        self._is_ready = False
        self._database.dispose(close=True)

    def prepare_fork(self) -> None:
        """Close all connections, so that a child inherits none."""
        self._database.prepare_fork()

    def resume_after_fork(self) -> None:
        """Open connections again when they are needed."""
        self._database.resume_after_fork()

    def reset_after_fork(self) -> None:
        """Leave the parent's connections alone and open new ones."""
        self._database.dispose(close=False)

    @property
    def _open(self) -> Database:
        if not self._is_ready:
            raise BackendUnavailableError(
                f"{self._database.location} is not open", hint="Call initialize() first, and nothing after close()."
            )
        return self._database

    # ---- reading ----

    def read_store(self) -> StoreInfo:
        """Return what the store says of itself."""
        return self._open.read(self._info)

    def read_run(self, run_id: str) -> RunState | None:
        """Return one run."""
        return self._open.read(lambda cursor: runs.read_run(cursor, run_id))

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        """Return run ids in creation order."""
        return self._open.read(lambda cursor: runs.read_run_ids(cursor, status, newest_first, limit))

    def read_node(self, run_id: str, node_id: str) -> NodeState | None:
        """Return one node state."""
        return self._open.read(lambda cursor: nodes.read_node(cursor, run_id, node_id))

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by node id."""
        return self._open.read(lambda cursor: nodes.read_nodes(cursor, run_id))

    def read_latest(self, node_id: str, status: NodeStatus | None, hidden: frozenset[str]) -> NodeState | None:
        """Return the state of a node that was written last."""
        return self._open.read(lambda cursor: nodes.read_latest(cursor, node_id, status, hidden))

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node."""
        return self._open.read(lambda cursor: intervals.read_intervals(cursor, node_id))

    def read_partitions(self, node_id: str) -> list[PartitionState]:
        """Return the completed partitions of a node."""
        return self._open.read(lambda cursor: intervals.read_partitions(cursor, node_id))

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work."""
        return self._open.read(intervals.read_worked_nodes)

    def read_locks(self) -> list[LockInfo]:
        """Return the locks that are held now."""
        return self._open.read(lambda cursor: leases.read_held(cursor, self.clock.ticks_us()))

    # ---- writing ----

    def commit(self, batch: Batch) -> Sequences:
        """Apply a batch in one transaction if its guards hold."""
        database = self._open
        if _is_one_node(batch):
            state = batch.nodes[0]
            key = (state.run_id, state.node_id)
            expected = batch.node_versions[key]
            given = database.write_one(lambda cursor: nodes.put_guarded(cursor, state, expected))
            if given is not None:
                return Sequences(nodes={key: given})
            # A guard does not hold: the long way finds out which one, and says so.
        return database.write(lambda cursor: self._apply(cursor, batch))

    def _apply(self, cursor: Cursor, batch: Batch) -> Sequences:
        self._check_current(cursor)
        ticks = self.clock.ticks_us()
        for lease in batch.leases:
            if leases.held_entry(cursor, lease, ticks) is None:
                raise lost(lease)
        for run_id, expected in batch.run_versions.items():
            found = runs.read_version(cursor, run_id)
            if found != expected:
                raise stale(f"run {run_id!a}", expected, found)
        for run_id in batch.runs_needed:
            if not runs.read_version(cursor, run_id):
                raise missing_run(run_id)
        for key, expected in batch.node_versions.items():
            found = nodes.read_version(cursor, key)
            if found != expected:
                raise stale(f"node {key[1]!a} of run {key[0]!a}", expected, found)
        for run_id in batch.deleted_runs:
            nodes.DELETE_OF_RUN.run(cursor, {"run_id": run_id})
            runs.DELETE.run(cursor, {"run_id": run_id})
        given_runs = runs.put_runs(cursor, batch.runs) if batch.runs else {}
        for run_id, node_id in batch.deleted_nodes:
            nodes.DELETE.run(cursor, {"run_id": run_id, "node_id": node_id})
        given_nodes = nodes.put_nodes(cursor, batch.nodes) if batch.nodes else {}
        for change in batch.work:
            intervals.apply_work(cursor, change)
        for run_id in batch.freed_runs:
            leases.free_run(cursor, run_id)
        return Sequences(runs=given_runs, nodes=given_nodes)

    def write_successor(self, store_id: str, successor: str | None) -> None:
        """Set the store's identity and where its state moved to."""
        self._open.write(lambda cursor: MOVE.run(cursor, {"id": store_id, "successor": successor}))

    # ---- locks ----

    def grant_lock(self, key: LockKey, owner: str, ttl_ms: int) -> LockInfo:
        """Grant a lock that nobody holds."""

        def grant(cursor: Cursor) -> LockInfo:
            self._check_current(cursor)
            found = leases.read_entry(cursor, key)
            entry = granted(found, key, owner, ttl_ms, self.clock)
            if entry is not found:
                leases.put_entry(cursor, entry)
            return entry.holder

        return self._open.write(grant)

    def renew_lock(self, lease: Lease, ttl_ms: int) -> bool:
        """Extend a lease that is still held."""

        def renew(cursor: Cursor) -> bool:
            entry = leases.held_entry(cursor, lease, self.clock.ticks_us())
            if entry is not None:
                leases.put_entry(cursor, renewed(entry, ttl_ms, self.clock))
            return entry is not None

        return self._open.write(renew)

    def free_lock(self, lease: Lease) -> bool:
        """End a lease."""

        def free(cursor: Cursor) -> bool:
            entry = leases.held_entry(cursor, lease, self.clock.ticks_us())
            if entry is not None:
                leases.put_entry(cursor, msgspec.structs.replace(entry, is_free=True))
            return entry is not None

        return self._open.write(free)

    def seize_lock(self, key: LockKey, reason: str) -> LockInfo | None:
        """End whatever lease holds a key."""

        def seize(cursor: Cursor) -> LockInfo | None:
            entry = leases.read_entry(cursor, key)
            if entry is None or not entry.is_held(self.clock.ticks_us()):
                return None
            leases.put_entry(cursor, msgspec.structs.replace(entry, is_free=True, broken_for=reason))
            return entry.holder

        return self._open.write(seize)

    def _check_current(self, cursor: Cursor) -> None:
        successor = self._info(cursor).superseded_by
        if successor is not None:
            raise superseded(successor)

    def _info(self, cursor: Cursor) -> StoreInfo:
        row = STORE.one(cursor)
        if row is None:
            raise CorruptStateError(
                f"{self._database.location} has lost the row that names it",
                hint="Restore it from a backup.",
                location=self._database.location,
            )
        return StoreInfo(store_id=row[0], schema_version=str(row[1]), superseded_by=row[2])


def _is_one_node(batch: Batch) -> bool:
    """Return whether a batch is one transition, which takes a single statement."""
    if len(batch.nodes) != 1 or len(batch.node_versions) != 1:
        return False
    state = batch.nodes[0]
    others = batch.runs or batch.deleted_runs or batch.deleted_nodes or batch.work or batch.freed_runs or batch.leases
    return (
        not others
        and not batch.run_versions
        and state.sequence == 0
        and (state.run_id, state.node_id) in batch.node_versions
        and batch.runs_needed <= {state.run_id}
    )
