"""``seeknal partitions``: how the named slices of nodes stand, and what is completed of them, by hand."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli.by_hand import DryRun, Reason, Run, Yes, is_asked, log_by_hand, note_no_log, run_by_hand
from seeknal.cli.claims import note_claimed_keys
from seeknal.cli.expecting import expect, pending
from seeknal.cli.listing import MOST_SHOWN, Every
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.partition_tables import (
    next_page,
    read_pages,
    show_completed,
    show_nodes,
    show_pages,
    show_reports,
    standing,
    summed_up,
)
from seeknal.cli.which_node import Unknown, which_node
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal.model.records import PartitionState
    from seeknal.state.contract import StateBackend

LOGGED_AT_ONCE = 100
"""Keys that stand in one entry of the log."""
MOST_NAMED = 5
"""Keys that a remark names."""

Node = Annotated[str, typer.Argument(help="The node.")]
Keys = Annotated[list[str], typer.Argument(help="Keys of partitions.", metavar="KEY")]

partitions_app = typer.Typer(
    name="partitions",
    help="Look at and correct which partitions nodes have completed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@partitions_app.command("list")
def list_partitions(
    node: Annotated[str | None, typer.Argument(help="The node; all of them when left out.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only these: completed, running, failed or missing.")
    ] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="KEY", help="Only those behind this key.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List how the partitions of a node stand, or count those of every node.

    completed: done. running: a living worker has claimed it. failed: the last attempt failed, or its worker is
    gone. missing: expected, and nobody has tried. They are sorted by their keys, and --limit shows a page of them.
    """
    printer = Printer(output, quiet=quiet)
    if node is None:
        for option, value in {"--status": status, "--after": after, "--limit": limit}.items():
            if value is not None:
                raise ConfigurationError(f"{option} says nothing without a node", hint="Name the node, too.")
        with opened(project_path, backend, database_url) as store:
            show_nodes(printer, summed_up(store, _nodes(store)))
        return
    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.EMPTY)
        if output is Format.TABLE:
            _show_table(printer, store, node, status, after, limit, every=every)
            return
        key = show_pages(printer, read_pages(store, node, status, after, limit), limit)
    if key is not None and limit is not None:
        printer.note(f"more follow: {next_page(key, limit, status)}")


def _show_table(
    printer: Printer,
    store: StateBackend,
    node: str,
    status: str | None,
    after: str | None,
    limit: int | None,
    *,
    every: bool,
) -> None:
    """Print a page, or the first ones, and say how to see more if there are more."""
    most = MOST_SHOWN if limit is None and not every else limit
    reports = [each for page in read_pages(store, node, status, after, most) for each in page]
    told, is_more = reports[:most], most is not None and len(reports) > most
    nothing = f"{shown(node)} has no partitions" if status is None else f"no partition of {shown(node)} is {status}"
    empty = nothing if after is None else f"{nothing} behind {shown(after)}"
    more, note = None, ""
    if is_more and limit is not None:
        note = f"more follow: {next_page(told[-1].partition, limit, status)}"
    elif is_more:
        following = next_page(told[-1].partition, MOST_SHOWN, status)
        more, note = "... more ...", f"--all shows every one, {following} the next page"
        if after is None:
            counts = standing(store, node)
            in_all = sum(counts.values()) if status is None else counts[status]
            # What was added or done meanwhile makes the count another one; that there is more was seen.
            more = f"... {max(in_all - len(told), 1)} more ..."
            note = f"{', '.join(f'{count} {name}' for name, count in counts.items() if count)}; {note}"
    show_reports(printer, told, more, empty=empty, every=every)
    if note:
        printer.note(note)


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
        before = {key for key in wanted if store.get_partition(node, key) is not None}
        run_id = run_by_hand(store, run, "partitions complete", reason)
        states = [store.add_completed_partition(run_id, node, key, row_count=row_count) for key in wanted]
        for first in range(0, len(wanted), LOGGED_AT_ONCE):
            detail = {"partitions": wanted[first : first + LOGGED_AT_ONCE]}
            log_by_hand(store, "complete", node, reason, detail, run_id)
        return states, before

    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.NEW)
        note_claimed_keys(printer, store, node, wanted)
        states, before = store.run_transaction(lambda: completed(store))
        note_no_log(printer, store, reason)
    show_completed(printer, states)
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
        found = [store.get_partition(node, key) for key in wanted]
        return [each for each in found if each is not None]

    def restated(store: StateBackend) -> list[PartitionState]:
        states = completed(store)
        store.restate_partitions(node, [each.partition for each in states], reason=reason)
        return states

    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.REFUSED)
        states = completed(store)
        note_claimed_keys(printer, store, node, wanted)
        unexpected = set(_not_expected(store, node, wanted))
        if states and not dry_run:
            if is_asked(yes=yes):
                with redirect_stdout(sys.stderr):
                    show_completed(Printer(quiet=quiet), states)
                count = f"{len(states)} partition{'' if len(states) == 1 else 's'}"
                if not typer.confirm(f"Do {count} of {shown(node)} again?", err=True):
                    printer.note("nothing was restated")
                    return
            states = store.run_transaction(lambda: restated(store))
            note_no_log(printer, store, reason)
    gone = [each.partition for each in states]
    others = [key for key in wanted if key not in set(gone)]
    if output is Format.TABLE:
        show_completed(printer, states, empty=f"{shown(node)} had completed none of them; nothing was restated")
    else:
        printer.thing({"node_id": node, "dry_run": dry_run, "restated": gone, "not_completed": others}, [])
    if states:
        printer.note(f"{'would be restated' if dry_run else 'restated'}: {_named(gone)}")
    unlisted = [key for key in gone if key in unexpected]
    if unlisted:
        them = "it" if len(unlisted) == 1 else "them"
        printer.note(f"not expected: `{shown(_as_expected(node, unlisted))}` has {them} listed as missing")
    if states and others:
        printer.note(f"not completed before, and left so: {_named(others)}")


def _nodes(store: StateBackend) -> list[str]:
    """Return the nodes that have completed or expected partitions, or claims, sorted by their bytes."""
    from seeknal.state.capabilities import Capability

    claimed = store.list_claimed_nodes() if Capability.CLAIMS in store.capabilities else []
    return sorted({*store.list_worked_nodes(), *claimed}, key=str.encode)


def _not_expected(store: StateBackend, node: str, keys: Sequence[str]) -> list[str]:
    """Return the keys that the store does not expect of a node, if it can expect any: nothing lists them as missing."""
    from seeknal.state.capabilities import Capability

    if not keys or Capability.EXPECTED not in store.capabilities:
        return []
    expected = set(store.list_expected_partitions(node))
    return [key for key in keys if key not in expected]


def _as_expected(node: str, keys: Sequence[str]) -> str:
    """Return how to tell the store that it is to expect some keys, the first ones of many, in words for a shell."""
    mark = "-- " if any(key.startswith("-") for key in (node, *keys)) else ""
    more = " ..." if len(keys) > MOST_NAMED else ""
    return f"seeknal partitions expect {mark}{shlex.join([node, *keys[:MOST_NAMED]])}{more}"


def _named(keys: Sequence[str]) -> str:
    """Return keys in a line, the first ones of many."""
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return f"{', '.join(map(shown, keys[:MOST_NAMED]))}{more}"


partitions_app.command("pending")(pending)
partitions_app.command("expect")(expect)
