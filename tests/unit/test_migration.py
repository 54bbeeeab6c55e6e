"""A move between stores loses nothing, and a refused one changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from seeknal.errors import ConcurrencyError, LockHeldError, MoveInProgressError, SupersededError, TransferError
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.ends import KEY, Filling, Leaving
from seeknal.state.migration.moving import move
from seeknal.state.migration.planning import plan_move
from seeknal.state.migration.returning import swap_back
from seeknal.state.transfer import digest_of


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
        store.add_completed_interval("b", "n1", day(5), day(6))
        store.add_completed_partition("a", "n9", "p")
        store.expect_partitions("n9", ["p", "q"])
        store.expect_partitions("n8", ["x"])
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


def moved(source, target, **given):
    return move(source, target, **{"source_where": "here", "target_where": "there", **given})


def planned(source, target):
    return plan_move(source, target, target_where="there")


def content(store):
    return digest_of(store), store.read_store()


@pytest.mark.parametrize("rows", [1, 2, 5, 2000])
def test_everything_arrives(source, target, rows):
    before, store_id = digest_of(source), source.read_store().store_id
    plan = planned(source, target)
    report = moved(source, target, batch_rows=rows)
    assert plan.refused == []
    assert report.counts == plan.counts
    assert report.bytes == plan.bytes > 1000
    assert plan.seconds > 0
    assert (plan.counts.runs, plan.counts.node_states, plan.counts.intervals, plan.counts.partitions) == (3, 9, 3, 1)
    assert digest_of(target) == before == report.digest
    assert target.read_store().store_id == store_id
    assert target.get_latest_node_state("n1").run_id == "b"
    with pytest.raises(SupersededError, match="there"):
        source.create_run("late")
    target.create_run("next")
    assert target.list_runs()[-1] == "next"
    assert source.list_locks() == target.list_locks() == []


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_held_lock_of_either_end_refuses(source, target, end):
    {"source": source, "target": target}[end].acquire_lock("b")
    before = content(source), content(target)
    plan = planned(source, target)
    assert plan.is_held
    assert "held by" in plan.refused[0]
    with pytest.raises(LockHeldError):
        moved(source, target)
    assert (content(source), content(target)) == before


def test_a_target_with_another_state_refuses(source, target):
    target.create_run("mine")
    before = content(source), content(target)
    assert planned(source, target).refused
    with pytest.raises(TransferError, match="another state"):
        moved(source, target)
    assert (content(source), content(target)) == before
    target.create_run("goes on")
    source.create_run("goes on")


@pytest.mark.parametrize("at", ["copying", "verifying", "before the switch", "at the switch"])
def test_an_error_leaves_both_sides_as_they_were(source, target, at, monkeypatch):
    monkeypatch.setattr("seeknal.state.migration.copying.STEP_RECORDS", 1)
    before = content(source), content(target)

    def fail(*where):
        if (where[:1] == (at,) and where[1] > 4) or not where:
            raise KeyboardInterrupt

    given = {"before the switch": {"before_switch": fail}, "at the switch": {"on_switch": lambda _: fail()}}
    with pytest.raises(KeyboardInterrupt):
        moved(source, target, batch_rows=4, **given.get(at, {"on_progress": fail}))
    assert (content(source), content(target)) == before
    source.create_run("goes on")
    target.create_run("goes on")


def test_nobody_writes_to_either_end_meanwhile(source, target, monkeypatch):
    monkeypatch.setattr("seeknal.state.migration.copying.STEP_RECORDS", 1)
    refused = []

    def try_to_write(stage, *_):
        for store, other in ((source, "there"), (target, "here")):
            for write in (
                lambda store=store: store.create_run("late"),
                lambda store=store: store.add_completed_partition("a", "n1", "p"),
                lambda store=store: store.acquire_lock("a"),
            ):
                with pytest.raises(MoveInProgressError, match=f"{other}, since .* by process"):
                    write()
                refused.append(stage)

    before = digest_of(source)
    moved(source, target, on_progress=try_to_write)
    assert {"copying", "verifying"} == set(refused)
    assert digest_of(target) == before


def test_two_moves_at_once_do_not_happen(source, target, monkeypatch):
    monkeypatch.setattr("seeknal.state.migration.moving.TTL_MS", 300)
    with MemoryStateBackend() as third, MemoryStateBackend(store=source.store) as again:

        def second():
            with pytest.raises(LockHeldError):
                moved(again, third, target_where="a third")
            with pytest.raises(LockHeldError):
                moved(third, MemoryStateBackend(store=target.store), target_where="there")

        moved(source, target, before_switch=second)
        assert source.read_store().superseded_by == "there"
        assert third.list_runs() == []


def test_a_run_that_begins_in_the_last_moment_refuses_the_move(source, target, monkeypatch):
    write = source.write_successor

    def begin_first(store_id, successor, **given):
        if successor:
            monkeypatch.undo()
            source.acquire_lock("late")
        write(store_id, successor, **given)

    monkeypatch.setattr(source, "write_successor", begin_first)
    with pytest.raises(LockHeldError, match="late"):
        moved(source, target)
    assert source.read_store().superseded_by is None
    source.release_lock("late")
    moved(source, target)


def test_what_is_written_to_an_empty_target_in_the_last_moment_is_not_taken_away(source, target, monkeypatch):
    write = target.write_successor

    def write_first(store_id, successor, **given):
        if successor:
            monkeypatch.undo()
            target.create_run("mine")
        write(store_id, successor, **given)

    before = content(source)
    monkeypatch.setattr(target, "write_successor", write_first)
    with pytest.raises(TransferError, match="another state"):
        moved(source, target)
    assert target.list_runs() == ["mine"]
    assert content(source) == before
    target.create_run("goes on")


def test_after_a_rollback_what_differs_is_replaced(source, target):
    moved(source, target)
    store_id = source.read_store().store_id
    target.create_run("given up")
    target.set_node_state("a", "n2", row_count=99)
    target.delete_run("b")
    target.create_run("b")
    target.restate_intervals("n1", day(1), day(9))
    target.add_completed_interval("a", "n5", day(1), day(2))
    target.add_completed_partition("a", "n2", "p", row_count=2)
    target.add_completed_partition("a", "n2", "q")
    target.write_successor(store_id, "back")
    source.write_successor(store_id, None)
    source.create_run("new")
    source.set_node_state("new", "n1", status="failed")
    source.delete_node_state("a", "n1")
    source.update_run("é/../x", metadata={"changed": True})
    before, theirs = digest_of(source), digest_of(target)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moved(source, target, batch_rows=2, before_switch=fail)
    assert digest_of(target) == theirs
    assert target.read_store().superseded_by == "back"
    moved(source, target, batch_rows=2)
    assert digest_of(target) == before


def test_a_current_copy_that_was_written_since_is_not_taken_away(source, target):
    moved(source, target)
    source.write_successor(source.read_store().store_id, None)
    target.create_run("written here")
    assert "differs there" in planned(source, target).refused[0]
    with pytest.raises(TransferError, match="differs there"):
        moved(source, target)
    assert "written here" in target.list_runs()


class Killed(BaseException):
    """Stands for a kill: what would put things back does not run."""


@pytest.mark.parametrize("after", [0, 1, 3, 5, "the copy", "the source was left", "the target was opened"])
def test_a_move_that_was_killed_goes_on(source, target, after, monkeypatch):
    before, store_id = digest_of(source), source.read_store().store_id
    commit, written, number = target.commit, source.write_successor, iter(range(99))

    def killed(*_):
        monkeypatch.setattr("seeknal.state.migration.moving.put_back", lambda *_: None)
        raise Killed

    def commit_some(batch):
        return killed() if next(number) == after else commit(batch)

    def leave(an_id, successor, **given):
        written(an_id, successor, **given)
        if successor == "there":
            killed()

    if after == "the source was left":
        monkeypatch.setattr(source, "write_successor", leave)
    given = {"the copy": {"before_switch": killed}, "the target was opened": {"on_switch": killed}}.get(after, {})
    monkeypatch.setattr(target, "commit", commit_some)
    with pytest.raises(Killed):
        moved(source, target, batch_rows=2, **given)
    monkeypatch.undo()
    with pytest.raises(SupersededError):
        source.create_run("late")
    assert planned(source, target).refused == []
    moved(source, target, batch_rows=3)
    assert digest_of(target) == before
    assert (target.read_store().store_id, target.read_store().superseded_by) == (store_id, None)
    assert source.read_store().superseded_by == "there"


def test_a_move_that_was_taken_for_dead_cannot_write_when_it_wakes_up(source, target, monkeypatch):
    """The first one freezes after its first commit; a second one takes over and comes to its end."""
    commit = target.commit
    other_source, other_target = MemoryStateBackend(store=source.store), MemoryStateBackend(store=target.store)

    def freeze(batch):
        given = commit(batch)
        monkeypatch.undo()
        for store in (other_source, other_target):
            store.break_lock(KEY, reason="its lease ran out")
        moved(other_source, other_target)
        other_target.create_run("written to the new store")
        return given

    monkeypatch.setattr(target, "commit", freeze)
    with pytest.raises(ConcurrencyError, match="another command"):
        moved(source, target, batch_rows=2)
    assert source.read_store().superseded_by == "there"
    assert target.read_store().superseded_by is None
    assert target.list_runs() == ["b", "a", "é/../x", "written to the new store"]


def test_the_log_and_the_tokens_of_locks_go_along_and_come_back(source, target):
    for _ in range(3):
        with source.lock("a", "n1") as lease:
            pass
    source.log_change("unlock", run_id="a", reason="by hand")
    moved(source, target)
    assert [change.action for change in target.list_changes()] == ["unlock", "migrate"]
    assert target.list_changes()[-1].detail["from"] == "here"
    with target.lock("a", "n1") as next_one:
        assert next_one.token == lease.token + 1
    swap_back(target, source, new_where="there", old_where="here", on_switch=lambda: None)
    assert [change.action for change in source.list_changes()] == ["unlock", "migrate", "rollback"]
    assert [change.reason for change in source.list_changes()][1:] == ["from here to there", "from there to here"]
    with source.lock("a", "n1") as last:
        assert last.token == next_one.token + 1


def test_a_move_that_ends_while_another_waits_for_it_is_not_undone_by_that(source, target, monkeypatch):
    """The second one has looked at the source before the first one left it."""
    other = MemoryStateBackend()
    again = MemoryStateBackend(store=source.store)

    def end_the_first(store):
        monkeypatch.undo()
        moved(source, target)

    monkeypatch.setattr("seeknal.state.migration.moving.wait_for_dead_move", end_the_first)
    with pytest.raises(TransferError, match="moved to there"):
        moved(again, other, target_where="elsewhere")
    assert source.read_store().superseded_by == "there"
    assert other.list_runs() == []


@pytest.mark.parametrize("step", ["leave", "open"])
def test_a_frozen_move_neither_leaves_nor_opens_nor_undoes_what_its_successor_did(source, target, step, monkeypatch):
    ends = {"leave": Leaving, "open": Filling}[step]
    real = getattr(ends, step)
    other = MemoryStateBackend()
    again, target_again = MemoryStateBackend(store=source.store), MemoryStateBackend(store=target.store)

    def freeze(end, *given):
        monkeypatch.undo()
        for store in (again, target_again):
            store.break_lock(KEY, reason="taken for dead")
        if step == "leave":
            moved(again, other, target_where="elsewhere")
            other.create_run("written to the new store")
        else:
            moved(again, target_again)
            target_again.create_run("written to the new store")
        return real(end, *given)

    monkeypatch.setattr(ends, step, freeze)
    with pytest.raises((ConcurrencyError, SupersededError)):
        moved(source, target)
    assert source.read_store().superseded_by == ("elsewhere" if step == "leave" else "there")
    new = other if step == "leave" else target
    assert new.read_store().superseded_by is None
    assert new.list_runs() == ["b", "a", "é/../x", "written to the new store"]


@pytest.mark.parametrize("mark", [None, "elsewhere", "being moved to there, by somebody"])
def test_a_mark_is_set_only_where_the_expected_one_stands(mark):
    with MemoryStateBackend() as store:
        store_id = store.read_store().store_id
        store.write_successor(store_id, mark)
        with pytest.raises((ConcurrencyError, SupersededError)):
            store.write_successor("another", "mine", expected="what stood there before")
        assert (store.read_store().store_id, store.read_store().superseded_by) == (store_id, mark)
        store.write_successor("another", "mine", expected=mark)
        assert (store.read_store().store_id, store.read_store().superseded_by) == ("another", "mine")
