"""``seeknal state rollback``: back to the store that the state came from. A preview, unless told ``--no-dry-run``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.migrate import DryRun
from seeknal.cli.options import Backend, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import TransferError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.migration.record import MigrationRecord
    from seeknal.state.settings import StateSettings


def rollback(
    dry_run: DryRun = True,
    discard: Annotated[bool, typer.Option("--discard", help="Give up what the new store wrote since.")] = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="The old store's URL, where it holds a secret.")
    ] = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go back to the store that the last migrate-state came from. A preview by default.

    The old store takes writes again, the new one refuses them, and the project file says what it said before. A
    migration that was killed is undone in the same way.
    """
    from seeknal.state.migration.record import former_url, read_record
    from seeknal.state.settings import load_settings, open_settings

    printer = Printer(output, quiet=quiet)
    current = load_settings(project_path)
    record = read_record(current.project_path)
    old = load_settings(
        project_path,
        backend=backend or record.backend,
        database_url=database_url or former_url(record),
        options=record.settings.get("state_options") or {},
    )
    with ExitStack() as stack:
        theirs = stack.enter_context(open_settings(old))
        if (old.backend, old.options) == (current.backend, current.options):
            _undo_unfinished(printer, theirs, old, record, dry_run=dry_run)
            return
        ours = stack.enter_context(open_settings(current))
        _go_back(printer, current, ours, old, theirs, record, dry_run=dry_run, discard=discard)
    if not dry_run and current.decided_by == "environment":
        printer.note("the environment still names the new store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")


def _undo_unfinished(
    printer: Printer, theirs: StateBackend, old: StateSettings, record: MigrationRecord, *, dry_run: bool
) -> None:
    """Let a store take writes again that a migration was killed in, before the project named another one."""
    from seeknal.state.migration.moving import wait_for_dead_move
    from seeknal.state.migration.record import keep_record
    from seeknal.state.record_backend import RecordStateBackend

    info = theirs.read_store() if isinstance(theirs, RecordStateBackend) else None
    is_marked = info is not None and info.superseded_by is not None
    if record.digest is not None and not is_marked:
        raise TransferError(f"{old.where} is current already", hint="There is nothing to go back to.")
    wait_for_dead_move(theirs)
    if not dry_run:
        if isinstance(theirs, RecordStateBackend) and info is not None and is_marked:
            theirs.write_successor(info.store_id, None)
        keep_record(old.project_path, record.previous)
    _show(printer, record.to, old.where, [], dry_run=dry_run)
    if not dry_run:
        printer.note(f"what was copied to {record.to} is not removed: the same migration, begun again, goes on with it")


def _go_back(
    printer: Printer,
    current: StateSettings,
    ours: StateBackend,
    old: StateSettings,
    theirs: StateBackend,
    record: MigrationRecord,
    *,
    dry_run: bool,
    discard: bool,
) -> None:
    from seeknal.state.migration.portable import is_plain, portable_view
    from seeknal.state.migration.portable_reading import reading_of
    from seeknal.state.migration.record import KEYS, keep_record
    from seeknal.state.migration.returning import swap_back, written_since
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import edit_project
    from seeknal.state.transfer import digest_of

    if isinstance(ours, RecordStateBackend) and isinstance(theirs, RecordStateBackend):
        is_copy = record.is_merge or ours.read_store().store_id == theirs.read_store().store_id
    else:
        is_copy = current.where == record.to
    if not is_copy:
        raise TransferError(
            f"{current.where} is not a copy of {old.where}", hint="Check what the project and environment name."
        )
    is_portable = is_plain(type(ours)) or is_plain(type(theirs))
    new, former = (portable_view(store) if is_portable else reading_of(store) for store in (ours, theirs))
    written = written_since(new, former, digest=record.digest, is_merge=record.is_merge)
    if is_plain(type(theirs)) and record.digest not in (None, digest_of(former)):
        changed = f"{old.where} was written since its state moved away, and could not refuse that"
        if not (dry_run or discard):
            raise TransferError(
                changed,
                hint="Look at it with `seeknal state list --backend`, or go back to it as it is with --discard.",
            )
        printer.note(changed)
    if dry_run or not written or discard:
        if not dry_run:
            swap_back(
                ours,
                theirs,
                new_where=current.where,
                old_where=old.where,
                is_merge=record.is_merge,
                on_switch=lambda: edit_project(old.project_path, {key: record.settings.get(key) for key in KEYS}),
            )
            keep_record(current.project_path, record.previous)
        _show(printer, current.where, old.where, written, dry_run=dry_run)
        if is_plain(type(ours)):
            printer.note(f"{current.where} cannot refuse writes: stop its writers")
        if record.is_merge:
            printer.note(f"the runs that were merged stay in {current.where} too")
        return
    raise TransferError(
        f"{current.where} was written since the migration: {', '.join(written[:10])}",
        hint="Migrate back with `seeknal migrate-state`, or give it up with --discard.",
    )


def _show(printer: Printer, origin: str, to: str, written: list[str], *, dry_run: bool) -> None:
    lines: list[tuple[str, Any]] = [("from", origin), ("to", to), *(("written since", run_id) for run_id in written)]
    printer.thing({"from": origin, "to": to, "dry_run": dry_run, "discarded": written}, lines)
    if dry_run:
        printer.note("nothing was changed; run it again with --no-dry-run")
