"""Read the nodes of a project from its YAML and Python files."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from seeknal.errors import ConfigurationError, GraphError, InvalidIdError
from seeknal.model.graph import topological_order
from seeknal.model.ids import check_id
from seeknal.pipeline.attempts import ATTEMPT_KEYS, attempt_fields
from seeknal.pipeline.nearest import nearest
from seeknal.pipeline.nodes import Node, Project, sql_refs
from seeknal.pipeline.python_nodes import python_nodes
from seeknal.pipeline.ranges import RANGE_KEYS, range_fields
from seeknal.pipeline.templates import check_templates

CONTENT = {"source": "table", "transform": "transform", "command": "command"}
_TWICE = re.compile(r'found duplicate key "(.*?)" with value', re.DOTALL)
FORMATS = ("csv", "json", "jsonl", "parquet")
COMMON = ("kind", "name", "description", "tags", "inputs", *ATTEMPT_KEYS)


def load_project(project_path: Path) -> Project:
    """Return the nodes of ``seeknal/**/*.yml`` and ``seeknal/**/*.py`` in an order in which they can run.

    Raises:
        ConfigurationError: A file or a key cannot be used; the message names both.
        GraphError, CycleError: An id twice, an input that does not exist, a circle.
    """
    settings = _mapping(project_path / "seeknal_project.yml")
    folder = project_path / "seeknal"
    nodes: dict[str, Node] = {}
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in (".yml", ".yaml", ".py")]
    for file in files:
        found = (
            python_nodes(file, project_path) if file.suffix == ".py" else [_node(_mapping(file), file, project_path)]
        )
        for node in found:
            if node.node_id in nodes:
                raise GraphError(
                    f"{node.node_id} is defined in {nodes[node.node_id].file} and in {node.file}",
                    hint="Rename one of them.",
                )
            nodes[node.node_id] = node
    if not nodes:
        raise ConfigurationError(
            f"{folder} holds no nodes", hint="Add a .yml file with `kind` and `name`, or a .py file with a @transform."
        )
    _check_inputs(nodes)
    order = topological_order({node_id: node.inputs for node_id, node in nodes.items()})
    name = str(settings.get("name") or project_path.absolute().name)
    hashes = settings.get("hash_outputs", False)
    if not isinstance(hashes, bool):
        raise ConfigurationError(f"seeknal_project.yml: hash_outputs is {hashes!r}", hint="Write true or false.")
    return Project(name, project_path, {node_id: nodes[node_id] for node_id in order}, hashes)


def _check_inputs(nodes: dict[str, Node]) -> None:
    for node in nodes.values():
        for input_id in node.inputs:
            if input_id not in nodes:
                raise GraphError(
                    f"{node.file}: {node.node_id} needs {input_id}, which does not exist",
                    hint=nearest(input_id, nodes),
                )


def _mapping(file: Path) -> dict[str, Any]:
    try:
        found = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:  # which ruamel tells together with how to let it pass
        key = _TWICE.match(error.problem or "")
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ConfigurationError(
            f"{file}: {f'key `{key[1]}`' if key else 'a key'} is there twice{line}", hint="Remove one of them."
        ) from error
    except (OSError, ValueError, YAMLError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise ConfigurationError(f"{file} cannot be read: {error}", hint="Check that it is there and YAML.") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} holds no keys", hint="Write `key: value` lines.")
    return found


def _node(raw: dict[str, Any], file: Path, project_path: Path) -> Node:
    kind = _one_of(raw, "kind", tuple(CONTENT), file)
    extra = {"source": ("source",), "transform": RANGE_KEYS, "command": RANGE_KEYS}.get(kind, ())
    known = (*COMMON, CONTENT[kind], *extra)
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"{file}: there is no key {key!r}", hint=f"{hint}Known: {', '.join(known)}.")
    content = _text(raw, CONTENT[kind], file)
    try:
        name = check_id(_text(raw, "name", file), "name")
        check_id(f"{kind}.{name}", "name")
    except InvalidIdError as error:
        raise ConfigurationError(f"{file}: {error}", hint=error.hint) from error
    ranges = range_fields(raw, str(file))
    if kind != "source":
        check_templates(kind, content, ranges, str(file))
    refs = sql_refs(content) if kind == "transform" else ()
    return Node(
        kind=kind,
        name=name,
        file=str(file.relative_to(project_path)),
        content=content,
        format=_one_of(raw, "source", FORMATS, file) if kind == "source" else "",
        inputs=tuple(dict.fromkeys((*_inputs(raw.get("inputs") or [], file), *refs))),
        description=str(raw.get("description") or ""),
        tags=_tags(raw.get("tags") or [], file),
        **ranges,
        **attempt_fields(raw, str(file)),
    )


def _one_of(raw: dict[str, Any], key: str, known: tuple[str, ...], file: Path) -> str:
    value = raw.get(key)
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"{file}: {key} is {value!r}", hint=f"{hint}Known: {', '.join(known)}.")
    return str(value)


def _text(raw: dict[str, Any], key: str, file: Path) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{file}: key {key!r} is missing or not text", hint=f"Add `{key}: ...`.")
    return value


def _inputs(raw: object, file: Path) -> list[str]:
    if isinstance(raw, list) and all(isinstance(each, dict) and list(each) == ["ref"] for each in raw):
        return [str(each["ref"]) for each in raw]
    raise ConfigurationError(f"{file}: inputs cannot be read", hint="Write them as `- ref: kind.name`.")


def _tags(raw: object, file: Path) -> tuple[str, ...]:
    if isinstance(raw, list):
        return tuple(map(str, raw))
    raise ConfigurationError(f"{file}: tags is {raw!r}", hint="Write them as a list: `tags: [...]`.")
