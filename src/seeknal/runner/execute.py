"""Run a project: what changed or was never finished, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Executor

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval, union
from seeknal.pipeline.fingerprint import METADATA_KEY
from seeknal.pipeline.nodes import Node, Project
from seeknal.runner.compute import Task, compute, spans_text
from seeknal.runner.executors import InlineExecutor
from seeknal.runner.observe import observe
from seeknal.runner.plan import CACHED, SKIPPED, Observed, Planned, held_by, plan_node
from seeknal.runner.reasons import Reason, Why
from seeknal.runner.selection import check_parents
from seeknal.state.contract import StateBackend
from seeknal.tracking import RunRecorder, recover_dead_runs, track_run

_BROKEN = ("failed", SKIPPED)


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
    selected: Collection[str] | None = None,
    executor: Executor | None = None,
    on_event: Callable[[NodeEvent], None] = lambda event: None,
) -> RunReport:
    """Run what is not up to date, in order; a failed node skips what needs it, the others go on.

    Args:
        project: As `seeknal.pipeline.load.load_project` returns it.
        backend: An initialized store.
        full: Run every node that is selected.
        selected: The ids of the nodes that may run, as `seeknal.runner.selection.select` returns them; all, when
            ``None``. The others keep their states and outputs, and those that need them read these.
        executor: Where nodes are computed; in this thread when ``None``.
        on_event: Called after each node.

    Raises:
        LockHeldError: Another process runs this project.
        ConfigurationError: A selected node needs one that is not selected and was never computed; nothing was run.
        KeyboardInterrupt: Raised again; the run and its running node are recorded as what they are.
    """
    with backend.lock(f"pipeline:{project.name}", timeout_ms=0):
        recovered = recover_dead_runs(backend)
        config: dict[str, object] = {"project": project.name, "full": full}
        if selected is not None:
            check_parents(project, backend, selected)
            config["selected"] = sorted(selected)
        with track_run(backend, config=config) as run:
            execution = _Execution(project, run, executor or InlineExecutor(), full=full)
            for node in project.nodes.values():
                if selected is None or node.node_id in selected:
                    on_event(execution.step(node))
                else:
                    execution.leave(node)
            failed = [node_id for node_id, status in execution.statuses.items() if status == "failed"]
            if failed:
                run.fail(f"failed: {', '.join(failed)}")
    return RunReport(run.run_id, "failed" if failed else "success", execution.statuses, recovered)


class _Execution:
    """One run of a project: what is known so far."""

    def __init__(self, project: Project, run: RunRecorder, executor: Executor, *, full: bool) -> None:
        self.statuses: dict[str, str] = {}
        self._leaves: dict[str, str] = {}
        self._project = project
        self._run = run
        self._executor = executor
        self._full = full

    def step(self, node: Node) -> NodeEvent:
        """Bring one node up to date, or record why not."""
        broken = next((input_id for input_id in node.inputs if self.statuses.get(input_id) in _BROKEN), None)
        if broken is not None:
            event = NodeEvent(node.node_id, SKIPPED, f"{broken} {self.statuses[broken]}")
            self._run.skip(node.node_id, event.detail)
        else:
            event = self._bring_up_to_date(node)
        self.statuses[node.node_id] = event.status
        return event

    def leave(self, node: Node) -> None:
        """Take a node that is not to run for what it is, whatever it would be if it ran."""
        backend = self._run.backend
        stored = backend.get_completed_intervals(node.node_id) if node.schedule else []
        newest = backend.get_latest_node_state(node.node_id, "success")
        self._leaves[node.node_id] = held_by(node, newest, [Interval(each.start, each.end) for each in stored])

    def _bring_up_to_date(self, node: Node) -> NodeEvent:
        observed, planned = self._plan(node, is_forced=self._full)
        if planned.made_of is None:
            self._run.fail_node(node.node_id, observed.problem)
            return NodeEvent(node.node_id, "failed", observed.problem)
        self._leaves[node.node_id] = planned.leaves
        if planned.action == CACHED:
            if self._run.skip_if_current(node.node_id, planned.made_of.fingerprint):
                return NodeEvent(node.node_id, "cached", planned.why)
            _, planned = self._plan(node, is_forced=True)
            planned = msgspec.structs.replace(planned, reasons=(Why(Reason.CHANGED_MEANWHILE),))
        try:
            self._compute(node, observed, planned)
        except NodeFailedError as error:
            return NodeEvent(node.node_id, "failed", str(error))
        return NodeEvent(node.node_id, "success", planned.why)

    def _plan(self, node: Node, *, is_forced: bool = False) -> tuple[Observed, Planned]:
        backend = self._run.backend
        observed = observe(node, self._project.path, backend)
        upstream = {input_id: self._leaves[input_id] for input_id in node.inputs}
        return observed, plan_node(node, observed, upstream, now=backend.clock.now(), is_forced=is_forced)

    def _compute(self, node: Node, observed: Observed, planned: Planned) -> None:
        assert planned.made_of is not None
        kept = () if planned.is_anew else observed.completed
        made_of = planned.made_of.fingerprint
        task = Task(
            node=node,
            project_path=self._project.path,
            run_id=self._run.run_id,
            facts={"fingerprint": made_of, "intervals": spans_text(union(kept, planned.missing))},
            ranges=planned.missing,
            keeps_rows=not planned.is_anew,
        )
        with self._run.node(node.node_id, made_of) as recorder:
            recorder.metadata |= {"reason": planned.why, METADATA_KEY: planned.made_of.short}
            recorder.row_count = self._executor.submit(compute, task).result()
            if planned.is_anew:
                for each in observed.completed:
                    recorder.restate_interval(each.start, each.end)
            for span in planned.missing:
                recorder.complete_interval(span.start, span.end)
