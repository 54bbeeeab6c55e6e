"""``seeknal partitions``: which named slices nodes have completed, which are missing, and both by hand."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.by_hand import DryRun, Reason, Run, Yes, is_asked, log_by_hand, note_no_log, run_by_hand
from seeknal.cli.expected import keys_of_file, keys_of_span
from seeknal.cli.listing import Every, listed
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.times import Timezone, as_span, as_zone
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal.model.records import PartitionState
    from seeknal.state.contract import StateBackend

LOGGED_AT_ONCE = 100
"""Keys that stand in one entry of the log."""

COLUMNS = ("partition", "completed_at", "row_count", "run_id")
LONGEST_KEY = 30
LONGEST_NAME = 20
"""Characters of a key in a table, unless all are asked for, and of a name in a table of nodes."""

Node = Annotated[str, typer.Argument(help="The node.")]
Keys = Annotated[list[str], typer.Argument(help="Keys of partitions.", metavar="KEY...")]

partitions_app = typer.Typer(
    name="partitions",
    help="Look at and correct which partitions nodes have completed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@partitions_app.command("list")
def list_partitions(
    node: Annotated[str | None, typer.Argument(help="The node; all of them when left out.")] = None,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the partitions that a node has completed, or count those of every node."""
    printer = Printer(output, quiet=quiet)
    with opened(project_path, backend, database_url) as store:
        nodes = store.list_worked_nodes() if node is None else [node]
        found = {name: store.list_partitions(name) for name in nodes}
    if node is not None:
        empty = f"{shown(node)} has completed no partitions"
        _show(printer, found[node], empty=empty, every=every)
        return
    sums = [
        {"node_id": name, "partitions": len(parts), "first": parts[0].partition, "last": parts[-1].partition}
        for name, parts in found.items()
        if parts
    ]
    columns = ("partitions", "node_id", "first", "last")
    listed(printer, sums, _brief, columns, empty="no partitions are completed", every=True)


@partitions_app.command("pending")
def pending(
    node: Node,
    expected: Annotated[
        Path | None, typer.Option("--expected", metavar="FILE", help="Keys, one a line; - is standard input.")
    ] = None,
    start: Annotated[str | None, typer.Option("--start", metavar="TIME", help="Keys by time: from here on.")] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="Up to here; now if left out.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="How a key tells its time; %Y-%m-%d.")
    ] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", metavar="CRON", help="A key a tick; @daily.")] = None,
    timezone: Timezone = None,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the partitions that a node is expected to have and has not completed.

    Expected are the lines of a file, the beginnings of the whole ticks in [--start, --end), or both. A TIME is
    like 2024-01-10, 2024-01-10T06:00+01:00, now, today, -7d or today-7d.
    """
    printer, zone = Printer(output, quiet=quiet), as_zone(timezone)
    by_time = {"--end": end, "--format": form, "--schedule": schedule, "--timezone": timezone}
    if start is None and (needless := [option for option, value in by_time.items() if value is not None]):
        raise ConfigurationError(f"{needless[0]} says nothing without --start", hint="Give --start, too.")
    if start is None and expected is None:
        raise ConfigurationError(
            "nothing says which partitions are expected",
            hint="Give --expected FILE with one key a line, or --start TIME for keys by time, or both.",
        )
    wanted = [] if expected is None else keys_of_file(expected)
    if start is not None:
        span = as_span(start, "now" if end is None else end, zone)
        wanted += keys_of_span(span, schedule or "@daily", timezone, "%Y-%m-%d" if form is None else form)
    with opened(project_path, backend, database_url) as store:
        done = {each.partition for each in store.list_partitions(node)}
    keys = list(dict.fromkeys(wanted))
    missing = [{"node_id": node, "partition": key} for key in keys if key not in done]
    listed(printer, missing, lambda each: {"partition": each["partition"]}, ("partition",), empty="", every=every)
    printer.note(f"{len(missing)} of {len(keys)} expected partitions pending" if missing else "nothing is pending")


@partitions_app.command("complete")
def complete(
    node: Node,
    keys: Keys,
    row_count: Annotated[int | None, typer.Option("--row-count", min=0, help="How many rows each has.")] = None,
    run: Run = None,
    reason: Reason = "",
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Complete partitions of a node by hand; all of them or, if one cannot be, none. It is logged."""
    printer, wanted = Printer(output, quiet=quiet), list(dict.fromkeys(keys))

    def completed(store: StateBackend) -> tuple[list[PartitionState], set[str]]:
        before = {each.partition for each in store.list_partitions(node)}
        run_id = run_by_hand(store, run, "partitions complete", reason)
        states = [store.add_completed_partition(run_id, node, key, row_count=row_count) for key in wanted]
        _log(store, "complete", node, reason, wanted, run_id)
        return states, before

    with opened(project_path, backend, database_url) as store:
        states, before = store.run_transaction(lambda: completed(store))
        note_no_log(printer, store, reason)
    _show(printer, states)
    again = [key for key in wanted if key in before]
    if again:
        printer.note(f"completed already, and now once more: {_named(again)}")


@partitions_app.command("restate")
def restate(
    node: Node,
    keys: Keys,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Un-complete partitions of a node, so that they are done again.

    It is logged. On a terminal it shows what will be done again and asks; elsewhere it does not ask.
    """
    from seeknal.model.ids import check_id

    printer, wanted = Printer(output, quiet=quiet), [check_id(key, "partition") for key in dict.fromkeys(keys)]

    def completed(store: StateBackend) -> list[PartitionState]:
        found = {each.partition: each for each in store.list_partitions(node)}
        return [found[key] for key in wanted if key in found]

    def restated(store: StateBackend) -> list[PartitionState]:
        states = completed(store)
        for each in states:
            store.restate_partition(node, each.partition)
        _log(store, "restate", node, reason, [each.partition for each in states])
        return states

    with opened(project_path, backend, database_url) as store:
        states = completed(store)
        if states and not dry_run:
            if is_asked(yes=yes):
                with redirect_stdout(sys.stderr):
                    _show(Printer(quiet=quiet), states)
                count = f"{len(states)} partition{'' if len(states) == 1 else 's'}"
                if not typer.confirm(f"Do {count} of {shown(node)} again?", err=True):
                    printer.note("nothing was restated")
                    return
            states = store.run_transaction(lambda: restated(store))
            note_no_log(printer, store, reason)
    gone = [each.partition for each in states]
    others = [key for key in wanted if key not in set(gone)]
    if output is Format.TABLE:
        _show(printer, states, empty=f"{shown(node)} had completed none of them; nothing was restated")
    else:
        printer.thing({"node_id": node, "dry_run": dry_run, "restated": gone, "not_completed": others}, [])
    if states:
        printer.note(f"{'would be restated' if dry_run else 'restated'}: {_named(gone)}")
    if states and others:
        printer.note(f"not completed before, and left so: {_named(others)}")


def _log(
    store: StateBackend, action: str, node: str, reason: str, keys: Sequence[str], run_id: str | None = None
) -> None:
    for first in range(0, len(keys), LOGGED_AT_ONCE):
        detail = {"partitions": list(keys[first : first + LOGGED_AT_ONCE])}
        log_by_hand(store, action, node, reason, detail, run_id)


def _show(printer: Printer, states: Sequence[PartitionState], *, empty: str = "", every: bool | None = None) -> None:
    def row(each: PartitionState) -> dict[str, str]:
        cells = {name: shown(getattr(each, name)) for name in COLUMNS}
        return cells if every else cells | {"partition": _cut(cells["partition"], LONGEST_KEY)}

    listed(printer, states, row, COLUMNS, empty=empty, every=every)


def _brief(sums: dict[str, Any]) -> dict[str, str]:
    return {name: _cut(shown(value), LONGEST_NAME) for name, value in sums.items()}


def _named(keys: Sequence[str]) -> str:
    """Return keys in a line, the first ones of many."""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"{', '.join(map(shown, keys[:5]))}{more}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
