"""A move between stores loses nothing, and a refused one changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from seeknal.errors import LockHeldError, SupersededError, TransferError
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.transfer import digest_of, plan_transfer, transfer


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


@pytest.fixture
def source():
    with MemoryStateBackend() as store:
        for run in ("b", "a", "é/../x"):
            store.create_run(run, config={"k": run})
            for node in ("n1", "N1", "n2"):
                store.set_node_state(run, node, status="success", row_count=3, fingerprint="f")
        store.set_node_state("b", "n1", metadata={"late": True})
        store.add_completed_interval("b", "n1", day(1), day(2))
        store.add_completed_interval("a", "n1", day(4), day(5))
        store.add_completed_partition("a", "n9", "p")
        store.restate_partition("n9", "p")
        store.add_completed_partition("a", "n2", "p", row_count=1)
        store.update_run("a", status="success")
        store.create_run("gone")
        store.add_completed_interval("gone", "n3", day(1), day(3))
        store.delete_run("gone")
        yield store


@pytest.fixture
def target():
    with MemoryStateBackend() as store:
        yield store


@pytest.mark.parametrize("rows", [1, 2, 5, 2000])
def test_everything_arrives(source, target, rows):
    before, store_id = digest_of(source), source.read_store().store_id
    plan = plan_transfer(source, target)
    report = transfer(source, target, target_where="there", batch_rows=rows)
    assert plan.refused == []
    assert report.counts == plan.counts
    assert (plan.counts.runs, plan.counts.node_states, plan.counts.intervals, plan.counts.partitions) == (3, 9, 3, 1)
    assert digest_of(target) == before == report.digest
    assert target.read_store().store_id == store_id
    assert target.get_latest_node_state("n1").run_id == "b"
    with pytest.raises(SupersededError, match="there"):
        source.create_run("late")
    target.create_run("next")
    assert target.list_runs()[-1] == "next"


def test_a_held_lock_refuses(source, target):
    source.acquire_lock("b")
    assert "held by" in plan_transfer(source, target).refused[0]
    with pytest.raises(LockHeldError):
        transfer(source, target, target_where="there")
    assert target.list_runs() == []


def test_a_target_with_another_state_refuses(source, target):
    target.create_run("mine")
    assert plan_transfer(source, target).refused
    with pytest.raises(TransferError, match="another state"):
        transfer(source, target, target_where="there")
    assert target.list_runs() == ["mine"]


@pytest.mark.parametrize("batches", [1, 3])
def test_an_error_leaves_both_sides_as_they_were(source, target, batches):
    before, seen = digest_of(source), []

    def fail(counts):
        seen.append(counts)
        if len(seen) == batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(source, target, target_where="there", batch_rows=4, on_progress=fail)
    assert digest_of(source) == before
    assert digest_of(target) == digest_of(MemoryStateBackend())
    source.create_run("goes on")


def test_a_write_that_slips_in_is_found(source, target):
    def slip_in():
        source.create_run("late")

    with pytest.raises(TransferError, match="not equal"):
        transfer(source, target, target_where="there", before_switch=slip_in)
    assert target.list_runs() == []
    source.set_node_state("late", "n", status="success")


def test_after_a_rollback_only_what_is_new_is_copied(source, target):
    transfer(source, target, target_where="there")
    store_id = source.read_store().store_id
    target.write_successor(store_id, "back")
    source.write_successor(store_id, None)
    source.create_run("new")
    report = transfer(source, target, target_where="there")
    assert report.counts.runs == 1
    assert digest_of(source) == digest_of(target)


def test_a_copy_that_was_killed_goes_on(source, target, monkeypatch):
    monkeypatch.setattr("seeknal.state.transfer._Copied.remove_from", lambda *_: None)
    store_id = source.read_store().store_id

    def kill(counts):
        if counts.node_states > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(source, target, target_where="there", batch_rows=2, on_progress=kill)
    target.write_successor(store_id, None)
    transfer(source, target, target_where="there", batch_rows=2)
    assert digest_of(source) == digest_of(target)
