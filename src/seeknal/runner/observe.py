"""Look at what a node is, what is stored about it, and what its output says; nothing is changed."""

from __future__ import annotations

from pathlib import Path

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval
from seeknal.pipeline.fingerprint import own_parts
from seeknal.pipeline.nodes import Node
from seeknal.runner.compute import output_facts, output_path
from seeknal.runner.plan import Observed
from seeknal.state.contract import StateBackend


def observe(node: Node, project_path: Path, backend: StateBackend | None) -> Observed:
    """Return what is known about a node.

    Args:
        node: The node.
        project_path: Where its files are.
        backend: An initialized store; ``None`` where there is none yet.
    """
    try:
        made_of, problem = own_parts(node, project_path), ""
    except NodeFailedError as error:
        made_of, problem = None, str(error)
    path = output_path(project_path, node.node_id)
    newest = backend.get_latest_node_state(node.node_id, "success") if backend is not None else None
    was_tried = newest is not None
    if backend is not None and newest is None:
        was_tried = backend.get_latest_node_state(node.node_id) is not None
    stored = backend.get_completed_intervals(node.node_id) if backend is not None and node.schedule else []
    return Observed(
        made_of=made_of,
        problem=problem,
        newest=newest,
        was_tried=was_tried,
        facts=output_facts(path) if node.kind != "command" else {},
        has_output=path.exists(),
        completed=tuple(Interval(each.start, each.end) for each in stored),
    )
