"""Put what was computed in its place: a rename, after which it is there and whole, also after a power cut."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seeknal.errors import NodeFailedError
from seeknal.pipeline.nodes import Node
from seeknal.runner.compute import Outcome
from seeknal.runner.held import Held
from seeknal.runner.outputs import Part, Unit, as_part, file_facts, output_path, part_file, parts_folder


def publish_output(project_path: Path, node_id: str, outcome: Outcome) -> dict[str, Any]:
    """Replace the output of a node, and return what its file is like.

    Raises:
        NodeFailedError: It cannot be written.
    """
    target = output_path(project_path, node_id)
    _rename(project_path, outcome, target)
    return file_facts(target, outcome.sha256)


def publish_part(project_path: Path, node_id: str, unit: Unit, made: str, run_id: str, outcome: Outcome) -> Part:
    """Put the part of a range into the folder of its node, and return it.

    Raises:
        NodeFailedError: It cannot be written.
    """
    folder = parts_folder(project_path, node_id)
    name = part_file(unit, made, run_id, outcome.rows or 0, outcome.size)
    _rename(project_path, outcome, folder / name)
    part = as_part(name)
    assert part is not None
    return part


def files_of_inputs(project_path: Path, node: Node, inputs: Mapping[str, Node], held: Mapping[str, Held]) -> _Files:
    """Return for each input of a node the files that hold its rows, relative to the project."""
    found: _Files = {}
    for input_id in node.inputs:
        if inputs[input_id].is_ranged:
            folder = parts_folder(project_path, input_id).relative_to(project_path)
            found[input_id] = tuple(str(folder / part.file) for part in _with_rows(held[input_id].parts))
        else:
            path = output_path(project_path, input_id)
            found[input_id] = (str(path.relative_to(project_path)),) if path.exists() else ()
    return found


_Files = dict[str, tuple[str, ...]]


def _with_rows(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the parts to read: one without rows only where it is the only one to tell the columns."""
    full = [part for part in parts if part.rows]
    return full or [part for part in parts if part.size][:1]


def _rename(project_path: Path, outcome: Outcome, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if outcome.beside:
            (project_path / outcome.beside).replace(target)
        else:
            target.touch()
        _sync_directory(target.parent)
    except OSError as error:
        raise NodeFailedError(f"{target} cannot be written: {error.strerror}", hint="Check the disk.") from error


def _sync_directory(path: Path) -> None:
    """Write a rename to disk; where directories cannot be opened, the platform does so by itself (Windows)."""
    if os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
