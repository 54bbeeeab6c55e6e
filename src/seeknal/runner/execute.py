"""Run a project: what changed or was never finished, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval, union
from seeknal.model.schedule import as_schedule, missing_ticks
from seeknal.pipeline.fingerprint import fingerprint
from seeknal.pipeline.nodes import Node, Project
from seeknal.runner.outputs import output_path, produce, spans_text, stored_facts
from seeknal.state.contract import StateBackend
from seeknal.tracking import RunRecorder, recover_dead_runs, track_run


class NodeEvent(msgspec.Struct, frozen=True):
    """What has become of a node."""

    node_id: str
    status: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.status:8} {self.node_id}" + (f": {self.detail}" if self.detail else "")


class RunReport(msgspec.Struct, frozen=True):
    """How a run ended: ``nodes`` maps node ids to their statuses, ``recovered`` names dead runs that were failed."""

    run_id: str
    status: str
    nodes: dict[str, str]
    recovered: list[str]


def run_project(
    project: Project,
    backend: StateBackend,
    *,
    full: bool = False,
    on_event: Callable[[NodeEvent], None] = lambda event: None,
) -> RunReport:
    """Run what is not up to date, in order; a failed node skips what needs it, the others go on.

    Args:
        project: As `seeknal.pipeline.load.load_project` returns it.
        backend: An initialized store.
        full: Run every node.
        on_event: Called after each node.

    Raises:
        LockHeldError: Another process runs this project.
    """
    with backend.lock(f"pipeline:{project.name}", timeout_ms=0):
        recovered = recover_dead_runs(backend)
        statuses: dict[str, str] = {}
        run_id = ""
        try:
            with track_run(backend, config={"project": project.name, "full": full}) as run:
                run_id = run.run_id
                prints: dict[str, str] = {}
                for node in project.nodes.values():
                    event = _step(project, run, node, prints, statuses, full=full)
                    statuses[node.node_id] = event.status
                    on_event(event)
                failed = [node_id for node_id, status in statuses.items() if status == "failed"]
                if failed:
                    raise _NodesFailedError(f"failed: {', '.join(failed)}")
        except _NodesFailedError:
            return RunReport(run_id, "failed", statuses, recovered)
        return RunReport(run_id, "success", statuses, recovered)


class _NodesFailedError(NodeFailedError):
    """Ends the block of a run in which nodes failed."""


def _step(
    project: Project, run: RunRecorder, node: Node, prints: dict[str, str], statuses: dict[str, str], *, full: bool
) -> NodeEvent:
    bad = [input_id for input_id in node.inputs if statuses[input_id] in ("failed", "skipped")]
    if bad:
        reason = f"{bad[0]} {statuses[bad[0]]}"
        run.skip(node.node_id, reason)
        return NodeEvent(node.node_id, "skipped", reason)
    try:
        prints[node.node_id] = made_of = fingerprint(node, project.path, prints)
        facts = stored_facts(output_path(project, node.node_id))
        current = not full and (node.kind == "command" or facts.get("fingerprint") == made_of)
        current = current and run.is_current(node.node_id, made_of)
        done = [Interval(each.start, each.end) for each in run.backend.get_completed_intervals(node.node_id)]
        if node.schedule:
            # An output whose spans are not those of the store was cut off between its rename and the commit.
            current = current and facts.get("intervals") == spans_text(done)
            done = done if current else []
        ranges = _missing(node, run.backend, done)
        if current and not ranges and run.skip_if_current(node.node_id, made_of):
            return NodeEvent(node.node_id, "cached")
        with run.node(node.node_id, made_of) as recorder:
            new = {"fingerprint": made_of, "intervals": spans_text(union(done, ranges))}
            recorder.row_count = produce(project, node, new, ranges, append=current, run_id=run.run_id)
            for span in ranges:
                recorder.complete_interval(span.start, span.end)
    except NodeFailedError as error:
        return NodeEvent(node.node_id, "failed", str(error))
    return NodeEvent(node.node_id, "success")


def _missing(node: Node, backend: StateBackend, done: list[Interval]) -> list[Interval]:
    if node.schedule is None or node.start is None:
        return []
    return union(missing_ticks(done, node.start, node.end or backend.clock.now(), as_schedule(node.schedule)))
