"""The graph of a pipeline: which node needs which.

A graph is a mapping from node id to the ids of its inputs. Everything is pure and deterministic:
among nodes that may go in any order, the order of ids decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError as _FoundCycle
from graphlib import TopologicalSorter

from seeknal.errors import CycleError, GraphError

Graph = Mapping[str, Collection[str]]


def topological_order(graph: Graph) -> list[str]:
    """Return all node ids, inputs before those that need them; ids sorted within a layer.

    Raises:
        GraphError: A node names an input that is not in the graph.
        CycleError: Nodes depend on one another in a circle; ``path`` names it.
    """
    for node_id, inputs in graph.items():
        for missing in sorted({each for each in inputs if each not in graph}):
            raise GraphError(
                f"{node_id} needs {missing}, which does not exist",
                hint=f"Known nodes: {', '.join(sorted(graph))}.",
            )
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except _FoundCycle as error:
        # graphlib lists the circle from a node to what needs it; read it as "needs".
        path = tuple(reversed(error.args[1]))
        raise CycleError(
            f"nodes depend on one another in a circle: {' -> '.join(path)}",
            hint="Remove one of these references.",
            path=path,
        ) from None
    order: list[str] = []
    while sorter.is_active():
        layer = sorted(sorter.get_ready())
        order.extend(layer)
        sorter.done(*layer)
    return order
