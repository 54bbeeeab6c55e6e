"""Begin a node: open its record, take back what is to be done again, and say what is to be computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from seeknal.model.intervals import Interval
from seeknal.pipeline.fingerprint import METADATA_KEY
from seeknal.pipeline.nodes import PYTHON, Node, Project
from seeknal.runner.capture import LOG_KEY, log_file
from seeknal.runner.compute import Task
from seeknal.runner.held import Held
from seeknal.runner.outputs import Unit
from seeknal.runner.plan import Observed, Planned
from seeknal.runner.work import RangedWork, Taken, Work, told
from seeknal.tracking import NodeRecorder, RunRecorder

TAKEN_BACK_KEY = "taken_back"
"""Under which the metadata of a node state says that what was to be done again is no longer completed."""


class Beginning(NamedTuple):
    """An attempt that is to begin: of a node, or of one of its ranges under a claim."""

    work: Work
    number: int
    taken: Taken | None = None

    @property
    def unit(self) -> Unit | None:
        """The range; ``None`` for a whole node."""
        return self.taken.unit if self.taken is not None else None

    @property
    def made(self) -> str:
        """What the part of the range is made of; empty for a whole node."""
        return self.work.made(self.unit) if isinstance(self.work, RangedWork) and self.unit is not None else ""

    @property
    def detail(self) -> str:
        """What is computed and why, for people."""
        why = self.work.planned.why
        return why if self.unit is None else f"{told(self.unit)}: {why}"


def begin_work(run: RunRecorder, node: Node, observed: Observed, planned: Planned) -> Work:
    """Record that a node begins."""
    log = _log(run, node)
    return Work(node, observed, planned, _recorder(run, node, planned, log), log)


def begin_ranges(
    run: RunRecorder, node: Node, observed: Observed, planned: Planned, inputs: Mapping[str, Held], *, is_shared: bool
) -> RangedWork:
    """Record that a node begins that is computed range by range."""
    log = _log(run, node)
    recorder = _recorder(run, node, planned, log)
    return RangedWork(node, observed, planned, recorder, log, run=run, inputs=inputs, is_shared=is_shared)


def _log(run: RunRecorder, node: Node) -> str:
    return log_file(run.run_id, node.node_id) if node.kind == "command" or node.format == PYTHON else ""


def _recorder(run: RunRecorder, node: Node, planned: Planned, log: str) -> NodeRecorder:
    recorder = run.node(node.node_id, planned.made_of.fingerprint if planned.made_of else None)
    recorder.metadata["reason"] = planned.why
    if planned.made_of is not None:
        recorder.metadata[METADATA_KEY] = planned.made_of.short
    if log:
        recorder.metadata[LOG_KEY] = log
    return recorder


def restate(
    run: RunRecorder, node: Node, planned: Planned, plan: Callable[[], Planned], *, does_again: bool = False
) -> None:
    """Take back that ranges are completed which are to be done again, so that they can be claimed.

    What is to be done again is decided anew in the transaction that takes it back: what another process has completed
    meanwhile stays. Whoever goes on with this run sees from the node state that it was taken back.

    Args:
        run: The record.
        node: The node.
        planned: What was decided.
        plan: Decides again.
        does_again: Whether this was asked for, and is not only a matter of what has changed.
    """
    if not planned.ranges.lost and not does_again:
        return

    def take_back() -> None:
        for unit in plan().ranges.lost:
            if isinstance(unit, Interval):
                run.backend.restate_intervals(node.node_id, unit.start, unit.end, reason=planned.why)
            else:
                run.backend.restate_partitions(node.node_id, [unit], reason=planned.why)
        run.backend.set_node_state(run.run_id, node.node_id, metadata={TAKEN_BACK_KEY: True})

    run.write(take_back)


def retry_parked(run: RunRecorder, node: Node) -> None:
    """Let what failed too often be tried again: a new run is a new try, as it is for whole nodes."""
    if run.backend.list_claims(node.node_id, status="parked"):
        run.backend.retry_parked(node.node_id, reason=f"{run.run_id} tries again")


def task_of(project: Project, run_id: str, beginning: Beginning, files: dict[str, tuple[str, ...]]) -> Task:
    """Return what a worker is told of an attempt."""
    work, unit = beginning.work, beginning.unit
    assert work.planned.made_of is not None
    observed = work.observed
    facts = {"fingerprint": work.planned.made_of.fingerprint, "run_id": run_id}
    if unit is not None:
        facts["range"] = told(unit)
    return Task(
        node=work.node,
        project_path=project.path.absolute(),  # a worker may stand elsewhere
        run_id=run_id,
        facts=facts,
        inputs=files,
        unit=unit,
        log=work.log,
        attempt=beginning.number,
        stamp=observed.stamp,
        code=observed.made_of.parts if observed.made_of is not None and observed.stamp else {},
        with_hash=project.hashes_outputs and unit is None,
    )
