"""Which ranges of a node are done, which are to be done again, and which are left: pure functions.

A range counts as done if the store says so, and if its part is there and was made of what the node and its inputs are
now. The store says which run completed it; a part that another run has left is none, so neither a worker that was
killed before it could complete its range nor one that woke up too late leaves rows that anybody reads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from seeknal.model.intervals import Interval, intersect, subtract, union
from seeknal.model.pending import pending_intervals
from seeknal.model.schedule import Schedule, as_schedule
from seeknal.pipeline.nodes import Node
from seeknal.runner.held import LAST, UNIT_DIGITS, Held, Read, held_parts, whole_ticks
from seeknal.runner.outputs import Part, Unit, part_file, unit_name
from seeknal.state.file.layout import file_name


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which ranges a run is about.

    Attributes:
        start: Only ticks from here on.
        end: Only ticks that end by then.
        partitions: Only these.
        restates: Whether what is completed in it is done again: ticks if it has a bound, partitions if it names them.
    """

    start: datetime | None = None
    end: datetime | None = None
    partitions: tuple[str, ...] | None = None
    restates: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it leaves nothing out."""
        return self.start is None and self.end is None and self.partitions is None

    @property
    def restates_ticks(self) -> bool:
        """Whether ticks are done again."""
        return self.restates and (self.start is not None or self.end is not None)

    @property
    def restates_keys(self) -> bool:
        """Whether partitions are done again."""
        return self.restates and self.partitions is not None

    @property
    def once(self) -> Window:
        """The same, of which nothing is done again."""
        return msgspec.structs.replace(self, restates=False)


EVERYTHING = Window()


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What the store and the files say about the ranges of a node.

    Attributes:
        spans: Parts of what is completed, each with the run that did.
        keys: The completed partitions, each with the run that did.
        parts: What is in its folder.
        fingerprints: Of a command: the fingerprint under which each run did it; ``None`` where that is forgotten. Of
            other nodes: those of the runs that are running.
        running: In a backfill that is shared: the runs that are.
        expected: The partitions it is to be computed for, in order.
    """

    spans: tuple[tuple[Interval, str], ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()
    fingerprints: Mapping[str, str | None] = {}
    running: frozenset[str] = frozenset()
    expected: tuple[str, ...] = ()


class Ranges(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a node.

    Attributes:
        live: The parts that count.
        valid: The spans that are done.
        keys: The partitions that are done.
        lost: Units that the store calls completed and that are to be done again.
        batches: Units to compute, in order; none reaches into another.
        is_stale: Whether a part is there that was made of other parts of its inputs.
    """

    live: tuple[Part, ...] = ()
    valid: tuple[Interval, ...] = ()
    keys: frozenset[str] = frozenset()
    lost: tuple[Unit, ...] = ()
    batches: tuple[Unit, ...] = ()
    is_stale: bool = False


def plan_ranges(
    node: Node,
    done: Done,
    definition: str,
    inputs: Sequence[Held],
    *,
    now: datetime,
    newest: str | None = None,
    window: Window = EVERYTHING,
    is_forced: bool = False,
    is_shared: bool = False,
) -> Ranges:
    """Return what is left of a node that is computed range by range.

    Args:
        node: The node.
        done: What is known of it.
        definition: What all of its ranges are made of.
        inputs: What its inputs hold.
        now: Until when ticks are due.
        newest: The fingerprint of its newest success.
        window: Which ranges this is about.
        is_forced: Whether all of them are done again.
        is_shared: Whether other processes do it, too: then a batch is one tick unless the node says otherwise, and no
            tick is done again for its lookback.
    """
    read = Read(inputs)
    if node.partitions is not None:
        return _plan_keys(done, definition, read, newest, node, window, is_forced=is_forced)
    live, is_stale = _live(done, definition, read)
    completed = union(span for span, _ in done.spans)
    if node.has_output:
        valid = union(part.span for part in live if part.span is not None and part.span.start < part.span.end)
    else:
        valid = union(span for span, run in done.spans if _is_of(done.fingerprints.get(run), definition, newest))
    assert node.start is not None
    schedule = as_schedule(node.schedule, node.timezone)
    start, end = max(node.start, window.start or node.start), min(node.end or LAST, window.end or LAST)
    asked = whole_ticks(schedule, start, end)
    again = asked if is_forced or window.restates_ticks else []
    if again or not window.is_open:
        # What was computed together is done again together: its rows cannot be told apart. And so is what reads it.
        counted = set() if again else {part.file for part in live}
        touched = {part.span for part in owned_parts(done) if part.span is not None and part.file not in counted}
        asked = union(asked, *(held.redone for held in inputs))
        touched = {span for span in touched if meets(asked, span)}
        asked = intersect(union(asked, touched), [Interval(node.start, node.end or LAST)])
    if again:
        live = tuple(part for part in live if part.span is None or not meets(again, part.span))
        kept = union(part.span for part in live if part.span is not None and part.span.start < part.span.end)
        valid = kept if node.has_output else subtract(valid, again)
    batches = []
    if asked:
        lookback = node.lookback if window.is_open and not is_shared else 0
        ready, since = _ticks(node, schedule, valid, live, inputs, now, asked, lookback)
        size = node.batch_size or (1 if is_shared else None)
        batches = _cut(ready, size, since)
    redone = intersect(completed, batches)
    live = tuple(part for part in live if part.span is None or not meets(redone, part.span))
    lost = subtract(completed, valid)
    if not window.is_open and node.has_output:
        # Of a command all is taken back: which definition it was done under is known as long as its run is.
        lost = intersect(lost, asked)
    return Ranges(
        live=live,
        valid=tuple(valid),
        lost=tuple(union(lost, redone)),
        batches=tuple(batches),
        is_stale=is_stale,
    )


def _live(done: Done, definition: str, read: Read) -> tuple[tuple[Part, ...], bool]:
    """Return the parts of time that count, and whether one was made of something else."""
    owned = [part for part in owned_parts(done) if part.span is not None]
    fellows = _fellows(done, definition)
    live = [
        part
        for part in owned
        if part.span is not None and (part.made == read.made(definition, part.span) or part.run_id in fellows)
    ]
    return tuple(live), len(live) < len(owned)


def _fellows(done: Done, definition: str) -> set[str]:
    """Return the runs that share this backfill, quoted: what they complete counts, though a parent got a tick since."""
    return {file_name(run) for run in done.running if done.fingerprints.get(run) == definition}


def owned_parts(done: Done) -> tuple[Part, ...]:
    """Return the parts that the run left which the store says completed them, whatever they were made of."""
    spans: dict[str, list[Interval]] = {}
    for span, run in done.spans:
        spans.setdefault(file_name(run), []).append(span)
    spans = {run: union(found) for run, found in spans.items()}
    keys = {(unit_name(key), file_name(run)) for key, run in done.keys}
    return tuple(part for part in done.parts if _is_owned(part, spans, keys))


def _is_owned(part: Part, spans: Mapping[str, list[Interval]], keys: Collection[tuple[str, str]]) -> bool:
    if part.span is None:
        return (part.unit, part.run_id) in keys
    return part.span.start == part.span.end or holds(spans.get(part.run_id, []), part.span)


def _plan_keys(
    done: Done, definition: str, read: Read, newest: str | None, node: Node, window: Window, *, is_forced: bool
) -> Ranges:
    owner = {key: file_name(run) for key, run in done.keys}
    by_unit = {(part.unit, part.run_id): part for part in done.parts if part.span is None}
    wanted = [key for key in done.expected if window.partitions is None or key in window.partitions]
    again = set(wanted) if is_forced or window.restates_keys else set()
    live, valid, is_stale = [], set(), False
    fellows = _fellows(done, definition)
    for key, run in done.keys:
        part = by_unit.get((unit_name(key), owner[key]))
        if node.has_output:
            is_valid = part is not None and (part.made == read.made(definition, key) or part.run_id in fellows)
            is_stale = is_stale or (part is not None and not is_valid)
        else:
            is_valid = _is_of(done.fingerprints.get(run), definition, newest)
        if is_valid and key not in again:
            valid.add(key)
            live += [part] if part is not None else []
    batches = [key for key in wanted if key not in valid]
    lost = [key for key in batches if key in owner]
    return Ranges(live=tuple(live), keys=frozenset(valid), lost=tuple(lost), batches=tuple(batches), is_stale=is_stale)


def _is_of(fingerprint: str | None, definition: str, newest: str | None) -> bool:
    """Return whether a range was done under this definition.

    What was completed by hand, or by a run that is forgotten, is taken for the newest; if there is none, for done.
    """
    return fingerprint == definition or (fingerprint is None and newest in (None, definition))


def _ticks(
    node: Node,
    schedule: Schedule,
    valid: Collection[Interval],
    live: Iterable[Part],
    inputs: Sequence[Held],
    now: datetime,
    asked: Sequence[Interval],
    lookback: int,
) -> tuple[list[Interval], datetime | None]:
    """Return the ticks to do whose inputs are there, and from where on each is a batch: it will be done again alone."""
    bounds: dict[str, Any] = {
        "now": now,
        "start": asked[0].start,
        "end": asked[-1].end,
        "lateness": timedelta(seconds=node.lateness_seconds),
    }

    def ready(ticks: Iterable[Interval]) -> list[Interval]:
        return [tick for tick in ticks if holds(asked, tick) and all(_is_ready(tick, held) for held in inputs)]

    ticks = ready(pending_intervals(valid, schedule, **bounds))
    if not ticks or not lookback:
        return ticks, None
    newest_first = pending_intervals([], schedule, newest_first=True, max_intervals=lookback, **bounds)
    since = min(tick.start for tick in newest_first)
    # What was computed together with one of them is done again, too: its rows cannot be told apart.
    across = [part.span for part in live if part.span is not None and part.span.start < since < part.span.end]
    return ready(pending_intervals(subtract(valid, across), schedule, lookback=lookback, **bounds)), since


def _is_ready(tick: Interval, held: Held) -> bool:
    """Return whether a scheduled input has all rows of a tick that it is ever to have."""
    if held.covered is None or held.within is None:
        return True
    return all(holds(held.covered, each) for each in intersect([tick], [held.within]))


def _cut(ticks: Iterable[Interval], size: int | None, since: datetime | None) -> list[Interval]:
    """Return ticks as batches: touching ones together, at most ``size`` of them, from ``since`` on each alone."""
    found: list[Interval] = []
    count = 0
    for tick in ticks:
        is_alone = since is not None and tick.start >= since
        joins = found and found[-1].end == tick.start and not is_alone and (size is None or count < size)
        if joins:
            found[-1] = Interval(found[-1].start, tick.end)
            count += 1
        else:
            found.append(tick)
            count = 1
    return found


def meets(spans: Sequence[Interval], wanted: Interval) -> bool:
    """Return whether one of some spans, which are sorted and do not overlap, has an instant of another one."""
    place = bisect_right(spans, wanted.start, key=lambda span: span.end)
    return place < len(spans) and spans[place].start < wanted.end


def holds(spans: Sequence[Interval], wanted: Interval) -> bool:
    """Return whether one of some spans, which are sorted and do not touch, has all of another one."""
    place = bisect_left(spans, wanted.end, key=lambda span: span.end)
    return place < len(spans) and spans[place].start <= wanted.start


def foreseen(node: Node, definition: str, ranges: Ranges) -> Held:
    """Return what a node will hold once its batches are computed, by other names than it can hold now."""
    coming = [_coming(unit) for unit in ranges.batches]
    live = [*ranges.live, *coming]
    spans = [unit for unit in ranges.batches if isinstance(unit, Interval)]
    return held_parts(node, definition, live, union(ranges.valid, spans), ranges.batches)


def _coming(unit: Unit) -> Part:
    span = unit if isinstance(unit, Interval) else None
    name = part_file(unit, "0" * UNIT_DIGITS, "coming", 0, 0)
    return Part(file=name, unit=unit_name(unit), span=span, made="", run_id="", rows=0, size=0)
