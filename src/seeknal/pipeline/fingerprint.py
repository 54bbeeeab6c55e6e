"""What a node is made of, as one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from seeknal.errors import ConfigurationError
from seeknal.pipeline.nodes import Node, canonical_sql


def fingerprint(node: Node, project_path: Path, upstream: Mapping[str, str]) -> str:
    """Return ``s1:`` and the SHA-256 of the node's definition, its data file and its inputs' fingerprints.

    Raises:
        ConfigurationError: The data file of a source cannot be read.
    """
    content = canonical_sql(node.content) if node.kind == "transform" else node.content
    parts = [node.kind, node.name, content, node.format, node.schedule or "", str(node.start), str(node.end)]
    if node.kind == "source":
        try:
            with (project_path / node.content).open("rb") as file:
                parts.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise ConfigurationError(
                f"{node.node_id}: {node.content} cannot be read: {error.strerror}",
                hint="Check its key `table`; it is relative to the project.",
            ) from error
    for input_id in node.inputs:
        parts += [input_id, upstream[input_id]]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part.encode())}:".encode() + part.encode())
    return f"s1:{digest.hexdigest()}"
