"""Run a project: what changed or was never finished, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Executor

import msgspec

from seeknal.errors import ConfigurationError
from seeknal.pipeline.nodes import Project
from seeknal.runner.attempt import NodeEvent
from seeknal.runner.executing import Execution
from seeknal.runner.selection import check_parents
from seeknal.runner.stopping import told_of_signals
from seeknal.state.contract import StateBackend
from seeknal.tracking import recover_dead_runs, track_run

__all__ = ["NodeEvent", "RunReport", "run_project"]


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
    parallel: int = 1,
    continue_on_error: bool = False,
    executor: Executor | None = None,
    on_event: Callable[[NodeEvent], None] = lambda event: None,
) -> RunReport:
    """Run what is not up to date, each node as soon as its inputs are done.

    A failed node skips what needs it. After a failure nothing else is begun, unless ``continue_on_error``; what is
    running goes on to its end.

    This thread alone decides and writes to the store; nodes are computed elsewhere. In the main thread, SIGINT, SIGTERM
    and SIGHUP are taken while nodes run: at the first nothing new is begun and what runs has
    `seeknal.runner.stopping.GRACE_SECONDS` to finish, at the second it is ended at once.

    Args:
        project: As `seeknal.pipeline.load.load_project` returns it.
        backend: An initialized store.
        full: Run every node that is selected.
        selected: The ids of the nodes that may run, as `seeknal.runner.selection.select` returns them; all, when
            ``None``. The others keep their states and outputs, and those that need them read these.
        parallel: How many nodes are computed at once.
        continue_on_error: Go on after a failure with what does not need the node that failed.
        executor: Where nodes are computed; in threads when ``None``. What runs elsewhere cannot be ended: after its
            timeout it is given up.
        on_event: Called in this thread with what became of a node, and before each retry.

    Raises:
        LockHeldError: Another process runs this project.
        ConfigurationError: A selected node needs one that is not selected and was never computed, or ``parallel`` is
            less than 1; nothing was run.
        KeyboardInterrupt: A signal asked the run to stop, or a node raised it; the run is ``cancelled``, and its nodes
            are recorded as what they are.
    """
    if parallel < 1:
        raise ConfigurationError(f"parallel is {parallel}", hint="It is the number of nodes at once, at least 1.")
    with backend.lock(f"pipeline:{project.name}", timeout_ms=0):
        recovered = recover_dead_runs(backend)
        config: dict[str, object] = {"project": project.name, "full": full}
        if selected is not None:
            check_parents(project, backend, selected)
            config["selected"] = sorted(selected)
        with track_run(backend, config=config) as run:
            execution = Execution(
                project,
                run,
                full=full,
                selected=selected,
                parallel=parallel,
                continue_on_error=continue_on_error,
                executor=executor,
                on_event=on_event,
            )
            with told_of_signals(execution.stop):
                statuses = execution.run()
            failed = [node_id for node_id, status in statuses.items() if status == "failed"]
            if execution.is_cancelled:
                raise KeyboardInterrupt
            if failed:
                run.fail(f"failed: {', '.join(failed)}")
    return RunReport(run.run_id, "failed" if failed else "success", statuses, recovered)
