"""The graph of a pipeline."""

import itertools

import pytest

from seeknal.errors import CycleError, GraphError
from seeknal.model.graph import topological_order

DIAMOND = {"d": ["b", "c"], "c": ["a"], "b": ["a"], "a": [], "z": []}


def test_order_is_by_layers_then_by_id():
    assert topological_order(DIAMOND) == ["a", "z", "b", "c", "d"]
    assert topological_order({}) == []


def test_a_missing_input_is_named():
    with pytest.raises(GraphError, match=r"b needs x, which does not exist") as caught:
        topological_order({"a": [], "b": ["a", "x"]})
    assert "a, b" in caught.value.hint


@pytest.mark.parametrize(
    ("graph", "members"),
    [({"a": ["a"]}, {"a"}), ({"a": ["c"], "b": ["a"], "c": ["b"], "d": ["a"]}, {"a", "b", "c"})],
)
def test_a_circle_is_shown_in_the_direction_of_needing(graph, members):
    with pytest.raises(CycleError) as caught:
        topological_order(graph)
    path = caught.value.path
    assert path[0] == path[-1]
    assert set(path) == members
    assert all(needed in graph[node] for node, needed in itertools.pairwise(path))


def test_a_long_chain():
    graph = {str(number): [str(number - 1)] if number else [] for number in range(5000)}
    assert topological_order(graph) == [str(number) for number in range(5000)]
