"""``seeknal intervals claims``: who works on which ranges of nodes, what failed, and what is parked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.by_hand import Reason, note_no_log
from seeknal.cli.listing import Every, listed
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.partition_tables import fitted
from seeknal.cli.which_node import Unknown, which_node
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from seeknal.model.intervals import Interval
    from seeknal.model.records import Claim, LockInfo
    from seeknal.state.contract import StateBackend

COLUMNS = ("range", "status", "attempt", "held_by", "error_message")
NODES_COLUMNS = ("node_id", "range", "status", "attempt", "error_message")
"""Of all nodes, where nobody's host has room."""
MOST_NAMED = 3
"""Claims that a remark names."""
LONGEST_RANGE = 33
LONGEST_HOLDER = 16
"""Characters of a cell in a table, unless all are asked for; JSON has all of it."""


def list_claims(
    node: Annotated[str | None, typer.Argument(help="The node; all that have claims when left out.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only these: claimed, open or parked.")] = None,
    retry_parked: Annotated[bool, typer.Option("--retry-parked", help="Let parked ranges be tried again.")] = False,
    reason: Reason = "",
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the ranges of a node, or of all, that workers took and have not completed: intervals, then partitions.

    claimed: somebody works on it. open: the last attempt failed, or its worker is gone; it will be taken again.
    parked: its attempts are used up. --retry-parked opens those again, and counts their attempts anew; it is logged.
    """
    printer = Printer(output, quiet=quiet)
    _check(node, status, reason, retry_parked=retry_parked)
    opened_again: Sequence[Claim] = []
    with opened(project_path, backend, database_url) as store:
        node = node if node is None else which_node(store, project_path, node, printer, Unknown.REFUSED)
        if retry_parked and node is not None:
            opened_again = store.retry_parked(node, reason=reason)
            note_no_log(printer, store, reason)
        nodes = store.list_claimed_nodes() if node is None else [node]
        claims = [claim for each in nodes for claim in store.list_claims(each, status=status)]
        holders = {lock.owner: lock for lock in store.list_locks()}
    if output is Format.TABLE:
        rows = [_row(claim, holders.get(claim.lease_owner), every=every) for claim in claims]
        columns: tuple[str, ...] = COLUMNS
        if node is None and every:
            columns = ("node_id", *COLUMNS)
        elif node is None:
            columns = NODES_COLUMNS
            rows = fitted(rows, NODES_COLUMNS, ("node_id", "error_message"))
        empty = f"nothing{'' if node is None else f' of {shown(node)}'} is {'claimed' if status is None else status}"
        listed(printer, rows, lambda each: each, columns, empty=empty, every=every)
    else:
        printer.rows([_record(claim, holders.get(claim.lease_owner)) for claim in claims], (), empty="")
    if retry_parked:
        printer.note(_told(opened_again))


def note_claimed_span(printer: Printer, store: StateBackend, node: str, span: Interval) -> None:
    """Say which workers are at work, at this moment, on what overlaps with a span."""

    def overlaps(claim: Claim) -> bool:
        return claim.start is not None and claim.end is not None and claim.start < span.end and span.start < claim.end

    _note_claimed(printer, store, node, overlaps)


def note_claimed_keys(printer: Printer, store: StateBackend, node: str, keys: Sequence[str]) -> None:
    """Say which workers are at work, at this moment, on some of these partitions."""
    among = set(keys)
    _note_claimed(printer, store, node, lambda claim: claim.partition in among)


def _note_claimed(printer: Printer, store: StateBackend, node: str, is_meant: Callable[[Claim], bool]) -> None:
    from seeknal.state.capabilities import Capability

    if Capability.CLAIMS not in store.capabilities:
        return
    claims = [claim for claim in store.list_claims(node, status="claimed") if is_meant(claim)]
    if not claims:
        return
    told = ", ".join(f"run {shown(each.run_id)} on {shown(_range(each))}" for each in claims[:MOST_NAMED])
    more = f" and {len(claims) - MOST_NAMED} more" if len(claims) > MOST_NAMED else ""
    ask = f"seeknal intervals claims {shown(shlex.quote(node))} --status claimed"
    printer.note(f"at work on it right now: {told}{more}; `{ask}` tells who holds what")


def _check(node: str | None, status: str | None, reason: str, *, retry_parked: bool) -> None:
    """Refuse options that say nothing together.

    Raises:
        ConfigurationError: Naming them.
        InvalidFieldError: There is no such status.
    """
    from seeknal.model.status import ClaimStatus, as_status

    if status is not None:
        as_status(ClaimStatus, status)  # here, since no store is asked for it where no node has claims
    if not retry_parked:
        if reason:
            raise ConfigurationError("--reason says nothing without --retry-parked", hint="Give --retry-parked, too.")
    elif node is None:
        raise ConfigurationError("--retry-parked says nothing without a node", hint="Name the node, too.")
    elif status is not None:
        raise ConfigurationError(
            "--status and --retry-parked do not go together: what is opened again is not listed as parked",
            hint="Look with --status first, then open all that is parked with --retry-parked.",
        )


def _told(opened_again: Sequence[Claim]) -> str:
    if not opened_again:
        return "nothing was parked"
    count = len(opened_again)
    return f"{count} parked {'range is' if count == 1 else 'ranges are'} open again"


def _record(claim: Claim, holder: LockInfo | None) -> dict[str, Any]:
    """Return a claim as JSON has it: its fields, and where the worker is that holds it."""
    where = {"host": holder.host if holder else None, "pid": holder.pid if holder else None}
    return {name: getattr(claim, name) for name in claim.__struct_fields__} | where


def _row(claim: Claim, holder: LockInfo | None, *, every: bool) -> dict[str, str]:
    told = _range(claim)
    held_by = f"{holder.host}:{holder.pid}" if holder and claim.status == "claimed" else "-"
    return {
        "node_id": shown(claim.node_id),
        "range": told if every else _cut(told, LONGEST_RANGE),
        "status": claim.status.value,
        "attempt": f"{claim.attempt} of {claim.max_attempts}",
        "held_by": held_by if every else _cut(held_by, LONGEST_HOLDER),
        "error_message": " ".join((claim.error_message or "-").split()),
    }


def _range(claim: Claim) -> str:
    return str(claim.partition) if claim.start is None or claim.end is None else _span(claim.start, claim.end)


def _span(start: datetime, end: datetime) -> str:
    """Return an interval in UTC; of whole days, as days."""
    is_in_days = not any(part for each in (start, end) for part in (each.hour, each.minute, each.second))
    form = "%Y-%m-%d" if is_in_days else "%Y-%m-%dT%H:%M"
    return f"{start:{form}}/{end:{form}}"


def _cut(text: str, width: int) -> str:
    line = shown(text)
    return line if len(line) <= width else f"{line[: width - 3]}..."
