"""A backup holds a state that existed, and a restore puts it in the place of another one in one step."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from tests.conftest import KINDS
from tests.processes import PROCESSES

from seeknal.errors import (
    CapabilityError,
    ConcurrencyError,
    LeaseLostError,
    LockHeldError,
    MoveInProgressError,
    SeeknalError,
    SupersededError,
    TransferError,
)
from seeknal.state.backend import RecordStateBackend, create_state_backend
from seeknal.state.backup import restoring
from seeknal.state.backup.generations import PAYLOAD, find, generations
from seeknal.state.backup.making import back_up
from seeknal.state.backup.restoring import plan_restore, restore
from seeknal.state.backup.verifying import verify
from seeknal.state.batch import Batch
from seeknal.state.dump import writing
from seeknal.state.dump.importing import plan_import
from seeknal.state.dump.reading import dump_file
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.ends import KEY
from seeknal.state.transfer import digest_of

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
ENOUGH = 5
"""After how many more commits a writer counts as busy."""


@pytest.fixture(params=["file", "sqlite", *KINDS])
def place(request, tmp_path, shared_store):
    """Return the kind and the options of a new store."""
    if request.param == "file":
        return "file", {"base_path": tmp_path / "target"}
    if request.param == "sqlite":
        return "database", {"db_path": tmp_path / "state.db"}
    return "database", dict(shared_store(request.param).options)


@pytest.fixture
def store(place):
    kind, options = place
    with create_state_backend(kind, **options) as opened:
        opened.initialize()
        yield opened


def fill(store):
    for run in ("b", "a", "é/../x"):
        store.create_run(run, config={"k": run})
        for node in ("n1", "N1", "é"):
            store.set_node_state(run, node, status="success", row_count=3, metadata={"nul": "a\0b"})
    store.add_completed_interval("b", "n1", FIRST, FIRST + timedelta(days=1))
    store.add_completed_interval("b", "n1", FIRST + timedelta(days=3), FIRST + timedelta(days=4))
    store.add_completed_interval("a", "n1", FIRST + timedelta(days=4), FIRST + timedelta(days=5))
    store.add_completed_partition("a", "n1", "p", row_count=1)
    store.expect_partitions("n1", ["p", "q"])


def spoil(store):
    store.delete_run("a")
    store.set_node_state("b", "n1", status="failed", row_count=9)
    store.create_run("later")
    store.set_node_state("later", "n1", status="success")
    store.add_completed_interval("b", "n1", FIRST + timedelta(days=1), FIRST + timedelta(days=3))
    store.add_completed_partition("b", "n2", "q")
    store.drop_expected_partitions("n1", ["q"])
    store.expect_partitions("n3", ["r"])


# ---- a state that existed ----


def write(kind, options, name, counted, end):
    """Raise two nodes of a run of one's own together, each time with a partition of that number."""

    def once():
        states = store.get_all_node_states(name)
        left, right = states["left"].row_count, states["right"].row_count
        assert left == right, f"{name} saw {left} and {right} at once"
        store.set_node_state(name, "left", row_count=left + 1)
        store.set_node_state(name, "right", row_count=left + 1)
        store.add_completed_partition(name, name, str(left + 1))

    with create_state_backend(kind, **options) as store:
        store.initialize()
        while not end.is_set():
            store.run_transaction(once, timeout_ms=30_000)
            with counted.get_lock():
                counted.value += 1


class Writers:
    """Three processes that write to a store all the time."""

    def __init__(self, store, place):
        self.end = PROCESSES.Event()
        self.counts = [PROCESSES.Value("i", 0) for _ in range(3)]
        self.names = [f"writer {number}" for number in range(3)]
        for name in self.names:
            store.create_run(name)
            for node in ("left", "right"):
                store.set_node_state(name, node, row_count=0)
        self.processes = [
            PROCESSES.Process(target=write, args=(*place, name, count, self.end))
            for name, count in zip(self.names, self.counts, strict=True)
        ]

    def __enter__(self):
        for process in self.processes:
            process.start()
        self.wait_until_busy()
        return self

    def __exit__(self, *_):
        self.end.set()
        for process in self.processes:
            process.join(60)

    def wait_until_busy(self):
        """Return when each has committed some more."""
        before = [count.value for count in self.counts]
        waiting = threading.Event()
        while any(now.value < then + ENOUGH for now, then in zip(self.counts, before, strict=True)):
            assert all(process.is_alive() for process in self.processes)
            waiting.wait(0.01)

    def check(self, store):
        """Raise unless every transaction that a store holds is there whole, and none is missing before it."""
        for name in self.names:
            left, right = (store.get_node_state(name, node).row_count for node in ("left", "right"))
            assert left == right
            assert {each.partition for each in store.list_partitions(name)} == set(map(str, range(1, left + 1)))


def test_a_backup_that_is_made_while_three_processes_write_holds_their_transactions_whole(place, store, tmp_path):
    with Writers(store, place) as writers:
        made = back_up(store, tmp_path / "backups", kind="any")
        writers.wait_until_busy()
    assert [process.exitcode for process in writers.processes] == [0, 0, 0]
    manifest, _ = verify(made.path)
    assert manifest.store_id == store.read_store().store_id
    with MemoryStateBackend() as other:
        assert restore(other, made, kind="memory").state_sha256 == manifest.state_sha256 == digest_of(other)
        writers.check(other)
        assert all(other.get_node_state(name, "left").row_count >= ENOUGH for name in writers.names)


def test_writers_go_on_from_what_a_restore_put_there_and_write_nothing_of_before(place, store, tmp_path):
    with Writers(store, place) as writers:
        made = back_up(store, tmp_path / "backups", kind="any")
        writers.wait_until_busy()
        for _ in range(2):
            restore(store, made, kind="any")
            writers.wait_until_busy()
    assert [process.exitcode for process in writers.processes] == [0, 0, 0]
    writers.check(store)


def test_a_restore_loses_nothing_that_somebody_was_told_of(place, store, tmp_path):
    """Whatever was written before the swap is in the backup that undoes it, and all the rest in the store."""
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    kind, options = place
    told, refused = [], []
    busy, end = threading.Event(), threading.Event()

    def write_all_the_time():
        with create_state_backend(kind, **options) as other:
            other.initialize()
            while not end.is_set():
                try:
                    told.append(other.create_run(f"told {len(told)}").run_id)
                    busy.set()
                except MoveInProgressError as error:
                    refused.append(error)

    writer = threading.Thread(target=write_all_the_time)
    writer.start()
    try:
        assert busy.wait(30)
        undo = restore(store, made, kind="any", undo_in=tmp_path / "b").undo
    finally:
        end.set()
        writer.join()
    with MemoryStateBackend() as before:
        restore(before, find(tmp_path / "b", undo), kind="memory")
        assert set(told) <= {*before.list_runs(), *store.list_runs()}
    assert all(error.retriable for error in refused)


def test_who_writes_while_a_restore_backs_up_what_it_replaces_is_told_to_wait(place, store, tmp_path, monkeypatch):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    kind, options = place

    def back_up_late(*given, **options_given):
        undo = back_up(*given, **options_given)
        assert [lock.run_id for lock in store.list_locks()] == ["seeknal move, import or restore"]
        with create_state_backend(kind, **options) as other:
            other.initialize()
            with pytest.raises(MoveInProgressError, match=f"being restored from backup {made.name}"):
                other.create_run("late")
            with pytest.raises(MoveInProgressError):
                other.acquire_lock("late")
            assert other.get_node_state("b", "n1").row_count == 3
        return undo

    monkeypatch.setattr(restoring, "back_up", back_up_late)
    restore(store, made, kind="any", undo_in=tmp_path / "b")
    store.create_run("afterwards")


def test_a_restore_that_fails_lets_everybody_write_again(store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    (tmp_path / "file").write_text("")
    with pytest.raises(TransferError):
        restore(store, made, kind="any", undo_in=tmp_path / "file" / "b")
    assert store.read_store().superseded_by is None
    store.create_run("goes on")


def test_a_restore_that_was_frozen_and_taken_for_dead_swaps_nothing(place, store, tmp_path, monkeypatch):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    kind, options = place

    def freeze(*given, **options_given):
        undo = back_up(*given, **options_given)
        monkeypatch.undo()
        with create_state_backend(kind, **options) as other:
            other.initialize()
            other.break_lock(KEY, reason="it is taken for dead")
            restore(other, made, kind="any")
            other.create_run("written since")
        return undo

    monkeypatch.setattr(restoring, "back_up", freeze)
    with pytest.raises(SeeknalError):
        restore(store, made, kind="any", undo_in=tmp_path / "b")
    assert store.get_run("written since") is not None
    assert store.read_store().superseded_by is None


def test_a_snapshot_stays_what_it_was_and_keeps_no_writer_waiting(place, store):
    fill(store)
    before = digest_of(store)
    kind, options = place
    with store.snapshot() as frozen, create_state_backend(kind, **options, busy_timeout_ms=2000) as other:
        other.initialize()
        spoil(other)
        assert digest_of(frozen) == before != digest_of(store)
        with store.snapshot() as later:
            assert digest_of(later) == digest_of(other)
        assert digest_of(frozen) == before


def test_a_backup_and_an_export_hold_the_log_of_the_same_instant(place, store, tmp_path, monkeypatch):
    fill(store)
    store.log_change("before")
    kind, options = place
    surveyed = writing._surveyed
    with create_state_backend(kind, **options) as other:
        other.initialize()

        def log_in_the_middle(*given):
            found = surveyed(*given)
            other.log_change("meanwhile")
            return found

        monkeypatch.setattr(writing, "_surveyed", log_in_the_middle)
        made = back_up(store, tmp_path / "b", kind="any")
        writing.export_to_file(store, tmp_path / "state.jsonl")
        with (tmp_path / "pipe.jsonl").open("wb") as pipe:
            writing.export_to_stream(store, pipe)
    assert [change.action for change in store.list_changes()] == ["before", *["meanwhile"] * 3]
    for path, actions in ((made.path / PAYLOAD, 1), (tmp_path / "state.jsonl", 2), (tmp_path / "pipe.jsonl", 3)):
        with dump_file(path) as dump:
            assert len(plan_import(dump, None).changes) == actions


# ---- there and back ----


def test_a_restored_store_holds_what_was_backed_up_and_can_be_brought_back_again(store, tmp_path):
    fill(store)
    before = digest_of(store)
    identity = store.read_store().store_id
    made = back_up(store, tmp_path / "b", kind="any")
    spoil(store)
    spoilt = digest_of(store)
    report = restore(store, made, kind="any", undo_in=tmp_path / "b")
    assert digest_of(store) == before == report.state_sha256
    assert store.get_run("later") is None
    assert store.get_latest_node_state("n1").run_id == "é/../x"
    assert store.read_store().store_id == identity
    undo = find(tmp_path / "b", report.undo)
    assert find(tmp_path / "b", "latest").name == made.name, "a backup for undoing is not the latest that was made"
    restore(store, undo, kind="any")
    assert digest_of(store) == spoilt
    assert [each.action for each in store.list_changes()].count("restore") == 2


def test_another_instance_sees_a_restored_state_and_works_with_it(place, store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    kind, options = place
    with create_state_backend(kind, **options) as other:
        other.initialize()
        spoil(other)
        restore(store, made, kind="any")
        assert other.list_runs() == ["b", "a", "é/../x"]
        assert other.get_node_state("b", "n1").row_count == 3
        assert len(other.get_completed_intervals("n1")) == 2
        other.create_run("next")
        other.set_node_state("next", "n1", status="success")
        assert store.list_runs() == ["b", "a", "é/../x", "next"]
        assert store.get_latest_node_state("n1").run_id == "next"


def test_no_sequence_that_a_server_or_a_file_gave_out_comes_back(place, store, tmp_path):
    if "db_path" in place[1]:
        pytest.skip("SQLite counts on from what it holds")
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    spoil(store)
    last = store.get_node_state("later", "n1").sequence
    restore(store, made, kind="any")
    store.create_run("again")
    store.set_node_state("again", "n1")
    assert store.get_node_state("again", "n1").sequence > last


def test_a_transaction_that_read_what_a_restore_replaced_is_refused(place, store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    spoil(store)
    kind, options = place
    with create_state_backend(kind, **options) as other:
        other.initialize()
        with pytest.raises(ConcurrencyError), other.transaction():
            rows = other.get_node_state("b", "n1").row_count
            restore(store, made, kind="any")
            other.set_node_state("b", "n1", row_count=rows + 1)
        assert other.get_node_state("b", "n1").row_count == 3


def test_a_backup_of_any_store_is_restored_into_a_new_one_of_another_kind(store, tmp_path):
    with create_state_backend("file", base_path=tmp_path / "other") as other:
        other.initialize()
        fill(other)
        made = back_up(other, tmp_path / "b", kind="file")
        report = restore(store, made, kind="any", undo_in=tmp_path / "b")
        assert digest_of(store) == digest_of(other)
        assert report.undo is None, "there was nothing to undo"
        assert store.read_store().store_id == other.read_store().store_id
    store.create_run("next")
    assert store.list_runs()[-1] == "next"
    assert restore(store, made, kind="any").store_id == made.manifest.store_id


def test_tokens_and_locks_outlive_a_restore(store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    with store.lock("b") as lease:
        token = lease.token
    restore(store, made, kind="any")
    with store.lock("b") as lease:
        assert lease.token == token + 1
        with pytest.raises(LockHeldError):
            restore(store, made, kind="any")


# ---- what is refused ----


def test_a_restore_under_a_held_lock_is_refused_and_changes_nothing(store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    spoil(store)
    before = digest_of(store)
    with store.lock("b", "n1"):
        assert plan_restore(store, made).is_held
        with pytest.raises(LockHeldError):
            restore(store, made, kind="any", undo_in=tmp_path / "b")
    assert digest_of(store) == before
    assert len(generations(tmp_path / "b")) == 1


def test_a_lock_that_is_taken_in_the_middle_keeps_the_old_content(store):
    fill(store)
    before = digest_of(store)
    with store.lock("the restore") as lease, store.replacing("me") as side:
        side.put(Batch())
        with store.lock("b"), pytest.raises(LockHeldError):
            side.swap(Batch(leases=[lease]), store.read_store().store_id)
    assert digest_of(store) == before


def test_a_restore_whose_lease_was_lost_replaces_nothing(store):
    fill(store)
    before = digest_of(store)
    with store.lock("the restore") as lease, store.replacing("me") as side:
        store.break_lock("the restore", reason="it is taken for dead")
        with pytest.raises(LeaseLostError):
            side.swap(Batch(leases=[lease]), store.read_store().store_id)
    assert digest_of(store) == before


def test_a_store_whose_state_moved_away_is_not_restored(store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    store.write_successor(store.read_store().store_id, "elsewhere")
    with pytest.raises(SupersededError):
        restore(store, made, kind="any")


def test_who_was_taken_for_dead_cannot_write_into_the_side_store_of_the_next(place, store):
    if place[0] == "file":
        pytest.skip("each of them writes to a file of its own")
    fill(store)
    with store.snapshot() as frozen:
        batch = Batch(runs=list(frozen.scan_runs()))
    with store.replacing("the first") as first, store.replacing("the second") as second:
        with pytest.raises(SeeknalError):
            first.put(batch)
        assert list(second.records()) == []


def test_a_backup_of_another_store_needs_to_be_forced(store, tmp_path):
    fill(store)
    identity = store.read_store().store_id
    with create_state_backend("file", base_path=tmp_path / "other") as other:
        other.initialize()
        other.create_run("theirs")
        made = back_up(other, tmp_path / "b", kind="file")
    [refused] = plan_restore(store, made).refused
    assert "another store" in refused
    with pytest.raises(TransferError, match="another store"):
        restore(store, made, kind="any")
    restore(store, made, kind="any", is_forced=True)
    assert store.list_runs() == ["theirs"]
    assert store.read_store().store_id == identity


def test_a_plan_counts_what_would_be_lost(store, tmp_path):
    fill(store)
    made = back_up(store, tmp_path / "b", kind="any")
    spoil(store)
    plan = plan_restore(store, made)
    assert (plan.lost_runs, plan.changed_runs, plan.returning_runs) == (1, 1, 1)
    assert (plan.counts.runs, plan.counts.node_states, plan.counts.intervals, plan.counts.partitions) == (3, 9, 2, 1)
    assert (plan.present.runs, plan.present.node_states, plan.present.partitions) == (3, 7, 2)
    assert plan.refused == []


def test_a_store_of_somebody_else_is_backed_up_by_reading_it_twice_and_cannot_be_restored_into(tmp_path):
    class Foreign(MemoryStateBackend):
        snapshot = RecordStateBackend.snapshot
        replacing = RecordStateBackend.replacing

    with Foreign() as foreign:
        fill(foreign)
        made = back_up(foreign, tmp_path / "b", kind="foreign")
        with pytest.raises(CapabilityError) as refused:
            restore(foreign, made, kind="foreign")
        assert "import" in refused.value.hint
        with dump_file(made.path / PAYLOAD) as dump:
            assert len(list(dump.reading())) == made.manifest.counts.total
