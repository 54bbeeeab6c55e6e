"""``seeknal state log``: what people and commands did to a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, cells, shortened, shown

if TYPE_CHECKING:
    from seeknal.model.records import LoggedChange

COLUMNS = ("at", "who", "action", "subject", "reason")
WIDTH = 80
MOST = {"who": 16, "action": 12, "subject": 24}
"""Where a cell is cut in a table, so that the reason has its place; JSON has all of it."""


def log(
    run: Annotated[str | None, typer.Option("--run", help="Only what was done to this run.")] = None,
    node: Annotated[str | None, typer.Option("--node", help="Only what was done to this node.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this: unlock, cleanup, ...")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many entries.")] = 20,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what people and commands did to the store, the newest first.

    Locks that were broken, runs that were cleaned away, repairs, imports, moves: who did it, where, when and why. What
    pipelines write is not in it; see `seeknal state show`.
    """
    with opened(project_path, backend, database_url) as store:
        found = store.list_changes(run_id=run, node_id=node, action=action, newest_first=True, limit=limit)
    printer = Printer(output, quiet=quiet)
    if output is Format.TABLE:
        printer.rows(_rows(found), COLUMNS, empty="nothing is in the log")
    else:
        printer.rows(found, (), empty="")


def _rows(changes: list[LoggedChange]) -> list[dict[str, str]]:
    """Return the cells of a table; the reason takes the room that the others leave."""
    rows = [
        {
            "at": shown(change.at),
            "who": f"{change.actor}@{change.host}",
            "action": change.action,
            "subject": " ".join(part for part in (change.run_id, change.node_id) if part) or "-",
            "reason": change.reason or "-",
        }
        for change in changes
    ]
    rows = [{**row, **{name: _cut(row[name], most) for name, most in MOST.items()}} for row in rows]
    widths = [max([len(name), *(cells(row[name]) for row in rows)]) for name in COLUMNS[:-1]]
    room = WIDTH - sum(widths) - 2 * len(widths)
    return [{**row, "reason": _cut(row["reason"], max(room, len("reason")))} for row in rows]


def _cut(text: str, width: int) -> str:
    return shortened(shown(" ".join(text.split())), width, "…")
