"""``seeknal intervals``: what nodes have completed of data time, what is missing, and both by hand."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import times
from seeknal.cli.by_hand import DryRun, Reason, Run, Yes, is_asked, log_by_hand, run_by_hand
from seeknal.cli.listing import Every, listed, takes_only_ascii, terminal_width
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.times import End, From, Start, Timezone, To, as_moment, as_span, as_zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from seeknal.model.intervals import Interval
    from seeknal.state.contract import StateBackend

LONGEST_NODE = 20
"""Characters of a node's id that a table of nodes shows, or a quarter of a wide terminal."""

Node = Annotated[str, typer.Argument(help="The node.")]
Cron = Annotated[
    str | None, typer.Option("--schedule", metavar="CRON", help="By its ticks: five cron fields, or @daily and such.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.")]

intervals_app = typer.Typer(
    name="intervals",
    help="Look at and correct what nodes have completed of data time.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@intervals_app.command("list")
def list_intervals(
    node: Annotated[str | None, typer.Argument(help="The node; all of them when left out.")] = None,
    start: From = None,
    end: To = None,
    timezone: Timezone = None,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List what a node has completed, or sum up what every node has.

    A range that reaches into [--start, --end) is listed as it is. A TIME is like 2024-01-10,
    2024-01-10T06:00+01:00, now, today, -7d or today-7d.
    """
    from seeknal.model.intervals import Interval, gaps, union

    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    low, high = _bounds(start, end, zone)
    with opened(project_path, backend, database_url) as store:
        nodes = store.list_worked_nodes() if node is None else [node]
        found = {
            name: [
                each
                for each in store.get_completed_intervals(name)
                if (low is None or each.end > low) and (high is None or each.start < high)
            ]
            for name in nodes
        }
    done = {name: union(Interval(each.start, each.end) for each in ranges) for name, ranges in found.items() if ranges}
    subject = "no intervals are completed" if node is None else f"{shown(node)} has completed no intervals"
    empty = f"{subject}{' there' if low or high else ''}"
    if node is not None:
        rows = found[node]
        listed(printer, rows, lambda each: _row(each, zone, run_id=each.run_id), COLUMNS, empty=empty, every=every)
        if rows and output is Format.TABLE:
            span = Interval(low or rows[0].start, high or rows[-1].end)
            missing = gaps(done[node], span.start, span.end)
            _write_bar(done[node], span, zone)
            printer.note(f"{_counted(len(rows), 'range')}, {_counted(len(missing), 'gap')}")
        return
    sums: list[dict[str, Any]] = [
        {
            "node_id": name,
            "start": ranges[0].start,
            "end": ranges[-1].end,
            "ranges": len(ranges),
            "gaps": len(gaps(ranges, low or ranges[0].start, high or ranges[-1].end)),
        }
        for name, ranges in done.items()
    ]
    if output is not Format.TABLE or not sums:
        printer.rows(sums, (), empty=empty)
        return
    first, last = min(each["start"] for each in sums), max(each["end"] for each in sums)
    _write_nodes(printer, sums, done, Interval(low or first, high or last), zone)


@intervals_app.command("pending")
def pending(
    node: Node,
    start: Start,
    end: Annotated[str, typer.Option("--end", metavar="TIME", help="Where it ends.")] = "now",
    schedule: Cron = None,
    timezone: Timezone = None,
    limit: Limit = None,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List what a node has not completed of [--start, --end).

    Without --schedule: the gaps. With one: each whole tick that is not fully completed. A TIME is like
    2024-01-10, 2024-01-10T06:00+01:00, now, today, -7d or today-7d.
    """
    from seeknal.model.intervals import Interval, union

    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    span = as_span(start, end, zone)
    with opened(project_path, backend, database_url) as store:
        missing = store.get_missing_intervals(
            node, span.start, span.end, schedule=schedule, timezone=None if schedule is None else timezone
        )
        done = union(Interval(each.start, each.end) for each in store.get_completed_intervals(node))
    told = missing[:limit]
    listed(printer, told, lambda each: _row(each, zone), COLUMNS[:-1], empty="", every=every)
    if output is Format.TABLE and missing:
        _write_bar(done, span, zone)
    of = "gap" if schedule is None else "tick"
    if not missing:
        printer.note("nothing is pending")
    else:
        cut = f", of which {len(told)} {'is' if len(told) == 1 else 'are'} listed" if len(told) < len(missing) else ""
        printer.note(f"{_counted(len(missing), of)} pending, {_summed(missing)} in all{cut}")


@intervals_app.command("complete")
def complete(
    node: Node,
    start: Start,
    end: End,
    timezone: Timezone = None,
    run: Run = None,
    reason: Reason = "",
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Complete [--start, --end) of a node by hand.

    It is logged. A TIME is like 2024-01-10, 2024-01-10T06:00+01:00, now, today, -7d or today-7d.
    """
    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    span = as_span(start, end, zone)

    def completed(store: StateBackend) -> tuple[str, list[Interval]]:
        missing = store.get_missing_intervals(node, span.start, span.end)
        run_id = run_by_hand(store, run, "intervals complete", reason)
        store.add_completed_interval(run_id, node, span.start, span.end)
        log_by_hand(store, "complete", node, reason, _detail(span, missing), run_id)
        return run_id, missing

    with opened(project_path, backend, database_url) as store:
        run_id, added = store.run_transaction(lambda: completed(store))
    facts = {"node_id": node, "start": span.start, "end": span.end, "run_id": run_id}
    lines = facts | {"start": times.told(span.start, zone), "end": times.told(span.end, zone)}
    printer.thing(facts | {"added": added}, list(lines.items()))
    if not added:
        printer.note("all of it was completed already")
    elif added != [span]:
        printer.note(f"{_summed(added)} of {_summed([span])} was missing; the rest was completed already")


@intervals_app.command("restate")
def restate(
    node: Node,
    start: Start,
    end: End,
    timezone: Timezone = None,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Un-complete [--start, --end) of a node, so that it is done again.

    It is logged. On a terminal it shows what will be done again and asks; elsewhere it does not ask. A TIME is
    like 2024-01-10, 2024-01-10T06:00+01:00, now, today, -7d or today-7d.
    """
    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    span = as_span(start, end, zone)

    def show(to: Printer, ranges: Sequence[Interval]) -> None:
        listed(to, ranges, lambda each: _row(each, zone), COLUMNS[:-1], empty="", every=every)

    def restated(store: StateBackend) -> list[Interval]:
        ranges = _completed_within(store, node, span)
        if ranges:
            store.restate_intervals(node, span.start, span.end)
            log_by_hand(store, "restate", node, reason, _detail(span, ranges))
        return ranges

    with opened(project_path, backend, database_url) as store:
        ranges = _completed_within(store, node, span)
        if ranges and not dry_run:
            if is_asked(yes=yes):
                with redirect_stdout(sys.stderr):
                    show(Printer(quiet=quiet), ranges)
                if not typer.confirm(f"Do {_summed(ranges)} of {shown(node)} again?", err=True):
                    printer.note("nothing was restated")
                    return
            ranges = store.run_transaction(lambda: restated(store))
    if output is Format.TABLE:
        show(printer, ranges)
    else:
        facts = {"node_id": node, "start": span.start, "end": span.end, "dry_run": dry_run, "restated": ranges}
        printer.thing(facts, [])
    if not ranges:
        printer.note(f"{shown(node)} had completed nothing of that; nothing was restated")
    else:
        verb = "would be restated" if dry_run else "restated"
        rest = "" if ranges == [span] else f" of {_summed([span])}; the rest was not completed"
        printer.note(f"{verb}: {_summed(ranges)}{rest}")


COLUMNS = ("start", "end", "length", "run_id")


def _bounds(start: str | None, end: str | None, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    if start is not None and end is not None:
        span = as_span(start, end, zone)
        return span.start, span.end
    low = None if start is None else as_moment(start, "--start", zone)
    high = None if end is None else as_moment(end, "--end", zone)
    return low, high


def _completed_within(store: StateBackend, node: str, span: Interval) -> list[Interval]:
    from seeknal.model.intervals import Interval, intersect

    return intersect([Interval(each.start, each.end) for each in store.get_completed_intervals(node)], [span])


def _detail(span: Interval, changed: Sequence[Interval]) -> dict[str, Any]:
    """Return what the log says of a change: the span that was named, and how much of it was changed."""
    return {
        "start": span.start.isoformat(),
        "end": span.end.isoformat(),
        "ranges": len(changed),
        "changed_seconds": _sum(changed).total_seconds(),
    }


def _row(each: Any, zone: ZoneInfo, **beside: str) -> dict[str, str]:
    length = times.told_length(each.end - each.start)
    return {"start": times.told(each.start, zone), "end": times.told(each.end, zone), "length": length} | beside


def _write_bar(done: Sequence[Interval], span: Interval, zone: ZoneInfo) -> None:
    """Print the coverage of a span, with its scale and what its signs mean."""
    from seeknal.cli.coverage import BLOCKS, buckets, cells, drawn, legend, scale

    width, is_plain = terminal_width(), takes_only_ascii(BLOCKS)
    found = buckets(span, width, zone)
    bar = drawn(cells(done, found.spans), is_plain=is_plain)
    for line in ("", bar, scale(found, width, zone), legend(found, zone, is_plain=is_plain)):
        sys.stdout.write(f"{line}\n")


def _write_nodes(
    printer: Printer, sums: list[dict[str, Any]], done: dict[str, list[Interval]], span: Interval, zone: ZoneInfo
) -> None:
    """Print a line for each node, with bars of one scale."""
    from seeknal.cli.coverage import BLOCKS, LEAST_WIDTH, buckets, cells, drawn, legend, scale

    columns = ("node_id", "first", "last", "ranges", "gaps", "coverage")
    moments = times.told_briefly([each[bound] for each in sums for bound in ("start", "end")], zone)
    rows = [
        {"node_id": shown(each["node_id"]), "first": first, "last": last, "ranges": str(each["ranges"])}
        | {"gaps": str(each["gaps"])}
        for each, first, last in zip(sums, moments[::2], moments[1::2], strict=True)
    ]
    name, *others = (max(len(column), *(len(row[column]) for row in rows)) for column in columns[:-1])
    room, is_plain = terminal_width() - sum(others) - 2 * len(columns[:-1]), takes_only_ascii(BLOCKS)
    name = min(name, max(LONGEST_NODE, terminal_width() // 4), room - LEAST_WIDTH)
    found = buckets(span, room - name, zone)
    table = [
        row | {"node_id": _cut(row["node_id"], name), "coverage": drawn(cells(each, found.spans), is_plain=is_plain)}
        for row, each in zip(rows, done.values(), strict=True)
    ]
    below = dict.fromkeys(columns, "") | {"coverage": scale(found, room - name, zone)}
    printer.rows([*table, below], columns, empty="")
    sys.stdout.write(f"{legend(found, zone, is_plain=is_plain)}\n")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _sum(ranges: Sequence[Interval]) -> timedelta:
    return sum((each.end - each.start for each in ranges), timedelta())


def _summed(ranges: Sequence[Interval]) -> str:
    return times.told_length(_sum(ranges))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
