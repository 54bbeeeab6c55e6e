"""Run a project: what changed or was never finished, and what comes after it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import msgspec

from seeknal.errors import CapabilityError, ConfigurationError
from seeknal.pipeline.nodes import Project
from seeknal.runner.attempt import NodeEvent
from seeknal.runner.executing import Execution
from seeknal.runner.executors import InThreads, OnExecutor, Workers
from seeknal.runner.plan import Asked
from seeknal.runner.ranges import EVERYTHING, Window
from seeknal.runner.resume import RESUMES_KEY, config_of, find_unfinished
from seeknal.runner.selection import check_parents, check_window
from seeknal.runner.stages import stages_of
from seeknal.runner.stopping import told_of_signals
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.tracking import RunRecorder, recover_dead_runs, track_run

__all__ = ["NodeEvent", "RunReport", "run_project"]

PATIENCE_MS = 3_600_000
"""How long one of several backfills waits for its turn to run whole nodes, unless it is told."""

LEFT_BEHIND_SECONDS = 24 * 3600
"""How old a file must be that stands beside the outputs, before it is taken for what a killed run has left."""


class RunReport(msgspec.Struct, frozen=True):
    """How a run ended.

    Attributes:
        run_id: The run.
        status: ``success`` or ``failed``.
        nodes: The statuses of the nodes that were selected, by their ids, in the order of the project.
        recovered: Dead runs that were failed.
        resumes: The run that this one went on with; empty if none.
    """

    run_id: str
    status: str
    nodes: dict[str, str]
    recovered: list[str]
    resumes: str = ""


def run_project(
    project: Project,
    backend: StateBackend,
    *,
    full: bool = False,
    selected: Collection[str] | None = None,
    window: Window = EVERYTHING,
    backfill: bool = False,
    resume: bool = False,
    parallel: int = 1,
    continue_on_error: bool = False,
    executor: Executor | Workers | None = None,
    wait_ms: int = 0,
    on_event: Callable[[NodeEvent], None] = lambda event: None,
    on_run: Callable[[str], None] = lambda run_id: None,
) -> RunReport:
    """Run what is not up to date, each node as soon as its inputs are done.

    A failed node skips what needs it. After a failure nothing else is begun, unless ``continue_on_error``; what is
    running goes on to its end.

    This thread alone decides and writes to the store; nodes are computed elsewhere. In the main thread, SIGINT, SIGTERM
    and SIGHUP are taken while nodes run: at the first nothing new is begun and what runs has
    `seeknal.runner.stopping.GRACE_SECONDS` to finish, at the second it is ended at once.

    One process at a time runs a project, but for backfills: several of them share what is missing.

    Args:
        project: As `seeknal.pipeline.load.load_project` returns it.
        backend: An initialized store, with `Capability.CLAIMS` and `Capability.PROVENANCE` where nodes are computed
            range by range.
        full: Run every node that is selected.
        selected: The ids of the nodes that may run, as `seeknal.runner.selection.select` returns them; all, when
            ``None``. The others keep their states and outputs, and those that need them read these.
        window: Which ranges of nodes are computed.
        backfill: Share the work with other processes that do the same: each takes ranges that are missing until none
            is. Nodes that are computed as a whole are run by one of them, while the others wait.
        resume: Go on with what the newest run of the project was asked for, if it did not succeed, less what is done
            of it; ``full``, ``selected``, ``window`` and ``backfill`` are those of that run. Where there is nothing to
            go on with they are as given.
        parallel: How many nodes or ranges are computed at once.
        continue_on_error: Go on after a failure with what does not need the node that failed.
        executor: Where nodes are computed; in threads when ``None``. What runs on a ``concurrent.futures`` executor
            cannot be ended: after its timeout it is given up.
        wait_ms: How long to wait for another process that runs this project.
        on_event: Called in this thread with what became of a node, and before each retry.
        on_run: Called with the id of the run, once it is recorded.

    Raises:
        LockHeldError: Another process runs this project.
        ConfigurationError: A selected node needs one that is not selected and was never computed, or ``parallel`` is
            less than 1, or a backfill is to do again what is done, or ranges are asked for that no selected node has;
            nothing was run.
        KeyboardInterrupt: A signal asked the run to stop, or a node raised it; the run is ``cancelled``, and its nodes
            are recorded as what they are.
    """
    if parallel < 1:
        raise ConfigurationError(f"parallel is {parallel}", hint="It is the number of nodes at once, at least 1.")
    asked = Asked(
        full=full,
        selected=None if selected is None else frozenset(selected),
        window=window,
        is_shared=backfill,
    )
    check_asked(asked)
    check_capabilities(project, backend)
    with told_of_signals(_interrupt), ExitStack() as turn:
        if resume or not backfill:
            turn.enter_context(_turn(project, backend, wait_ms))
        recovered = recover_dead_runs(backend)
        unfinished = find_unfinished(project, backend) if resume else None
        asked = unfinished.asked if unfinished is not None else asked
        if asked.selected is not None:
            check_parents(project, backend, asked.selected)
        check_window(project, backend, asked, backend.clock.now())
        if asked.is_shared:
            turn.close()  # the others get theirs, too
        else:
            _clear_away(project.path)
        resumes = unfinished.run_id if unfinished is not None else ""
        metadata = {RESUMES_KEY: resumes} if resumes else {}
        with track_run(backend, config=config_of(asked, project), metadata=metadata) as run:
            on_run(run.run_id)
            workers: Workers = InThreads() if executor is None else _as_workers(executor)
            stages = Stages(project, run, asked, parallel, continue_on_error, workers, wait_ms, on_event)
            statuses = stages.run()
            failed = [node_id for node_id, status in statuses.items() if status == "failed"]
            if failed:
                run.fail(f"failed: {', '.join(failed)}")
    return RunReport(run.run_id, "failed" if failed else "success", statuses, recovered, resumes)


def check_asked(asked: Asked) -> None:
    """Raise if what is asked for does not go together.

    Raises:
        ConfigurationError: A backfill is to do again what is done, or a span ends before it begins.
    """
    window = asked.window
    if window.start is not None and window.end is not None and window.end <= window.start:
        raise ConfigurationError(
            f"the end {window.end.isoformat()} is not after the start {window.start.isoformat()}",
            hint="A span is half-open: [start, end).",
        )
    if asked.is_shared and (asked.full or window.restates):
        raise ConfigurationError(
            "a backfill that is shared cannot do again what is done: each process would, for itself",
            hint="Take it back first with `seeknal intervals restate`, then run the backfill.",
        )


def check_capabilities(project: Project, backend: StateBackend) -> None:
    """Raise if a store cannot keep what the nodes of a project need.

    Raises:
        CapabilityError: It keeps no claims or no provenance, which nodes with a schedule or partitions need.
    """
    ranged = next((node_id for node_id, node in project.nodes.items() if node.is_ranged), None)
    missing = [each for each in (Capability.CLAIMS, Capability.PROVENANCE) if each not in backend.capabilities]
    if ranged is not None and missing:
        raise CapabilityError(
            f"{ranged} is computed range by range, for which a {type(backend).__name__} lacks {', '.join(missing)}",
            hint="Use a backend that declares it; file and database do.",
        )


class Stages:
    """The stages of one run; arguments are those of `run_project`."""

    def __init__(
        self,
        project: Project,
        run: RunRecorder,
        asked: Asked,
        parallel: int,
        continue_on_error: bool,
        workers: Workers,
        wait_ms: int,
        on_event: Callable[[NodeEvent], None],
    ) -> None:
        self._project = project
        self._run = run
        self._asked = asked
        self._parallel = parallel
        self._continues = continue_on_error
        self._workers = workers
        self._wait_ms = wait_ms
        self._on_event = on_event
        self._statuses: dict[str, str] = {}
        self._stopped_by = ""

    def run(self) -> dict[str, str]:
        """Run them; return the statuses of the nodes that were selected, in the order of the project."""
        if not self._asked.is_shared:
            self._execute(self._asked)
        else:
            for stage in stages_of(self._project, self._asked):
                asked = msgspec.structs.replace(self._asked, selected=stage.nodes)
                wait_ms = self._wait_ms or PATIENCE_MS
                is_alone = stage.is_whole and not self._stopped_by
                with _turn(self._project, self._run.backend, wait_ms) if is_alone else nullcontext():
                    self._execute(asked)
        return {node_id: self._statuses[node_id] for node_id in self._project.nodes if node_id in self._statuses}

    def _execute(self, asked: Asked) -> None:
        execution = Execution(
            self._project,
            self._run,
            asked,
            parallel=self._parallel,
            continue_on_error=self._continues,
            workers=self._workers,
            on_event=self._on_event,
            statuses=self._statuses,
        )
        execution.stopped_by = self._stopped_by
        with told_of_signals(execution.stop):
            execution.run()
        self._stopped_by = execution.stopped_by
        if execution.is_cancelled:
            raise KeyboardInterrupt


def _interrupt(number: signal.Signals) -> None:
    raise KeyboardInterrupt


def _as_workers(executor: Executor | Workers) -> Workers:
    return OnExecutor(executor) if isinstance(executor, Executor) else executor


@contextmanager
def _turn(project: Project, backend: StateBackend, wait_ms: int) -> Iterator[None]:
    """Hold the lock of the project: whoever has it runs nodes that are computed as a whole."""
    with backend.lock(f"pipeline:{project.name}", timeout_ms=wait_ms):
        yield


def _clear_away(project_path: Path) -> None:
    """Delete what killed runs have left beside the outputs; what is younger may belong to a backfill that goes on."""
    for path in (project_path / "target" / "outputs").glob(".*.tmp"):
        try:
            if path.stat().st_mtime < time.time() - LEFT_BEHIND_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
