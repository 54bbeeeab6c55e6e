"""Runs whose process died: found by the lock that nobody holds."""

from __future__ import annotations

from seeknal.errors import ConcurrencyError, NotFoundError
from seeknal.state.abandoned import RECORDED_BY, is_recorded
from seeknal.state.contract import StateBackend

__all__ = ["DEAD", "RECORDED_BY", "recover_dead_runs"]

DEAD = "the process that ran it ended without saying how"


def recover_dead_runs(backend: StateBackend) -> list[str]:
    """Mark as failed every ``running`` run of a recorder whose lock nobody holds, and its running nodes.

    Returns the ids of these runs, in creation order.
    Runs that were created otherwise are left alone: nothing says that they are executed under their lock. Each
    run is one transaction under its own lock; one that changes meanwhile is left alone.
    """
    recovered = []
    for run_id in backend.list_runs(status="running"):
        if not backend.acquire_lock(run_id, timeout_ms=0):
            continue
        try:
            if backend.run_transaction(lambda run_id=run_id: _fail(backend, run_id)):  # type: ignore[misc]
                recovered.append(run_id)
        except (ConcurrencyError, NotFoundError):
            continue
        finally:
            backend.release_lock(run_id)
    return recovered


def _fail(backend: StateBackend, run_id: str) -> bool:
    run = backend.get_run(run_id)
    if run is None or not is_recorded(run):
        return False
    for node_id, state in backend.get_all_node_states(run_id).items():
        if state.status == "running":
            backend.set_node_state(run_id, node_id, expected_version=state.version, status="failed", error_message=DEAD)
    backend.update_run(run_id, expected_version=run.version, status="failed", metadata={"error_message": DEAD})
    return True
