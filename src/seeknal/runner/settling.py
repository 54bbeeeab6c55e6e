"""Find out what has become of a node that is computed range by range, once this run does no more of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from seeknal.pipeline.nodes import Project
from seeknal.runner.held import Held, held_parts
from seeknal.runner.observe import observe_ranges
from seeknal.runner.plan import Asked, plan_node
from seeknal.runner.sweeping import sweep
from seeknal.runner.work import RangedWork
from seeknal.tracking import RunRecorder


class Settled(msgspec.Struct, frozen=True):
    """How a node stands: ``why`` it failed, or what it ``holds`` now that it is done; neither, if others are at it."""

    why: str = ""
    holds: Held | None = None


def settle(
    run: RunRecorder, project: Project, asked: Asked, holds: Mapping[str, Held], work: RangedWork, *, gives_up: bool
) -> Settled:
    """Look at what is done by now, whoever did it; of a node that is done, delete the files that count no more.

    Args:
        run: The run.
        project: Its project.
        asked: What the run was asked for.
        holds: What the inputs of the node hold.
        work: The node, of which nothing is being computed by this run.
        gives_up: Whether this run does nothing more of it after a failure.
    """
    node = work.node
    observed = msgspec.structs.replace(
        work.observed, done=observe_ranges(node, project.path, run.backend, is_shared=asked.is_shared)
    )
    upstream = {input_id: holds[input_id] for input_id in node.inputs}
    once = msgspec.structs.replace(asked, full=False, window=asked.window.once, is_shared=True)
    ranges = plan_node(node, observed, upstream, now=run.backend.clock.now(), asked=once).ranges
    why = work.settle(ranges)
    if not why and work.is_left and work.failures and gives_up:
        why = next(iter(work.failures.values()))
    if why or work.is_left:
        return Settled(why)
    with_rows = [part for part in ranges.live if part.span is None or part.span.start < part.span.end]
    live = tuple(with_rows) or ranges.live  # an empty range tells the columns as long as there is no other
    sweep(run, node, project.path, live)
    work.recorder.row_count = sum(part.rows for part in live) if node.has_output else None
    return Settled("", held_parts(node, work.definition, live, ranges.valid, work.planned.ranges.batches))
