"""The JSON files of the published platform: told apart by their content, and read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import BackendUnavailableError, SchemaVersionError
from seeknal.model.codec import decode
from seeknal.state.published.found import FoundNode, FoundRun, refused

NAMELESS_RUN = "execution_state"
KNOWN_SCHEMAS = ("1", "2")
_NODE_KEYS = {"hash", "last_run"}


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        CorruptStateError: There is none in it.
        BackendUnavailableError: It cannot be read.
    """
    try:
        return decode(path.read_bytes(), dict[str, Any])
    except OSError as error:
        raise BackendUnavailableError(
            f"cannot read {path}: {error.strerror or error}", hint="Check who owns it, and that it can be read."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused(str(path), str(error)) from error


def is_run_state(document: dict[str, Any]) -> bool:
    """Return whether the platform wrote this ``run_state.json``, and not a store of ours."""
    nodes = document.get("nodes")
    if not isinstance(nodes, dict):
        return False
    says_so = "schema_version" in document or "seeknal_version" in document or isinstance(document.get("version"), str)
    return says_so or any(is_node_state(node) for node in nodes.values())


def is_node_state(document: object) -> bool:
    """Return whether this is a node state as the platform writes it."""
    return isinstance(document, dict) and "node_id" not in document and bool(_NODE_KEYS & document.keys())


def is_execution_state(document: dict[str, Any]) -> bool:
    """Return whether this maps node ids to what became of them, without runs."""
    return bool(document) and all(isinstance(node, dict) and "status" in node for node in document.values())


def schema_of(document: dict[str, Any]) -> str:
    """Return the schema version that a document gives itself; empty if it gives none."""
    version = document.get("schema_version", document.get("version"))
    return version if isinstance(version, str) else ""


def run_in(document: dict[str, Any], location: str) -> FoundRun:
    """Return the run that a ``run_state.json`` holds.

    Raises:
        CorruptStateError: Its nodes are not objects.
        SchemaVersionError: The platform has gone on to a schema that is not known here.
    """
    schema = schema_of(document)
    if schema and schema.partition(".")[0] not in KNOWN_SCHEMAS:
        raise SchemaVersionError(
            f"{location} has schema {schema} of the published platform; 1.0 and 2.0 can be taken in",
            hint="Look for a newer version of seeknal-state.",
            found=schema,
            wanted="2.0",
        )
    nodes = document.get("nodes")
    if not isinstance(nodes, dict):
        raise refused(location, "it has no object 'nodes'")
    run_id = document.get("run_id")
    if run_id and not isinstance(run_id, str):
        raise refused(location, f"run_id is {run_id!a}")
    fields = {key: value for key, value in document.items() if key not in ("run_id", "nodes")}
    return FoundRun(run_id or "imported", fields, _nodes(nodes, location), location)


def run_in_execution_state(document: dict[str, Any], location: str) -> FoundRun:
    """Return what ``execution_state.json`` holds: a run, or, in its first form, nodes of no run."""
    if "nodes" in document:
        return run_in(document, location)
    return FoundRun(NAMELESS_RUN, {}, _nodes(document, location), location, is_named=False)


def runs_in_folder(folder: Path) -> list[FoundRun]:
    """Return the run that a folder holds: once from the files of its nodes, once whole; nothing if it holds none.

    Raises:
        CorruptStateError: It does, and a file in it cannot be understood.
    """
    whole = None
    path = folder / "run_state.json"
    if path.is_file():
        document = read_document(path)
        if not is_run_state(document) or _file_name(str(document.get("run_id"))) != folder.name:
            return []
        whole = run_in(document, str(path))
    ids = {} if whole is None else {_file_name(node_id): node_id for node_id in whole.nodes}
    nodes: dict[str, FoundNode] = {}
    for path in sorted((folder / "nodes").glob("*.json")):
        document = read_document(path)
        if is_node_state(document):
            nodes[ids.get(path.stem, path.stem)] = FoundNode(document, str(path))
        elif whole is None:
            return []  # nodes/ of something else
        else:
            raise refused(str(path), "it is not a node state")
    single = [FoundRun(folder.name if whole is None else whole.run_id, {}, nodes, str(folder))] if nodes else []
    return [*single, *([] if whole is None else [whole])]


def _nodes(nodes: dict[str, Any], location: str) -> dict[str, FoundNode]:
    for node_id, fields in nodes.items():
        if not isinstance(fields, dict):
            raise refused(location, f"node {node_id!a} is not an object")
    return {node_id: FoundNode(fields, f"{location}, node {node_id!a}") for node_id, fields in nodes.items()}


def _file_name(an_id: str) -> str:
    """Return what the platform makes of an id to name a file by it: it drops slashes and double dots."""
    return re.sub(r"\.\.", "", re.sub(r"[/\\]", "", re.sub(r"\.\.[/\\]", "", an_id)))
