"""``seeknal migrate-state``: a preview, unless told ``--no-dry-run``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import published
from seeknal.cli.options import DatabaseUrl, Debug, Option, Output, ProjectPath, Quiet, options_of
from seeknal.cli.output import Format, Printer, sized
from seeknal.cli.progress import progress
from seeknal.cli.stores import looked_at, movable
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from seeknal.state.migration.planning import MovePlan
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import StateSettings

DryRun = Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Only show what would happen, or do it.")]
TO_ENVIRONMENT = "${SEEKNAL_DATABASE_URL}"


def migrate_state(
    backend: Annotated[str, typer.Option("--backend", help="Where to: file, database, or a registered one.")],
    database_url: DatabaseUrl = None,
    option: Option = None,
    merge: Annotated[bool, typer.Option("--merge", help="Add to what the target holds: other runs.")] = False,
    dry_run: DryRun = True,
    project_path: ProjectPath = Path(),
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Move the whole state to another backend and point the project at it. A preview by default.

    Both stores refuse writes meanwhile. Everything is copied, compared, and only then does the project change. The
    old store stays as it is, refuses writes, and `seeknal state rollback` goes back to it. After an error both are as
    they were; after a kill the same command goes on.
    """
    from seeknal.state.migration.moving import move
    from seeknal.state.migration.planning import check_source
    from seeknal.state.migration.record import begun, finish, record_of
    from seeknal.state.settings import load_settings, read_project

    printer = Printer(output, quiet=quiet)
    source = load_settings(project_path)
    chosen = options_of(option)  # what the project file says beside the old store is not for another one
    target = load_settings(project_path, backend=backend, database_url=database_url, options=chosen)
    if (source.backend, source.options) == (target.backend, target.options):
        raise ConfigurationError(
            f"the state is in {source.where} already", hint="Name another backend, or another --database-url."
        )
    before = read_project(source.project_path)
    record = record_of(before, source, target, is_merge=merge)

    def switch(digest: str) -> None:
        finish(source.project_path, digest)
        _point_project_at(target, database_url, chosen, before)

    taken = published.waiting(source) if dry_run else None
    if taken is not None:
        published.preview(printer, taken, source, target)
        return
    with ExitStack() as stack:
        ours = stack.enter_context(movable(source))
        aside = published.in_the_way(target, ours.list_runs())
        if dry_run:
            theirs = None if aside is not None else looked_at(stack, target)
            with progress(printer) as tell:
                plan = _planned(ours, theirs, target, tell, is_merge=merge)
            _show_plan(printer, source, target, plan, published.moved(aside))
            return
        put_back = stack.enter_context(ExitStack())
        check_source(ours, target.where)  # before the target is opened, which would create it
        if aside is not None:
            put_back.callback(published.set_aside(aside))
        theirs = stack.enter_context(movable(target))
        stack.enter_context(begun(source.project_path, record))
        with progress(printer) as tell:
            report = move(
                ours,
                theirs,
                source_where=source.where,
                target_where=target.where,
                is_merge=merge,
                on_progress=tell,
                on_switch=switch,
            )
        put_back.pop_all()
    _show_report(printer, source, target, report)
    if source.decided_by == "environment":
        printer.note("the environment still names the old store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")
    elif record.needs_url or TO_ENVIRONMENT in str(read_project(source.project_path).get("database_url")):
        printer.note("the URL holds a secret, so it was not written down: set SEEKNAL_DATABASE_URL to it")


def _planned(
    ours: RecordStateBackend, theirs: RecordStateBackend | None, target: StateSettings, tell: Any, *, is_merge: bool
) -> MovePlan:
    from seeknal.state.migration.planning import plan_move

    return plan_move(
        ours,
        theirs,
        target_where=target.where,
        kind=_kind_of(target),
        is_merge=is_merge,
        told=lambda done: tell("counting", done, 0),
    )


def _kind_of(target: StateSettings) -> str:
    """Return the scheme of a database's URL, or the name of the backend."""
    url = str(target.options.get("url") or "")
    return url.partition(":")[0].partition("+")[0] if url else target.backend


def _show_plan(
    printer: Printer, source: StateSettings, target: StateSettings, plan: MovePlan, moved: list[tuple[str, Any]]
) -> None:
    counts = _counted(plan.counts)
    about = f"{plan.seconds:.0f} s" if plan.seconds >= 1 else "less than a second"
    lines = [("from", source.where), ("to", target.where), *moved, *counts]
    lines += [("size", sized(plan.bytes)), ("estimate", about), *(("refused", reason) for reason in plan.refused)]
    shown = {"from": source.where, "to": target.where, "dry_run": True, "counts": plan.counts}
    measured = {"bytes": plan.bytes, "estimated_seconds": round(plan.seconds, 6)}
    printer.thing({**shown, **measured, "refused": plan.refused}, lines)
    if plan.refused:
        printer.note("nothing was changed, and nothing would be: it is refused")
        raise typer.Exit(3 if plan.is_held else 1)
    printer.note("nothing was changed; run it again with --no-dry-run")


def _show_report(printer: Printer, source: StateSettings, target: StateSettings, report: Any) -> None:
    result = {"from": source.where, "to": target.where, "dry_run": False, "counts": report.counts}
    facts = [("size", sized(report.bytes)), ("sha256", report.digest)] if report.digest else []
    printer.thing(
        {**result, "bytes": report.bytes, "digest": report.digest, "store_id": report.store_id},
        [("from", source.where), ("to", target.where), *_counted(report.counts), *facts],
    )
    if not report.digest:
        printer.note("the state was there already; the project names it now")


def _counted(counts: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(counts, name)) for name in counts.__struct_fields__]


def _point_project_at(
    target: StateSettings, url: str | None, options: Mapping[str, Any], before: dict[str, Any]
) -> None:
    """Write the new store into the project file, but no secret."""
    from seeknal.state.settings import edit_project
    from seeknal.state.url import has_secret

    written = url if target.backend not in ("file", "memory") else None
    if written and has_secret(written):
        written = TO_ENVIRONMENT
    if written is None and "url" in target.options:
        # The environment or the file gave the URL: what the file says of it stays.
        written = before.get("database_url")
    edit_project(
        target.project_path,
        {"state_backend": target.backend, "database_url": written, "state_options": dict(options) or None},
    )
