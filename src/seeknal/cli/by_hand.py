"""What a person changes by hand: under which run, with which entry in the log, and whether to ask before."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import times
from seeknal.errors import RunNotFoundError

if TYPE_CHECKING:
    from seeknal.cli.output import Printer
    from seeknal.state.contract import StateBackend

Run = Annotated[str | None, typer.Option("--run", help="The run that did it; one is made if left out.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the change log.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done again.")]


def run_by_hand(store: StateBackend, run: str | None, command: str, reason: str) -> str:
    """Return the id of the run that completes something, which is made if none is named; in the caller's transaction.

    Args:
        store: Where to.
        run: As it was named.
        command: What makes it.
        reason: Why.

    Raises:
        RunNotFoundError: There is no run of that name.
        ConcurrencyError: Two were made within one microsecond.
    """
    if run is not None:
        if not store.exists(run):
            raise RunNotFoundError(
                f"there is no run {run!a}",
                hint="List what there is with `seeknal state list`, or leave --run out: then one is made.",
                run_id=run,
            )
        return run
    from seeknal.state.change_log import current_actor

    now = times.CLOCK.now()
    by_hand = {"actor": current_actor(), "command": command, "reason": reason}
    run_id = f"manual_{now:%Y%m%dT%H%M%S_%fZ}"
    return store.create_run(run_id, status="success", started_at=now, metadata={"by_hand": by_hand}).run_id


def log_by_hand(
    store: StateBackend, action: str, node: str, reason: str, detail: Mapping[str, Any], run_id: str | None = None
) -> None:
    """Log what is done to a node, in the caller's transaction, if the store keeps a log."""
    from seeknal.state.capabilities import Capability

    if Capability.LOG in store.capabilities:
        store.log_change(action, run_id=run_id, node_id=node, reason=reason, detail=detail)


def note_no_log(printer: Printer, store: StateBackend, reason: str) -> None:
    """Say that nobody will read the reason, if the store keeps no log."""
    from seeknal.state.capabilities import Capability

    if reason and Capability.LOG not in store.capabilities:
        printer.note("this backend keeps no log of changes, so the reason is not in one")


def is_asked(*, yes: bool) -> bool:
    """Return whether somebody is there to be asked, and was not told off."""
    return not yes and sys.stdin.isatty() and sys.stderr.isatty()
