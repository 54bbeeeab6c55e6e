"""Look at what a node is, what is stored about it, and what its output says; nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import ConfigurationError, NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.model.records import IntervalProvenance, NodeState
from seeknal.pipeline.fingerprint import own_parts
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.pipeline.python_nodes import code_stamp
from seeknal.pipeline.ranges import EXPECTED
from seeknal.runner.outputs import is_as_recorded, list_parts, output_facts, output_path, parts_folder
from seeknal.runner.plan import Observed
from seeknal.runner.ranges import Done
from seeknal.state.contract import StateBackend


def observe(node: Node, project_path: Path, backend: StateBackend | None, *, is_shared: bool = False) -> Observed:
    """Return what is known about a node.

    Args:
        node: The node.
        project_path: Where its files are.
        backend: An initialized store; ``None`` where there is none yet.
        is_shared: Whether other processes work on the same nodes.
    """
    # Taken first: what is edited in between has another stamp by the time it is computed.
    stamp, problem = "", ""
    made_of = None
    try:
        stamp = code_stamp(project_path / node.file) if node.format == PYTHON else ""
        made_of = own_parts(node, project_path)
    except (NodeFailedError, ConfigurationError) as error:
        problem = str(error)
    newest = backend.get_latest_node_state(node.node_id, "success") if backend is not None else None
    was_tried = newest is not None
    if backend is not None and newest is None:
        was_tried = backend.get_latest_node_state(node.node_id) is not None
    known = Observed(made_of=made_of, problem=problem, stamp=stamp, newest=newest, was_tried=was_tried)
    if node.is_ranged:
        return _with(known, done=observe_ranges(node, project_path, backend, is_shared=is_shared))
    if not node.has_output:
        return known
    path = output_path(project_path, node.node_id)
    return _with(known, has_output=path.exists(), **_output(path, newest))


def observe_ranges(node: Node, project_path: Path, backend: StateBackend | None, *, is_shared: bool = False) -> Done:
    """Return what the store and the files say about the ranges of a node.

    The files are looked at after the store: what a worker has completed is in its place before it says so.
    """
    if backend is None:
        expected = expected_partitions(node, None)
        return Done(expected=expected, parts=tuple(list_parts(parts_folder(project_path, node.node_id))))
    spans = [(Interval(each.start, each.end), each.run_id) for each in _provenance(node, backend)]
    keys = [(each.partition, each.run_id) for each in backend.list_partitions(node.node_id)] if node.partitions else []
    runs = {run_id for _, run_id in spans} | {run_id for _, run_id in keys}
    running = runs & set(backend.list_runs(status="running")) if is_shared else set()
    known = running if node.has_output else runs
    return Done(
        spans=tuple(spans),
        keys=tuple(keys),
        expected=expected_partitions(node, backend),
        parts=tuple(list_parts(parts_folder(project_path, node.node_id))) if node.has_output else (),
        fingerprints={run_id: _fingerprint(backend.get_node_state(run_id, node.node_id)) for run_id in known},
        running=frozenset(running),
    )


def _provenance(node: Node, backend: StateBackend) -> list[IntervalProvenance]:
    return backend.get_interval_provenance(node.node_id) if node.schedule is not None else []


def expected_partitions(node: Node, backend: StateBackend | None) -> tuple[str, ...]:
    """Return the partitions that a node is to be computed for, in order; none of a store that is not there yet."""
    if node.partitions is None:
        return ()
    if node.partitions == EXPECTED:
        return tuple(backend.list_expected_partitions(node.node_id)) if backend is not None else ()
    return tuple(node.partitions)


def _fingerprint(state: NodeState | None) -> str | None:
    return state.fingerprint if state is not None else None


def _output(path: Path, newest: NodeState | None) -> dict[str, Any]:
    """Return what an output says of itself; it is read only where it is not as the newest success has left it."""
    is_same = is_as_recorded(path, newest)
    if is_same and newest is not None:
        return {"facts": {"fingerprint": newest.fingerprint}}
    return {"facts": output_facts(path), "is_altered": is_same is False}


def _with(known: Observed, **fields: Any) -> Observed:
    return msgspec.structs.replace(known, **fields)
