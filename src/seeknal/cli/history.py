"""``seeknal intervals history``: which run completed which part of a node, and who had what done again."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import times
from seeknal.cli.bounds import bounds, reaching_into
from seeknal.cli.interval_tables import counted
from seeknal.cli.listing import MOST_SHOWN, Every, listed
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import WIDTH, Format, Printer, shortened, shown
from seeknal.cli.times import From, Timezone, To, as_zone
from seeknal.cli.which_node import Unknown, which_node

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from seeknal.model.records import IntervalProvenance, LoggedChange, RunState
    from seeknal.state.contract import StateBackend

COLUMNS = ("start", "end", "finished_at", "status", "run_id")
MOST_RUNS = 3
"""Runs that are named where the work of many was undone; JSON has what the log has."""


def history(
    node: Annotated[str, typer.Argument(help="The node.")],
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
    """List which run completed each part of what a node has completed, and what was restated by whom.

    status and finished_at are those of the run, and - if it is gone. Parts and restatements that reach into
    [--start, --end) are listed as they are. A TIME is like 2024-01-10, 2024-01-10T06:00+01:00, now, today, -7d or
    today-7d.
    """
    from seeknal.state.capabilities import Capability

    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    low, high = bounds(start, end, zone)
    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.REFUSED)
        parts = reaching_into(store.get_interval_provenance(node), low, high)
        keeps_log = Capability.LOG in store.capabilities
        restated = store.list_changes(node_id=node, action="restate") if keeps_log else []
        # The same word stands for the partitions of the node, which are another matter.
        restated = [each for each in restated if "partitions" not in each.detail and _reaches(each, low, high)]
        runs = _Runs(store)
        if output is not Format.TABLE:
            told = [_record(each, runs) for each in parts]
            if output is Format.JSON:
                printer.thing({"node_id": node, "parts": told, "restatements": restated}, [])
            else:
                printer.rows(_lines(told, restated), (), empty="")
            return
        _show_parts(
            printer, parts, runs, zone, f"{shown(node)} has completed nothing{' there' * bool(low or high)}", every
        )
    _show_restated(restated, zone, every=every)
    if parts or restated:
        zoned = f"times of {zone.key}"
        printer.note(f"{counted(len(parts), 'part')}, {counted(len(restated), 'restatement')}; {zoned}")
    if not keeps_log:
        printer.note("this backend keeps no log of changes, so nothing tells what was restated")


class _Runs:
    """The runs of a store, each of which is read once, when it is asked for."""

    def __init__(self, store: StateBackend) -> None:
        self._store = store
        self._found: dict[str, RunState | None] = {}

    def get(self, run_id: str) -> RunState | None:
        if run_id not in self._found:
            self._found[run_id] = self._store.get_run(run_id)
        return self._found[run_id]


def _record(part: IntervalProvenance, runs: _Runs) -> dict[str, Any]:
    run = runs.get(part.run_id)
    beside = {"run_status": run and run.status, "run_finished_at": run and run.finished_at}
    return {name: getattr(part, name) for name in part.__struct_fields__} | beside


def _lines(parts: Sequence[dict[str, Any]], restated: Sequence[LoggedChange]) -> list[dict[str, Any]]:
    """Return what each line of JSON lines has: the parts, then the restatements, told apart by their ``kind``."""
    changes = ({name: getattr(each, name) for name in each.__struct_fields__} for each in restated)
    return [{"kind": "part"} | each for each in parts] + [{"kind": "restatement"} | each for each in changes]


def _show_parts(
    printer: Printer, parts: Sequence[IntervalProvenance], runs: _Runs, zone: ZoneInfo, empty: str, every: bool
) -> None:
    """Print a table of parts; of the runs only those are read that stand in it."""
    moments = _told([bound for each in parts for bound in (each.start, each.end)], zone, every=every)
    bound = dict(
        zip(((each.start, each.end) for each in parts), zip(moments[::2], moments[1::2], strict=True), strict=True)
    )

    def row(part: IntervalProvenance) -> dict[str, str]:
        run = runs.get(part.run_id)
        finished = run.finished_at if run is not None else None
        told = "-" if finished is None else _at(finished, zone, every=every)
        cells = (*bound[part.start, part.end], told, shown(run.status if run else None), shown(part.run_id))
        return dict(zip(COLUMNS, cells, strict=True))

    listed(printer, parts, row, COLUMNS, empty=empty, every=every)


def _show_restated(changes: Sequence[LoggedChange], zone: ZoneInfo, *, every: bool) -> None:
    """Print two lines for each restatement, of many only of the last ones."""
    hidden = 0 if every else max(0, len(changes) - MOST_SHOWN)
    lines = [""] if changes else []
    lines += [f"... {hidden} earlier restatements ..."] if hidden else []
    for change in changes[hidden:]:
        why = f": {change.reason}" if change.reason else ""
        lines += [f"{_at(change.at, zone, every=every)}  restated by {change.actor}@{change.host}{why}"]
        lines += [f"  {_undone(change, zone, every=every)}"]
    for line in lines:
        safe = shown(" ".join(line.split("\n")))
        sys.stdout.write(f"{safe if every else shortened(safe, WIDTH, '...')}\n")


def _undone(change: LoggedChange, zone: ZoneInfo, *, every: bool) -> str:
    """Return what a restatement was about, as far as its entry in the log tells."""
    span, detail = _span(change), change.detail
    if span is None:
        return shown(detail)
    first, last = _told(list(span), zone, every=every)
    seconds, named = detail.get("changed_seconds"), detail.get("runs")
    told = f"{first} to {last}"
    if isinstance(seconds, int | float) and 0 <= seconds <= (span[1] - span[0]).total_seconds():
        told += f", of which {times.told_length(timedelta(seconds=seconds))} was completed"
    if not isinstance(named, list) or not named:
        return told
    seen = named if every else named[:MOST_RUNS]
    in_all = detail.get("runs_in_all")
    others = (in_all if isinstance(in_all, int) else len(named)) - len(seen)
    return f"{told} by {', '.join(map(str, seen))}{f' and {others} more' if others > 0 else ''}"


def _span(change: LoggedChange) -> tuple[datetime, datetime] | None:
    """Return the span of a restatement; ``None`` if its entry, which anybody may have written, has none."""
    try:
        first, last = (datetime.fromisoformat(change.detail[name]) for name in ("start", "end"))
    except (KeyError, TypeError, ValueError):
        return None
    return _aware(first), _aware(last)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _reaches(change: LoggedChange, low: datetime | None, high: datetime | None) -> bool:
    """Return whether a restatement may be about a span; one that does not tell its own may."""
    span = _span(change)
    return span is None or ((low is None or span[1] > low) and (high is None or span[0] < high))


def _told(moments: list[datetime], zone: ZoneInfo, *, every: bool) -> list[str]:
    """Return instants as briefly as they can be told apart by the second; in full if nothing is to be cut."""
    if every:
        return [times.told(each, zone) for each in moments]
    if any(each.second for each in moments):
        return [times.local(each, zone).replace(tzinfo=None).isoformat(" ", "seconds") for each in moments]
    return times.told_briefly(moments, zone)


def _at(moment: datetime, zone: ZoneInfo, *, every: bool) -> str:
    """Return when something happened: to the minute, or in full if nothing is to be cut."""
    if every:
        return times.told(moment, zone)
    return times.local(moment, zone).replace(tzinfo=None).isoformat(" ", "minutes")
