"""What a node is made of: named parts, each with a hash, and one fingerprint of them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.pipeline.code import NamedCode
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.pipeline.sql import canonical_form

ALGORITHM = "v2"
"""Names how the parts below are chosen, hashed and joined; another choice gets another name."""

CONFIG, SQL, COMMAND, DATA, FUNCTION = "config", "sql", "command", "data", "function"
CODE, INPUT = "code:", "input:"
"""What the names of parts begin with of which a node may have several: code that it names, and its inputs."""

METADATA_KEY = "made_of"
"""Under which a node state keeps the parts, shortened."""

SHORT_DIGITS = 16
"""Of the hash of a part in metadata: 64 bits, enough to tell then from now. The fingerprint has all 256."""

UNPARSED = "its SQL cannot be parsed, so the case of its keywords counts"


class MadeOf(msgspec.Struct, frozen=True):
    """The parts of a node by name, each with its SHA-256 in hexadecimal digits; ``note`` says what to know of them."""

    parts: dict[str, str]
    note: str = ""

    @property
    def fingerprint(self) -> str:
        """``v2:`` and the SHA-256 of all parts by name, in 64 hexadecimal digits."""
        return f"{ALGORITHM}:{_digest(json.dumps(self.parts, sort_keys=True))}"

    @property
    def short(self) -> dict[str, str]:
        """The parts as metadata keeps them."""
        return {name: digest[:SHORT_DIGITS] for name, digest in self.parts.items()}

    def with_inputs(self, upstream: Mapping[str, str]) -> MadeOf:
        """Return the same with what its inputs hold: a text for each that changes whenever their rows may."""
        inputs = {f"{INPUT}{input_id}": _digest(text) for input_id, text in upstream.items()}
        return MadeOf(self.parts | inputs, self.note)


def own_parts(node: Node, project_path: Path) -> MadeOf:
    """Return what a node is made of but for its inputs.

    Comments and blanks of SQL and Python do not count, nor do docstrings, descriptions, tags, and the case of
    keywords in SQL.

    Args:
        node: The node.
        project_path: Where its files are.

    Raises:
        NodeFailedError: The data file of a source cannot be read.
    """
    config: dict[str, str | bool | None] = {
        "kind": node.kind,
        "format": node.format,
        "schedule": node.schedule,
        "timezone": node.timezone,
        "start": None,  # which ranges are computed is no part of what each is made of
        "end": None,
        "function": node.function,
        "table": node.content if node.kind == "source" and node.format != PYTHON else None,
    }
    if node.partitions is not None:  # which ones does not count, but that it is computed for one at a time
        config["partitioned"] = True
    parts = {CONFIG: _digest(json.dumps(config, sort_keys=True))}
    if node.format == PYTHON:
        code = NamedCode(project_path / node.file, node.function, project_path)
        parts[FUNCTION] = _digest(code.own)
        parts |= {f"{CODE}{name}": _digest(text) for name, text in code.named.items()}
    elif node.kind == "source":
        parts[DATA] = _content_hash(node, project_path)
    elif node.kind == "command":
        parts[COMMAND] = _digest(node.content)
    else:
        sql = canonical_form(node.content)
        parts[SQL] = _digest(sql.text)
        return MadeOf(parts, "" if sql.is_parsed else UNPARSED)
    return MadeOf(parts)


def fingerprint(node: Node, project_path: Path, upstream: Mapping[str, str]) -> str:
    """Return the fingerprint of a node.

    Args:
        node: The node.
        project_path: Where its files are.
        upstream: The fingerprint of each of its inputs.

    Raises:
        NodeFailedError: The data file of a source cannot be read.
    """
    inputs = {input_id: upstream[input_id] for input_id in node.inputs}
    return own_parts(node, project_path).with_inputs(inputs).fingerprint


def is_of_this_algorithm(text: str | None) -> bool:
    """Return whether a stored fingerprint was made of the same parts in the same way, so that it can be compared."""
    return text is not None and text.startswith(f"{ALGORITHM}:")


def changed_parts(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that differ, as they are kept in metadata, in the order that `MadeOf` has them."""
    return [name for name in {**now, **then} if then.get(name) != now.get(name)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _content_hash(node: Node, project_path: Path) -> str:
    try:
        with (project_path / node.content).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NodeFailedError(
            f"{node.content} cannot be read: {error.strerror}",
            hint=f"Check `table` in {node.file}; it is relative to the project.",
        ) from error
