"""``seeknal intervals claims``: who works on which ranges of a node, what failed, and what is parked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.by_hand import Reason, note_no_log
from seeknal.cli.listing import Every, listed
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from seeknal.model.records import Claim, LockInfo

COLUMNS = ("range", "status", "attempt", "held_by", "error_message")
LONGEST_RANGE = 33
LONGEST_HOLDER = 16
"""Characters of a cell in a table, unless all are asked for; JSON has all of it."""


def list_claims(
    node: Annotated[str, typer.Argument(help="The node.")],
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
    """List the ranges of a node that workers took and have not completed: intervals, then partitions.

    claimed: somebody works on it. open: the last attempt failed, or its worker is gone; it will be taken again.
    parked: its attempts are used up. --retry-parked opens those again, and counts their attempts anew; it is logged.
    """
    printer = Printer(output, quiet=quiet)
    with opened(project_path, backend, database_url) as store:
        opened_again = store.retry_parked(node, reason=reason) if retry_parked else []
        if retry_parked:
            note_no_log(printer, store, reason)
        claims = store.list_claims(node, status=status)
        holders = {lock.owner: lock for lock in store.list_locks()}
    if output is Format.TABLE:
        rows = [_row(claim, holders.get(claim.lease_owner), every=every) for claim in claims]
        empty = f"nothing of {shown(node)} is {'claimed' if status is None else status}"
        listed(printer, rows, lambda each: each, COLUMNS, empty=empty, every=every)
    else:
        printer.rows([_record(claim, holders.get(claim.lease_owner)) for claim in claims], (), empty="")
    if retry_parked:
        printer.note(_told(opened_again))


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
    told = str(claim.partition) if claim.start is None or claim.end is None else _span(claim.start, claim.end)
    held_by = f"{holder.host}:{holder.pid}" if holder and claim.status == "claimed" else "-"
    return {
        "range": told if every else _cut(told, LONGEST_RANGE),
        "status": claim.status.value,
        "attempt": f"{claim.attempt} of {claim.max_attempts}",
        "held_by": held_by if every else _cut(held_by, LONGEST_HOLDER),
        "error_message": " ".join((claim.error_message or "-").split()),
    }


def _span(start: datetime, end: datetime) -> str:
    """Return an interval in UTC; of whole days, as days."""
    is_in_days = not any(part for each in (start, end) for part in (each.hour, each.minute, each.second))
    form = "%Y-%m-%d" if is_in_days else "%Y-%m-%dT%H:%M"
    return f"{start:{form}}/{end:{form}}"


def _cut(text: str, width: int) -> str:
    line = shown(text)
    return line if len(line) <= width else f"{line[: width - 3]}..."
