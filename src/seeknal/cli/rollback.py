"""``seeknal state rollback``: back to the store that the state came from. A preview, unless told ``--no-dry-run``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli.migrate import DryRun
from seeknal.cli.options import Backend, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import (
    BackendUnavailableError,
    ConfigurationError,
    CorruptStateError,
    SeeknalError,
    TransferError,
)

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.migration.record import MigrationRecord
    from seeknal.state.settings import StateSettings

VARIABLES = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL")


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
    migration that was killed is undone in the same way. With --discard, the new store may be gone.
    """
    from seeknal.state.migration.moving import wait_for_dead_move
    from seeknal.state.migration.record import former_settings, read_record, target_settings
    from seeknal.state.settings import load_settings

    printer = Printer(output, quiet=quiet)
    current = load_settings(project_path)
    record = read_record(current.project_path)
    old = former_settings(current.project_path, record, backend=backend, database_url=database_url)
    is_old = (old.backend, old.options) == (current.backend, current.options)
    if is_old and record.digest is not None and current.decided_by == "environment":
        raise ConfigurationError(
            f"the environment names {old.where}, which the state has left for {record.to}",
            hint=f"Unset {' and '.join(name for name in VARIABLES if os.environ.get(name))} for this command, or name "
            f"{record.to} there.",
        )
    with ExitStack() as stack:
        theirs = _opened(stack, old)
        if theirs is None:
            raise TransferError(
                f"{old.where} is not there", hint="Put its files back, or name it with --backend and --database-url."
            )
        if not is_old:
            ours = _new_store(stack, printer, current, record, discard=discard)
            _go_back(printer, current, ours, old, theirs, record, dry_run=dry_run, discard=discard)
        else:
            ours, problem = None, None
            try:
                new = target_settings(current.project_path, record)
                ours = _opened(stack, new)
            except SeeknalError as found:
                problem = found
            if ours is not None and _is_open_copy(ours, theirs, record):
                # Killed between the switch of the stores and that of the project file, there or back.
                wait_for_dead_move(theirs)
                _go_back(printer, new, ours, old, theirs, record, dry_run=dry_run, discard=discard)
            else:
                _undo_unfinished(printer, ours, problem, theirs, old, record, dry_run=dry_run)
    if not dry_run and not is_old and current.decided_by == "environment":
        printer.note("the environment still names the new store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")


def _opened(stack: ExitStack, settings: StateSettings) -> StateBackend | None:
    """Return a store, open for the time of ``stack``, if it is there; none is made."""
    from seeknal.state.migration.portable import is_plain
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import open_settings

    if is_plain(StateBackendFactory.find(settings.backend)):
        return stack.enter_context(open_settings(settings))
    store = stack.enter_context(StateBackendFactory.create(settings.backend, **settings.options))
    if isinstance(store, RecordStateBackend) and store.peek_store() is None:
        return None
    store.initialize()
    return store


def _new_store(
    stack: ExitStack, printer: Printer, current: StateSettings, record: MigrationRecord, *, discard: bool
) -> StateBackend | None:
    """Return the store that the state moved to, or nothing if it is gone and may be given up."""
    try:
        ours = _opened(stack, current)
        reason = f"{current.where} is not there"
    except (BackendUnavailableError, CorruptStateError) as error:
        if not discard:
            raise
        ours, reason = None, str(error)
    if ours is None:
        if current.where != record.to:
            raise _not_a_copy(current.where, record.origin)
        if not discard:
            raise TransferError(reason, hint="Bring it back, or give up what it holds with --discard.")
        printer.note(reason)
        printer.note(f"{current.where} cannot be told to refuse writes: stop its writers before it comes back")
    return ours


def _is_open_copy(ours: StateBackend, theirs: StateBackend, record: MigrationRecord) -> bool:
    """Return whether the target of a plain move takes writes, as the whole copy that it is."""
    from seeknal.state.record_backend import RecordStateBackend

    if record.is_merge or not (isinstance(ours, RecordStateBackend) and isinstance(theirs, RecordStateBackend)):
        return False
    info = ours.read_store()
    return info.superseded_by is None and info.store_id == theirs.read_store().store_id


def _undo_unfinished(
    printer: Printer,
    ours: StateBackend | None,
    problem: SeeknalError | None,
    theirs: StateBackend,
    old: StateSettings,
    record: MigrationRecord,
    *,
    dry_run: bool,
) -> None:
    """Let a store take writes again that a migration was killed in, and a store that it was merged into.

    Args:
        printer: Where to say it.
        ours: The store that the state was on its way to, if it is there.
        problem: Why it could not be opened.
        theirs: The store that the state came from.
        old: Its settings.
        record: Of the migration.
        dry_run: Whether only to say it.
    """
    from seeknal.state.migration.merging import take_out
    from seeknal.state.migration.moving import wait_for_dead_move
    from seeknal.state.migration.record import keep_record
    from seeknal.state.migration.returning import refuse_filling
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.store_info import filling_mark

    info = theirs.read_store() if isinstance(theirs, RecordStateBackend) else None
    if isinstance(theirs, RecordStateBackend):
        refuse_filling(theirs, old.where)
    wait_for_dead_move(theirs)
    mark = None
    if record.is_merge and isinstance(ours, RecordStateBackend):
        wait_for_dead_move(ours)
        mark = ours.read_store().superseded_by
    is_torn = mark is not None and mark.startswith(filling_mark(old.where, ""))
    is_switched = info is not None and info.superseded_by == record.to
    is_left = problem is not None and (record.is_merge or is_switched)
    if not dry_run:
        if isinstance(theirs, RecordStateBackend) and info is not None:
            if is_torn and isinstance(ours, RecordStateBackend):
                take_out(theirs, ours, source_where=old.where)
            if info.superseded_by is not None:
                theirs.write_successor(info.store_id, None, expected=info.superseded_by)
        if not is_left:
            keep_record(old.project_path, record.previous)
    _show(printer, record.to, old.where, [], dry_run=dry_run)
    if problem is not None:
        printer.note(f"{record.to} cannot be opened: {problem}")
    if is_left:
        state = "refuse writes" if record.is_merge else "take writes, too"
        printer.note(f"{record.to} may still {state}: run this again once it can be reached")
    elif is_torn:
        printer.note(f"the runs that were merged are taken out of {record.to}, which takes writes again")
    elif not dry_run and record.digest is None and not record.is_merge:
        printer.note(f"what was copied to {record.to} is not removed: the same migration, begun again, goes on with it")


def _go_back(
    printer: Printer,
    current: StateSettings,
    ours: StateBackend | None,
    old: StateSettings,
    theirs: StateBackend,
    record: MigrationRecord,
    *,
    dry_run: bool,
    discard: bool,
) -> None:
    from seeknal.state.migration.portable import is_plain
    from seeknal.state.migration.record import keep_record, put_project_back
    from seeknal.state.migration.returning import refuse_filling, swap_back
    from seeknal.state.record_backend import RecordStateBackend

    if isinstance(theirs, RecordStateBackend):
        refuse_filling(theirs, old.where)
    written = [] if ours is None else _written(printer, current, ours, old, theirs, record, is_told=dry_run or discard)
    if written and not (dry_run or discard):
        raise TransferError(
            f"{current.where} was written since the migration: {', '.join(written[:10])}",
            hint="Migrate back with `seeknal migrate-state`, or give it up with --discard.",
        )
    if not dry_run:
        swap_back(
            ours,
            theirs,
            new_where=current.where,
            old_where=old.where,
            is_merge=record.is_merge,
            on_switch=lambda: put_project_back(old.project_path, record),
        )
        keep_record(current.project_path, record.previous)
    _show(printer, current.where, old.where, written, dry_run=dry_run)
    if ours is not None and is_plain(type(ours)):
        printer.note(f"{current.where} cannot refuse writes: stop its writers")
    if record.is_merge:
        printer.note(f"the runs that were merged stay in {current.where} too")
    _note_url(printer, old, record)


def _written(
    printer: Printer,
    current: StateSettings,
    ours: StateBackend,
    old: StateSettings,
    theirs: StateBackend,
    record: MigrationRecord,
    *,
    is_told: bool,
) -> list[str]:
    """Return what the new store wrote since.

    Raises:
        TransferError: It is no copy, or the old store was written since, too, and not ``is_told``.
    """
    from seeknal.state.migration.portable import is_plain, portable_view
    from seeknal.state.migration.portable_reading import reading_of
    from seeknal.state.migration.returning import written_since
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.transfer import digest_of

    if isinstance(ours, RecordStateBackend) and isinstance(theirs, RecordStateBackend):
        is_copy = record.is_merge or ours.read_store().store_id == theirs.read_store().store_id
    else:
        is_copy = current.where == record.to
    if not is_copy:
        raise _not_a_copy(current.where, old.where)
    is_portable = is_plain(type(ours)) or is_plain(type(theirs))
    new, former = (portable_view(store) if is_portable else reading_of(store) for store in (ours, theirs))
    if is_plain(type(theirs)) and record.digest not in (None, digest_of(former)):
        changed = f"{old.where} was written since its state moved away, and could not refuse that"
        if not is_told:
            raise TransferError(
                changed,
                hint="Look at it with `seeknal state list --backend`, or go back to it as it is with --discard.",
            )
        printer.note(changed)
    return written_since(new, former, digest=record.digest, is_merge=record.is_merge)


def _note_url(printer: Printer, old: StateSettings, record: MigrationRecord) -> None:
    from seeknal.state.migration.record import TO_ENVIRONMENT

    named = os.environ.get("SEEKNAL_DATABASE_URL")
    if record.settings.get("database_url") == TO_ENVIRONMENT and named != old.options.get("url"):
        printer.note(f"the project file takes the URL from SEEKNAL_DATABASE_URL: set it to that of {old.where}")


def _not_a_copy(current: str, old: str) -> TransferError:
    return TransferError(f"{current} is not a copy of {old}", hint="Check what the project and environment name.")


def _show(printer: Printer, origin: str, to: str, written: list[str], *, dry_run: bool) -> None:
    lines: list[tuple[str, Any]] = [("from", origin), ("to", to), *(("written since", run_id) for run_id in written)]
    printer.thing({"from": origin, "to": to, "dry_run": dry_run, "discarded": written}, lines)
    if dry_run:
        printer.note("nothing was changed; run it again with --no-dry-run")
