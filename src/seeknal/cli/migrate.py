"""``seeknal migrate-state``: a preview, unless told ``--no-dry-run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import published
from seeknal.cli.options import DatabaseUrl, Debug, Option, Output, ProjectPath, Quiet, at_path, options_of
from seeknal.cli.output import Format, Printer, sized
from seeknal.cli.progress import progress
from seeknal.cli.stores import looked_at, older_schema
from seeknal.errors import CapabilityError, ConfigurationError, LockHeldError, TransferError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.migration.moving import MoveReport
    from seeknal.state.migration.planning import MovePlan
    from seeknal.state.published.directory import Taken
    from seeknal.state.settings import StateSettings

DryRun = Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Only show what would happen, or do it.")]


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
    from seeknal.state.migration.record import TO_ENVIRONMENT, begun, digest_left, find_record, finish, record_of
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import load_settings, open_settings, read_project

    printer = Printer(output, quiet=quiet)
    source = load_settings(project_path)
    chosen = options_of(option)  # what the project file says beside the old store is not for another one
    target = load_settings(project_path, backend=backend, database_url=database_url, options=chosen)
    if (source.backend, source.options) == (target.backend, target.options):
        _show_that_it_is_there(printer, source, dry_run=dry_run)
        return
    for settings in (source, target):
        _check_lasts(settings)
    before = read_project(source.project_path)
    record = record_of(before, source, target, target_url=database_url, is_merge=merge)

    def switch(digest: str) -> None:
        finish(source.project_path, record.attempt, digest)
        _point_project_at(target, database_url, chosen, before)

    if dry_run:
        _preview(printer, source, target, is_merge=merge)
        return
    taken = published.waiting(source)
    if taken is not None:
        with published.taken_in(taken) as store:
            _check_plan(_planned(printer, store, source, target, is_merge=merge)[0])
    with ExitStack() as stack:
        ours = stack.enter_context(open_settings(source))
        _check_merge(type(ours), source, target, is_merge=merge)
        aside = published.in_the_way(target, ours.list_runs())
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
    _show_report(printer, source, target, report, project_path)
    _caution(printer, type(ours), source, target)
    if source.decided_by == "environment":
        printer.note("the environment still names the old store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")
    elif record.needs_url or TO_ENVIRONMENT in str(read_project(source.project_path).get("database_url")):
        printer.note("the URL holds a secret, so it was not written down: set SEEKNAL_DATABASE_URL to it")


def _check_lasts(settings: StateSettings) -> None:
    """Raise `ConfigurationError` for a store that ends with its process; a plain backend need not declare that."""
    from seeknal.state.capabilities import Capability
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory

    kind = StateBackendFactory.find(settings.backend)
    if issubclass(kind, RecordStateBackend) and Capability.PERSISTENT not in kind.capabilities:
        raise ConfigurationError(
            f"the state of the backend {settings.backend!r} is gone when its process ends: there is nothing to move",
            hint="Name a backend that keeps it, as file or database.",
        )


def _check_merge(kind: type[StateBackend], source: StateSettings, target: StateSettings, *, is_merge: bool) -> None:
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory

    both = (kind, StateBackendFactory.find(target.backend))
    if is_merge and not all(issubclass(each, RecordStateBackend) for each in both):
        raise CapabilityError(
            f"{source.where} cannot be merged into {target.where}: one of them counts its records by itself",
            hint="Move it into an empty store, without --merge.",
        )


def _preview(printer: Printer, source: StateSettings, target: StateSettings, *, is_merge: bool) -> None:
    """Show what would happen; change neither store, not even to bring it up to date."""
    from seeknal.state.settings import open_settings

    taken = published.waiting(source)
    older = "" if taken is not None else older_schema(source)
    if older:
        shown = {"from": source.where, "to": target.where, "dry_run": True, "counts": None, "refused": []}
        printer.thing(shown, [("from", source.where), ("to", target.where)])
        _note_older(printer, source, older, "it was not counted")
        printer.note("nothing was changed; run it again with --no-dry-run")
        return
    with open_settings(source) if taken is None else published.taken_in(taken) as ours:
        plan, aside = _planned(printer, ours, source, target, is_merge=is_merge)
    _caution(printer, type(ours), source, target)
    found = [] if taken is None else published.lines_of(taken)
    if taken is not None:
        printer.note("this is the state of the published platform; it is taken in, and its files are kept")
    _show_plan(printer, source, target, plan, [*found, *published.moved(aside)], taken)


def _planned(
    printer: Printer, ours: StateBackend, source: StateSettings, target: StateSettings, *, is_merge: bool
) -> tuple[MovePlan, Path | None]:
    """Return what a move would do, and the platform's database that it would set aside."""
    from seeknal.state.migration.planning import plan_move
    from seeknal.state.migration.portable_planning import plan_portably
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory

    theirs_class = StateBackendFactory.find(target.backend)
    _check_merge(type(ours), source, target, is_merge=is_merge)
    aside = published.in_the_way(target, ours.list_runs())
    with ExitStack() as stack:
        theirs = None
        if aside is None and issubclass(theirs_class, RecordStateBackend):
            theirs = looked_at(stack, target)
            if theirs is None and (older := older_schema(target)):
                _note_older(printer, target, older, "what it holds was not looked at")
        tell = stack.enter_context(progress(printer))
        where: dict[str, Any] = {"target_where": target.where, "told": lambda done: tell("counting", done, 0)}
        if isinstance(ours, RecordStateBackend) and issubclass(theirs_class, RecordStateBackend):
            return plan_move(ours, theirs, kind=_kind_of(target), is_merge=is_merge, **where), aside
        return plan_portably(ours, theirs, target_class=theirs_class, source_where=source.where, **where), aside


def _check_plan(plan: MovePlan) -> None:
    """Raise what a move would raise, before the platform's state is taken in for it."""
    if plan.refused:
        kind = LockHeldError if plan.is_held else TransferError
        raise kind(plan.refused[0], hint="Nothing has changed. Look at all of it without --no-dry-run.")


def _note_older(printer: Printer, settings: StateSettings, older: str, left_out: str) -> None:
    printer.note(f"the schema of {settings.where} is {older}: the move would bring it up to date first; {left_out}")


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


def _caution(printer: Printer, ours: type[StateBackend], source: StateSettings, target: StateSettings) -> None:
    from seeknal.state.migration.portable_planning import cautions
    from seeknal.state.registry import StateBackendFactory

    theirs = StateBackendFactory.find(target.backend)
    for caution in cautions(ours, theirs, source_where=source.where, target_where=target.where):
        printer.note(caution)


def _kind_of(target: StateSettings) -> str:
    """Return the scheme of a database's URL, or the name of the backend."""
    url = str(target.options.get("url") or "")
    return url.partition(":")[0].partition("+")[0] if url else target.backend


def _show_plan(
    printer: Printer,
    source: StateSettings,
    target: StateSettings,
    plan: MovePlan,
    more: list[tuple[str, Any]],
    taken: Taken | None,
) -> None:
    counts = _counted(plan.counts)
    about = f"{plan.seconds:.0f} s" if plan.seconds >= 1 else "less than a second"
    lines = [("from", source.where), ("to", target.where), *more, *counts]
    lines += [("size", sized(plan.bytes)), ("estimate", about), *(("refused", reason) for reason in plan.refused)]
    shown = {"from": source.where, "to": target.where, "dry_run": True, "counts": plan.counts}
    found = {} if taken is None else {"found": taken.forms}
    measured = {"bytes": plan.bytes, "estimated_seconds": round(plan.seconds, 6)}
    printer.thing({**shown, **found, **measured, "is_done": plan.is_done, "refused": plan.refused}, lines)
    if plan.refused:
        printer.note("nothing was changed, and nothing would be: it is refused")
        raise typer.Exit(3 if plan.is_held else 1)
    if plan.is_done:
        printer.note("the state is there already; only the project file is left to change")
    printer.note("nothing was changed; run it again with --no-dry-run")


def _show_that_it_is_there(printer: Printer, source: StateSettings, *, dry_run: bool) -> None:
    """Tell of a migration to this very store that came to its end, as where it was killed right after that.

    Raises:
        ConfigurationError: No migration led here.
    """
    from seeknal.state.migration.record import find_record
    from seeknal.state.transfer import Counts

    record = find_record(source.project_path)
    if record is None or record.to != source.where or record.digest is None:
        raise ConfigurationError(
            f"the state is in {source.where} already", hint="Name another backend, or another --database-url."
        )
    shown = {"from": record.origin, "to": source.where, "dry_run": dry_run, "counts": Counts(), "bytes": 0}
    printer.thing({**shown, "digest": record.digest}, [("from", record.origin), ("to", source.where)])
    printer.note("the state was there already, and the project names it")


def _show_report(
    printer: Printer, source: StateSettings, target: StateSettings, report: Any, project_path: Path
) -> None:
    result = {"from": source.where, "to": target.where, "dry_run": False, "counts": report.counts}
    facts = [("sha256", report.digest)] if report.digest else []
    printer.thing(
        {**result, "bytes": report.bytes, "digest": report.digest, "store_id": report.store_id or None},
        [("from", source.where), ("to", target.where), *facts],
    )
    if report.digest:
        records = sum(count for _, count in _counted(report.counts))
        moved = f"moved: {records} record{'' if records == 1 else 's'} ({sized(report.bytes)}), copied and compared"
        printer.note(f"{moved}; the project names the new store")
    else:
        printer.note("the state was there already; the project names it now")
    printer.note(f"to undo it: `seeknal state rollback{at_path(project_path)}` shows what that would do")


def _counted(counts: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(counts, name)) for name in counts.__struct_fields__]


def _point_project_at(
    target: StateSettings, url: str | None, options: Mapping[str, Any], before: dict[str, Any]
) -> None:
    """Write the new store into the project file, its variables by their names, but no secret."""
    from seeknal.state.migration.record import TO_ENVIRONMENT
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
