"""The loop of a run: begins what is ready, waits for what ends, is due, or asks it to stop, and records each."""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from queue import Empty, SimpleQueue

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.model.intervals import Interval, union
from seeknal.pipeline.fingerprint import METADATA_KEY
from seeknal.pipeline.nodes import PYTHON, Node, Project
from seeknal.runner.attempt import Attempt, NodeEvent
from seeknal.runner.capture import LOG_KEY, log_file, tail
from seeknal.runner.compute import Task, compute, spans_text
from seeknal.runner.control import Control
from seeknal.runner.executors import Threads
from seeknal.runner.observe import observe
from seeknal.runner.plan import CACHED, SKIPPED, Observed, Planned, held_by, plan_node
from seeknal.runner.ready import ReadyQueue
from seeknal.runner.reasons import Reason, Why
from seeknal.runner.retries import retry_delay
from seeknal.runner.stopping import GRACE_SECONDS
from seeknal.tracking import RunRecorder

CANCELLED = "cancelled"
MOST_WAIT_SECONDS = 1.0
NUDGE_SECONDS = 0.05
"""How often an attempt that was asked to end is asked again: an interruption between two queries is lost."""


class Execution:
    """One run of a project, all of it in the thread that calls `run`, but for `stop`.

    The store is told before a node is begun and as soon as its end is seen, so at any instant what is recorded is
    true: what is ``running`` was begun, and what is ``success`` has its output in place.

    Arguments are those of `seeknal.runner.execute.run_project`.
    """

    def __init__(
        self,
        project: Project,
        run: RunRecorder,
        *,
        full: bool,
        selected: Collection[str] | None,
        parallel: int,
        continue_on_error: bool,
        executor: Executor | None,
        on_event: Callable[[NodeEvent], None],
    ) -> None:
        self.is_cancelled = False
        self._project = project
        self._run = run
        self._clock = run.backend.clock
        self._full = full
        self._selected = project.nodes.keys() if selected is None else selected
        self._parallel = parallel
        self._continues = continue_on_error
        self._executor = executor
        self._on_event = on_event
        self._statuses: dict[str, str] = {}
        self._leaves: dict[str, str] = {}
        self._ready = ReadyQueue({node_id: node.inputs for node_id, node in project.nodes.items()})
        self._running: dict[Future[int | None], Attempt] = {}
        self._attempts: dict[str, int] = {}
        self._first_reasons: dict[str, tuple[Why, ...]] = {}
        self._retries: list[tuple[int, str]] = []
        self._events: SimpleQueue[Future[int | None] | signal.Signals] = SimpleQueue()
        self._stopped_by = ""
        self._grace_ends_us: int | None = None

    def stop(self, number: signal.Signals) -> None:
        """Ask the run to stop; a second time, at once. May be called from a signal handler and from any thread."""
        self._events.put(number)

    def run(self) -> dict[str, str]:
        """Run the project and return the status of each node that was selected, in the order of the project."""
        try:
            while self._is_open():
                self._end_what_is_due()
                self._begin_what_is_ready()
                if self._running or self._retries or not self._events.empty():
                    self._wait()
        except BaseException as error:
            self._give_up(error)
            raise
        self._skip_the_rest()
        return {node_id: self._statuses[node_id] for node_id in self._project.nodes if node_id in self._statuses}

    def _is_open(self) -> bool:
        if self._running:
            return True
        return not self._stopped_by and bool(self._ready or self._retries)

    # ---- begin ----

    def _begin_what_is_ready(self) -> None:
        now = self._clock.ticks_us()
        while self._retries and self._retries[0][0] <= now:
            self._ready.put_back(heapq.heappop(self._retries)[1])
        while self._ready and len(self._running) < self._parallel and self._events.empty() and not self._stopped_by:
            node = self._project.nodes[self._ready.take()]
            if node.node_id not in self._selected:
                self._leave(node)
            elif (broken := self._broken_input(node)) is not None:
                self._run.skip(node.node_id, broken)
                self._over(NodeEvent(node.node_id, SKIPPED, broken))
            else:
                self._bring_up_to_date(node)

    def _leave(self, node: Node) -> None:
        """Take a node that is not to run for what it is, whatever it would be if it ran."""
        backend = self._run.backend
        stored = backend.get_completed_intervals(node.node_id) if node.schedule else []
        newest = backend.get_latest_node_state(node.node_id, "success")
        self._leaves[node.node_id] = held_by(node, newest, [Interval(each.start, each.end) for each in stored])
        self._ready.done(node.node_id)

    def _broken_input(self, node: Node) -> str | None:
        for input_id in node.inputs:
            if self._statuses.get(input_id) in ("failed", SKIPPED):
                return f"{input_id} {self._statuses[input_id]}"
        return None

    def _bring_up_to_date(self, node: Node) -> None:
        observed, planned = self._plan(node, is_forced=self._full)
        self._leaves[node.node_id] = planned.leaves
        if planned.made_of is not None and planned.action == CACHED:
            if self._run.skip_if_current(node.node_id, planned.made_of.fingerprint):
                self._over(NodeEvent(node.node_id, "cached", planned.why))
                return
            _, planned = self._plan(node, is_forced=True)
            planned = msgspec.structs.replace(planned, reasons=(Why(Reason.CHANGED_MEANWHILE),))
        # A retry has the reason of the first attempt, whatever that has left behind.
        reasons = self._first_reasons.setdefault(node.node_id, planned.reasons)
        self._begin(node, observed, msgspec.structs.replace(planned, reasons=reasons))

    def _plan(self, node: Node, *, is_forced: bool = False) -> tuple[Observed, Planned]:
        backend = self._run.backend
        observed = observe(node, self._project.path, backend)
        upstream = {input_id: self._leaves.get(input_id, "") for input_id in node.inputs}
        return observed, plan_node(node, observed, upstream, now=self._clock.now(), is_forced=is_forced)

    def _begin(self, node: Node, observed: Observed, planned: Planned) -> None:
        node_id = node.node_id
        number = self._attempts[node_id] = self._attempts.get(node_id, 0) + 1
        has_log = node.kind == "command" or node.format == PYTHON
        log = log_file(self._run.run_id, node_id) if has_log else ""
        recorder = self._run.node(node_id, planned.made_of.fingerprint if planned.made_of else None)
        recorder.metadata["reason"] = planned.why
        if planned.made_of is not None:
            recorder.metadata[METADATA_KEY] = planned.made_of.short
        if log:
            recorder.metadata[LOG_KEY] = log
        block = ExitStack()
        block.enter_context(recorder)
        control = Control() if self._executor is None else None
        future: Future[int | None] = Future()
        try:
            if planned.made_of is None:
                raise NodeFailedError(observed.problem, hint=f"Correct {node.file} and run again.")
            task = self._task(node, observed, planned, log, number)
            if self._executor is None:
                future = Threads().submit(compute, task, control)
            else:
                future = self._executor.submit(compute, task)
        except NodeFailedError as error:
            future.set_exception(error)
        except BaseException as error:
            with block:
                raise error
        newest, timeout = observed.newest, node.timeout_seconds
        usual_ms = newest.duration_ms if newest is not None else None
        self._on_event(NodeEvent(node_id, "running", planned.why, log, attempt=number, usual_ms=usual_ms))
        self._running[future] = Attempt(
            node=node,
            observed=observed,
            planned=planned,
            block=block,
            recorder=recorder,
            log=log,
            control=control,
            future=future,
            due_us=None if timeout is None else self._clock.ticks_us() + int(timeout * 1_000_000),
        )
        future.add_done_callback(self._events.put)

    def _task(self, node: Node, observed: Observed, planned: Planned, log: str, number: int) -> Task:
        assert planned.made_of is not None
        kept = () if planned.is_anew else observed.completed
        return Task(
            node=node,
            project_path=self._project.path,
            run_id=self._run.run_id,
            facts={
                "fingerprint": planned.made_of.fingerprint,
                "intervals": spans_text(union(kept, planned.missing)),
            },
            ranges=planned.missing,
            keeps_rows=not planned.is_anew,
            log=log,
            attempt=number,
        )

    # ---- wait ----

    def _wait(self) -> None:
        """Wait until something happens or is due, and take up what has happened."""
        for event in self._happened():
            if isinstance(event, signal.Signals):
                self._take_signal(event)
            elif event in self._running:
                self._finish(self._running.pop(event))

    def _happened(self) -> list[Future[int | None] | signal.Signals]:
        due = [attempt.due_us for attempt in self._running.values()] + [at for at, _ in self._retries[:1]]
        due.append(self._grace_ends_us)
        first = min((at for at in due if at is not None), default=None)
        room = MOST_WAIT_SECONDS if first is None else (first - self._clock.ticks_us()) / 1_000_000
        if any(attempt.ending for attempt in self._running.values()):
            room = min(room, NUDGE_SECONDS)
        room = max(0.0, min(room, MOST_WAIT_SECONDS))
        found = []
        try:
            if self._running:
                found.append(self._events.get(timeout=room))
            elif self._events.empty():
                self._clock.sleep(room)
            while True:
                found.append(self._events.get_nowait())
        except Empty:
            return found

    def _take_signal(self, number: signal.Signals) -> None:
        now = self._clock.ticks_us()
        if not self.is_cancelled:
            self.is_cancelled = True
            self._stopped_by = "the run was cancelled"
            self._grace_ends_us = now + int(GRACE_SECONDS * 1_000_000)
            for attempt in self._running.values():
                detail = f"{number.name}: it has {GRACE_SECONDS:.0f} s to finish; a second signal ends it at once"
                self._on_event(NodeEvent(attempt.node.node_id, "stopping", detail))
            return
        self._grace_ends_us = None
        for attempt in self._running.values():
            attempt.end(CANCELLED, now)
            attempt.kill(now)

    def _end_what_is_due(self) -> None:
        now = self._clock.ticks_us()
        if self._grace_ends_us is not None and self._grace_ends_us <= now:
            self._grace_ends_us = None
            for attempt in self._running.values():
                if not attempt.ending:
                    attempt.end(CANCELLED, now)
        for future, attempt in list(self._running.items()):
            is_due = attempt.due_us is not None and attempt.due_us <= now
            if attempt.ending:
                attempt.nudge()
                if is_due and attempt.is_command and not attempt.is_killed:
                    attempt.kill(now)
                elif is_due:
                    self._finish(self._running.pop(future))
            elif is_due and not future.done():
                attempt.end(f"timed out after {attempt.node.timeout_seconds:g} s", now)
                self._on_event(NodeEvent(attempt.node.node_id, "ending", attempt.ending))

    # ---- record ----

    def _finish(self, attempt: Attempt) -> None:
        """Record the end of an attempt; where it is no success, try again later or let the node be failed."""
        recorder, planned = attempt.recorder, attempt.planned
        try:
            with attempt.block:
                recorder.row_count = attempt.outcome()
                if planned.is_anew:
                    for each in attempt.observed.completed:
                        recorder.restate_interval(each.start, each.end)
                for span in planned.missing:
                    recorder.complete_interval(span.start, span.end)
        except NodeFailedError as error:
            self._failed(attempt, str(error))
        except KeyboardInterrupt:
            self.is_cancelled = True
            self._stopped_by = self._stopped_by or "the run was cancelled"
            self._failed(attempt, CANCELLED)
            self._grace_ends_us = self._clock.ticks_us() + int(GRACE_SECONDS * 1_000_000)
        else:
            node_id, rows = attempt.node.node_id, recorder.row_count
            done = NodeEvent(node_id, "success", planned.why, attempt.log, attempt=recorder.attempt, row_count=rows)
            self._over(done)

    def _failed(self, attempt: Attempt, why: str) -> None:
        node, number = attempt.node, self._attempts[attempt.node.node_id]
        said = tail(self._project.path / attempt.log) if attempt.log and node.kind != "command" else ""
        # A function that still goes on is not begun a second time beside itself.
        if number <= node.retries and not self._stopped_by and attempt.future.done():
            delay = retry_delay(node.retry_delay_seconds, number, f"{self._run.run_id} {node.node_id}")
            heapq.heappush(self._retries, (self._clock.ticks_us() + int(delay * 1_000_000), node.node_id))
            detail = f"in {delay:.1f} s, {number} of {node.retries}: {why}"
            self._on_event(NodeEvent(node.node_id, "retrying", detail, attempt.log, said, number))
            return
        if not self._continues:
            self._stopped_by = self._stopped_by or f"not begun, since {node.node_id} failed"
        self._over(NodeEvent(node.node_id, "failed", why, attempt.log, said, number))

    def _over(self, event: NodeEvent) -> None:
        self._statuses[event.node_id] = event.status
        self._ready.done(event.node_id)
        self._on_event(event)

    def _skip_the_rest(self) -> None:
        """Record what was not begun, all in one transaction; what waited for a retry has failed."""
        for _, node_id in sorted(self._retries):
            self._over(NodeEvent(node_id, "failed", f"not tried again: {self._stopped_by}"))
        skipped = {}
        for node_id, node in self._project.nodes.items():
            if node_id in self._selected and node_id not in self._statuses:
                skipped[node_id] = self._broken_input(node) or self._stopped_by
                self._statuses[node_id] = SKIPPED

        def skip() -> None:
            for node_id, why in skipped.items():
                self._run.skip(node_id, why)

        if skipped:
            self._run.write(skip)
        for node_id, why in skipped.items():
            self._on_event(NodeEvent(node_id, SKIPPED, why))

    def _give_up(self, error: BaseException) -> None:
        """End what runs, and record that it was cut short by an error that is not a node's."""
        for attempt in self._running.values():
            attempt.end(f"cut short by {type(error).__name__}", self._clock.ticks_us())
            attempt.kill(self._clock.ticks_us())
        for attempt in self._running.values():
            try:
                with attempt.block:
                    raise NodeFailedError(attempt.ending, hint="Run again.")
            except NodeFailedError as cut:
                for note in getattr(cut, "__notes__", ()):
                    error.add_note(note)
