"""What a node holds for those that need it, and which of it they read for a range: pure values and functions."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from seeknal.model.intervals import Interval, union
from seeknal.model.schedule import Schedule, as_schedule, missing_ticks
from seeknal.pipeline.nodes import Node
from seeknal.runner.outputs import Part, Unit, unit_name

UNIT_DIGITS = 16
LAST = datetime.max.replace(tzinfo=UTC)
FAR = LAST.replace(year=9990)
"""No tick is counted nearer to the ends of time."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a node holds for those that need it.

    Attributes:
        text: Changes whenever its rows may.
        definition: Of a node that is computed range by range: changes when all of its ranges may.
        parts: The parts that count, spans in their order.
        covered: The spans that are done; ``None`` if it has no schedule.
        within: The span beyond which it has no rows.
        redone: The spans that this run computes.
    """

    text: str
    definition: str = ""
    parts: tuple[Part, ...] = ()
    covered: tuple[Interval, ...] | None = None
    within: Interval | None = None
    redone: tuple[Interval, ...] = ()


class Read:
    """Which parts of a node's inputs are read for a range, as far as that can be told: those of the same range."""

    def __init__(self, inputs: Iterable[Held]) -> None:
        self._inputs = []
        for held in inputs:
            spans = [part for part in held.parts if part.span is not None and part.span.start < part.span.end]
            ends = [part.span.end for part in spans if part.span is not None]
            keyed: dict[str, list[Part]] = {}
            for part in held.parts:
                if part.span is None:
                    keyed.setdefault(part.unit, []).append(part)
            self._inputs.append((spans, ends, keyed))

    def made(self, definition: str, unit: Unit) -> str:
        """Return what a part is made of: the definition of its node, and the names of the parts that it reads."""
        names = [part.file for spans, ends, keyed in self._inputs for part in _reached(spans, ends, keyed, unit)]
        return hashlib.sha256(json.dumps([definition, *names]).encode()).hexdigest()[:UNIT_DIGITS]


def _reached(
    spans: Sequence[Part], ends: Sequence[datetime], keyed: Mapping[str, Sequence[Part]], unit: Unit
) -> Iterator[Part]:
    if isinstance(unit, str):
        yield from spans
        yield from keyed.get(unit_name(unit), ())
        return
    for part in spans[bisect_right(ends, unit.start) :]:
        assert part.span is not None
        if part.span.start >= unit.end:
            break
        yield part
    for parts in keyed.values():
        yield from parts


def covered_within(node: Node, spans: Iterable[Interval]) -> tuple[tuple[Interval, ...], Interval | None]:
    """Return what `Held` says of the time of a scheduled node."""
    if node.schedule is None or node.start is None:
        return (), None
    within = whole_ticks(as_schedule(node.schedule, node.timezone), node.start, node.end or LAST)
    return tuple(union(spans)), within[0] if within else None


def whole_ticks(schedule: Schedule, start: datetime, end: datetime) -> list[Interval]:
    """Return the span of the ticks that lie in ``[start, end)`` as a whole; none, if there is no such tick."""
    bound = min(end, FAR)
    first = next(missing_ticks([], start, bound, schedule), None)
    if first is None:
        return []
    if end > FAR:
        return [Interval(first.start, end)]
    last = next(missing_ticks([], start, bound, schedule, newest_first=True))
    return [Interval(first.start, last.end)]


def held_parts(
    node: Node, definition: str, live: Sequence[Part], valid: Iterable[Interval], redone: Iterable[Unit] = ()
) -> Held:
    """Return what a node holds whose parts these are, and of which these are computed by this run."""
    covered, within = covered_within(node, valid)
    parts = tuple(sorted(live, key=lambda part: part.file))
    names = hashlib.sha256(json.dumps([part.file for part in parts]).encode()).hexdigest()
    return Held(
        text=f"{definition} {names}",
        definition=definition,
        parts=parts,
        covered=covered if node.schedule is not None else None,
        within=within,
        redone=tuple(union(unit for unit in redone if isinstance(unit, Interval))),
    )
