"""The join of two streams of records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.errors import CapabilityError, TransferError
from seeknal.model.records import CompletedInterval, NodeState, PartitionState, RunState
from seeknal.state.difference import Found, differences, key_of, ordered
from seeknal.state.memory import MemoryStateBackend

DAY = datetime(2024, 1, 1, tzinfo=UTC)


def found(a, b, **options):
    return list(differences(a, b, **options))


def run(run_id="r", **fields):
    return RunState(run_id=run_id, **fields)


def test_nothing_and_nothing():
    assert found([], []) == []


def test_what_only_one_side_has():
    (only_a,) = found([run("a"), run("b")], [run("b")])
    assert (only_a.kind, only_a.key, only_a.found, only_a.fields) == ("run", {"run_id": "a"}, Found.ONLY_IN_A, {})
    (only_b,) = found([run("b")], [run("b"), run("c")])
    assert (only_b.key, only_b.found) == ({"run_id": "c"}, Found.ONLY_IN_B)


def test_fields_and_the_entries_of_metadata():
    (each,) = found(
        [run(status="success", metadata={"same": 1, "x": {"y": 1}, "gone": None})],
        [run(status="failed", metadata={"same": 1, "x": {"y": 2}})],
    )
    assert each.found is Found.DIFFERS
    assert each.fields == {
        "status": {"a": "success", "b": "failed"},
        "metadata.gone": {"a": None},
        "metadata.x": {"a": {"y": 1}, "b": {"y": 2}},
    }


def test_versions_and_sequences_count_only_when_asked():
    a, b = [run(version=1, sequence=4)], [run(version=2, sequence=4)]
    assert found(a, b) == []
    assert found(a, b, exact=True)[0].fields == {"version": {"a": 1, "b": 2}}


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), ([1, [2]], [1, [2.0]]), ({"k": 0}, {"k": False})])
def test_values_that_python_takes_for_equal_and_json_does_not(a, b):
    assert found([run(config={"x": a})], [run(config={"x": b})])[0].fields == {"config.x": {"a": a, "b": b}}
    assert found([run(config={"x": a})], [run(config={"x": a})]) == []


def test_work_of_a_node():
    interval = CompletedInterval("n", DAY, DAY + timedelta(days=1), "r")
    longer = CompletedInterval("n", DAY, DAY + timedelta(days=2), "r")
    partition = PartitionState(node_id="n", partition="p", run_id="r", completed_at=DAY)
    first, second = found([interval], [longer, partition])
    assert (first.kind, list(first.fields)) == ("interval", ["end"])
    assert (second.kind, second.key, second.found) == ("partition", {"node_id": "n", "partition": "p"}, Found.ONLY_IN_B)


def test_a_side_that_is_out_of_order_is_refused():
    with pytest.raises(TransferError, match="A are out of order at run a"):
        found([run("b"), run("a")], [])
    with pytest.raises(TransferError, match="B are out of order"):
        found([], [run("b"), run("b")])


def test_it_reads_no_further_than_it_yields():
    read = []

    def side(ids):
        for run_id in ids:
            read.append(run_id)
            yield run(run_id)

    next(differences(side(["a", "b", "c"]), side(["x", "y"])))
    assert read == ["a", "x"]


def test_a_backend_that_is_not_built_on_ours():
    with pytest.raises(CapabilityError):
        list(ordered(object()))  # type: ignore[arg-type]


RECORDS = st.one_of(
    st.builds(lambda r, v: run(r, version=v), st.sampled_from("aéZ"), st.integers(1, 2)),
    st.builds(
        lambda r, n, v: NodeState(run_id=r, node_id=n, row_count=v), *[st.sampled_from("aéZ")] * 2, st.integers(1, 2)
    ),
    st.builds(
        lambda n, d, e: CompletedInterval(n, DAY + timedelta(d), DAY + timedelta(d + e), "r"),
        st.sampled_from("aéZ"),
        st.integers(0, 2),
        st.integers(1, 2),
    ),
    st.builds(
        lambda n, p, r: PartitionState(node_id=n, partition=p, run_id=r, completed_at=DAY),
        *[st.sampled_from("aéZ")] * 3,
    ),
)
SIDES = st.lists(RECORDS, max_size=12).map(lambda each: {key_of(record): record for record in each})


@given(SIDES, SIDES)
def test_it_finds_what_dictionaries_find(a, b):
    result = found([a[key] for key in sorted(a)], [b[key] for key in sorted(b)], exact=True)
    by_place = {place: [each for each in result if each.found is place] for place in Found}
    assert len(by_place[Found.ONLY_IN_A]) == len(a.keys() - b.keys())
    assert len(by_place[Found.ONLY_IN_B]) == len(b.keys() - a.keys())
    assert len(by_place[Found.DIFFERS]) == sum(a[key] != b[key] for key in a.keys() & b.keys())


def test_a_store_is_read_in_order():
    store = MemoryStateBackend()
    for run_id in ("z", "é", "a"):
        store.create_run(run_id)
        for node_id in ("z", "é", "a"):
            store.set_node_state(run_id, node_id)
            store.add_completed_interval(run_id, node_id, DAY, DAY + timedelta(days=1))
            store.add_completed_partition(run_id, node_id, run_id)
    keys = [key_of(record) for record in ordered(store)]
    assert keys == sorted(keys)
    assert len(keys) == 3 + 9 + 3 + 9
    assert found(ordered(store), ordered(store), exact=True) == []
