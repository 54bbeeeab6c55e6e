"""``seeknal migrate-state`` and ``seeknal state rollback``: previews, unless told ``--no-dry-run``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import published
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet
from seeknal.cli.output import Format, Printer
from seeknal.errors import ConfigurationError, TransferError

if TYPE_CHECKING:
    from seeknal.state.record_backend import RecordStateBackend
    from seeknal.state.settings import StateSettings

DryRun = Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Only show what would happen, or do it.")]
TO_ENVIRONMENT = "${SEEKNAL_DATABASE_URL}"


def migrate_state(
    backend: Annotated[str, typer.Option("--backend", help="Where to: file, database, or a registered one.")],
    database_url: DatabaseUrl = None,
    dry_run: DryRun = True,
    project_path: ProjectPath = Path(),
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Move the whole state to another backend and point the project at it. A preview by default.

    Everything is copied, compared, and only then does the project change. The old store stays as it is,
    refuses writes, and `seeknal state rollback` goes back to it.
    """
    from seeknal.state.settings import load_settings, read_project
    from seeknal.state.transfer import check_source, plan_transfer, transfer

    printer = Printer(output, quiet=quiet)
    source = load_settings(project_path)
    target = load_settings(project_path, backend=backend, database_url=database_url)
    if (source.backend, source.options) == (target.backend, target.options):
        raise ConfigurationError(
            f"the state is in {source.where} already", hint="Name another backend, or another --database-url."
        )
    before = read_project(source.project_path)
    record = _record(before, source, target)
    taken = published.waiting(source) if dry_run else None
    if taken is not None:
        published.preview(printer, taken, source, target)
        return
    with ExitStack() as stack:
        ours = _open(stack, source)
        aside = published.in_the_way(target, ours.list_runs())
        put_back = stack.enter_context(ExitStack())
        if not dry_run:
            check_source(ours)  # before the target is opened, which would create it
            if aside is not None:
                put_back.callback(published.set_aside(aside))
        theirs = None if dry_run and (aside is not None or not _can_look(target)) else _open(stack, target)
        if dry_run:
            plan = plan_transfer(ours, theirs)
            counts = [(name, getattr(plan.counts, name)) for name in plan.counts.__struct_fields__]
            lines = [("from", source.where), ("to", target.where), *published.moved(aside), *counts]
            lines += [("refused", reason) for reason in plan.refused]
            shown = {"from": source.where, "to": target.where, "dry_run": True, "counts": plan.counts}
            printer.thing({**shown, "refused": plan.refused}, lines)
            if plan.refused:
                printer.note("nothing was changed, and nothing would be: it is refused")
                raise typer.Exit(3 if ours.list_locks() else 1)
            printer.note("nothing was changed; run it again with --no-dry-run")
            return
        assert theirs is not None
        report = transfer(
            ours,
            theirs,
            target_where=target.where,
            on_progress=lambda done: printer.note(f"copied {done.runs} runs, {done.node_states} node states"),
            before_switch=lambda: _write_record(source.project_path, record),
        )
        with ExitStack() as undo:
            undo.callback(ours.write_successor, report.store_id, None)
            _point_project_at(target, database_url, before)
            undo.pop_all()
        put_back.pop_all()
        _write_record(source.project_path, {**record, "digest": report.digest})
    counts = [(name, getattr(report.counts, name)) for name in report.counts.__struct_fields__]
    result = {"from": source.where, "to": target.where, "dry_run": False, "counts": report.counts}
    printer.thing(
        {**result, "digest": report.digest, "store_id": report.store_id},
        [("from", source.where), ("to", target.where), *counts, ("sha256", report.digest)],
    )
    if source.decided_by == "environment":
        printer.note("the environment still names the old store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")
    elif record["needs_url"] or TO_ENVIRONMENT in str(read_project(source.project_path).get("database_url")):
        printer.note("the URL holds a secret, so it was not written down: set SEEKNAL_DATABASE_URL to it")


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
    """Go back to the store that the last migrate-state came from. A preview by default."""
    from seeknal.state.settings import edit_project, load_settings
    from seeknal.state.transfer import digest_of

    printer = Printer(output, quiet=quiet)
    current = load_settings(project_path)
    record = _read_record(current.project_path)
    settings: dict[str, Any] = record["settings"]
    old = load_settings(
        project_path,
        backend=backend or record["backend"],
        database_url=database_url or _old_url(record),
        options=settings.get("state_options") or {},
    )
    with ExitStack() as stack:
        theirs = _open(stack, old)
        info = theirs.read_store()
        if (old.backend, old.options) == (current.backend, current.options) and info.superseded_by:
            # The migration was killed after it had closed the source, before it pointed the project elsewhere.
            if not dry_run:
                theirs.write_successor(info.store_id, None)
                _record_path(current.project_path).unlink(missing_ok=True)
            shown = {"from": info.superseded_by, "to": old.where, "dry_run": dry_run, "discarded": []}
            printer.thing(shown, [("from", info.superseded_by), ("to", old.where)])
            if dry_run:
                printer.note("nothing was changed; run it again with --no-dry-run")
            return
        ours = _open(stack, current)
        if (old.backend, old.options) == (current.backend, current.options):
            raise TransferError(f"{old.where} is current already", hint="There is nothing to go back to.")
        if ours.read_store().store_id != info.store_id:
            raise TransferError(
                f"{current.where} is not a copy of {old.where}", hint="Check what the project and environment name."
            )
        written = [] if digest_of(ours) == record.get("digest") else _written_since(ours, theirs)
        shown = {"from": current.where, "to": old.where, "dry_run": dry_run, "discarded": written}
        lines = [("from", current.where), ("to", old.where), *(("written since", run_id) for run_id in written)]
        if dry_run:
            printer.thing(shown, lines)
            printer.note("nothing was changed; run it again with --no-dry-run")
            return
        if written and not discard:
            raise TransferError(
                f"{current.where} was written since the migration: {', '.join(written[:10])}",
                hint="Migrate back with `seeknal migrate-state`, or give it up with --discard.",
            )
        ours.write_successor(info.store_id, old.where)
        with ExitStack() as undo:
            undo.callback(ours.write_successor, info.store_id, None)
            theirs.write_successor(info.store_id, None)
            undo.callback(theirs.write_successor, info.store_id, info.superseded_by)
            keys = ("state_backend", "database_url", "state_options")
            edit_project(current.project_path, {key: settings.get(key) for key in keys})
            undo.pop_all()
        _record_path(current.project_path).unlink(missing_ok=True)
    printer.thing(shown, lines)
    if current.decided_by == "environment":
        printer.note("the environment still names the new store: change SEEKNAL_STATE_BACKEND, SEEKNAL_DATABASE_URL")


def _open(stack: ExitStack, settings: StateSettings) -> RecordStateBackend:
    from seeknal.state.settings import open_settings
    from seeknal.state.transfer import record_store

    return record_store(stack.enter_context(open_settings(settings)))


def _can_look(target: StateSettings) -> bool:
    """Return whether opening the target creates nothing: a preview touches nothing."""
    path = target.local_path
    if path is None:
        return False
    return (path / "run_state" / "store.json").exists() if path.is_dir() else path.exists() and path.stat().st_size > 0


def _point_project_at(target: StateSettings, url: str | None, before: dict[str, Any]) -> None:
    """Write the new store into the project file, but no secret."""
    from seeknal.state.settings import edit_project
    from seeknal.state.url import has_secret

    written = url if target.backend not in ("file", "memory") else None
    if written and has_secret(written):
        written = TO_ENVIRONMENT
    if written is None and "url" in target.options:
        # The environment or the file gave the URL: what the file says of it stays.
        written = before.get("database_url")
    changes = {"state_backend": target.backend, "database_url": written}
    named = before.get("state_backend") or ("database" if before.get("database_url") else "file")
    if named != target.backend:
        changes["state_options"] = None
    edit_project(target.project_path, changes)


def _record(before: dict[str, Any], source: StateSettings, target: StateSettings) -> dict[str, Any]:
    """Return what a rollback needs to know: the project's former settings, without secrets."""
    from seeknal.state.url import has_secret, redact

    settings = {key: before[key] for key in ("state_backend", "database_url", "state_options") if before.get(key)}
    url = str(settings.get("database_url") or "")
    needs_url = has_secret(url) and "${" not in url
    if needs_url:
        settings["database_url"] = redact(url)
    for key, value in (settings.get("state_options") or {}).items():
        if any(word in str(key).lower() for word in ("token", "password", "secret")) and "${" not in str(value):
            raise ConfigurationError(
                f"state_options.{key} holds a secret in clear text",
                hint="Write it as ${NAME} and set the environment variable NAME.",
            )
    return {
        "from": source.where,
        "to": target.where,
        "backend": source.backend,
        "needs_url": needs_url or (source.decided_by == "environment" and "url" in source.options),
        "settings": settings,
    }


def _old_url(record: dict[str, Any]) -> str | None:
    import os

    from seeknal.state.settings import PROJECT_FILE, expanded

    if record["needs_url"]:
        raise ConfigurationError(
            f"the URL of {record['from']} holds a secret, which was not kept", hint="Give it with --database-url."
        )
    url = record["settings"].get("database_url")
    return expanded(url, os.environ, Path(PROJECT_FILE)) if url else None


def _written_since(new: RecordStateBackend, old: RecordStateBackend) -> list[str]:
    """Name the runs of the new store that the old one does not hold equally."""
    found = [
        run_id
        for run_id in new.list_runs()
        if new.get_run(run_id) != old.get_run(run_id)
        or new.get_all_node_states(run_id) != old.get_all_node_states(run_id)
    ]
    return found or ["completed work, or deleted runs"]


def _record_path(project: Path) -> Path:
    return project / "target" / "migration.json"


def _write_record(project: Path, record: dict[str, Any]) -> None:
    from seeknal.model.codec import pretty
    from seeknal.state.file import durable

    path = _record_path(project)
    durable.make_directory(path.parent)
    with durable.unavailable(path, "write"):
        durable.replace_file(path, pretty(record))
        durable.sync_directory(path.parent)


def _read_record(project: Path) -> dict[str, Any]:
    import msgspec

    from seeknal.errors import CorruptStateError
    from seeknal.model.codec import decode

    path = _record_path(project)
    try:
        return decode(path.read_bytes(), dict[str, Any])
    except FileNotFoundError:
        raise TransferError(
            "there is no migration to go back from", hint=f"A migration leaves its record in {path}."
        ) from None
    except msgspec.DecodeError as error:
        raise CorruptStateError(
            f"{path} cannot be read: {error}",
            hint="Set state_backend in seeknal_project.yml by hand.",
            location=str(path),
        ) from error
