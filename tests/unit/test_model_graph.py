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


class Counted(str):
    """An id that counts how often any of its kind is looked up."""

    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()


def looks_for_a_chain_of(length: int) -> int:
    ids = [Counted(number) for number in range(length)]
    graph = {each: ids[place - 1 : place] if place else [] for place, each in enumerate(ids)}
    before = Counted.looks
    topological_order(graph)
    return Counted.looks - before


def test_twice_the_nodes_cost_twice_the_work():
    assert looks_for_a_chain_of(400) <= 2.1 * looks_for_a_chain_of(200)
