"""The two files that a dbt invocation leaves in its target directory, as far as they are needed.

Of what is not named here nothing is read: dbt adds fields without a new schema version, and adapters add theirs.

Source: https://schemas.getdbt.com, ``dbt/run-results`` v4 to v6 and ``dbt/manifest`` v9 to v12: what dbt 1.5 to 1.11
write.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from seeknal.errors import ConfigurationError, SchemaVersionError, TransferError

RUN_RESULTS, MANIFEST = "run_results.json", "manifest.json"
RUN_RESULTS_VERSIONS, MANIFEST_VERSIONS = (4, 6), (9, 12)

_SCHEMA = re.compile(r"/(run-results|manifest)/v(\d+)\.json$")


class Metadata(msgspec.Struct, frozen=True):
    """Of which invocation a file is; instants without an offset are UTC, as dbt writes them."""

    dbt_schema_version: str
    generated_at: datetime
    invocation_id: str
    dbt_version: str | None = None
    invocation_started_at: datetime | None = None
    project_name: str | None = None


class Timing(msgspec.Struct, frozen=True):
    """A stage of a node: ``compile`` or ``execute``."""

    name: str
    started_at: datetime | None = None
    completed_at: datetime | None = None


class BatchResults(msgspec.Struct, frozen=True):
    """The batches ``[start, end)`` of a microbatch model, by how they went."""

    successful: list[tuple[datetime, datetime]] = []
    failed: list[tuple[datetime, datetime]] = []


class Result(msgspec.Struct, frozen=True):
    """What became of a node; ``execution_time`` is in seconds."""

    unique_id: str
    status: str
    timing: list[Timing] = []
    execution_time: float = 0.0
    message: str | None = None
    failures: int | None = None
    adapter_response: dict[str, Any] | None = None
    relation_name: str | None = None
    batch_results: BatchResults | None = None


class Arguments(msgspec.Struct, frozen=True):
    """What dbt was told. Its variables are not read: they may hold secrets."""

    which: str | None = None
    rpc_method: str | None = None
    select: Any = None
    exclude: Any = None
    selector: Any = None
    target: Any = None
    full_refresh: bool | None = None
    empty: bool | None = None
    sample: Any = None
    event_time_start: Any = None
    event_time_end: Any = None
    invocation_command: str | None = None


class RunResults(msgspec.Struct, frozen=True):
    """``run_results.json``; ``elapsed_time`` is in seconds."""

    metadata: Metadata
    results: list[Result]
    elapsed_time: float = 0.0
    args: Arguments = Arguments()


class DependsOn(msgspec.Struct, frozen=True):
    """What a node is built on."""

    nodes: list[str] | None = None


class Config(msgspec.Struct, frozen=True):
    """The configuration of a node, as far as it concerns batches."""

    full_refresh: bool | None = None
    event_time: Any = None
    batch_size: Any = None
    begin: Any = None

    @property
    def is_microbatch(self) -> bool:
        """Whether the node is built batch by batch of its event time."""
        return None not in (self.event_time, self.batch_size, self.begin)


class ManifestNode(msgspec.Struct, frozen=True):
    """What the project says of a node; ``checksum`` is an object with ``name`` and ``checksum``, or something else."""

    resource_type: str | None = None
    checksum: Any = None
    tags: list[str] | None = None
    relation_name: str | None = None
    depends_on: DependsOn | None = None
    compiled_path: str | None = None
    original_file_path: str | None = None
    config: Config | None = None


class Manifest(msgspec.Struct, frozen=True):
    """``manifest.json``: the nodes that an invocation may have results of, by their kinds."""

    metadata: Metadata
    nodes: dict[str, ManifestNode] = {}
    unit_tests: dict[str, ManifestNode] = {}
    exposures: dict[str, ManifestNode] = {}
    saved_queries: dict[str, ManifestNode] = {}
    functions: dict[str, ManifestNode] = {}

    def node(self, unique_id: str) -> ManifestNode | None:
        """Return what it says of a node, or ``None``."""
        kinds = (self.nodes, self.unit_tests, self.exposures, self.saved_queries, self.functions)
        return next((kind[unique_id] for kind in kinds if unique_id in kind), None)


class _OfVersion(msgspec.Struct):
    dbt_schema_version: str


class _Probe(msgspec.Struct):
    metadata: _OfVersion


T = TypeVar("T", RunResults, Manifest)


def read_run_results(directory: Path) -> tuple[RunResults, str]:
    """Return ``run_results.json`` of a target directory, and the SHA-256 of what it holds, however it is laid out.

    Raises:
        ConfigurationError: It is not a directory.
        TransferError: The file is missing, cannot be read, is no JSON, or lacks what its schema says.
        SchemaVersionError: It is of a schema that this program does not know.
    """
    content = _content(directory, RUN_RESULTS)
    found = _decoded(content, directory / RUN_RESULTS, RunResults, "run-results", RUN_RESULTS_VERSIONS)
    whole = msgspec.json.encode(msgspec.json.decode(content), order="deterministic")
    return found, hashlib.sha256(whole).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Return ``manifest.json`` of a target directory.

    Raises:
        ConfigurationError, TransferError, SchemaVersionError: As `read_run_results`.
    """
    content = _content(directory, MANIFEST)
    return _decoded(content, directory / MANIFEST, Manifest, "manifest", MANIFEST_VERSIONS)


def _content(directory: Path, name: str) -> bytes:
    if not directory.is_dir():
        raise ConfigurationError(
            f"{directory} is not a directory",
            hint="Name the target directory of the dbt project, where dbt leaves run_results.json.",
        )
    try:
        return (directory / name).read_bytes()
    except FileNotFoundError as error:
        hint = "Name dbt's target directory, after `dbt build`, `run`, `seed`, `snapshot`, `test` or `retry`."
        if name == MANIFEST:
            hint += " --without-manifest imports run_results.json alone."
        raise TransferError(f"{directory} holds no {name}", hint=hint) from error
    except OSError as error:
        raise TransferError(
            f"cannot read {directory / name}: {error.strerror or error}", hint="Check that you may read it."
        ) from error


def _decoded(content: bytes, path: Path, kind: type[T], schema: str, versions: tuple[int, int]) -> T:
    try:
        _check_version(msgspec.json.decode(content, type=_Probe).metadata.dbt_schema_version, path, schema, versions)
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise TransferError(
            f"{path} is not what dbt writes: {error}", hint="Take the file as dbt left it, or run dbt again."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransferError(
            f"{path} is no JSON: {error}", hint="Wait until dbt has ended; if it was cut short, run it again."
        ) from error


def _check_version(text: str, path: Path, schema: str, versions: tuple[int, int]) -> None:
    oldest, newest = versions
    found = _SCHEMA.search(text)
    if found is None or found[1] != schema:
        raise TransferError(
            f"{path} is of the schema {text!a}, not of dbt/{schema}", hint="Name dbt's target directory."
        )
    if not oldest <= int(found[2]) <= newest:
        raise SchemaVersionError(
            f"{path} has version {found[2]} of the schema dbt/{schema}; this program reads {oldest} to {newest}",
            hint="Import it with a newer version of this package."
            if int(found[2]) > newest
            else "Run dbt again with dbt 1.5 or later.",
            found=found[2],
            wanted=f"{oldest} to {newest}",
        )
