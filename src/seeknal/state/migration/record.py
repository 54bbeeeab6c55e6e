"""What a project keeps of a migration, in ``target/migration.json``: how to go back, without a secret."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import ConfigurationError, CorruptStateError, TransferError
from seeknal.model.codec import decode, pretty
from seeknal.state.file import durable
from seeknal.state.settings import PROJECT_FILE, StateSettings, expanded
from seeknal.state.url import has_secret, redact

KEYS = ("state_backend", "database_url", "state_options")
"""Those of the project file that a migration changes."""

MOST_KEPT = 20
"""How many migrations can be gone back from, one after the other."""


class MigrationRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"origin": "from"}):
    """One migration.

    Attributes:
        origin: The store that the state came from, in words; ``from`` in the file.
        to: The store that it went to, in words.
        backend: The former backend.
        settings: What the project file said of it, its secrets masked.
        needs_url: Whether the former URL is not among them: it held a secret, or stood in the environment.
        is_merge: Whether the target held another state before.
        digest: Of what was moved; none as long as the migration is unfinished, or if it was killed at its end.
        previous: The migration before.
    """

    origin: str
    to: str
    backend: str
    settings: dict[str, Any] = {}
    needs_url: bool = False
    is_merge: bool = False
    digest: str | None = None
    previous: MigrationRecord | None = None


def record_of(
    before: Mapping[str, Any], source: StateSettings, target: StateSettings, *, is_merge: bool = False
) -> MigrationRecord:
    """Return the record of a migration that begins.

    Args:
        before: The project file, its variables not replaced.
        source: Where the state is.
        target: Where it goes.
        is_merge: Whether the target keeps what it holds.

    Raises:
        ConfigurationError: The project file holds a secret in clear text, which would be written down.
    """
    settings = {key: before[key] for key in KEYS if before.get(key)}
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
    return MigrationRecord(
        origin=source.where,
        to=target.where,
        backend=source.backend,
        settings=settings,
        needs_url=needs_url or (source.decided_by == "environment" and "url" in source.options),
        is_merge=is_merge,
    )


def former_url(record: MigrationRecord) -> str | None:
    """Return the URL of the store that a state came from, or ``None``.

    Raises:
        ConfigurationError: It was not kept, or names a variable that is not set.
    """
    if record.needs_url:
        raise ConfigurationError(
            f"the URL of {record.origin} holds a secret, which was not kept", hint="Give it with --database-url."
        )
    url = record.settings.get("database_url")
    return expanded(url, os.environ, Path(PROJECT_FILE)) if url else None


def record_path(project: Path) -> Path:
    """Return where the record of the last migration stands."""
    return project / "target" / "migration.json"


@contextmanager
def begun(project: Path, record: MigrationRecord) -> Iterator[None]:
    """Keep the record of a migration for a block; an error in it brings back the one before."""
    found = previous = find_record(project)
    if previous is not None and (
        previous.digest is None or (previous.origin, previous.to) == (record.origin, record.to)
    ):
        # That one was killed before its end, or right at it; this one takes its place.
        record = msgspec.structs.replace(record, digest=previous.digest)
        previous = previous.previous
    write_record(project, msgspec.structs.replace(record, previous=_pruned(previous, MOST_KEPT)))
    try:
        yield
    except BaseException:
        keep_record(project, found)
        raise


def finish(project: Path, digest: str) -> None:
    """Note that the migration of the record comes to its end; without a digest, that it came to it before."""
    record = read_record(project)
    if digest:
        write_record(project, msgspec.structs.replace(record, digest=digest))


def digest_left(record: MigrationRecord | None, where: str) -> str:
    """Return the digest of what was moved away from a store by the last migration from there; empty if none was."""
    while record is not None:
        if record.origin == where and record.digest is not None:
            return record.digest
        record = record.previous
    return ""


def keep_record(project: Path, record: MigrationRecord | None) -> None:
    """Write a record, or remove it.

    Raises:
        BackendUnavailableError: The former one stands.
    """
    if record is not None:
        write_record(project, record)
        return
    path = record_path(project)
    with durable.unavailable(path, "remove"):
        durable.remove_file(path)


def write_record(project: Path, record: MigrationRecord) -> None:
    """Write a record durably.

    Raises:
        BackendUnavailableError: The former one stands.
    """
    path = record_path(project)
    durable.make_directory(path.parent)
    with durable.unavailable(path, "write"):
        durable.replace_file(path, pretty(record))
        durable.sync_directory(path.parent)


def find_record(project: Path) -> MigrationRecord | None:
    """Return the record of the last migration, or ``None``.

    Raises:
        CorruptStateError: It cannot be read.
    """
    path = record_path(project)
    with durable.unavailable(path, "read"):
        try:
            return decode(path.read_bytes(), MigrationRecord)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptStateError(
                f"{path} cannot be read: {error}",
                hint="Set state_backend in seeknal_project.yml by hand, and remove the file.",
                location=str(path),
            ) from error


def read_record(project: Path) -> MigrationRecord:
    """Return the record of the last migration.

    Raises:
        TransferError: There is none.
        CorruptStateError: It cannot be read.
    """
    record = find_record(project)
    if record is None:
        raise TransferError(
            "there is no migration to go back from", hint=f"A migration leaves its record in {record_path(project)}."
        )
    return record


def _pruned(record: MigrationRecord | None, most: int) -> MigrationRecord | None:
    if record is None or not most:
        return None
    return msgspec.structs.replace(record, previous=_pruned(record.previous, most - 1))
