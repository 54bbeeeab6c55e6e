"""The recorder of one node in a run that processes share, as an orchestrator gives each task a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from seeknal.model.records import RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease
from seeknal.tracking.node import NodeRecorder
from seeknal.tracking.recovery import DEAD

T = TypeVar("T")


class SharedRun:
    """A run of which this process records one node; made by `track_node`.

    Every write commits only while ``lease``, that of the node, is held.
    """

    def __init__(self, backend: StateBackend, run_id: str, lease: Lease) -> None:
        self.backend = backend
        self.run_id = run_id
        self.lease = lease

    def write(self, change: Callable[[], T]) -> T:
        """Run ``change`` in a transaction under the lease of the node; conflicts repeat it.

        Raises:
            LeaseLostError: The lock of the node is no longer held; nothing was written.
        """
        return self.backend.run_transaction(change, lease=self.lease)


@contextmanager
def track_node(
    backend: StateBackend,
    run_id: str,
    node_id: str,
    fingerprint: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    timeout_ms: int = 0,
) -> Iterator[NodeRecorder]:
    """Record the block as one execution of a node in a run that others record, too, under the lock of the node.

    Whoever comes first creates the run, and `end_run` ends it; one that has ended runs again, as when somebody tries a
    task again. `track_run` is for runs of one process, this one for tasks that share nothing but the id of their run.

    Args:
        backend: An initialized store.
        run_id: What the orchestrator calls the run.
        node_id: The node.
        fingerprint: What the node is made of.
        metadata: Of the run, if this creates it.
        timeout_ms: How long to wait for the lock.

    Raises:
        LockHeldError: Another attempt of the node is still at work.
    """
    with backend.lock(run_id, node_id, timeout_ms) as lease:
        run = SharedRun(backend, run_id, lease)
        run.write(lambda: _open(backend, run_id, metadata))
        with NodeRecorder(run, node_id, fingerprint) as node:
            yield node


def end_run(backend: StateBackend, run_id: str) -> RunState:
    """End a run that processes share, and return it: as ``failed`` if one of its nodes failed, else as ``success``.

    A node that is still running has lost its process, since its orchestrator holds the run for ended; it is recorded as
    failed, and if the process lives after all, it cannot write any more. A run that has ended stays as it is.

    Raises:
        RunNotFoundError: There is no such run: none of its nodes has begun.
    """

    def end() -> RunState:
        nodes = backend.get_all_node_states(run_id)
        dead = [node_id for node_id, state in nodes.items() if state.status is NodeStatus.RUNNING]
        for node_id in dead:
            backend.set_node_state(run_id, node_id, status="failed", error_message=DEAD)
        run = backend.get_run(run_id)
        if run is not None and run.status.is_final and not dead:
            return run
        is_failed = bool(dead) or any(state.status is NodeStatus.FAILED for state in nodes.values())
        return backend.update_run(run_id, status="failed" if is_failed else "success")

    return backend.run_transaction(end)


def _open(backend: StateBackend, run_id: str, metadata: Mapping[str, Any] | None) -> None:
    run = backend.get_run(run_id)
    if run is None:
        backend.create_run(run_id, metadata=metadata)
    elif run.status is not RunStatus.RUNNING:
        backend.update_run(run_id, status="running")
