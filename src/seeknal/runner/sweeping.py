"""Delete files of ranges that count no more, so that who reads the folder of a node sees each row once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from seeknal.pipeline.nodes import Node
from seeknal.runner.observe import observe_ranges
from seeknal.runner.outputs import Part, list_parts, parts_folder
from seeknal.runner.ranges import owned_parts
from seeknal.tracking import RunRecorder


def sweep(run: RunRecorder, node: Node, project_path: Path, live: Collection[Part]) -> None:
    """Delete the parts of a node that count no more, unless somebody else works on it.

    A part is in its place before it counts. So what is there is listed first, then it is seen that nobody else is
    about to complete a range, and then the store is asked again which of them count.

    Args:
        run: The run; what it works on itself does no harm.
        node: The node.
        project_path: Where its files are.
        live: The parts that count.
    """
    folder = parts_folder(project_path, node.node_id)
    kept = {part.file for part in live}
    parts = [part for part in list_parts(folder, with_damaged=True) if part.file not in kept]
    if not parts:
        return
    claims = run.backend.list_claims(node.node_id, status="claimed")
    if any((claim.run_id, claim.lease_token) != (run.run_id, run.lease.token) for claim in claims):
        return
    done = msgspec.structs.replace(observe_ranges(node, project_path, run.backend), parts=tuple(parts))
    owned = {part.file for part in owned_parts(done)}
    for part in parts:
        is_empty = part.span is not None and part.span.start == part.span.end
        # A run that this store does not know belongs to another one, which may count it.
        is_ours = run.backend.exists(part.run_id)
        if is_ours and (part.file not in owned or is_empty):
            (folder / part.file).unlink(missing_ok=True)
