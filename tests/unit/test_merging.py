"""Two states become one only where no run is in both and the order of a node's states is certain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seeknal.errors import TransferError
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.merging import take_out
from seeknal.state.migration.moving import move
from seeknal.state.migration.planning import plan_move
from seeknal.state.migration.returning import swap_back, written_since
from seeknal.state.transfer import digest_of

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def day(number):
    return BEGIN + timedelta(days=number)


def fill(store, name, nodes, *, since):
    """Two runs; the second node of the first one is written last of all."""
    for nth in (1, 2):
        store.create_run(f"{name} {nth}", started_at=day(since), metadata={"of": name})
        for node in nodes:
            store.set_node_state(f"{name} {nth}", node, status="success", started_at=day(since), finished_at=day(since))
    store.set_node_state(f"{name} 1", nodes[-1], status="failed", finished_at=day(since + 1))
    for node in nodes:
        store.add_completed_interval(f"{name} 1", node, day(since), day(since + 1))
        store.add_completed_partition(f"{name} 1", node, f"of {name}")


@pytest.fixture
def source(target):
    with MemoryStateBackend() as store:
        fill(store, "ours", ["shared", "a"], since=20)
        store.add_completed_interval("ours 2", "shared", day(21), day(22))
        store.add_completed_interval("ours 1", "shared", day(22), day(23))
        store.add_completed_partition("ours 2", "shared", "both", row_count=2)
        store.expect_partitions("shared", ["x", "y"])
        yield store


@pytest.fixture
def target():
    with MemoryStateBackend() as store:
        fill(store, "theirs", ["shared", "b"], since=10)
        store.add_completed_partition("theirs 2", "shared", "both", row_count=1)
        store.expect_partitions("shared", ["w", "x"])
        yield store


def merged(source, target, **given):
    return move(source, target, **{"source_where": "here", "target_where": "there", "is_merge": True, **given})


def planned(source, target):
    return plan_move(source, target, target_where="there", is_merge=True).refused


def content(store):
    return digest_of(store), store.read_store()


@pytest.mark.parametrize("rows", [1, 3, 2000])
def test_both_states_are_there_and_the_newer_one_is_the_latest(source, target, rows):
    store_id = target.read_store().store_id
    assert planned(source, target) == []
    report = merged(source, target, batch_rows=rows)
    assert report.counts.runs == 2
    assert report.store_id == target.read_store().store_id == store_id
    assert target.list_runs() == ["theirs 1", "theirs 2", "ours 1", "ours 2"]
    assert target.get_latest_node_state("shared").run_id == "ours 2"
    assert target.get_latest_node_state("a").run_id == "ours 1"
    assert target.get_latest_node_state("b").run_id == "theirs 1"
    spans = [(span.start, span.end, span.run_id) for span in target.get_completed_intervals("shared")]
    assert spans == [(day(10), day(11), "theirs 1"), (day(20), day(23), "ours 1")]
    parts = [(span.start, span.end, span.run_id) for span in target.get_interval_provenance("shared")]
    assert parts == [spans[0], *((day(n), day(n + 1), f"ours {1 + n % 2}") for n in (20, 21, 22))]
    assert target.list_expected_partitions("shared") == ["w", "x", "y"]
    assert [(each.partition, each.row_count) for each in target.list_partitions("shared")] == [
        ("both", 2),
        ("of ours", None),
        ("of theirs", None),
    ]
    assert source.read_store().superseded_by == "there"
    target.create_run("next")
    assert target.list_runs()[-1] == "next"
    assert target.set_node_state("theirs 1", "a", status="success").run_id == "theirs 1"
    assert target.get_latest_node_state("a").run_id == "theirs 1"


@pytest.mark.parametrize("rows", [1, 2000])
def test_an_error_takes_out_what_was_added_and_nothing_else(source, target, rows):
    before = content(source), content(target)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merged(source, target, batch_rows=rows, before_switch=fail)
    assert (content(source), content(target)) == before
    target.create_run("goes on")


def refused(source, target, match):
    before = content(source), content(target)
    assert any(match in reason for reason in planned(source, target))
    with pytest.raises(TransferError, match=match):
        merged(source, target)
    assert (content(source), content(target)) == before


def test_a_run_that_both_have_refuses(source, target):
    source.create_run("theirs 2")
    refused(source, target, "both stores have a run 'theirs 2'")


def test_a_node_whose_order_is_not_certain_refuses(source, target):
    target.set_node_state("theirs 2", "a", status="success", finished_at=day(30))
    refused(source, target, "'a', and the target's are not all older")


def test_a_node_without_times_refuses(source, target):
    target.set_node_state("theirs 2", "a", status="pending")
    refused(source, target, "not all older")


def test_a_copy_of_the_source_is_no_place_to_merge_into(source, target):
    with MemoryStateBackend() as copy:
        move(source, copy, source_where="here", target_where="there")
        source.write_successor(source.read_store().store_id, None)
        refused(source, copy, "a copy of the source")


def test_a_store_whose_state_moved_away_is_no_place_to_merge_into(source, target):
    target.write_successor(target.read_store().store_id, "elsewhere")
    refused(source, target, "superseded")


class Killed(BaseException):
    """Stands for a kill: what would put things back does not run."""


@pytest.mark.parametrize("after", range(7))
def test_a_merge_that_was_killed_goes_on(source, target, after, monkeypatch):
    with MemoryStateBackend() as whole:
        fill(whole, "theirs", ["shared", "b"], since=10)
        commit, number = target.commit, iter(range(99))

        def commit_some(batch):
            if next(number) == after:
                monkeypatch.setattr("seeknal.state.migration.moving.put_back", lambda *_: None)
                raise Killed
            return commit(batch)

        monkeypatch.setattr(target, "commit", commit_some)
        with pytest.raises(Killed):
            merged(source, target, batch_rows=1)
    monkeypatch.undo()
    assert planned(source, target) == []
    merged(source, target, batch_rows=1)
    assert target.list_runs() == ["theirs 1", "theirs 2", "ours 1", "ours 2"]
    assert target.get_latest_node_state("a").run_id == "ours 1"
    assert target.get_latest_node_state("shared").run_id == "ours 2"
    assert target.read_store().superseded_by is None


def test_going_back_after_a_merge_leaves_the_other_state_alone(source, target):
    before = digest_of(source)
    merged(source, target)
    assert written_since(target, source, digest=None, is_merge=True) == []
    target.create_run("theirs 3")
    target.set_node_state("ours 1", "a", row_count=7)
    assert written_since(target, source, digest=None, is_merge=True) == ["ours 1"]
    swap_back(target, source, new_where="there", old_where="here", is_merge=True, on_switch=lambda: None)
    assert digest_of(source) == before
    source.create_run("goes on")
    target.create_run("goes on")


def test_a_merge_that_was_killed_right_at_its_end_goes_on(source, target, monkeypatch):
    def kill(_):
        monkeypatch.setattr("seeknal.state.migration.moving.put_back", lambda *_: None)
        raise Killed

    monkeypatch.setattr("seeknal.state.migration.ends.Filling.open", kill)
    with pytest.raises(Killed):
        merged(source, target)
    monkeypatch.undo()
    assert source.read_store().superseded_by == "there"
    assert planned(source, target) == []
    merged(source, target)
    assert target.list_runs() == ["theirs 1", "theirs 2", "ours 1", "ours 2"]
    assert target.read_store().superseded_by is None


def test_what_a_killed_merge_left_is_taken_out_again(source, target, monkeypatch):
    before, store_id = target.list_runs(), target.read_store().store_id
    commit, number = target.commit, iter(range(99))

    def commit_some(batch):
        if next(number) == 3:
            monkeypatch.setattr("seeknal.state.migration.moving.put_back", lambda *_: None)
            raise Killed
        return commit(batch)

    monkeypatch.setattr(target, "commit", commit_some)
    with pytest.raises(Killed):
        merged(source, target, batch_rows=1)
    monkeypatch.undo()
    with pytest.raises(TransferError, match="not being filled from elsewhere"):
        take_out(source, target, source_where="elsewhere")
    take_out(source, target, source_where="here")
    assert target.list_runs() == before
    assert (target.read_store().store_id, target.read_store().superseded_by) == (store_id, None)
    target.create_run("goes on")
