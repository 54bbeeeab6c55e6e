"""Nodes that are up to date, recorded together: a commit of a hundred of them takes little longer than one of one."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from seeknal.pipeline.nodes import Node, Project
from seeknal.runner.attempt import NodeEvent
from seeknal.runner.plan import CACHED, RUN, Observed, Planned
from seeknal.runner.reasons import Reason, Why
from seeknal.runner.sweeping import sweep
from seeknal.tracking import RunRecorder

MOST_TOGETHER = 100
"""In one transaction, which is repeated as a whole where somebody else has written to one of them meanwhile."""


class Looked(NamedTuple):
    """A node that is up to date, as it was looked at."""

    node: Node
    observed: Observed
    planned: Planned


class Current:
    """Nodes that are up to date and are not recorded yet. Belongs to the thread that runs the project."""

    def __init__(self, project: Project, run: RunRecorder) -> None:
        self._path = project.path
        self._run = run
        self._looked: list[Looked] = []
        self._changed: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether there are as many as are recorded together."""
        return len(self._looked) >= MOST_TOGETHER

    def judged(self, planned: Planned) -> Planned:
        """Return what is to be done with a node: it is run, if it changed between the look and the record."""
        if planned.node_id not in self._changed:
            return planned
        return msgspec.structs.replace(planned, action=RUN, reasons=(Why(Reason.CHANGED_MEANWHILE),))

    def take(self, node: Node, observed: Observed, planned: Planned) -> bool:
        """Take a node to be recorded as ``cached``, if that is what it is; return whether it is."""
        if planned.made_of is None or planned.action != CACHED:
            return False
        self._looked.append(Looked(node, observed, planned))
        return True

    def record(self) -> tuple[list[NodeEvent], list[str]]:
        """Record what was taken; return what is to be told of it, and the nodes that are not up to date any more.

        Raises:
            LeaseLostError: This run is taken for dead; nothing was recorded.
        """
        together, self._looked = self._looked, []
        changed = self._run.write(lambda: self._recorded(together)) if together else set()
        self._changed |= changed
        events = []
        for node, observed, planned in together:
            if node.node_id not in changed:
                if len(planned.ranges.live) < len(observed.done.parts):  # a run was killed before it could
                    sweep(self._run, node, self._path, planned.ranges.live)
                events.append(NodeEvent(node.node_id, CACHED, planned.why))
        return events, sorted(changed)

    def _recorded(self, together: list[Looked]) -> set[str]:
        """Record within a transaction; return the ids of those that somebody else has run meanwhile."""
        made = {each.node.node_id: each.planned.made_of for each in together}
        return {
            node_id
            for node_id, made_of in made.items()
            if made_of is not None and not self._run.skip_if_current(node_id, made_of.fingerprint)
        }
