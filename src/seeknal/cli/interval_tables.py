"""How intervals look in tables, and the coverage bars with them."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from seeknal.cli import times
from seeknal.cli.listing import takes_only_ascii, terminal_width
from seeknal.cli.output import WIDTH, Printer, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from seeknal.model.intervals import Interval
    from seeknal.model.records import CompletedInterval
    from seeknal.state.contract import StateBackend

COLUMNS = ("start", "end", "length", "run_id")
NODE_COLUMNS = ("node_id", "first", "last", "ranges", "gaps", "coverage")
LONGEST_NODE = 20
"""Characters of a node's id that a table of nodes shows, or a quarter of a wide terminal."""


def row(each: Interval | CompletedInterval, zone: ZoneInfo, **beside: str) -> dict[str, str]:
    """Return the cells of a range, and what stands beside them."""
    length = times.told_length(each.end - each.start)
    return {"start": times.told(each.start, zone), "end": times.told(each.end, zone), "length": length} | beside


def runs_within(store: StateBackend, node: str, ranges: Sequence[CompletedInterval]) -> list[int | None]:
    """Return how many runs completed each range; ``None`` where nothing tells.

    Args:
        store: What keeps the ranges.
        node: Whose they are.
        ranges: Sorted and disjoint.
    """
    from seeknal.state.capabilities import Capability

    if Capability.PROVENANCE not in store.capabilities:
        return [None] * len(ranges)
    parts, found, at = store.get_interval_provenance(node), [], 0
    for each in ranges:
        while at < len(parts) and parts[at].end <= each.start:
            at += 1
        runs = set()
        while at < len(parts) and parts[at].start < each.end:
            runs.add(parts[at].run_id)
            at += 1
        found.append(len(runs) or None)  # what was restated since the ranges were read has no part any more
    return found


def write_bar(done: Sequence[Interval], span: Interval, zone: ZoneInfo) -> None:
    """Print the coverage of a span, with its scale and what its signs mean."""
    from seeknal.cli.coverage import BLOCKS, buckets, cells, drawn, legend, scale

    width, is_plain = terminal_width(), takes_only_ascii(BLOCKS)
    found = buckets(span, width, zone)
    bar = drawn(cells(done, found.spans), is_plain=is_plain)
    for line in ("", bar, scale(found, width, zone), legend(found, zone, is_plain=is_plain)):
        sys.stdout.write(f"{line}\n")


def write_nodes(
    printer: Printer, sums: Sequence[dict[str, Any]], done: dict[str, list[Interval]], zone: ZoneInfo, span: Interval
) -> None:
    """Print a line for each node, with bars of one scale.

    Args:
        printer: Where to.
        sums: Of each node ``node_id``, ``start``, ``end``, ``ranges`` and ``gaps``.
        done: What each of them has completed, canonical.
        zone: Of the times and the calendar.
        span: What the bars are about.
    """
    from seeknal.cli.coverage import BLOCKS, LEAST_WIDTH, buckets, cells, drawn, legend, scale

    moments = times.told_briefly([each[bound] for each in sums for bound in ("start", "end")], zone)
    rows = [
        dict(zip(NODE_COLUMNS, (shown(each["node_id"]), *told, str(each["ranges"]), str(each["gaps"])), strict=False))
        for each, *told in zip(sums, moments[::2], moments[1::2], strict=True)
    ]
    longest, *others = (max(len(name), *(len(each[name]) for each in rows)) for name in NODE_COLUMNS[:-1])
    terminal, is_plain = max(WIDTH, terminal_width()), takes_only_ascii(BLOCKS)
    room = terminal - sum(others) - 2 * len(NODE_COLUMNS[:-1])
    longest = min(longest, max(LONGEST_NODE, terminal // 4), room - LEAST_WIDTH)
    found = buckets(span, room - longest, zone)
    for each, ranges in zip(rows, done.values(), strict=True):
        each["node_id"] = _cut(each["node_id"], longest)
        each["coverage"] = drawn(cells(ranges, found.spans), is_plain=is_plain)
    below = dict.fromkeys(NODE_COLUMNS, "") | {"coverage": scale(found, room - longest, zone)}
    printer.rows([*rows, below], NODE_COLUMNS, empty="")
    sys.stdout.write(f"{legend(found, zone, is_plain=is_plain)}\n")


def total(ranges: Sequence[Interval]) -> timedelta:
    """Return how long ranges are together."""
    return sum((each.end - each.start for each in ranges), timedelta())


def summed(ranges: Sequence[Interval]) -> str:
    """Return how long ranges are together, in words."""
    return times.told_length(total(ranges))


def counted(count: int, word: str) -> str:
    """Return a number of things in words."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
