"""What a transaction reads before it is asked for: never another answer, and few readings."""

from __future__ import annotations

from bisect import bisect_left
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.model.records import NodeState
from seeknal.state.ahead import ALONE, LARGEST, MOST_LARGEST, SIZES, ReadAhead


class Run:
    """A run, and how often it was read."""

    def __init__(self, node_ids: set[str]) -> None:
        self.states = sorted((NodeState(node_id=each) for each in node_ids), key=lambda state: state.node_id.encode())
        self.places = [state.node_id.encode() for state in self.states]
        self.sizes: list[int] = []

    def page(self, run_id: str, node_id: str, most: int) -> list[NodeState]:
        self.sizes.append(most)
        at = bisect_left(self.places, node_id.encode())
        return self.states[at : at + most]


def asked(run: Run, node_ids: list[str]) -> dict[str, NodeState | None]:
    """Return what a transaction knows in the end, which asks for each node that it does not know yet."""
    ahead, known = ReadAhead(run.page), dict[str, NodeState | None]()
    for node_id in node_ids:
        if node_id not in known:
            found = {state.node_id: state for state in ahead.states("run", node_id)}
            known |= {node_id: None} | {each: state for each, state in found.items() if each not in known}
    return known


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)


@given(st.sets(ids, max_size=200), st.lists(ids, max_size=200))
def test_what_is_known_of_a_node_is_what_stands_in_the_store(there, wanted):
    run = Run(there)
    wanted = [*wanted, *there]
    known = asked(run, wanted)
    assert {node_id: known[node_id] is not None for node_id in wanted} == {node: node in there for node in wanted}
    assert all(state is None or state.node_id == node_id for node_id, state in known.items())


@pytest.mark.parametrize("are_there", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_nodes_in_any_order_are_five_readings(seed, are_there):
    nodes = Random(seed).sample([f"node {number:04}" for number in range(1000)], 1000)
    if seed < 2:
        nodes.sort(reverse=seed == 1)
    run = Run(set(nodes) if are_there else set())
    asked(run, nodes)
    assert len(run.sizes) <= ALONE + len(SIZES) + 1


@given(st.integers(1, ALONE))
def test_who_asks_for_few_nodes_reads_no_others(count):
    run = Run({f"node {number}" for number in range(100)})
    asked(run, [f"node {number}" for number in range(count)])
    assert run.sizes == [1] * count


@pytest.mark.parametrize("step", [1, -1])
def test_a_large_run_is_read_once_and_what_lies_far_behind_one_by_one(step):
    nodes = [f"node {number:06}" for number in range(LARGEST * MOST_LARGEST + 5)]
    run = Run(set(nodes))
    known = asked(run, nodes[::step])
    assert all(known[node_id] is not None for node_id in nodes)
    assert sum(run.sizes) <= len(nodes) + LARGEST + sum(SIZES) + ALONE + 2 * MOST_LARGEST
    assert run.sizes.count(LARGEST) == MOST_LARGEST
