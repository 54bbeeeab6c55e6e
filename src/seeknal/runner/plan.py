"""What happens to each node, and why: pure functions of what is known about the nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec

from seeknal.model.intervals import Interval, union
from seeknal.model.records import NodeState
from seeknal.model.schedule import as_schedule, missing_ticks
from seeknal.pipeline.fingerprint import METADATA_KEY, MadeOf, changed_parts, is_of_this_algorithm
from seeknal.pipeline.nodes import Node
from seeknal.runner.compute import spans_text
from seeknal.runner.reasons import Reason, Why, of_changed_parts, told

RUN, CACHED, SKIPPED, LEFT = "run", "cached", "skipped", "left"
"""What is done with a node; ``left`` is one that was not selected."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a node before it is decided on.

    Attributes:
        made_of: What it is made of but for its inputs; ``None`` where that cannot be told, and ``problem`` says why.
        newest: Its newest success, or ``None``.
        was_tried: Whether any run knows it.
        facts: What its output says of itself; empty if there is none, or none that can be read.
        has_output: Whether its output file is there.
        completed: The intervals that the store calls completed.
    """

    made_of: MadeOf | None
    problem: str = ""
    newest: NodeState | None = None
    was_tried: bool = False
    facts: dict[str, str] = {}
    has_output: bool = False
    completed: tuple[Interval, ...] = ()


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with a node.

    Attributes:
        node_id: The node.
        action: ``run``, ``cached`` or ``left``.
        reasons: Why; at least one.
        made_of: What it is made of, inputs included; ``None`` where that cannot be told.
        missing: The spans to compute, of a scheduled node.
        is_anew: Whether everything is computed, and not only what is missing.
        leaves: What it holds for those that need it, as a text that changes whenever its rows may.
    """

    node_id: str
    action: str
    reasons: tuple[Why, ...]
    made_of: MadeOf | None = None
    missing: tuple[Interval, ...] = ()
    is_anew: bool = False
    leaves: str = ""

    @property
    def why(self) -> str:
        """The reasons as one line."""
        return told(self.reasons)


def plan_nodes(
    nodes: Mapping[str, Node],
    observed: Mapping[str, Observed],
    *,
    now: datetime,
    full: bool = False,
    selected: Collection[str] | None = None,
) -> dict[str, Planned]:
    """Return what a run would do, node by node, provided that none fails.

    Args:
        nodes: Inputs before those that need them.
        observed: What is known about each.
        now: Until when scheduled nodes are due.
        full: Whether what is selected runs in any case.
        selected: The ids that may run; all, when ``None``.
    """
    found: dict[str, Planned] = {}
    for node_id, node in nodes.items():
        upstream = {input_id: found[input_id].leaves for input_id in node.inputs}
        is_selected = selected is None or node_id in selected
        planned = plan_node(node, observed[node_id], upstream, now=now, is_forced=full and is_selected)
        if not is_selected:
            found[node_id] = left_alone(node, observed[node_id], planned)
        else:
            first = [input_id for input_id in node.inputs if found[input_id].action == RUN]
            found[node_id] = _with_doubt(node, planned, first)
    return found


def plan_node(
    node: Node, observed: Observed, upstream: Mapping[str, str], *, now: datetime, is_forced: bool = False
) -> Planned:
    """Return what to do with a node whose inputs hold what ``upstream`` says."""
    if observed.made_of is None:
        return Planned(
            node_id=node.node_id,
            action=RUN,
            reasons=(Why(Reason.DATA_UNREADABLE, observed.problem),),
            is_anew=True,
            leaves=f"unknown: {observed.problem}",
        )
    made_of = observed.made_of.with_inputs(upstream)
    missing = _missing(node, observed.completed, now)
    reasons = _reasons_for_anew(node, observed, made_of, is_forced=is_forced)
    is_anew = bool(reasons)
    if is_anew:
        missing = _missing(node, (), now)
    elif missing:
        reasons = (Why(Reason.INTERVAL_MISSING, _spans_for_people(missing)),)
    # What needs a scheduled node needs its rows of all intervals: new ones are a change to it.
    holds = union([] if is_anew else observed.completed, missing)
    return Planned(
        node_id=node.node_id,
        action=RUN if reasons else CACHED,
        reasons=reasons or (Why(Reason.UP_TO_DATE),),
        made_of=made_of,
        missing=missing,
        is_anew=is_anew,
        leaves=made_of.fingerprint + (spans_text(holds) if node.schedule else ""),
    )


def left_alone(node: Node, observed: Observed, planned: Planned) -> Planned:
    """Return what becomes of a node that was not selected: it keeps its output, and whatever that was made of.

    Whether it is out of date is in the detail of its reason.
    """
    stale = f"it would run: {planned.why}" if planned.action == RUN else ""
    return Planned(
        node_id=node.node_id,
        action=LEFT,
        reasons=(Why(Reason.NOT_SELECTED, stale),),
        made_of=planned.made_of,
        leaves=held_by(node, observed.newest, observed.completed),
    )


def held_by(node: Node, newest: NodeState | None, completed: Collection[Interval]) -> str:
    """Return what a node holds as it stands, whatever it would hold if it ran: as `Planned.leaves`."""
    made_of = newest.fingerprint if newest is not None else None
    return f"{made_of}{spans_text(list(completed)) if node.schedule else ''}"


def _reasons_for_anew(node: Node, observed: Observed, made_of: MadeOf, *, is_forced: bool) -> tuple[Why, ...]:
    """Return why everything of a node is to be computed; empty if it need not be."""
    newest = observed.newest
    if is_forced:
        return (Why(Reason.FORCED),)
    if newest is None:
        return (Why(Reason.NEVER_SUCCEEDED if observed.was_tried else Reason.NEW),)
    if not is_of_this_algorithm(newest.fingerprint):
        return (Why(Reason.OLDER_FINGERPRINT),)
    if newest.fingerprint != made_of.fingerprint:
        return of_changed_parts(changed_parts(parts_then(newest), made_of.short)) or (Why(Reason.CHANGED),)
    if node.kind == "command":
        return ()
    if not observed.has_output:
        return (Why(Reason.OUTPUT_MISSING),)
    if not observed.facts:
        return (Why(Reason.OUTPUT_UNREADABLE),)
    if observed.facts.get("fingerprint") != made_of.fingerprint:
        return (Why(Reason.OUTPUT_OF_ANOTHER_STATE),)
    # An output that was renamed into place right before a crash holds more than the store knows of.
    if node.schedule is not None and observed.facts.get("intervals") != spans_text(list(observed.completed)):
        return (Why(Reason.OUTPUT_INCOMPLETE),)
    return ()


def parts_then(newest: NodeState) -> dict[str, str]:
    """Return the parts of a node when it succeeded, as its metadata has them; empty if it does not say."""
    kept = newest.metadata.get(METADATA_KEY)
    if not isinstance(kept, dict):
        return {}
    return {str(name): str(digest) for name, digest in kept.items()}


def _missing(node: Node, done: Collection[Interval], now: datetime) -> tuple[Interval, ...]:
    if node.schedule is None or node.start is None:
        return ()
    end = node.end or now
    if end <= node.start:
        return ()
    return tuple(union(missing_ticks(list(done), node.start, end, as_schedule(node.schedule, node.timezone))))


def _spans_for_people(spans: Collection[Interval]) -> str:
    first, *others = spans
    more = f" and {len(others)} more" if others else ""
    return f"{_instant(first.start)} to {_instant(first.end)}{more}"


def _instant(at: datetime) -> str:
    text = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    return text.removesuffix("T00:00:00Z")


def _with_doubt(node: Node, planned: Planned, first: list[str]) -> Planned:
    """Return a plan that says so where a file that a source reads may be written by what runs before it."""
    if node.kind != "source" or not first or (planned.action == RUN and planned.made_of is not None):
        return planned
    doubt = f"{', '.join(first)} runs first and may change {node.content}"
    *others, last = planned.reasons
    detail = f"{last.detail}; {doubt}" if last.detail else doubt
    return msgspec.structs.replace(planned, reasons=(*others, Why(last.reason, detail)))
