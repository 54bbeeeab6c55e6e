"""One dbt invocation into a store: in one transaction, once, and never before what is newer."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import msgspec

from seeknal.errors import TransferError
from seeknal.integrations.dbt.mapping import DIGEST_KEY, DbtRun, NodeWork, read_dbt
from seeknal.model.intervals import Interval, intersect
from seeknal.model.records import RunState
from seeknal.model.status import RunStatus
from seeknal.state.contract import StateBackend
from seeknal.state.reader import StateReader


class BatchSpan(msgspec.Struct, frozen=True):
    """``[start, end)`` of the event time of a node."""

    node_id: str
    start: datetime
    end: datetime


class DbtImport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did, or would do.

    Attributes:
        run_id: The run that it is in the store.
        status: How the dbt invocation ended.
        is_new: Whether it was not there before; if it was, nothing was changed.
        started_at: When the invocation began.
        finished_at: When it ended.
        nodes: How many node states of each status.
        completed: What microbatch models completed.
        restated: What is no longer completed, since it was built anew, or without all of its rows.
        open: Successful batches that were not over yet: not completed.
    """

    run_id: str
    status: RunStatus
    is_new: bool
    started_at: datetime
    finished_at: datetime
    nodes: dict[str, int]
    completed: list[BatchSpan] = []
    restated: list[BatchSpan] = []
    open: list[BatchSpan] = []


def import_dbt(backend: StateBackend, target_dir: str | Path, *, use_manifest: bool = True) -> DbtImport:
    """Take what the last dbt invocation left in its target directory into a store, as one run.

    The same results again change nothing. Safe from threads and processes: of two imports of the same, one is new.

    Args:
        backend: An initialized store, of one dbt target: ids of nodes do not tell targets apart.
        target_dir: The directory of ``run_results.json`` and ``manifest.json``.
        use_manifest: As in `read_dbt`.

    Raises:
        ConfigurationError, SchemaVersionError, IntervalError: As `read_dbt`.
        TransferError: As `read_dbt` and `record_dbt`.
    """
    return record_dbt(backend, read_dbt(target_dir, use_manifest=use_manifest))


def record_dbt(backend: StateBackend, run: DbtRun) -> DbtImport:
    """Write an invocation into a store, in one transaction.

    Raises:
        TransferError: The store has another run of this id, or a later state of one of its nodes; nothing was written.
    """
    # Of two imports at once, the later one is tried again, and finds the run.
    return backend.run_transaction(lambda: _record(backend, run))


def preview_dbt(store: StateReader | None, run: DbtRun) -> DbtImport:
    """Return what `record_dbt` would do to a store, or to an empty one; nothing is written.

    Raises:
        TransferError: As `record_dbt`.
    """
    if store is None:
        return _report(run)
    if (found := store.get_run(run.run_id)) is not None:
        return _there(found, run)
    _check_order(store, run)
    return _report(run, restated=[span for work in run.work for span in _restated(store, work)])


def _record(backend: StateBackend, run: DbtRun) -> DbtImport:
    report = preview_dbt(backend, run)
    if not report.is_new:
        return report
    backend.create_run(
        run.run_id, status="running", started_at=run.started_at, config=run.config, metadata=run.metadata
    )
    for state in run.nodes:
        backend.set_node_state(run.run_id, state.node_id, state)
    for span in report.restated:
        backend.restate_intervals(span.node_id, span.start, span.end, reason=f"{run.run_id} wrote it anew")
    for span in report.completed:
        backend.add_completed_interval(run.run_id, span.node_id, span.start, span.end)
    backend.update_run(run.run_id, status=run.status, finished_at=run.finished_at)
    return report


def _there(found: RunState, run: DbtRun) -> DbtImport:
    if found.metadata.get(DIGEST_KEY) != run.metadata[DIGEST_KEY]:
        raise TransferError(
            f"the store has a run {run.run_id!a} already, and not of these results",
            hint=f"See it with `seeknal state show {run.run_id}`; was run_results.json edited? Nothing was changed.",
        )
    return msgspec.structs.replace(_report(run), is_new=False, completed=[], open=[])


def _check_order(store: StateReader, run: DbtRun) -> None:
    for state in run.nodes:
        latest = store.get_latest_node_state(state.node_id)
        if latest is None or latest.finished_at is None or state.finished_at is None:
            continue
        if latest.finished_at > state.finished_at:
            raise TransferError(
                f"the store has a later state of {state.node_id!a}, of run {latest.run_id!a}; what is older cannot be "
                "put before it",
                hint="Import invocations in the order in which they ran; the older ones into a store of their own.",
            )


def _restated(store: StateReader, work: NodeWork) -> list[BatchSpan]:
    if not (work.is_rebuilt or work.undone):
        return []
    there = [Interval(each.start, each.end) for each in store.get_completed_intervals(work.node_id)]
    if work.is_rebuilt:
        gone = [Interval(there[0].start, there[-1].end)] if there else []
    else:
        gone = [span for span in work.undone if intersect(there, [span])]
    return [BatchSpan(work.node_id, span.start, span.end) for span in gone]


def _report(run: DbtRun, restated: list[BatchSpan] | None = None) -> DbtImport:
    return DbtImport(
        run_id=run.run_id,
        status=run.status,
        is_new=True,
        started_at=run.started_at,
        finished_at=run.finished_at,
        nodes=dict(Counter(state.status.value for state in run.nodes)),
        completed=[BatchSpan(work.node_id, span.start, span.end) for work in run.work for span in work.completed],
        restated=restated or [],
        open=[BatchSpan(work.node_id, span.start, span.end) for work in run.work for span in work.open],
    )
