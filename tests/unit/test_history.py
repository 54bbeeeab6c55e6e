"""Where nodes were written: the history in columns holds what a plain list of entries holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus
from seeknal.state.backend import create_state_backend
from seeknal.state.history import Columns, History

RUNS = ["a", "b", "c"]
NODES = ["m", "n"]
STATUSES = [NodeStatus.RUNNING, NodeStatus.SKIPPED, NodeStatus.SUCCESS]

writes = st.tuples(
    st.just("put"), st.sampled_from(RUNS), st.sampled_from(NODES), st.integers(1, 30), st.sampled_from(STATUSES)
)
drops = st.tuples(st.just("drop"), st.sampled_from(RUNS), st.sampled_from(NODES))
others = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(RUNS)),
    st.tuples(st.just("end"), st.sampled_from(RUNS)),
    st.tuples(st.just("reload")),
)


def reloaded(history, run_ids):
    again = History(run_ids)
    for node_id, columns in history.columns(run_ids).items():
        again.load(node_id, columns)
    return again


@given(st.lists(st.one_of(writes, drops, others), max_size=40), st.booleans())
def test_a_history_answers_as_a_list_of_all_entries_does(steps, is_known):
    history, entries, run_ids = History(), {}, []
    for name, *arguments in steps:
        if name == "begin" and arguments[0] not in run_ids:
            history.begin(arguments[0])
            run_ids.append(arguments[0])
        elif name == "end" and arguments[0] in run_ids:
            history.end(arguments[0])
            run_ids.remove(arguments[0])
            entries = {key: state for key, state in entries.items() if state.run_id != arguments[0]}
        elif name == "put" and arguments[0] in run_ids:
            run_id, node_id, sequence, status = arguments
            if any(state.sequence == sequence for state in entries.values()):
                continue
            state = NodeState(run_id=run_id, node_id=node_id, sequence=sequence, status=status)
            history.put(state, entries.get((run_id, node_id)))
            entries[run_id, node_id] = state
        elif name == "drop":
            history.drop(*arguments, entries.pop(tuple(arguments), None))
        elif name == "reload":
            history = reloaded(history, run_ids)
        for node_id in NODES:
            for status in (None, *STATUSES):
                found = [
                    state for state in entries.values() if state.node_id == node_id and status in (None, state.status)
                ]
                found.sort(key=lambda state: state.sequence, reverse=True)
                assert list(history.newest_first(node_id, status)) == [state.run_id for state in found]


def test_what_a_newer_file_says_does_not_mislead_it():
    history = History(["a", "b"])
    history.load("n", Columns(runs="0 1", sequences="3 4", statuses="rs"))
    history.put(NodeState(run_id="a", node_id="n", sequence=5), None)
    history.put(NodeState(run_id="b", node_id="n", sequence=6), NodeState(run_id="b", node_id="n", sequence=9))
    assert list(history.newest_first("n", None)) == ["b", "a"]
    history.drop("a", "n", None)
    assert list(history.newest_first("n", None)) == ["b"]


@pytest.mark.parametrize("columns", [("0", "1 2", "ss"), ("1", "1", "s"), ("-1", "1", "s"), ("x", "1", "s")])
def test_columns_that_contradict_themselves_are_refused(columns):
    runs, sequences, statuses = columns
    with pytest.raises((ValueError, OverflowError)):
        History(["a"]).load("n", Columns(runs=runs, sequences=sequences, statuses=statuses))


def test_the_newest_state_is_found_after_its_run_was_made_anew(tmp_path):
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        for run_id in ("r1", "r2"):
            backend.create_run(run_id)
            backend.set_node_state(run_id, "n", status="success")
        with backend._store.writing():
            backend._store.checkpoint()
        backend.delete_run("r2")
        backend.create_run("r2")
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        assert backend.get_latest_node_state("n").run_id == "r1"
