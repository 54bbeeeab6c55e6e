"""The loop of a run: begins what is ready, waits for what ends, is due, or asks it to stop, and records each."""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.pipeline.nodes import PYTHON, Node, Project
from seeknal.runner.air import InTheAir
from seeknal.runner.attempt import Attempt, NodeEvent
from seeknal.runner.begin import Beginning, begin_ranges, begin_work, restate, retry_parked, task_of
from seeknal.runner.capture import tail
from seeknal.runner.compute import Outcome
from seeknal.runner.current import Current
from seeknal.runner.executors import Workers
from seeknal.runner.held import Held
from seeknal.runner.observe import observe
from seeknal.runner.outputs import OUTPUT_KEY
from seeknal.runner.plan import SKIPPED, Asked, Observed, Planned, held_by, plan_node
from seeknal.runner.publish import files_of_inputs, publish_output
from seeknal.runner.ready import ReadyQueue
from seeknal.runner.reasons import Why
from seeknal.runner.retries import retry_delay
from seeknal.runner.settling import settle
from seeknal.runner.stopping import GRACE_SECONDS
from seeknal.runner.work import RangedWork, Work, told
from seeknal.tracking import RunRecorder

CANCELLED = "cancelled"

LOOK_AGAIN_US = 1_000_000
"""After how long it is looked again whether this run is not taken for dead, before it replaces an output."""


class Execution:
    """The nodes of one run, all of them in the thread that calls `run`, but for `stop`.

    The store is told before a node is begun and as soon as its end is seen, so at any instant what is recorded is
    true: what is ``running`` was begun, and what is ``success`` has its output in place.

    Args:
        project: The project.
        run: The record.
        asked: What is to be done.
        parallel: How many nodes or ranges are computed at once.
        continue_on_error: Whether what does not need a failed node is begun after it.
        workers: What computes.
        on_event: Is told what becomes of nodes.
        statuses: What has become of nodes before; it is added to.
    """

    def __init__(
        self,
        project: Project,
        run: RunRecorder,
        asked: Asked,
        *,
        parallel: int,
        continue_on_error: bool,
        workers: Workers,
        on_event: Callable[[NodeEvent], None],
        statuses: dict[str, str],
    ) -> None:
        self.is_cancelled = False
        self.stopped_by = ""
        self._project = project
        self._run = run
        self._clock = run.backend.clock
        self._asked = asked
        self._continues = continue_on_error
        self._workers = workers
        self._on_event = on_event
        self._statuses = statuses
        self._holds: dict[str, Held] = {}
        self._ready = ReadyQueue({node_id: node.inputs for node_id, node in project.nodes.items()})
        self._air = InTheAir(self._clock, parallel)
        self._current = Current(project, run)
        self._works: dict[str, RangedWork] = {}
        self._attempts: dict[str, int] = {}
        self._reasons: dict[str, tuple[Why, ...]] = {}
        self._retries: list[tuple[int, str]] = []

    def stop(self, number: signal.Signals) -> None:
        """Ask the run to stop; a second time, at once. May be called from a signal handler and from any thread."""
        self._air.stop(number)

    def run(self) -> None:
        """Run what was asked for; ``statuses`` then has the status of each node that was selected."""
        try:
            while self._is_open():
                self._end_what_is_due()
                self._begin_what_is_ready()
                self._settle_works()
                if self._air or self._works or self._retries or not self._air.is_quiet:
                    self._wait()
        except BaseException as error:
            self._give_up(error)
            raise
        self._skip_the_rest()

    def _is_open(self) -> bool:
        if self._air or self._works:
            return True
        return not self.stopped_by and bool(self._ready or self._retries)

    # ---- begin ----

    def _begin_what_is_ready(self) -> None:
        now = self._clock.ticks_us()
        while self._retries and self._retries[0][0] <= now:
            self._ready.put_back(heapq.heappop(self._retries)[1])
        while self._air.has_room and not self.is_cancelled:
            if self._begin_range():
                continue
            if not self._ready or self.stopped_by or self._current.is_full:
                if self._record_current():
                    continue  # what needs them may be ready now
                break
            node = self._project.nodes[self._ready.take()]
            if not self._asked.takes(node.node_id):
                self._leave(node)
            elif (broken := self._broken_input(node)) is not None:
                self._run.skip(node.node_id, broken)
                self._over(NodeEvent(node.node_id, SKIPPED, broken))
            else:
                self._bring_up_to_date(node)
        self._record_current()

    def _leave(self, node: Node) -> None:
        """Take a node that is not to run for what it is, whatever it would be if it ran."""
        self._holds[node.node_id] = held_by(node, observe(node, self._project.path, self._run.backend))
        self._ready.done(node.node_id)

    def _broken_input(self, node: Node) -> str | None:
        for input_id in node.inputs:
            if self._statuses.get(input_id) in ("failed", SKIPPED):
                return f"{input_id} {self._statuses[input_id]}"
        return None

    def _bring_up_to_date(self, node: Node) -> None:
        observed, planned = self._plan(node, self._asked)
        self._holds[node.node_id] = planned.leaves
        if self._current.take(node, observed, planned):
            return
        self._record_current()
        # A retry has the reason of the first attempt, whatever that has left behind.
        planned = msgspec.structs.replace(planned, reasons=self._reasons.setdefault(node.node_id, planned.reasons))
        if node.is_ranged and planned.made_of is not None:
            self._begin_ranges(node, observed, planned)
        else:
            self._begin_node(node, observed, planned)

    def _record_current(self) -> bool:
        """Record the nodes that are up to date; return whether there were any."""
        events, changed = self._current.record()
        for event in events:
            self._over(event)
        for node_id in changed:
            self._ready.put_back(node_id)
        return bool(events or changed)

    def _plan(self, node: Node, asked: Asked) -> tuple[Observed, Planned]:
        observed = observe(node, self._project.path, self._run.backend, is_shared=asked.is_shared)
        upstream = {input_id: self._holds.get(input_id, Held(text="")) for input_id in node.inputs}
        planned = plan_node(node, observed, upstream, now=self._clock.now(), asked=asked)
        return observed, self._current.judged(planned)

    def _begin_node(self, node: Node, observed: Observed, planned: Planned) -> None:
        number = self._attempts[node.node_id] = self._attempts.get(node.node_id, 0) + 1
        work = begin_work(self._run, node, observed, planned)
        if planned.made_of is None:
            error = NodeFailedError(observed.problem, hint=f"Correct {node.file} and run again.")
            self._failed(Attempt.of_nothing(work, number), error)
            return
        try:
            self._begin_attempt(Beginning(work, number))
        except BaseException as error:
            with work.block:
                raise error

    def _begin_ranges(self, node: Node, observed: Observed, planned: Planned) -> None:
        inputs, asked = {input_id: self._holds[input_id] for input_id in node.inputs}, self._asked
        self._works[node.node_id] = begin_ranges(self._run, node, observed, planned, inputs, is_shared=asked.is_shared)
        if not asked.is_shared:
            retry_parked(self._run, node)
        restate(self._run, node, planned, lambda: self._plan(node, asked)[1], does_again=asked.does_again(node.node_id))

    def _begin_range(self) -> bool:
        """Begin a range of a node that is under way; return whether there was one to begin."""
        for work in self._works.values():
            if work.failures and not self._continues:
                continue
            taken = work.take(self._clock.ticks_us())
            if taken is not None:
                self._begin_attempt(Beginning(work, work.attempt_at(taken.unit), taken))
                return True
        return False

    def _begin_attempt(self, beginning: Beginning) -> None:
        work, node = beginning.work, beginning.work.node
        files = files_of_inputs(self._project.path, node, self._project.nodes, self._holds)
        task = task_of(self._project, self._run.run_id, beginning, files)
        newest = work.observed.newest
        usual_ms = newest.duration_ms if newest is not None else None
        self._tell(work, "running", beginning.detail, attempt=beginning.number, usual_ms=usual_ms)
        timeout = node.timeout_seconds
        due_us = None if timeout is None else self._clock.ticks_us() + int(timeout * 1_000_000)
        future, control = self._workers.begin(task)
        self._air.add(
            Attempt(
                work=work,
                taken=beginning.taken,
                made=beginning.made,
                number=beginning.number,
                control=control,
                future=future,
                due_us=due_us,
            )
        )

    # ---- wait ----

    def _wait(self) -> None:
        """Wait until something happens or is due, and take up what has happened."""
        due = [at for at, _ in self._retries[:1]]
        if self._air.has_room:
            due += [work.look_at_us for work in self._works.values() if work.is_left]
        for event in self._air.wait(due):
            if isinstance(event, Attempt):
                self._finish(event)
            elif not self.is_cancelled:
                self._cancel()
                for work in self._air.works():
                    detail = f"{event.name}: it has {GRACE_SECONDS:.0f} s to finish; a second signal ends it at once"
                    self._tell(work, "stopping", detail)
            else:
                self._air.end_all(CANCELLED)

    def _cancel(self) -> None:
        self.is_cancelled = True
        self.stopped_by = self.stopped_by or "the run was cancelled"
        self._air.let_finish(GRACE_SECONDS, CANCELLED)

    def _end_what_is_due(self) -> None:
        asked, given_up = self._air.end_what_is_due()
        for attempt in asked:
            self._tell(attempt.work, "ending", attempt.ending, attempt=attempt.number)
        for attempt in given_up:
            self._finish(attempt)

    # ---- record ----

    def _finish(self, attempt: Attempt) -> None:
        """Record the end of an attempt; where it is no success, try again later or let the node be failed."""
        try:
            outcome = attempt.outcome()
            if isinstance(attempt.work, RangedWork) and attempt.taken is not None:
                attempt.work.complete(self._project.path, attempt.taken, attempt.made, outcome)
                self._tell(attempt.work, "running", f"{told(attempt.taken.unit)} done", attempt=attempt.number)
            else:
                self._complete_node(attempt, outcome)
        except NodeFailedError as error:
            self._failed(attempt, error)
        except KeyboardInterrupt:
            self._cancel()
            self._failed(attempt, NodeFailedError(CANCELLED, hint="Run again."))
        except BaseException:
            with attempt.work.block:  # it is no longer in the air, where all that runs is given up
                raise

    def _complete_node(self, attempt: Attempt, outcome: Outcome) -> None:
        work = attempt.work
        with work.block:
            if work.node.has_output:
                if self._clock.ticks_us() - attempt.began_us > LOOK_AGAIN_US:
                    self._run.check_lease()  # who was frozen must not replace what others have made since
                work.recorder.metadata[OUTPUT_KEY] = publish_output(self._project.path, work.node.node_id, outcome)
            work.recorder.row_count = outcome.rows
        self._succeeded(work)

    def _failed(self, attempt: Attempt, error: NodeFailedError) -> None:
        work, node, number, why = attempt.work, attempt.node, attempt.number, str(error)
        said = tail(self._project.path / work.log) if work.log and node.format == PYTHON else ""
        # A function that still goes on is not begun a second time beside itself.
        is_tried = number <= node.retries and attempt.future.done()
        is_tried = is_tried and not (self.is_cancelled if attempt.taken is not None else self.stopped_by)
        delay = retry_delay(node.retry_delay_seconds, number, f"{self._run.run_id} {attempt.name}") if is_tried else 0.0
        at_us = self._clock.ticks_us() + int(delay * 1_000_000)
        if isinstance(work, RangedWork) and attempt.taken is not None:
            again_us = at_us if is_tried else None
            is_tried = work.give_back(attempt.taken, why, again_us, is_counted=why != CANCELLED)
        else:
            work.fail(error)
            if is_tried:
                heapq.heappush(self._retries, (at_us, node.node_id))
        if is_tried:
            what = f"{told(attempt.taken.unit)} " if attempt.taken is not None else ""
            detail = f"{what}in {delay:.1f} s, {number} of {node.retries}: {why}"
            self._tell(work, "retrying", detail, attempt=number, said=said)
        elif not isinstance(work, RangedWork):
            self._stop_unless_continuing(node)
            self._over(self._event(work, "failed", why, attempt=number, said=said))

    # ---- nodes that are computed range by range ----

    def _settle_works(self) -> None:
        """End the nodes of which nothing is left, or nothing that this run will do."""
        for work in list(self._works.values()):
            is_given_up = self.is_cancelled or (work.failures and not self._continues)
            # What was not asked for claims since something ended is asked in the next round.
            is_to_come = work.is_waiting() or (work.is_left and work.look_at_us == 0)
            is_news = not work.is_left or work.look_at_us != work.looked_at_us
            if not work.in_flight and (is_given_up or (is_news and not is_to_come)):
                work.looked_at_us = work.look_at_us
                self._settle(work)

    def _settle(self, work: RangedWork) -> None:
        gives_up = not self._continues
        settled = settle(self._run, self._project, self._asked, self._holds, work, gives_up=gives_up)
        is_cut = self.is_cancelled and (work.is_left or settled.why)
        if is_cut or settled.why:
            self._end_work(work, NodeFailedError(CANCELLED if is_cut else settled.why, hint="Run again."))
        elif settled.holds is not None:
            self._holds[work.node.node_id] = settled.holds
            with work.block:
                pass
            del self._works[work.node.node_id]
            self._succeeded(work)

    # ---- the end of a node ----

    def _end_work(self, work: Work, error: NodeFailedError) -> None:
        """Record that a node failed for good."""
        work.fail(error)
        self._works.pop(work.node.node_id, None)
        said = tail(self._project.path / work.log) if work.log and work.node.format == PYTHON else ""
        self._stop_unless_continuing(work.node)
        self._over(self._event(work, "failed", str(error), attempt=work.recorder.attempt, said=said))

    def _stop_unless_continuing(self, node: Node) -> None:
        if not self._continues:
            self.stopped_by = self.stopped_by or f"not begun, since {node.node_id} failed"

    def _succeeded(self, work: Work) -> None:
        rows, number = work.recorder.row_count, work.recorder.attempt
        self._over(self._event(work, "success", work.planned.why, attempt=number, row_count=rows))

    def _tell(self, work: Work, status: str, detail: str, **more: Any) -> None:
        self._on_event(self._event(work, status, detail, **more))

    def _event(self, work: Work, status: str, detail: str, **more: Any) -> NodeEvent:
        if isinstance(work, RangedWork):
            more |= {"done": work.done, "total": work.total}
        return NodeEvent(work.node.node_id, status, detail, work.log, **more)

    def _over(self, event: NodeEvent) -> None:
        self._statuses[event.node_id] = event.status
        self._ready.done(event.node_id)
        self._on_event(event)

    def _skip_the_rest(self) -> None:
        """Record what was not begun, all in one transaction; what waited for a retry has failed."""
        for _, node_id in sorted(self._retries):
            self._over(NodeEvent(node_id, "failed", f"not tried again: {self.stopped_by}"))
        skipped = {}
        for node_id, node in self._project.nodes.items():
            if self._asked.takes(node_id) and node_id not in self._statuses:
                skipped[node_id] = self._broken_input(node) or self.stopped_by
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
        self._air.end_all(f"cut short by {type(error).__name__}")
        for work in {id(work): work for work in [*self._air.works(), *self._works.values()]}.values():
            cut = NodeFailedError(f"cut short by {type(error).__name__}", hint="Run again.")
            work.fail(cut)
            for note in getattr(cut, "__notes__", ()):
                error.add_note(note)
