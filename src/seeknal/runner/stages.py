"""How processes that share a backfill take turns: which nodes one of them runs alone, and which they share."""

from __future__ import annotations

import msgspec

from seeknal.pipeline.nodes import Project
from seeknal.runner.plan import Asked


class Stage(msgspec.Struct, frozen=True):
    """Nodes that need none of a later stage; all of them are computed as a whole, or all range by range."""

    nodes: frozenset[str]
    is_whole: bool


def stages_of(project: Project, asked: Asked) -> list[Stage]:
    """Return the stages of what is selected, in order: whole nodes and nodes with ranges by turns; none is empty."""
    level: dict[str, int] = {}
    for node_id, node in project.nodes.items():
        own = 1 if node.is_ranged else 0  # levels of whole nodes are even
        least = max((level[input_id] for input_id in node.inputs), default=0)
        level[node_id] = least if least % 2 == own else least + 1
    found = []
    for number in range(max(level.values(), default=0) + 1):
        chosen = frozenset(each for each, at in level.items() if at == number and asked.takes(each))
        if chosen:
            found.append(Stage(chosen, number % 2 == 0))
    return found
