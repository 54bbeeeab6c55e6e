"""``seeknal migrate-state``: a preview, unless told ``--no-dry-run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import published
from seeknal.cli.options import DatabaseUrl, Debug, Option, Output, ProjectPath, Quiet, options_of
from seeknal.cli.output import Format, Printer, sized
from seeknal.cli.progress import progress
from seeknal.cli.stores import looked_at
from seeknal.errors import CapabilityError, ConfigurationError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.migration.moving import MoveReport
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
    they were; after a kill the same command goes on. A backend of a third party that cannot refuse writes is moved
    too, and it is said what to take care of.
    """
    from seeknal.state.migration.planning import check_source
    from seeknal.state.migration.record import begun, digest_left, find_record, finish, record_of
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import load_settings, open_settings, read_project

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
        ours = stack.enter_context(open_settings(source))
        theirs_class = StateBackendFactory.find(target.backend)
        if merge and not (isinstance(ours, RecordStateBackend) and issubclass(theirs_class, RecordStateBackend)):
            raise CapabilityError(
                f"{source.where} cannot be merged into {target.where}: one of them counts its records by itself",
                hint="Move it into an empty store, without --merge.",
            )
        aside = published.in_the_way(target, ours.list_runs())
        if dry_run:
            is_seen = aside is None and issubclass(theirs_class, RecordStateBackend)
            found = looked_at(stack, target) if is_seen else None
            with progress(printer) as tell:
                plan = _planned(ours, found, theirs_class, source, target, tell, is_merge=merge)
            _caution(printer, type(ours), theirs_class, source, target)
            _show_plan(printer, source, target, plan, published.moved(aside))
            return
        put_back = stack.enter_context(ExitStack())
        if isinstance(ours, RecordStateBackend):
            check_source(ours, target.where)  # before the target is opened, which would create it
        if aside is not None:
            put_back.callback(published.set_aside(aside))
        theirs = stack.enter_context(open_settings(target))
        former = digest_left(find_record(source.project_path), target.where)
        stack.enter_context(begun(source.project_path, record))
        with progress(printer) as tell:
            report = _moved(ours, theirs, source, target, former, tell, switch, is_merge=merge)
        put_back.pop_all()
    _show_report(printer, source, target, report)
    _caution(printer, type(ours), theirs_class, source, target)
    if source.decided_by == "environment":
        printer.note("the environment still names the old store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")
    elif record.needs_url or TO_ENVIRONMENT in str(read_project(source.project_path).get("database_url")):
        printer.note("the URL holds a secret, so it was not written down: set SEEKNAL_DATABASE_URL to it")


def _planned(
    ours: StateBackend,
    theirs: RecordStateBackend | None,
    theirs_class: type[StateBackend],
    source: StateSettings,
    target: StateSettings,
    tell: Any,
    *,
    is_merge: bool,
) -> MovePlan:
    from seeknal.state.migration.planning import plan_move
    from seeknal.state.migration.portable_planning import plan_portably
    from seeknal.state.record_backend import RecordStateBackend

    def told(done: int) -> None:
        tell("counting", done, 0)

    where: dict[str, Any] = {"target_where": target.where, "told": told}
    if isinstance(ours, RecordStateBackend) and issubclass(theirs_class, RecordStateBackend):
        return plan_move(ours, theirs, kind=_kind_of(target), is_merge=is_merge, **where)
    return plan_portably(ours, theirs, target_class=theirs_class, source_where=source.where, **where)


def _moved(
    ours: StateBackend,
    theirs: StateBackend,
    source: StateSettings,
    target: StateSettings,
    former: str,
    tell: Any,
    switch: Callable[[str], None],
    *,
    is_merge: bool,
) -> MoveReport:
    from seeknal.state.migration.moving import move
    from seeknal.state.migration.portable import move_portably
    from seeknal.state.record_backend import RecordStateBackend

    given: dict[str, Any] = {"source_where": source.where, "target_where": target.where}
    given |= {"on_progress": tell, "on_switch": switch}
    if isinstance(ours, RecordStateBackend) and isinstance(theirs, RecordStateBackend):
        return move(ours, theirs, is_merge=is_merge, **given)
    return move_portably(ours, theirs, former=former, **given)


def _caution(
    printer: Printer,
    ours: type[StateBackend],
    theirs: type[StateBackend],
    source: StateSettings,
    target: StateSettings,
) -> None:
    from seeknal.state.migration.portable_planning import cautions

    for caution in cautions(ours, theirs, source_where=source.where, target_where=target.where):
        printer.note(caution)


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
        {**result, "bytes": report.bytes, "digest": report.digest, "store_id": report.store_id or None},
        [("from", source.where), ("to", target.where), *_counted(report.counts), *facts],
    )
    if not report.digest:
        printer.note("the state was there already; the project names it now")


def _counted(counts: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(counts, name)) for name in counts.__struct_fields__]


def _point_project_at(
    target: StateSettings, url: str | None, options: Mapping[str, Any], before: dict[str, Any]
) -> None:
    """Write the new store into the project file, its variables by their names, but no secret."""
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
