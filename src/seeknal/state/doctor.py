"""Examine the store of a project, and mend what can be mended safely.

What a store holds is examined by the store itself (`RecordStore.examine`); here is what only shows from outside: where
it lies, and how it stands to the other store of a migration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from seeknal.errors import BackendUnavailableError, CapabilityError, SeeknalError
from seeknal.state.contract import StateBackend
from seeknal.state.file.network import refuse_network_file_system
from seeknal.state.finding import Finding, Severity, error, refusal, warning
from seeknal.state.lease import held
from seeknal.state.migration.record import MigrationRecord, find_record, former_settings, record_path
from seeknal.state.record_store import RecordStore
from seeknal.state.registry import StateBackendFactory
from seeknal.state.settings import StateSettings
from seeknal.state.store_info import StoreInfo, is_being_filled, is_being_restored, is_unfinished

__all__ = ["Finding", "Severity", "examine", "examine_project", "mend"]


def examine(backend: StateBackend) -> Iterator[Finding]:
    """Yield what is wrong with a store; changes nothing and keeps no writer waiting.

    Args:
        backend: An instance, open or not: a store that `initialize` refuses is examined as far as it can be read.

    Raises:
        CapabilityError: It was not built on `RecordStateBackend`.
    """
    if not isinstance(backend, RecordStore):
        raise CapabilityError(
            f"a {type(backend).__name__} cannot be examined",
            hint="Derive it from seeknal.state.backend.RecordStateBackend.",
        )
    try:
        yield from backend.examine()
    except SeeknalError as problem:
        yield refusal(problem, type(backend).__name__)


def examine_project(settings: StateSettings, backend: StateBackend) -> Iterator[Finding]:
    """Yield what is wrong with the store of a project, and with its place in the project.

    Args:
        settings: The project's.
        backend: An instance made from them, open or not.

    Raises:
        CapabilityError: As `examine`.
    """
    yield from _place_findings(settings)
    yield from examine(backend)
    yield from _migration_findings(settings, backend)


def mend(findings: Iterable[Finding], before: Callable[[Finding], object]) -> list[tuple[Finding, SeeknalError]]:
    """Mend what can be mended, one after the other, and return what could not be, with the reason.

    Args:
        findings: What an examination found.
        before: Called with each finding right before it is mended.
    """
    failed: list[tuple[Finding, SeeknalError]] = []
    for finding in findings:
        if finding.mend is None:
            continue
        before(finding)
        try:
            finding.mend()
        except SeeknalError as problem:
            failed.append((finding, problem))
    return failed


def _place_findings(settings: StateSettings) -> Iterator[Finding]:
    path = settings.local_path
    if path is None:
        return
    try:
        refuse_network_file_system(path)
    except BackendUnavailableError as problem:
        yield error("network-file-system", str(problem), where=str(path), fix=problem.hint)


# ---- migrations ----


def _migration_findings(settings: StateSettings, backend: StateBackend) -> Iterator[Finding]:
    """Check how the store stands to the one that it was migrated from."""
    try:
        info = _peeked(backend)
    except SeeknalError:
        info = None  # its examination has told why
    if info is not None and is_being_restored(info.superseded_by):
        yield error(
            "restore-unfinished",
            f"the store takes no writes: it is {info.superseded_by}",
            where=settings.where,
            fix="Wait for that. If its process is gone, run `seeknal state restore` again, or let everybody write to "
            "what is there with `seeknal state doctor --fix --no-dry-run`.",
            mend=lambda: _open_again(backend),
        )
        return
    if info is not None and is_unfinished(info.superseded_by):
        yield error(
            "migration-unfinished",
            f"the store takes no writes: it is {info.superseded_by}",
            where=settings.where,
            fix="Wait for that. If its process is gone, run the same `seeknal migrate-state --no-dry-run` again, or "
            "`seeknal state rollback --no-dry-run`"
            + (
                ", in the project that it is being filled from: nobody else knows what was put in."
                if is_being_filled(info.superseded_by)
                else "."
            ),
        )
        return
    if info is not None and info.superseded_by is not None:
        yield error(
            "store-superseded",
            f"the project names a store whose state moved to {info.superseded_by}",
            where=settings.where,
            fix="Point the project and the environment at that store, or go back with `seeknal state rollback`.",
        )
    path = record_path(settings.project_path)
    try:
        record = find_record(settings.project_path)
    except SeeknalError as problem:
        yield warning(
            "migration-record",
            f"the record of the last migration cannot be read: {problem}",
            where=str(path),
            fix="`seeknal state rollback` cannot go back without it; remove it if you do not want to.",
        )
        return
    if record is None:
        return
    if record.digest is None:
        yield error(
            "migration-unfinished",
            f"a migration from {record.origin} to {record.to} did not come to its end",
            where=str(path),
            fix="Run the same `seeknal migrate-state --no-dry-run` again, or `seeknal state rollback`.",
        )
    yield from _twin_findings(settings, record, info)


def _open_again(backend: StateBackend) -> None:
    """Let everybody write to a store again whose restore was killed; it holds what it held before.

    Raises:
        LockHeldError: The restore goes on, or was killed a few seconds ago.
    """
    assert isinstance(backend, RecordStore)  # no other one says anything of itself
    backend.initialize()
    for lock in backend.list_locks():
        raise held(lock.run_id, lock.node_id, lock)
    info = backend.read_store()
    if is_being_restored(info.superseded_by):
        backend.write_successor(info.store_id, None, expected=info.superseded_by)


def _twin_findings(settings: StateSettings, record: MigrationRecord, info: StoreInfo | None) -> Iterator[Finding]:
    """Check that the store that the state came from refuses writes, as the copy has its identity."""
    try:
        if info is None or record.needs_url:
            return
        old = former_settings(settings.project_path, record)
        if (old.backend, old.options) == (settings.backend, settings.options):
            return
        with StateBackendFactory.create(old.backend, **old.options) as former:
            theirs = _peeked(former)
    except SeeknalError as problem:
        yield warning(
            "migration-source",
            f"the store that the state was migrated from cannot be looked at: {problem}",
            where=record.origin,
            fix="`seeknal state rollback` needs it; nothing is wrong if you gave it up.",
        )
        return
    if theirs is not None and theirs.store_id == info.store_id and theirs.superseded_by == info.superseded_by:
        yield error(
            "identity-shared",
            f"{old.where} and {settings.where} have the same identity, and neither is superseded by the other",
            where=settings.where,
            fix="Writes go to whichever a program names. Stop the programs, compare the two with `seeknal state diff`, "
            "and migrate again or roll back.",
        )


def _peeked(backend: StateBackend) -> StoreInfo | None:
    """Return what a store says of itself, where it can without being opened."""
    return backend.peek_store() if isinstance(backend, RecordStore) else None
