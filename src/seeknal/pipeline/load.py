"""Read the nodes of a project from its YAML files."""

from __future__ import annotations

import difflib
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from seeknal.errors import ConfigurationError, GraphError, InvalidFieldError
from seeknal.model.graph import topological_order
from seeknal.model.ids import check_id
from seeknal.model.instants import parse_instant
from seeknal.model.schedule import as_schedule
from seeknal.pipeline.nodes import Node, Project, sql_refs

CONTENT = {"source": "table", "transform": "transform", "command": "command"}
FORMATS = ("csv", "json", "jsonl", "parquet")
COMMON = ("kind", "name", "description", "tags", "inputs", "schedule", "start", "end")


def load_project(project_path: Path) -> Project:
    """Return the nodes of ``seeknal/**/*.yml`` in the order in which they can run.

    Raises:
        ConfigurationError: A file or a key cannot be used; the message names both.
        GraphError, CycleError: An id twice, an input that does not exist, a circle.
    """
    settings = _mapping(project_path / "seeknal_project.yml")
    files: dict[str, Path] = {}
    nodes: dict[str, Node] = {}
    for file in sorted((project_path / "seeknal").rglob("*.yml")):
        node = _node(_mapping(file), file)
        if node.node_id in nodes:
            raise GraphError(
                f"{node.node_id} is defined in {files[node.node_id]} and in {file}", hint="Rename one of them."
            )
        nodes[node.node_id], files[node.node_id] = node, file
    if not nodes:
        raise ConfigurationError(f"{project_path / 'seeknal'} holds no nodes", hint="Add a .yml file with `kind`.")
    order = topological_order({node_id: node.inputs for node_id, node in nodes.items()})
    name = str(settings.get("name") or project_path.absolute().name)
    return Project(name, project_path, {node_id: nodes[node_id] for node_id in order})


def _mapping(file: Path) -> dict[str, Any]:
    try:
        found = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}", hint="Check that it is there and YAML.") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} holds no keys", hint="Write `key: value` lines.")
    return found


def _node(raw: dict[str, Any], file: Path) -> Node:
    kind = raw.get("kind")
    if kind not in CONTENT:
        raise ConfigurationError(f"{file}: kind is {kind!r}", hint=f"Known: {', '.join(CONTENT)}.")
    known = (*COMMON, CONTENT[kind], *(("source",) if kind == "source" else ()))
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"{file}: there is no key {key!r}", hint=f"{hint}Known: {', '.join(known)}.")
    for key in ("name", CONTENT[kind]):
        if not isinstance(raw.get(key), str) or not raw[key].strip():
            raise ConfigurationError(f"{file}: key {key!r} is missing or not text", hint=f"Add `{key}: ...`.")
    if kind == "source" and raw.get("source") not in FORMATS:
        raise ConfigurationError(f"{file}: source is {raw.get('source')!r}", hint=f"Known: {', '.join(FORMATS)}.")
    start, end = (_instant(raw.get(key), key, file) for key in ("start", "end"))
    if raw.get("schedule") is not None:
        as_schedule(raw["schedule"])
        if start is None or kind != "transform":
            raise ConfigurationError(
                f"{file}: a schedule needs a transform and `start`", hint="Add `start: 2024-01-01`."
            )
    content = raw[CONTENT[kind]]
    inputs = (*_inputs(raw.get("inputs") or [], file), *(sql_refs(content) if kind == "transform" else ()))
    check_id(f"{kind}.{raw['name']}", "name")
    return Node(
        kind=kind,
        name=raw["name"],
        content=content,
        format=raw.get("source", ""),
        inputs=tuple(dict.fromkeys(inputs)),
        schedule=raw.get("schedule"),
        start=start,
        end=end,
    )


def _inputs(raw: object, file: Path) -> list[str]:
    if isinstance(raw, list) and all(isinstance(each, dict) and list(each) == ["ref"] for each in raw):
        return [str(each["ref"]) for each in raw]
    raise ConfigurationError(f"{file}: inputs cannot be read", hint="Write them as `- ref: kind.name`.")


def _instant(value: object, key: str, file: Path) -> datetime | None:
    if value is None:
        return None
    try:
        return parse_instant(value.isoformat() if isinstance(value, date) else str(value), key)
    except InvalidFieldError as error:
        raise ConfigurationError(f"{file}: {error}", hint=error.hint) from error
