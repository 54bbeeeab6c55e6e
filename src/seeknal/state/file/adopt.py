"""A ``run_state.json`` that stands without a store: a run to take in, so that nothing is lost.

It comes from the published Seeknal platform, whose ``hash`` is the fingerprint, or from a store whose
directory was deleted. What has no field here goes into metadata.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seeknal.errors import CorruptStateError, SeeknalError
from seeknal.model.changes import NODE_FIELDS, new_partition, new_run, patched_run, written_node
from seeknal.model.ids import check_id
from seeknal.model.intervals import as_interval
from seeknal.model.records import NodeState, RunState
from seeknal.model.status import RunStatus
from seeknal.state.batch import Batch, IntervalCompleted, PartitionCompleted, Work

RENAMED = {"hash": "fingerprint", "last_run": "finished_at", "error": "error_message"}
INSTANTS = ("started_at", "finished_at")
KNOWN = ("run_id", "node_id", "version", "sequence", "completed_intervals", "completed_partitions")


def adopted(document: dict[str, Any], path: Path, now: datetime) -> Batch | None:
    """Return the run that a file holds, its nodes and their completed work, or ``None`` if it holds none.

    Raises:
        CorruptStateError: It cannot be understood; the message names the file and the field.
    """
    nodes = document.get("nodes")
    if not isinstance(nodes, dict):
        raise _refused(path, "it has no object 'nodes'")
    if not document.get("run_id") and not nodes:
        return None
    try:
        run_id = check_id(document.get("run_id") or "imported", "run_id")
        states = [_node(run_id, node_id, found, now) for node_id, found in nodes.items()]
        work = [change for node_id, found in nodes.items() for change in _work(run_id, node_id, found, now)]
        return Batch(runs=[_run(run_id, document, now)], nodes=states, work=work)
    except (SeeknalError, AttributeError, TypeError, ValueError) as error:
        raise _refused(path, str(error)) from error


def _run(run_id: str, document: dict[str, Any], now: datetime) -> RunState:
    known = {"run_id", "nodes", "status", "started_at", "finished_at", "config", "metadata", "version", "superseded_by"}
    rest = {key: value for key, value in document.items() if key not in known}
    run = new_run(
        run_id,
        now,
        status=document.get("status") or RunStatus.SUCCESS,
        started_at=_instant(document.get("started_at") or document.get("last_run")),
        config=document.get("config") or {},
        metadata={**(document.get("metadata") or {}), **rest},
    )
    finished = _instant(document.get("finished_at"))
    return patched_run(run, now, {"finished_at": finished}) if finished else run


def _node(run_id: str, node_id: str, found: dict[str, Any], now: datetime) -> NodeState:
    fields: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in found.items():
        name = RENAMED.get(key, key)
        if name in INSTANTS:
            fields[name] = _instant(value)
        elif name in NODE_FIELDS and not (name == "fingerprint" and not isinstance(value, str | None)):
            fields[name] = value
        elif key not in KNOWN and value not in (None, [], {}):
            rest[key] = value
    fields["metadata"] = {**(fields.get("metadata") or {}), **rest}
    return written_node(None, run_id, check_id(node_id, "node_id"), now, None, fields)


def _work(run_id: str, node_id: str, found: dict[str, Any], now: datetime) -> list[Work]:
    spans = [as_interval(_instant(start), _instant(end)) for start, end in found.get("completed_intervals") or ()]
    keys = found.get("completed_partitions") or ()
    return [
        *(IntervalCompleted(node_id, span.start, span.end, run_id) for span in spans),
        *(PartitionCompleted(new_partition(run_id, node_id, key, now)) for key in keys),
    ]


def _instant(value: object) -> datetime | None:
    if not value:
        return None
    moment = datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _refused(path: Path, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"{path} is not a run state that can be taken in: {what}",
        hint="Move the file away to begin an empty store, or correct it.",
        location=str(path),
    )
