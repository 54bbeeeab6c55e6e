"""``seeknal intervals``: what nodes have completed of data time, what is missing, and both by hand."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import times
from seeknal.cli.bounds import bounds, reaching_into
from seeknal.cli.by_hand import DryRun, Reason, Run, Yes, is_asked, log_by_hand, note_no_log, run_by_hand
from seeknal.cli.claims import note_claimed_span
from seeknal.cli.history import history
from seeknal.cli.interval_tables import COLUMNS, counted, row, runs_within, summed, total, write_bar, write_nodes
from seeknal.cli.listing import Every, listed
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.times import End, From, Start, Timezone, To, as_span, as_zone
from seeknal.cli.which_node import Unknown, which_node
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from seeknal.model.intervals import Interval
    from seeknal.model.records import CompletedInterval
    from seeknal.state.contract import StateBackend

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
    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    low, high = bounds(start, end, zone)
    with opened(project_path, backend, database_url) as store:
        node = node if node is None else which_node(store, project_path, node, printer, Unknown.EMPTY)
        nodes = store.list_worked_nodes() if node is None else [node]
        found = {name: reaching_into(store.get_completed_intervals(name), low, high) for name in nodes}
        counts = [] if node is None else runs_within(store, node, found[node])
    where = " there" if low or high else ""
    if node is None:
        empty = f"no intervals are completed{where}"
        _show_nodes(printer, {name: ranges for name, ranges in found.items() if ranges}, low, high, zone, empty)
        return
    ranges = found[node]
    empty = f"{shown(node)} has completed no intervals{where}"
    records = list(zip(ranges, counts, strict=True))
    if output is not Format.TABLE:
        printer.rows([_as_record(each, runs=count) for each, count in records], (), empty="")
        return

    def cells(record: tuple[CompletedInterval, int | None]) -> dict[str, str]:
        each, count = record
        # A range has one run, that which completed something of it last; others may have completed more of it.
        return row(each, zone, run_id=shown(each.run_id) if count in (None, 1) else counted(count, "run"))

    # An id that is cut is of no use to whoever reads it from a pipe.
    listed(printer, records, cells, COLUMNS, empty=empty, every=every, is_cut=sys.stdout.isatty())
    if ranges and output is Format.TABLE:
        from seeknal.model.intervals import Interval, gaps

        span, done = Interval(low or ranges[0].start, high or ranges[-1].end), _canonical(ranges)
        write_bar(done, span, zone)
        missing = gaps(done, span.start, span.end)
        which = any(count not in (None, 1) for count in counts)
        history_of = f"; `seeknal intervals history {shown(shlex.quote(node))}` tells which run completed what" * which
        printer.note(f"{counted(len(ranges), 'range')}, {counted(len(missing), 'gap')}{history_of}")


@intervals_app.command("pending")
def pending(
    node: Node,
    start: Start,
    end: Annotated[str, typer.Option("--end", metavar="TIME", help="Where it ends.")] = "now",
    schedule: Cron = None,
    timezone: Timezone = None,
    lookback: Annotated[
        int, typer.Option("--lookback", min=0, help="So many last ticks too, if they are done or not.")
    ] = 0,
    lateness: Annotated[
        str | None, typer.Option("--lateness", metavar="LENGTH", help="A tick is due so long after its end, like 6h.")
    ] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="The last ticks first.")] = False,
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

    Without --schedule: the gaps. With one: each whole tick that is not fully completed; --lookback, --lateness
    and --newest-first are about ticks, and take --end for the present. A TIME is like 2024-01-10,
    2024-01-10T06:00+01:00, now, today, -7d or today-7d.
    """
    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    span, rule = as_span(start, end, zone), _rule(schedule, timezone, lookback, lateness, newest_first)
    if rule and limit is not None:
        rule["max_intervals"] = (
            limit + 1
        )  # one more tells that there are more, and not every minute of a decade is made
    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.REFUSED_IN_PROJECT)
        missing = store.get_missing_intervals(node, span.start, span.end, **rule)
        done = _canonical(store.get_completed_intervals(node))
    told = missing[:limit]
    if output is Format.TABLE:
        listed(printer, told, lambda each: row(each, zone), COLUMNS[:-1], empty="", every=every)
    else:
        printer.rows([{"node_id": node} | _as_record(each) for each in told], (), empty="")
    if output is Format.TABLE and missing:
        write_bar(done, span, zone)
    of = "gap" if schedule is None else "tick"
    if not missing:
        printer.note("nothing is pending")
    elif len(told) < len(missing):
        printer.note(f"more {of}s are pending than the {len(told)} that --limit shows")
    else:
        printer.note(f"{counted(len(missing), of)} pending, {summed(missing)} in all")


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
        node = which_node(store, project_path, node, printer, Unknown.NEW)
        note_claimed_span(printer, store, node, span)
        run_id, added = store.run_transaction(lambda: completed(store))
        note_no_log(printer, store, reason)
    facts = {"node_id": node, "start": span.start, "end": span.end, "run_id": run_id}
    lines = facts | {"start": times.told(span.start, zone), "end": times.told(span.end, zone)}
    printer.thing(facts | {"added": added}, list(lines.items()))
    if not added:
        printer.note("all of it was completed already")
    elif added != [span]:
        printer.note(f"{summed(added)} of {summed([span])} was missing; the rest was completed already")


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
        listed(to, ranges, lambda each: row(each, zone), COLUMNS[:-1], empty="", every=every)

    def restated(store: StateBackend) -> list[Interval]:
        ranges = _completed_within(store, node, span)
        if ranges:
            store.restate_intervals(node, span.start, span.end, reason=reason)
        return ranges

    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.REFUSED)
        ranges = _completed_within(store, node, span)
        note_claimed_span(printer, store, node, span)
        if ranges and not dry_run:
            if is_asked(yes=yes):
                with redirect_stdout(sys.stderr):
                    show(Printer(quiet=quiet), ranges)
                if not typer.confirm(f"Do {summed(ranges)} of {shown(node)} again?", err=True):
                    printer.note("nothing was restated")
                    return
            ranges = store.run_transaction(lambda: restated(store))
            note_no_log(printer, store, reason)
    if output is Format.TABLE:
        show(printer, ranges)
    else:
        facts = {"node_id": node, "start": span.start, "end": span.end, "dry_run": dry_run, "restated": ranges}
        printer.thing(facts, [])
    if not ranges:
        printer.note(f"{shown(node)} had completed nothing of that; nothing was restated")
    else:
        verb = "would be restated" if dry_run else "restated"
        rest = "" if ranges == [span] else f" of {summed([span])}; the rest was not completed"
        printer.note(f"{verb}: {summed(ranges)}{rest}")


def _rule(
    schedule: str | None, timezone: str | None, lookback: int, lateness: str | None, newest_first: bool
) -> dict[str, Any]:
    """Return what `get_missing_intervals` is asked beside the span; nothing without a schedule.

    Raises:
        ConfigurationError: There is no schedule for what is about its ticks, or the lateness is no length.
    """
    about_ticks = {"--lookback": lookback, "--lateness": lateness, "--newest-first": newest_first}
    if schedule is None:
        for option, value in about_ticks.items():
            if value:
                raise ConfigurationError(f"{option} says nothing without --schedule", hint="Give --schedule, too.")
        return {}
    late = timedelta() if lateness is None else times.as_length(lateness, "--lateness")
    told = {"lookback": lookback, "lateness": late, "newest_first": newest_first}
    return {"schedule": schedule, "timezone": timezone} | told


def _as_record(each: Interval | CompletedInterval, **beside: Any) -> dict[str, Any]:
    """Return a range as JSON has it: its fields, and what stands beside them."""
    return {name: getattr(each, name) for name in each.__struct_fields__} | beside


def _canonical(ranges: Sequence[CompletedInterval]) -> list[Interval]:
    from seeknal.model.intervals import Interval, union

    return union(Interval(each.start, each.end) for each in ranges)


def _completed_within(store: StateBackend, node: str, span: Interval) -> list[Interval]:
    from seeknal.model.intervals import intersect

    return intersect(_canonical(store.get_completed_intervals(node)), [span])


def _show_nodes(
    printer: Printer,
    found: dict[str, list[CompletedInterval]],
    low: datetime | None,
    high: datetime | None,
    zone: ZoneInfo,
    empty: str,
) -> None:
    """Print what each node has completed, in sum; a span without a bound reaches as far as there is something."""
    from seeknal.model.intervals import Interval, gaps

    done = {name: _canonical(ranges) for name, ranges in found.items()}
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
    if printer.style is not Format.TABLE or not sums:
        printer.rows(sums, (), empty=empty)
        return
    first, last = min(each["start"] for each in sums), max(each["end"] for each in sums)
    write_nodes(printer, sums, done, zone, Interval(low or first, high or last))


def _detail(span: Interval, changed: Sequence[Interval]) -> dict[str, Any]:
    """Return what the log says of a change: the span that was named, and how much of it was changed."""
    return {
        "start": span.start.isoformat(),
        "end": span.end.isoformat(),
        "ranges": len(changed),
        "changed_seconds": total(changed).total_seconds(),
    }


intervals_app.command("history")(history)
