"""Which finished runs may go, and letting them go: for any backend, through its contract."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from seeknal.model.records import CleanupReport, RunState
from seeknal.model.status import NodeStatus

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend

BATCH = 20
"""Runs deleted in one transaction: short enough that writers beside it hardly wait."""


def clean_runs(backend: StateBackend, cutoff: datetime, *, dry_run: bool) -> CleanupReport:
    """Delete runs that finished before ``cutoff``; see `StateBackend.cleanup` for the rules.

    The newest successful state of a node is looked for once per node, not once per run, and looked
    at again inside the transaction that deletes, so that a run which became the newest is kept.
    """
    old = [run for run in map(backend.get_run, backend.list_runs()) if run is not None and _is_old(run, cutoff)]
    kept: dict[str, str] = {}
    deleted: list[str] = []
    for first in range(0, len(old), BATCH):
        batch = old[first : first + BATCH]
        if dry_run:
            deleted += _deletable(backend, batch, kept)
        else:
            deleted += backend.run_transaction(lambda batch=batch: _delete(backend, batch, cutoff, kept))  # type: ignore[misc]
    return CleanupReport(cutoff=cutoff, deleted=deleted, kept=kept)


def _is_old(run: RunState, cutoff: datetime) -> bool:
    return run.status.is_final and run.finished_at is not None and run.finished_at < cutoff


def _deletable(backend: StateBackend, runs: list[RunState], kept: dict[str, str]) -> list[str]:
    """Return the ids of the runs that hold no newest success, and note why the others stay."""
    newest: dict[str, str | None] = {}
    free: list[str] = []
    for run in runs:
        for node_id, state in backend.get_all_node_states(run.run_id).items():
            if state.status is not NodeStatus.SUCCESS:
                continue
            if node_id not in newest:
                latest = backend.get_latest_node_state(node_id, status="success")
                newest[node_id] = latest.run_id if latest else None
            if newest[node_id] == run.run_id:
                kept[run.run_id] = f"holds the newest successful state of {node_id}"
                break
        else:
            free.append(run.run_id)
    return free


def _delete(backend: StateBackend, runs: list[RunState], cutoff: datetime, kept: dict[str, str]) -> list[str]:
    still_old = [run for run in map(backend.get_run, [run.run_id for run in runs]) if run and _is_old(run, cutoff)]
    deletable = _deletable(backend, still_old, kept)
    for run_id in deletable:
        backend.delete_run(run_id)
    return deletable
