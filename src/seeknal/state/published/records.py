"""What the published platform wrote, as our records. Nothing is lost: what has no field goes into metadata.

=========================================  ==========================================================================
of a node                                  becomes
=========================================  ==========================================================================
``hash``, or ``fingerprint.content_hash``  ``fingerprint``; the whole ``fingerprint`` is kept as ``fingerprint_parts``
``last_run``                               ``finished_at``; ``started_at`` while it runs; metadata while it waits
``duration_ms``, ``duration`` (seconds)    ``duration_ms``, and ``started_at``, so long before ``finished_at``
``metadata.error`` of a failed node        ``error_message``
``version``                                metadata ``node_version``
``completed_intervals``, ``_partitions``   completed work of the node
``restatement_intervals``                  no longer completed work; metadata too
``iceberg_*``, everything else             metadata, by its name
=========================================  ==========================================================================

The platform gives a run no status: it failed if a node failed, was cancelled if one never came to its end, and
succeeded otherwise. ``last_run`` is when it started; it finished with its last node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from seeknal.errors import SeeknalError
from seeknal.model.changes import NODE_FIELDS, new_partition, new_run, written_node
from seeknal.model.ids import check_id
from seeknal.model.instants import parse_instant
from seeknal.model.intervals import Interval, as_interval
from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.batch import Batch, IntervalCompleted, IntervalRestated, PartitionCompleted, Work
from seeknal.state.published.found import EARLIEST, FoundNode, FoundRun, moment, refused, utc_moment

T = TypeVar("T")

_OURS = {"run_id", "node_id", "sequence"}
"""Of a node state of ours: what the new record gets anew."""

_TIMES = {"last_run", "started_at", "finished_at"}
_RENAMED = {"hash": "fingerprint", "error": "error_message"}


def batches_of(runs: Iterable[FoundRun], now: datetime) -> list[Batch]:
    """Return each run as a batch of records, in the order of their start.

    Args:
        runs: Merged: each run once.
        now: What a run gets as its time that has none.

    Raises:
        CorruptStateError: A value cannot be understood; the message names the file and the field.
    """
    converted = [_converted(run, now) for run in runs]
    return sorted(converted, key=lambda batch: (batch.runs[0].started_at or EARLIEST, batch.runs[0].run_id))


def joined(batches: Iterable[Batch]) -> Batch:
    """Return what several batches write as one."""
    whole = Batch()
    for batch in batches:
        whole.runs += batch.runs
        whole.nodes += batch.nodes
        whole.work += batch.work
        whole.run_versions |= batch.run_versions
    return whole


def _converted(found: FoundRun, now: datetime) -> Batch:
    run_id = _checked(found.location, lambda: check_id(found.run_id, "run_id"))
    states: list[NodeState] = []
    work: list[Work] = []
    for node_id, node in found.nodes.items():
        state = _checked(node.location, lambda: _node(run_id, node_id, node, now))  # noqa: B023 - called at once
        states.append(state)
        work += _checked(node.location, lambda: list(_work(state, node.fields, now)))  # noqa: B023 - called at once
    run = _checked(found.location, lambda: _run(run_id, found.fields, states, now))
    return Batch(runs=[run], nodes=states, work=work, run_versions={run_id: 0})


def _checked(location: str, convert: Callable[[], T]) -> T:
    try:
        return convert()
    except (SeeknalError, AttributeError, TypeError, ValueError) as error:
        raise refused(location, f"{error} {getattr(error, 'hint', '')}".strip()) from error


def _run(run_id: str, fields: dict[str, Any], states: list[NodeState], now: datetime) -> RunState:
    known = {"status", "config", "metadata", "superseded_by", *_TIMES}
    rest = {key: value for key, value in fields.items() if key not in known and value is not None}
    version = rest.pop("version", None)
    if isinstance(version, str):  # schema 1.0 has it here; a number is the version of a record of ours
        rest["version" if "schema_version" in rest else "schema_version"] = version
    ends = [state.finished_at for state in states if state.finished_at is not None]
    starts = [state.started_at for state in states if state.started_at is not None]
    started = (
        moment(fields.get("started_at"), "started_at")
        or moment(fields.get("last_run"), "last_run")
        or utc_moment(fields.get("created_at"), "created_at")
        or min([*starts, *ends], default=now)
    )
    run = new_run(
        run_id,
        now,
        status=fields.get("status") or _status(states),
        started_at=started,
        config=fields.get("config") or {},
        metadata=_with(fields.get("metadata"), rest),
    )
    if not run.status.is_final:
        return run
    finished = moment(fields.get("finished_at"), "finished_at") or max([started, *ends])
    return msgspec.structs.replace(run, finished_at=finished)


def _status(states: list[NodeState]) -> RunStatus:
    found = {state.status for state in states}
    if NodeStatus.FAILED in found:
        return RunStatus.FAILED
    return RunStatus.CANCELLED if found & {NodeStatus.RUNNING, NodeStatus.PENDING} else RunStatus.SUCCESS


def _node(run_id: str, node_id: str, node: FoundNode, now: datetime) -> NodeState:
    is_ours = bool(_OURS & node.fields.keys())
    new: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in node.fields.items():
        name = _RENAMED.get(key, key)
        if key in _TIMES or key in ("metadata", "completed_intervals", "completed_partitions"):
            continue
        if key == "fingerprint" and isinstance(value, dict):
            rest["fingerprint_parts"] = value
        elif key == "version":
            if not is_ours:
                rest["node_version"] = value
        elif key == "duration" and "duration_ms" not in node.fields:
            new["duration_ms"] = round(float(value) * 1000)
        elif name in NODE_FIELDS:
            new[name] = value if value != "" else None
        elif key not in _OURS and value not in (None, [], {}):
            rest[key] = value
    parts = rest.get("fingerprint_parts") or {}
    new["fingerprint"] = new.get("fingerprint") or parts.get("content_hash") or None
    metadata = node.fields.get("metadata") or {}
    new["metadata"] = _with(metadata, rest)
    if new.get("status") == NodeStatus.FAILED and isinstance(metadata.get("error"), str):
        new["error_message"] = new.get("error_message") or metadata["error"]
    new.update((name, moment(node.fields.get(name), name)) for name in ("started_at", "finished_at"))
    last = moment(node.fields.get("last_run"), "last_run")
    status = NodeStatus(new["status"]) if new.get("status") in list(NodeStatus) else NodeStatus.PENDING
    if last is not None and status is NodeStatus.PENDING:
        new["metadata"]["last_run"] = node.fields["last_run"]
    elif last is not None:
        name = "finished_at" if status.is_final else "started_at"
        new[name] = new[name] or last
    if new["finished_at"] and not new["started_at"] and isinstance(new.get("duration_ms"), int):
        new["started_at"] = new["finished_at"] - timedelta(milliseconds=new["duration_ms"])
    return written_node(None, run_id, check_id(node_id, "node_id"), now, None, new)


def _with(metadata: Any, rest: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with what has no field added; what stands there under the same name goes beside it."""
    merged: dict[str, Any] = dict(metadata or {})
    for key, value in rest.items():
        merged[key if merged.get(key, value) == value else f"published.{key}"] = value
    return merged


def _work(state: NodeState, fields: dict[str, Any], now: datetime) -> Iterator[Work]:
    node_id, run_id = state.node_id, state.run_id
    for span in _spans(fields, "completed_intervals"):
        yield IntervalCompleted(node_id, span.start, span.end, run_id)
    for span in _spans(fields, "restatement_intervals"):
        yield IntervalRestated(node_id, span.start, span.end)
    for key in fields.get("completed_partitions") or ():
        yield PartitionCompleted(new_partition(run_id, node_id, key, state.finished_at or state.started_at or now))


def _spans(fields: dict[str, Any], name: str) -> Iterator[Interval]:
    for pair in fields.get(name) or ():
        start, end = (pair["start"], pair["end"]) if isinstance(pair, dict) else pair
        yield as_interval(parse_instant(str(start), name), parse_instant(str(end), name))
