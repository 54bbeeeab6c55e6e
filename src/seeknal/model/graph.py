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


def check_graph(graph: Graph) -> None:
    """Raise unless every input exists and no node needs itself.

    Raises:
        GraphError: A node names an input that is not in the graph.
        CycleError: Nodes depend on one another in a circle; ``path`` names it.
    """
    topological_order(graph)


def topological_order(graph: Graph) -> list[str]:
    """Return all node ids, inputs before those that need them; ids sorted within a layer.

    Raises:
        GraphError: As `check_graph`.
    """
    for node_id, inputs in graph.items():
        for missing in sorted(set(inputs) - graph.keys()):
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


def descendants(graph: Graph, roots: Collection[str]) -> set[str]:
    """Return every node that needs one of ``roots``, directly or not; the roots only if they need another root."""
    children: dict[str, list[str]] = {}
    for node_id, inputs in graph.items():
        for parent in inputs:
            children.setdefault(parent, []).append(node_id)
    return _reach(children, roots)


def ancestors(graph: Graph, roots: Collection[str]) -> set[str]:
    """Return every node that one of ``roots`` needs, directly or not."""
    return _reach(graph, roots)


def _reach(edges: Mapping[str, Collection[str]], roots: Collection[str]) -> set[str]:
    seen: set[str] = set()
    todo = [target for root in roots for target in edges.get(root, ())]
    while todo:
        node_id = todo.pop()
        if node_id not in seen:
            seen.add(node_id)
            todo.extend(edges.get(node_id, ()))
    return seen
