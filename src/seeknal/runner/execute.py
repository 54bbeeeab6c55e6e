"""Run a project: what changed or was never finished, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval, union
from seeknal.model.records import CompletedInterval
from seeknal.model.schedule import as_schedule, missing_ticks
from seeknal.pipeline.fingerprint import fingerprint
from seeknal.pipeline.nodes import Node, Project
from seeknal.runner.compute import Task, compute, output_facts, output_path, spans_text
from seeknal.runner.executors import InlineExecutor
from seeknal.runner.plan import CACHED, RUN, SKIPPED, Decision, Known, decide
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
    executor: Executor | None = None,
    on_event: Callable[[NodeEvent], None] = lambda event: None,
) -> RunReport:
    """Run what is not up to date, in order; a failed node skips what needs it, the others go on.

    Args:
        project: As `seeknal.pipeline.load.load_project` returns it.
        backend: An initialized store.
        full: Run every node.
        executor: Where nodes are computed; in this thread when ``None``.
        on_event: Called after each node.

    Raises:
        LockHeldError: Another process runs this project.
        KeyboardInterrupt: Raised again; the run and its running node are recorded as what they are.
    """
    with backend.lock(f"pipeline:{project.name}", timeout_ms=0):
        recovered = recover_dead_runs(backend)
        with track_run(backend, config={"project": project.name, "full": full}) as run:
            execution = _Execution(project, run, executor or InlineExecutor(), full=full)
            for node in project.nodes.values():
                on_event(execution.step(node))
            failed = [node_id for node_id, status in execution.statuses.items() if status == "failed"]
            if failed:
                run.fail(f"failed: {', '.join(failed)}")
    return RunReport(run.run_id, "failed" if failed else "success", execution.statuses, recovered)


class _Execution:
    """One run of a project: what is known so far."""

    def __init__(self, project: Project, run: RunRecorder, executor: Executor, *, full: bool) -> None:
        self.statuses: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}
        self._project = project
        self._run = run
        self._executor = executor
        self._full = full

    def step(self, node: Node) -> NodeEvent:
        """Bring one node up to date, or record why not."""
        broken = next((input_id for input_id in node.inputs if self.statuses[input_id] in _BROKEN), None)
        if broken is not None:
            event = NodeEvent(node.node_id, SKIPPED, f"{broken} {self.statuses[broken]}")
            self._run.skip(node.node_id, event.detail)
        else:
            event = self._bring_up_to_date(node)
        self.statuses[node.node_id] = event.status
        return event

    def _bring_up_to_date(self, node: Node) -> NodeEvent:
        try:
            made_of = fingerprint(node, self._project.path, self._fingerprints)
        except NodeFailedError as error:
            self._run.fail_node(node.node_id, str(error))
            return NodeEvent(node.node_id, "failed", str(error))
        stored = self._run.backend.get_completed_intervals(node.node_id) if node.schedule else []
        decision, missing = self._decide(node, made_of, stored)
        # What needs a scheduled node needs its rows of all intervals: new ones are a change to it.
        held = spans_text(union([] if decision.anew else _spans(stored), missing)) if node.schedule else ""
        self._fingerprints[node.node_id] = made_of + held
        if decision.action == CACHED:
            if self._run.skip_if_current(node.node_id, made_of):
                return NodeEvent(node.node_id, "cached", decision.reason)
            decision, missing = Decision(RUN, "it changed meanwhile"), self._missing(node, [])
        try:
            self._compute(node, made_of, stored, missing, decision)
        except NodeFailedError as error:
            return NodeEvent(node.node_id, "failed", str(error))
        return NodeEvent(node.node_id, "success", decision.reason)

    def _decide(
        self, node: Node, made_of: str, stored: list[CompletedInterval]
    ) -> tuple[Decision, tuple[Interval, ...]]:
        done = _spans(stored)
        facts = output_facts(output_path(self._project.path, node.node_id))
        missing = self._missing(node, done)
        known = Known(
            fingerprint=made_of,
            newest=self._run.backend.get_latest_node_state(node.node_id, "success"),
            output_fingerprint=None if node.kind == "command" else facts.get("fingerprint", ""),
            # An output that was renamed into place right before a crash holds more than the store knows of.
            is_output_whole=node.schedule is None or facts.get("intervals") == spans_text(done),
            missing=missing,
            is_forced=self._full,
        )
        decision = decide(known)
        return decision, (self._missing(node, []) if decision.anew else missing)

    def _missing(self, node: Node, done: list[Interval]) -> tuple[Interval, ...]:
        if node.schedule is None or node.start is None:
            return ()
        end = node.end or self._run.backend.clock.now()
        if end <= node.start:
            return ()
        return tuple(union(missing_ticks(done, node.start, end, as_schedule(node.schedule, node.timezone))))

    def _compute(
        self,
        node: Node,
        made_of: str,
        stored: list[CompletedInterval],
        ranges: tuple[Interval, ...],
        decision: Decision,
    ) -> None:
        kept = [] if decision.anew else _spans(stored)
        task = Task(
            node=node,
            project_path=self._project.path,
            run_id=self._run.run_id,
            facts={"fingerprint": made_of, "intervals": spans_text(union(kept, ranges))},
            ranges=ranges,
            keeps_rows=not decision.anew,
        )
        with self._run.node(node.node_id, made_of) as recorder:
            recorder.metadata["reason"] = decision.reason
            recorder.row_count = self._executor.submit(compute, task).result()
            if decision.anew:
                for each in stored:
                    recorder.restate_interval(each.start, each.end)
            for span in ranges:
                recorder.complete_interval(span.start, span.end)


def _spans(stored: list[CompletedInterval]) -> list[Interval]:
    return [Interval(each.start, each.end) for each in stored]
