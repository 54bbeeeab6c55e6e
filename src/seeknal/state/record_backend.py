"""The short way to write a backend: reads, one atomic commit, and five lock steps.

`RecordStateBackend` turns these into every verb of the contract: patches, versions, transactions and
savepoints, waiting for locks, keeping leases alive, the exit of the interpreter and forks. All our own
backends stand on it. What it needs of a store is abstract in `seeknal.state.record_store`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from seeknal.errors import (
    BackendUnavailableError,
    CommitUnknownError,
    SeeknalError,
    StaleVersionError,
)
from seeknal.model.changes import (
    check_limit,
    check_unwritten,
    check_version,
    missing_run,
    new_run,
    patched_run,
    written_node,
)
from seeknal.model.codec import json_copy
from seeknal.model.ids import check_id
from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus, as_status
from seeknal.state.batch import (
    Batch,
    Sequences,
)
from seeknal.state.change_log import LogVerbs
from seeknal.state.claiming import RecordedClaims
from seeknal.state.lease import Lease
from seeknal.state.locking import LockVerbs
from seeknal.state.transaction import LONGEST_PAUSE, BegunTransaction, backoff
from seeknal.state.transaction_block import TransactionBlock
from seeknal.state.unit import UnitOfWork
from seeknal.state.working import RecordedWork

T = TypeVar("T")


class RecordStateBackend(LockVerbs, LogVerbs, RecordedClaims, RecordedWork):
    """Every verb of the contract, over a store that reads records and commits batches."""

    # ---- one operation, alone or in a transaction ----

    def _read(self) -> UnitOfWork | RecordStateBackend:
        self._check_open()
        return self._local.unit or self

    def _write(self, change: Callable[[UnitOfWork], T], *, longest_pause: float = LONGEST_PAUSE) -> tuple[T, Sequences]:
        """Run ``change`` in the open transaction, or alone until it commits without a conflict."""
        self._check_open()
        if self._local.unit is not None:
            return change(self._local.unit), Sequences()
        deadline = self.clock.ticks_us() + self.busy_timeout_ms * 1000
        unit = UnitOfWork(self, single=True, guess=self.guessing())
        for pause in backoff(most=longest_pause):
            batch: Batch | None = None
            try:
                result = change(unit)
                batch = unit.batch()
                given = Sequences() if batch.is_empty else self.commit(batch)
            except SeeknalError as error:
                if unit.has_guessed and not isinstance(error, BackendUnavailableError | CommitUnknownError):
                    # It may be the guess that was wrong: look, and judge by what is there.
                    unit = UnitOfWork(self, single=True)
                    continue
                if batch is None or not isinstance(error, StaleVersionError):
                    raise  # before there was a batch, it was the version that the caller named
                # Somebody wrote the record between our read and our commit: read it again, patch again.
                if self.clock.ticks_us() >= deadline:
                    raise
                self.clock.sleep(pause)
                unit = UnitOfWork(self, single=True)
                continue
            for run_id in batch.freed_runs:
                self._forget_leases(run_id)
            return result, given
        raise AssertionError("the pauses never end")  # pragma: no cover

    # ---- runs ----

    def create_run(
        self,
        run_id: str,
        status: str = "running",
        started_at: datetime | None = None,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunState:
        """Create a run and return it."""
        new = new_run(run_id, self.clock.now(), status=status, started_at=started_at, config=config, metadata=metadata)

        def create(unit: UnitOfWork) -> RunState:
            check_unwritten(unit.run(run_id), f"run {run_id!a}")
            unit.put_run(new)
            return new

        run, given = self._write(create)
        return _run_out(run, given.runs.get(run_id))

    def update_run(self, run_id: str, *, expected_version: int | None = None, **fields: Any) -> RunState:
        """Patch a run and return it."""
        check_id(run_id, "run_id")

        def update(unit: UnitOfWork) -> RunState:
            found = unit.run(run_id)
            if found is None:
                raise missing_run(run_id)
            check_version(found, expected_version, f"run {run_id!a}")
            new = patched_run(found, self.clock.now(), fields)
            unit.put_run(new)
            if new.status.is_final and "status" in fields:
                unit.free_locks(run_id)
            return new

        run, _ = self._write(update)
        return _run_out(run)

    def get_run(self, run_id: str) -> RunState | None:
        """Return a run, or ``None``."""
        check_id(run_id, "run_id")
        reader = self._read()
        run = reader.run(run_id) if isinstance(reader, UnitOfWork) else reader.read_run(run_id)
        return _run_out(run) if run else None

    def list_runs(
        self, *, status: str | None = None, newest_first: bool = False, limit: int | None = None
    ) -> list[str]:
        """Return run ids in the order of their creation."""
        wanted = None if status is None else as_status(RunStatus, status)
        check_limit(limit)
        reader = self._read()
        if isinstance(reader, UnitOfWork):
            return reader.run_ids(wanted, newest_first, limit)
        return reader.read_run_ids(wanted, newest_first, limit)

    def delete_run(self, run_id: str) -> bool:
        """Delete a run and its node states; return whether it existed."""
        check_id(run_id, "run_id")

        def delete(unit: UnitOfWork) -> bool:
            if unit.run(run_id) is None:
                return False
            unit.drop_run(run_id)
            unit.free_locks(run_id)
            return True

        return self._write(delete)[0]

    def _runs_of(self, known: Container[str]) -> Iterator[RunState]:
        """Yield the known runs in creation order, but for those that are gone."""
        if self.in_transaction:
            return super()._runs_of(known)
        self._check_open()
        return (run for run in self.scan_runs() if run.run_id in known)

    def _let_go(self, run_id: str) -> None:
        """Delete a run if nobody holds a lock of it; none is freed."""

        def let_go(unit: UnitOfWork) -> None:
            if unit.run(run_id) is not None:
                unit.drop_run(run_id)
                unit.demand_unlocked(run_id)

        self._write(let_go)

    # ---- node states ----

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
        """Write the state of a node in a run and return what is stored."""
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")

        def write(unit: UnitOfWork) -> NodeState:
            found = unit.node(run_id, node_id, is_guess_enough=True)
            if found is None:
                unit.require_run(run_id)
            new = written_node(found, run_id, node_id, self.clock.now(), state, fields)
            if not overwrite:
                check_unwritten(found, f"node {node_id!a} of run {run_id!a}")
            check_version(found, expected_version, f"node {node_id!a} of run {run_id!a}")
            unit.put_node(new)
            return new

        new, given = self._write(write)
        return _node_out(new, given.nodes.get((run_id, node_id), 0))

    def get_node_state(self, run_id: str, node_id: str) -> NodeState | None:
        """Return the state of a node in a run, or ``None``."""
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")
        reader = self._read()
        state = reader.node(run_id, node_id) if isinstance(reader, UnitOfWork) else reader.read_node(run_id, node_id)
        return _node_out(state) if state else None

    def get_all_node_states(self, run_id: str) -> dict[str, NodeState]:
        """Return the states of all nodes of a run by node id, sorted by the bytes of the ids."""
        check_id(run_id, "run_id")
        reader = self._read()
        found = reader.nodes(run_id) if isinstance(reader, UnitOfWork) else reader.read_nodes(run_id)
        return {node_id: _node_out(state) for node_id, state in found.items()}

    def list_nodes(self, run_id: str) -> list[str]:
        """Return the ids of the nodes of a run, sorted by their bytes."""
        return list(self.get_all_node_states(run_id))

    def delete_node_state(self, run_id: str, node_id: str) -> bool:
        """Delete the state of a node in a run; return whether it existed."""
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")

        def delete(unit: UnitOfWork) -> bool:
            if unit.node(run_id, node_id) is None:
                if unit.run(run_id) is None:
                    raise missing_run(run_id)
                return False
            unit.drop_node(run_id, node_id)
            return True

        return self._write(delete)[0]

    def get_latest_node_state(self, node_id: str, status: str | None = None) -> NodeState | None:
        """Return the state of a node that was written last across all runs, or ``None``."""
        check_id(node_id, "node_id")
        wanted = None if status is None else as_status(NodeStatus, status)
        reader = self._read()
        if isinstance(reader, UnitOfWork):
            state = reader.latest(node_id, wanted)
        else:
            state = reader.read_latest(node_id, wanted, frozenset())
        return _node_out(state) if state else None

    # ---- transactions ----

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open on this instance."""
        return self._local.unit is not None

    def transaction(self, lease: Lease | None = None) -> TransactionBlock:
        """Open a transaction for this thread; it commits at the end of the block."""
        return TransactionBlock(self, lease)

    def begin_transaction(self) -> BegunTransaction:
        """Begin a transaction without a block and return it."""
        return BegunTransaction(TransactionBlock(self, None, in_order=True))


def _run_out(run: RunState, sequence: int | None = None) -> RunState:
    """Return a run that shares nothing with the store."""
    # Empty dictionaries too: a caller may put something into them.
    return msgspec.structs.replace(
        run, config=json_copy(run.config), metadata=json_copy(run.metadata), sequence=sequence or run.sequence
    )


def _node_out(state: NodeState, sequence: int | None = None) -> NodeState:
    """Return a node state that shares nothing with the store."""
    return msgspec.structs.replace(
        state,
        metadata=json_copy(state.metadata),
        sequence=state.sequence if sequence is None else sequence,
    )
