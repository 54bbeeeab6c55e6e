"""What a node is made of, as one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from seeknal.errors import NodeFailedError
from seeknal.pipeline.nodes import PYTHON, Node, canonical_sql

ALGORITHM = "s1"
"""Names how the parts below are chosen and joined; another choice gets another name."""


def fingerprint(node: Node, project_path: Path, upstream: Mapping[str, str]) -> str:
    """Return ``s1:`` and the SHA-256 of a node's definition, its data file and its inputs' fingerprints.

    Each part stands behind its length, so that no two lists of parts are joined to the same bytes. Comments and
    blanks of SQL and Python do not count, nor do descriptions and tags.

    Args:
        node: The node.
        project_path: Where its files are.
        upstream: The fingerprint of each of its inputs.

    Raises:
        NodeFailedError: The data file of a source cannot be read.
    """
    is_sql = node.kind == "transform" and node.format != PYTHON
    content = canonical_sql(node.content) if is_sql else node.content
    parts = [node.kind, node.name, node.format, node.function, content]
    parts += [node.schedule or "", node.timezone or "", str(node.start), str(node.end)]
    if node.kind == "source" and node.format != PYTHON:
        parts.append(_content_hash(node, project_path))
    for input_id in node.inputs:
        parts += [input_id, upstream[input_id]]
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d:%b" % (len(encoded), encoded))
    return f"{ALGORITHM}:{digest.hexdigest()}"


def _content_hash(node: Node, project_path: Path) -> str:
    try:
        with (project_path / node.content).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NodeFailedError(
            f"{node.content} cannot be read: {error.strerror}",
            hint=f"Check `table` in {node.file}; it is relative to the project.",
        ) from error
