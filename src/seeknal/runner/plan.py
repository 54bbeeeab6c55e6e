"""What happens to each node, and why: pure functions of what is known about the nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec

from seeknal.model.records import NodeState
from seeknal.pipeline.fingerprint import METADATA_KEY, MadeOf, changed_parts, is_of_this_algorithm
from seeknal.pipeline.nodes import Node
from seeknal.runner.held import Held, held_parts
from seeknal.runner.outputs import Unit
from seeknal.runner.ranges import EVERYTHING, Done, Ranges, Window, foreseen, owned_parts, plan_ranges
from seeknal.runner.reasons import Reason, Why, of_changed_parts, told

RUN, CACHED, SKIPPED, LEFT = "run", "cached", "skipped", "left"
"""What is done with a node; ``left`` is one that was not selected."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a node before it is decided on.

    Attributes:
        made_of: What it is made of but for its inputs; ``None`` where that cannot be told, and ``problem`` says why.
        stamp: Of the code of a Python node, as `seeknal.pipeline.python_nodes.code_stamp` gives it.
        newest: Its newest success, or ``None``.
        was_tried: Whether any run knows it.
        facts: What its output says of itself; empty if there is none, or none that can be read.
        has_output: Whether its output file is there.
        is_altered: Whether that is not the one that its newest success left.
        done: Of a node that is computed range by range, what is done.
    """

    made_of: MadeOf | None
    problem: str = ""
    stamp: str = ""
    newest: NodeState | None = None
    was_tried: bool = False
    facts: dict[str, str] = {}
    has_output: bool = False
    is_altered: bool = False
    done: Done = Done()


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with a node.

    Attributes:
        node_id: The node.
        action: ``run``, ``cached`` or ``left``.
        reasons: Why; at least one.
        made_of: What it is made of, inputs included; ``None`` where that cannot be told.
        is_anew: Whether everything is computed, and not only what is missing.
        ranges: Of a node that is computed range by range, what is left.
        leaves: What it holds for those that need it, once it was run.
    """

    node_id: str
    action: str
    reasons: tuple[Why, ...]
    made_of: MadeOf | None = None
    is_anew: bool = False
    ranges: Ranges = Ranges()
    leaves: Held = Held(text="")

    @property
    def why(self) -> str:
        """The reasons as one line."""
        return told(self.reasons)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of a run.

    Attributes:
        full: Whether what is selected runs in any case.
        selected: The ids that may run; all, when ``None``.
        window: Which ranges it is about.
        is_shared: Whether other processes do them, too.
        is_done: The ids of which nothing is done again, whatever ``full`` and the window say, since the run that this
            one resumes has seen to that.
    """

    full: bool = False
    selected: frozenset[str] | None = None
    window: Window = EVERYTHING
    is_shared: bool = False
    is_done: frozenset[str] = frozenset()

    def forces(self, node_id: str) -> bool:
        """Whether a node runs in any case."""
        return self.full and node_id not in self.is_done and self.takes(node_id)

    def window_of(self, node_id: str) -> Window:
        """Which ranges of a node it is about."""
        return self.window.once if node_id in self.is_done else self.window

    def does_again(self, node_id: str) -> bool:
        """Whether what a node has completed is done again, all or a part of it."""
        return self.forces(node_id) or self.window_of(node_id).restates

    def takes(self, node_id: str) -> bool:
        """Whether a node may run."""
        return self.selected is None or node_id in self.selected


ALL = Asked()
"""What is asked of a run that nothing was said to."""


def plan_nodes(
    nodes: Mapping[str, Node], observed: Mapping[str, Observed], *, now: datetime, asked: Asked = ALL
) -> dict[str, Planned]:
    """Return what a run would do, node by node, provided that none fails.

    Args:
        nodes: Inputs before those that need them.
        observed: What is known about each.
        now: Until when scheduled nodes are due.
        asked: What is asked for.
    """
    found: dict[str, Planned] = {}
    for node_id, node in nodes.items():
        upstream = {input_id: found[input_id].leaves for input_id in node.inputs}
        planned = plan_node(node, observed[node_id], upstream, now=now, asked=asked)
        if not asked.takes(node_id):
            found[node_id] = left_alone(node, observed[node_id], planned)
        else:
            first = [input_id for input_id in node.inputs if found[input_id].action == RUN]
            found[node_id] = _with_doubt(node, planned, first)
    return found


def plan_node(
    node: Node, observed: Observed, upstream: Mapping[str, Held], *, now: datetime, asked: Asked = ALL
) -> Planned:
    """Return what to do with a node whose inputs hold what ``upstream`` says."""
    if observed.made_of is None:
        return Planned(
            node_id=node.node_id,
            action=RUN,
            reasons=(Why(Reason.DATA_UNREADABLE, observed.problem),),
            is_anew=True,
            leaves=Held(text=f"unknown: {observed.problem}"),
        )
    # Of an input that is computed range by range, each range looks for itself whether what it reads has changed.
    texts = {
        each: held.definition if node.is_ranged and held.definition else held.text for each, held in upstream.items()
    }
    made_of = observed.made_of.with_inputs(texts)
    is_forced = asked.forces(node.node_id)
    reasons = _reasons_for_anew(node, observed, made_of, is_forced=is_forced)
    if not node.is_ranged:
        return Planned(
            node_id=node.node_id,
            action=RUN if reasons else CACHED,
            reasons=reasons or (Why(Reason.UP_TO_DATE),),
            made_of=made_of,
            is_anew=bool(reasons),
            leaves=Held(text=made_of.fingerprint),
        )
    definition, window = made_of.fingerprint, asked.window_of(node.node_id)
    ranges = plan_ranges(
        node,
        observed.done,
        definition,
        list(upstream.values()),
        now=now,
        newest=observed.newest.fingerprint if observed.newest else None,
        window=window,
        is_forced=is_forced,
        is_shared=asked.is_shared,
    )
    is_anew = bool(reasons)
    reasons = reasons or _reasons_for_ranges(node, ranges, window)
    return Planned(
        node_id=node.node_id,
        action=RUN if reasons else CACHED,
        reasons=reasons or (Why(Reason.UP_TO_DATE),),
        made_of=made_of,
        is_anew=is_anew,
        ranges=ranges,
        leaves=foreseen(node, definition, ranges),
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
        leaves=held_by(node, observed),
    )


def held_by(node: Node, observed: Observed) -> Held:
    """Return what a node holds as it stands, whatever it would hold if it ran."""
    definition = str(observed.newest.fingerprint if observed.newest is not None else None)
    if not node.is_ranged:
        return Held(text=definition)
    done = observed.done
    live = owned_parts(done)
    spans = (
        [part.span for part in live if part.span is not None] if node.has_output else [span for span, _ in done.spans]
    )
    return held_parts(node, definition, live, spans)


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
    if not node.has_output or node.is_ranged:
        return ()
    if not observed.has_output:
        return (Why(Reason.OUTPUT_MISSING),)
    if not observed.facts:
        return (Why(Reason.OUTPUT_UNREADABLE),)
    if observed.facts.get("fingerprint") != made_of.fingerprint:
        return (Why(Reason.OUTPUT_OF_ANOTHER_STATE),)
    if observed.is_altered:
        return (Why(Reason.OUTPUT_ALTERED),)
    return ()


def _reasons_for_ranges(node: Node, ranges: Ranges, window: Window) -> tuple[Why, ...]:
    """Return why some ranges of a node are to be computed; empty if none is."""
    if not ranges.batches and not ranges.lost:
        return ()
    detail = _ranges_for_people(ranges.batches or ranges.lost)
    if window.restates_ticks if node.schedule is not None else window.restates_keys:
        return (Why(Reason.RESTATED, detail),)
    if ranges.is_stale:
        return (Why(Reason.PARENT_CHANGED, detail),)
    # What falls under the lookback is lost, too, but there is something new beside it.
    if ranges.lost and node.has_output and not node.lookback:
        return (Why(Reason.OUTPUT_MISSING, detail),)
    return (Why(Reason.INTERVAL_MISSING if node.schedule is not None else Reason.PARTITION_MISSING, detail),)


def parts_then(newest: NodeState) -> dict[str, str]:
    """Return the parts of a node when it succeeded, as its metadata has them; empty if it does not say."""
    kept = newest.metadata.get(METADATA_KEY)
    if not isinstance(kept, dict):
        return {}
    return {str(name): str(digest) for name, digest in kept.items()}


def _ranges_for_people(units: Collection[Unit]) -> str:
    first, *others = units
    more = f" and {len(others)} more" if others else ""
    if isinstance(first, str):
        return f"{first}{more}"
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
