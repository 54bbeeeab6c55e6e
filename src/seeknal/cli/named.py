"""What a name on the command line means, where it may mean a store, an export or a backup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.cli.stores import can_tell, check_unchanged
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend
    from seeknal.state.whole import Record

SQLITE_MAGIC = b"SQLite format 3\0"
HINT = "Name a project, a file store, a SQLite file, a URL like postgresql://host/name, an export, or a backup."


@contextmanager
def records_named(name: str, options: dict[str, Any]) -> Iterator[Iterator[Record]]:
    """Yield the records of what is named, in the order of `seeknal.state.difference.key_of`; nothing is changed.

    Args:
        name: On the command line.
        options: What to open a store with; a project names its own.

    Raises:
        ConfigurationError: It means nothing, or nothing that takes these options.
        SchemaVersionError: It is a store that opening it would bring up to date.
        CorruptStateError: It is damaged.
        SeeknalError: As the opening of a store, or the reading of an export.
    """
    path = Path(name)
    try:
        is_url = "://" in name
        is_backup = not is_url and (path / "manifest.json").is_file()
        is_export = not is_url and path.is_file() and _is_export(path)
    except OSError as error:
        raise ConfigurationError(f"cannot look at {name}: {error.strerror}", hint=HINT) from error
    if options and (is_backup or is_export):
        raise ConfigurationError(f"{name} takes no options", hint="They are for a store.")
    if is_backup:
        with _records_of_backup(path) as found:
            yield found
    elif is_export:
        with _records_of_export(path) as found:
            yield found
    else:
        with _records_of_store(name, options) as found:
            yield found


def _is_export(path: Path) -> bool:
    """Return whether a file begins as an export does, compressed or not; whether it is one, its reader finds out."""
    from seeknal.state.dump.packing import GZIP_MAGIC, ZSTD_MAGIC

    with path.open("rb") as file:
        return file.read(len(ZSTD_MAGIC)).startswith((b"{", GZIP_MAGIC, ZSTD_MAGIC))


@contextmanager
def _records_of_export(path: Path) -> Iterator[Iterator[Record]]:
    from seeknal.state.dump.reading import dump_file
    from seeknal.state.dump.sorting import sorted_records

    with dump_file(path) as dump, sorted_records(dump) as found:
        yield found


@contextmanager
def _records_of_backup(path: Path) -> Iterator[Iterator[Record]]:
    from seeknal.state.backup.generations import PAYLOAD, damaged, read_manifest
    from seeknal.state.backup.verifying import digest_of_file

    manifest, payload = read_manifest(path), path / PAYLOAD
    if digest_of_file(payload) != (manifest.size, manifest.sha256):
        raise damaged(path, f"{PAYLOAD} is not what was written")
    with _records_of_export(payload) as found:
        yield found


@contextmanager
def _records_of_store(name: str, options: dict[str, Any]) -> Iterator[Iterator[Record]]:
    from seeknal.state.difference import ordered
    from seeknal.state.record_store import RecordStore
    from seeknal.state.url import redact

    with _created(name, options) as store:
        # To open a store that is not there would make it; a backend that cannot tell whether it is there is opened.
        if isinstance(store, RecordStore) and can_tell(store) and store.peek_store() is None:
            raise ConfigurationError(f"there is no store at {redact(name)}", hint=HINT)
        check_unchanged(store, redact(name))
        store.initialize()
        yield ordered(store)


def _created(name: str, options: dict[str, Any]) -> StateBackend:
    from seeknal.state.registry import StateBackendFactory
    from seeknal.state.settings import PROJECT_FILE, load_settings
    from seeknal.state.url import has_secret, is_libsql

    if "://" in name:
        token = os.environ.get("TURSO_AUTH_TOKEN")
        if token and is_libsql(name) and not has_secret(name):
            options = {"token": token, **options}
        return StateBackendFactory.create("database", url=name, **options)
    path = Path(name)
    try:
        if (path / PROJECT_FILE).exists():
            if options:
                raise ConfigurationError(
                    f"{name} takes no options", hint="A project names its own, under state_options."
                )
            settings = load_settings(path)
            return StateBackendFactory.create(settings.backend, **settings.options)
        if (path / "run_state" / "store.json").exists():
            return StateBackendFactory.create("file", base_path=path, **options)
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
                    return StateBackendFactory.create("database", db_path=path, **options)
    except OSError as error:
        raise ConfigurationError(f"cannot look at {name}: {error.strerror}", hint=HINT) from error
    raise ConfigurationError(f"{name} is neither a project nor a store, nor an export or a backup", hint=HINT)
