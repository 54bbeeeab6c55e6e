"""What a project keeps of a migration, in ``target/migration.json``: how to go back, without a secret."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import ConfigurationError, CorruptStateError, TransferError
from seeknal.model.codec import decode, pretty
from seeknal.state.file import durable
from seeknal.state.settings import (
    PROJECT_FILE,
    StateSettings,
    edited,
    expanded,
    load_settings,
    path_within,
    read_text,
    write_project,
)
from seeknal.state.url import has_secret

KEYS = ("state_backend", "database_url", "state_options")
"""Those of the project file that a migration changes."""

MOST_KEPT = 20
"""How many migrations can be gone back from, one after the other."""

TO_ENVIRONMENT = "${SEEKNAL_DATABASE_URL}"
"""What is written in the place of a URL that holds a secret."""

_SECRETS = ("token", "password", "secret")


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """A store: its backend, and the options of it that may be written down; paths as the project file says them."""

    backend: str
    options: dict[str, Any] = {}


class MigrationRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"origin": "from"}):
    """One migration.

    Attributes:
        origin: The store that the state came from, in words; ``from`` in the file.
        to: The store that it went to, in words.
        source: The same store, to open it again.
        target: The other one, to open it again.
        attempt: A UUID: another one every time that a migration begins.
        settings: What the project file said of the store, without secrets.
        text: The project file as it was, if it held no secret.
        needs_url: Whether the source lacks its URL: it held a secret, and no variable of the project file has it.
        is_merge: Whether the target held another state before.
        digest: Of what was moved; none as long as the migration is unfinished, or if it was killed at its end.
        previous: The migration before.
    """

    origin: str
    to: str
    source: Place
    target: Place
    attempt: str
    settings: dict[str, Any] = {}
    text: str | None = None
    needs_url: bool = False
    is_merge: bool = False
    digest: str | None = None
    previous: MigrationRecord | None = None


def record_of(
    before: Mapping[str, Any],
    source: StateSettings,
    target: StateSettings,
    *,
    target_url: str | None = None,
    is_merge: bool = False,
) -> MigrationRecord:
    """Return the record of a migration that begins.

    Args:
        before: The project file, its variables not replaced.
        source: Where the state is.
        target: Where it goes.
        target_url: As given, its variables not replaced.
        is_merge: Whether the target keeps what it holds.

    Raises:
        ConfigurationError: The project file holds a secret in clear text, which would be written down.
    """
    settings = {key: before[key] for key in KEYS if before.get(key)}
    if _tells(str(settings.get("database_url") or "")):
        settings["database_url"] = TO_ENVIRONMENT
    for key, value in (settings.get("state_options") or {}).items():
        if any(word in str(key).lower() for word in _SECRETS) and "${" not in str(value):
            raise ConfigurationError(
                f"state_options.{key} holds a secret in clear text",
                hint="Write it as ${NAME} and set the environment variable NAME.",
            )
    left = _place(source, before)
    text = read_text(source.project_path / PROJECT_FILE)
    return MigrationRecord(
        origin=source.where,
        to=target.where,
        source=left,
        target=_place(target, {"database_url": target_url or TO_ENVIRONMENT}),
        attempt=str(uuid.uuid4()),
        settings=settings,
        text=None if any(map(_tells, text.splitlines())) else text,
        needs_url="url" in source.options and "url" not in left.options,
        is_merge=is_merge,
    )


def former_settings(
    project: Path, record: MigrationRecord, *, backend: str | None = None, database_url: str | None = None
) -> StateSettings:
    """Return the settings of the store that a state came from, whatever the project and the environment say now.

    Args:
        project: The project's directory.
        record: Of the migration.
        backend: Instead of the one that was kept.
        database_url: The same.

    Raises:
        ConfigurationError: Its URL was not kept, or what was kept names another store now.
    """
    if record.needs_url and not database_url:
        raise ConfigurationError(
            f"the URL of {record.origin} holds a secret, which was not kept", hint="Give it with --database-url."
        )
    found = _settings(project, record.source, backend, database_url)
    if found.where != record.origin and not (backend or database_url):
        raise ConfigurationError(
            f"the URL of {record.origin} was not kept, and the environment names {found.where} now",
            hint="Give it with --database-url.",
        )
    return found


def target_settings(project: Path, record: MigrationRecord) -> StateSettings:
    """Return the settings of the store that a state went to.

    Raises:
        ConfigurationError: Its URL was not kept, and the environment does not have it.
    """
    found = _settings(project, record.target)
    if found.where != record.to:
        raise ConfigurationError(
            f"the URL of {record.to} was not kept, and the environment names {found.where}",
            hint="Set SEEKNAL_DATABASE_URL to it.",
        )
    return found


def put_project_back(project: Path, record: MigrationRecord) -> None:
    """Let the project file say again what it said before a migration.

    It becomes the text that it was, if nobody has edited anything else in it since.

    Raises:
        ConfigurationError, BackendUnavailableError: It cannot be read or written; the file stands.
    """
    path = project / PROJECT_FILE
    now = read_text(path)
    if record.text is not None and _rest(record.text, path) == _rest(now, path):
        write_project(project, record.text)
    else:
        write_project(project, edited(now, {key: record.settings.get(key) for key in KEYS}, path))


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
        now = find_record(project)
        if now is not None and now.attempt == record.attempt:
            keep_record(project, found)
        raise


def finish(project: Path, attempt: str, digest: str) -> None:
    """Note that a migration comes to its end; without a digest, that it came to it before.

    Raises:
        TransferError: The record is that of another migration, which began meanwhile.
    """
    record = read_record(project)
    if record.attempt != attempt:
        raise TransferError(
            "another migration took this one's place", hint="See where the state is with `seeknal state doctor`."
        )
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


def _place(settings: StateSettings, before: Mapping[str, Any]) -> Place:
    """Return what may be written down of a store; a URL with a secret as the project file says it, if it does."""
    raw = {"url": before.get("database_url"), **(before.get("state_options") or {})}
    options: dict[str, Any] = {}
    for key, value in settings.options.items():
        is_secret = _tells(str(value)) if key == "url" else any(word in key.lower() for word in _SECRETS)
        kept = raw.get(key) if is_secret else value
        if kept is not None and not (is_secret and ("${" not in str(kept) or _tells(str(kept)))):
            options[key] = path_within(kept, settings.project_path) if key in ("base_path", "db_path") else kept
    return Place(settings.backend, options)


def _settings(
    project: Path, place: Place, backend: str | None = None, database_url: str | None = None
) -> StateSettings:
    options = dict(place.options)
    kept = options.pop("url", None)
    if backend not in (None, place.backend):
        options, kept = {}, None
    url = database_url or (expanded(kept, os.environ, Path(PROJECT_FILE)) if kept else None)
    return load_settings(project, backend=backend or place.backend, database_url=url, options=options, is_whole=True)


def _rest(text: str, path: Path) -> str:
    """Return a project file without what a migration changes."""
    return edited(text, dict.fromkeys(KEYS), path)


def _tells(text: str) -> bool:
    """Return whether a line or a URL holds a secret in clear text; a variable is none."""
    return has_secret(text) or ("${" not in text and any(f"{word}:" in text.lower() for word in _SECRETS))


def _pruned(record: MigrationRecord | None, most: int) -> MigrationRecord | None:
    if record is None or not most:
        return None
    return msgspec.structs.replace(record, previous=_pruned(record.previous, most - 1))
