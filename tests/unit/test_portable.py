"""A state goes over to a store that is written through plain verbs, and back, and only its numbering changes."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from tests.unit.plain_backends import JsonBackend, custom

from seeknal.errors import (
    BackendUnavailableError,
    CapabilityError,
    LeaseLostError,
    LockHeldError,
    SupersededError,
    TransferError,
)
from seeknal.model.records import NodeState
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.ends import KEY
from seeknal.state.migration.portable import is_plain, move_portably, portable_view
from seeknal.state.migration.portable_order import WritingOrder
from seeknal.state.migration.portable_planning import cautions, plan_portably
from seeknal.state.migration.portable_reading import reading_of
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import digest_of, records

NODES = ("load", "Load", "größe 🚀", "../x")


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


def fill(store):
    for nth, run in enumerate(("b", "a", "é/../x", "pending")):
        store.create_run(run, "pending", config={"größe": nth}, metadata={"deep": ["\u2028", None, 0.5]})
        for node in NODES:
            store.set_node_state(run, node, status="success", row_count=2**62, fingerprint="f", metadata={"n": nth})
    store.set_node_state("a", "load", status="running")
    store.set_node_state("a", "Load", status="failed", error_message="Zeile 1\n'\x00", finished_at=None)
    store.set_node_state("b", "load", metadata={"written": "after a newer run was"})
    store.set_node_state("é/../x", "../x", status="skipped", duration_ms=5, attempt=3)
    store.add_completed_interval("b", "load", day(1), day(2))
    store.add_completed_interval("a", "load", day(4), day(5))
    store.add_completed_partition("a", "größe 🚀", "région=ü", row_count=7, metadata={"é": 1}, completed_at=day(3))
    store.add_completed_partition("a", "no state", "p", completed_at=day(9))
    store.create_run("gone")
    for first in (1, 4, 7):
        store.add_completed_interval("gone", "only work", day(first), day(first + 1))
        store.add_completed_partition("gone", "only work", f"p{first}", completed_at=day(first))
    store.delete_run("gone")
    store.update_run("b", status="success", started_at=day(1), finished_at=day(2))
    store.update_run("a", status="failed", finished_at=None)
    store.update_run("é/../x", status="running", started_at=None)


def content(store):
    """Return what every store can take over, and which state of each node is the newest."""
    found = list(records(portable_view(store)))
    nodes = sorted({state.node_id for run in store.list_runs() for state in store.get_all_node_states(run).values()})
    newest = [
        (node, status, store.get_latest_node_state(node, status)) for node in nodes for status in (None, "success")
    ]
    return found, [(node, status, state and state.run_id) for node, status, state in newest]


def moved(source, target, **given):
    return move_portably(source, target, **{"source_where": "here", "target_where": "there", **given})


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["dictionaries", "json"])
def plain(request, stack, tmp_path):
    made = custom.CustomBackend() if request.param == "dictionaries" else JsonBackend(tmp_path / "plain.json")
    return stack.enter_context(made)


@pytest.fixture
def source(stack):
    store = stack.enter_context(MemoryStateBackend())
    fill(store)
    return store


@pytest.fixture
def target(stack):
    return stack.enter_context(custom.CustomBackend())


@pytest.fixture(params=["memory", "file", "sqlite", "postgresql", "mysql", "libsql"])
def ours(request, stack, tmp_path, shared_store):
    if request.param == "memory":
        store = MemoryStateBackend()
    elif request.param == "file":
        store = create_state_backend("file", base_path=tmp_path / "target")
    elif request.param == "sqlite":
        store = create_state_backend("database", db_path=tmp_path / "state.db")
    else:
        store = create_state_backend("database", **shared_store(request.param).options)
    stack.enter_context(store).initialize()
    return store


@pytest.mark.parametrize("rows", [2, 2000])
def test_over_to_plain_verbs_and_back(ours, plain, rows):
    fill(ours)
    before, store_id = content(ours), ours.read_store().store_id
    report = moved(ours, plain, batch_rows=rows)
    assert content(plain) == before
    counts = report.counts
    assert (counts.runs, counts.node_states, counts.intervals, counts.partitions) == (4, 16, 5, 5)
    assert report.store_id == ""
    assert plain.list_locks() == []
    assert plain.get_latest_node_state("load").run_id == "b"
    with pytest.raises(SupersededError, match="there"):
        ours.create_run("late")
    plain.create_run("made there")
    plain.set_node_state("pending", "load", status="failed")
    changed, full, digest = content(plain), digest_of(reading_of(plain)), digest_of(portable_view(plain))
    report = move_portably(plain, ours, source_where="there", target_where="here", batch_rows=rows)
    assert content(ours) == changed
    assert (digest_of(ours), report.digest) == (full, digest)
    assert report.store_id == store_id
    assert ours.read_store().superseded_by is None
    assert [(each.action, each.detail["digest"]) for each in ours.list_changes()] == [("migrate", digest)]
    ours.create_run("goes on")


def test_between_two_stores_with_plain_verbs(source, plain, target):
    moved(source, target)
    before = content(target)
    moved(target, plain)
    assert content(plain) == before == content(source)


def test_what_a_json_file_holds_is_there_when_it_is_opened_again(source, tmp_path):
    with JsonBackend(tmp_path / "plain.json") as first:
        moved(source, first)
    with JsonBackend(tmp_path / "plain.json") as again:
        assert content(again) == content(source)


@pytest.mark.parametrize("at", ["copying", "verifying", "before the switch", "at the switch"])
def test_an_error_leaves_the_target_empty_and_the_source_open(source, target, at, monkeypatch):
    monkeypatch.setattr("seeknal.state.migration.copying.STEP_RECORDS", 1)
    before = content(source)

    def fail(*where):
        if (where[:1] == (at,) and where[1] > 27) or not where:
            raise KeyboardInterrupt

    given = {"before the switch": {"before_switch": fail}, "at the switch": {"on_switch": lambda _: fail()}}
    with pytest.raises(KeyboardInterrupt):
        moved(source, target, batch_rows=4, **given.get(at, {"on_progress": fail}))
    assert list(records(reading_of(target))) == []
    assert target.list_worked_nodes() == []
    assert content(source) == before
    source.create_run("goes on")
    target.create_run("goes on")


@pytest.mark.parametrize("at", ["before the switch", "at the switch"])
def test_an_error_leaves_a_target_of_records_empty_too(target, at, stack):
    store = stack.enter_context(MemoryStateBackend())
    fill(target)
    found = store.read_store()

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moved(target, store, **({"before_switch": fail} if at == "before the switch" else {"on_switch": fail}))
    assert (list(records(store)), store.read_store()) == ([], found)
    assert target.list_locks() == []


class Killed(BaseException):
    """Stands for a kill: what would put things back does not run."""


@pytest.fixture
def dies(monkeypatch):
    """Return what ends a move so that nothing of it is put back."""

    def die(*_):
        for module in ("moving", "portable"):
            monkeypatch.setattr(f"seeknal.state.migration.{module}.put_back", lambda *_: None)
        raise Killed

    return die


@pytest.mark.parametrize("after", [0, 1, 5, 10, 12, 17, "the copy", "all but the project"])
def test_a_move_to_plain_verbs_that_was_killed_is_begun_again(source, target, after, dies, monkeypatch):
    before, number = content(source), iter(range(99))
    transaction = target.transaction

    def some(lease=None):
        return dies() if next(number) == after else transaction(lease)

    monkeypatch.setattr(target, "transaction", some)
    given = {"the copy": {"before_switch": dies}, "all but the project": {"on_switch": dies}}.get(after, {})
    with pytest.raises(Killed):
        moved(source, target, batch_rows=2, **given)
    monkeypatch.undo()
    with pytest.raises(SupersededError):
        source.create_run("late")
    switched = []
    moved(source, target, on_switch=switched.append)
    assert content(target) == before == content(source)
    assert (switched == [""]) == (after == "all but the project")
    assert source.read_store().superseded_by == "there"


@pytest.mark.parametrize("after", [1, 2, 5, "the copy", "all but the project"])
def test_a_move_from_plain_verbs_that_was_killed_goes_on(ours_in_memory, target, after, dies, monkeypatch):
    fill(target)
    before, number = digest_of(reading_of(target)), iter(range(99))
    commit = ours_in_memory.commit

    def some(batch):
        return dies() if next(number) == after else commit(batch)

    monkeypatch.setattr(ours_in_memory, "commit", some)
    given = {"the copy": {"before_switch": dies}, "all but the project": {"on_switch": dies}}.get(after, {})
    with pytest.raises(Killed):
        moved(target, ours_in_memory, batch_rows=2, **given)
    monkeypatch.undo()
    if after != "all but the project":
        with pytest.raises(TransferError, match="unfinished copy of another state"):
            moved(target, ours_in_memory, source_where="here too")
    moved(target, ours_in_memory)
    assert digest_of(ours_in_memory) == before
    ours_in_memory.create_run("goes on")


@pytest.fixture
def ours_in_memory(stack):
    return stack.enter_context(MemoryStateBackend())


def test_a_source_that_cannot_refuse_writes_must_not_be_written_meanwhile(ours_in_memory, target):
    fill(target)
    with pytest.raises(TransferError, match="was written while it was moved"):
        moved(target, ours_in_memory, before_switch=lambda: target.add_completed_partition("a", "late", "p"))
    assert list(records(ours_in_memory)) == []
    assert "late" in target.list_worked_nodes()
    target.create_run("goes on")


def test_a_target_with_another_state_refuses_and_keeps_it(source, target):
    target.create_run("b")
    target.add_completed_partition("b", "mine", "p")
    before = content(target)
    with pytest.raises(TransferError, match="another state: run 'b'"):
        moved(source, target)
    assert content(target) == before
    target.delete_run("b")
    with pytest.raises(TransferError, match="another state: completed work of node 'mine'"):
        moved(source, target)
    assert target.list_worked_nodes() == ["mine"]
    source.create_run("goes on")


def test_a_target_of_records_with_another_state_refuses_and_keeps_it(ours_in_memory, target):
    fill(target)
    ours_in_memory.create_run("mine")
    before = digest_of(ours_in_memory), ours_in_memory.read_store()
    with pytest.raises(TransferError, match="already holds another state"):
        moved(target, ours_in_memory)
    assert (digest_of(ours_in_memory), ours_in_memory.read_store()) == before


def test_what_is_written_to_a_target_of_records_in_the_last_moment_is_not_taken_away(
    ours_in_memory, target, monkeypatch
):
    fill(target)
    write = ours_in_memory.write_successor

    def too_late(store_id, successor, **given):
        if successor:
            monkeypatch.undo()
            ours_in_memory.create_run("mine")
        write(store_id, successor, **given)

    monkeypatch.setattr(ours_in_memory, "write_successor", too_late)
    with pytest.raises(TransferError, match="already holds another state"):
        moved(target, ours_in_memory)
    assert ours_in_memory.list_runs() == ["mine"]


def test_what_is_written_once_the_target_is_open_is_not_in_the_digest(ours_in_memory, target, monkeypatch):
    fill(target)
    write, digest = ours_in_memory.write_successor, digest_of(portable_view(target))

    def write_at_once(store_id, successor, **given):
        write(store_id, successor, **given)
        if successor is None:
            ours_in_memory.create_run("the first one")

    monkeypatch.setattr(ours_in_memory, "write_successor", write_at_once)
    assert moved(target, ours_in_memory).digest == digest
    assert ours_in_memory.list_runs()[-1] == "the first one"


def test_what_somebody_else_writes_into_the_target_meanwhile_stays(source, target, monkeypatch):
    monkeypatch.setattr("seeknal.state.migration.copying.STEP_RECORDS", 1)

    def write_too(stage, done, _):
        if (stage, done) == ("copying", 22):
            with custom.CustomBackend(store=target.store) as other:
                other.create_run("somebody else's")

    with pytest.raises(TransferError, match="not equal"):
        moved(source, target, on_progress=write_too)
    assert target.list_runs() == ["somebody else's"]
    assert target.list_worked_nodes() == []
    source.create_run("goes on")


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_held_lock_of_either_end_refuses(source, target, end):
    {"source": source, "target": target}[end].acquire_lock("b")
    with pytest.raises(LockHeldError):
        moved(source, target)
    assert target.list_runs() == []
    assert source.read_store().superseded_by is None


def test_a_move_that_lost_its_lease_writes_nothing_any_more(source, target, monkeypatch):
    """Frozen after its first transaction; somebody took it for dead."""
    transaction, number = target.transaction, iter(range(99))

    def some(lease=None):
        if next(number) == 1:
            monkeypatch.undo()
            target.break_lock(KEY, reason="taken for dead")
        return transaction(lease)

    monkeypatch.setattr(target, "transaction", some)
    with pytest.raises(TransferError, match="could not be undone") as caught:
        moved(source, target, batch_rows=2)
    assert isinstance(caught.value.__cause__, LeaseLostError)
    assert target.list_runs() == ["b", "a"]
    moved(source, target)
    assert content(target) == content(source)


def test_sequences_that_do_not_order_are_refused(ours_in_memory, target, monkeypatch):
    fill(target)
    newest_first = target.list_runs(newest_first=True)
    monkeypatch.setattr(target, "list_runs", lambda **_: newest_first)
    with pytest.raises(CapabilityError, match="does not number its records: run"):
        moved(target, ours_in_memory)
    monkeypatch.undo()
    for key, state in target.store.records.nodes.items():
        target.store.records.nodes[key] = custom.changed(state, sequence=0)
    with pytest.raises(CapabilityError, match="does not number its records: node"):
        moved(target, ours_in_memory)
    assert list(records(ours_in_memory)) == []
    assert ours_in_memory.read_store().superseded_by is None


def test_a_backend_without_a_list_of_worked_nodes_is_refused(source, ours_in_memory):
    class Older(custom.CustomBackend):
        list_worked_nodes = StateBackend.list_worked_nodes

    with Older() as older:
        with pytest.raises(CapabilityError, match="does not tell which nodes have completed work"):
            moved(source, older)
        with pytest.raises(CapabilityError, match="does not tell which nodes have completed work"):
            moved(older, ours_in_memory)
    source.create_run("goes on")


def test_a_backend_that_does_not_take_completed_at_is_refused(source):
    class Older(custom.CustomBackend):
        def add_completed_partition(self, run_id, node_id, partition, *, row_count=None, metadata=None):
            return super().add_completed_partition(run_id, node_id, partition, row_count=row_count, metadata=metadata)

    with Older() as older, pytest.raises(CapabilityError, match="does not keep when a partition was completed"):
        moved(source, older)
    source.create_run("goes on")


def test_a_target_that_forgets_which_state_is_the_newest_is_found_out(source):
    class ByTheOrderOfRuns(custom.CustomBackend):
        def get_latest_node_state(self, node_id, status=None):
            states = (self.get_node_state(run_id, node_id) for run_id in self.list_runs(newest_first=True))
            return next((state for state in states if state and status in (None, state.status)), None)

    with ByTheOrderOfRuns() as wrong:
        with pytest.raises(TransferError, match="do not agree on the newest state"):
            moved(source, wrong)
        assert wrong.list_runs() == []
    source.create_run("goes on")


def test_the_example_has_nothing_of_a_store_of_records(target):
    assert not isinstance(target, RecordStateBackend)


@pytest.fixture
def left(target, ours_in_memory):
    """The digest of a state that went from the target to our store, which has changed since."""
    fill(target)
    digest = moved(target, ours_in_memory).digest
    ours_in_memory.delete_run("a")
    ours_in_memory.update_run("b", status="failed")
    ours_in_memory.create_run("written there")
    ours_in_memory.add_completed_interval("written there", "load", day(2), day(4))
    return digest


def test_a_state_comes_back_to_plain_verbs_where_nobody_has_written_since(target, ours_in_memory, left):
    with pytest.raises(TransferError, match="another state"):
        moved(ours_in_memory, target)
    moved(ours_in_memory, target, former=left)
    assert content(target) == content(ours_in_memory)
    assert target.list_runs() == ["b", "é/../x", "pending", "written there"]


def test_a_state_does_not_come_back_to_plain_verbs_that_were_written_since(target, ours_in_memory, left):
    target.set_node_state("a", "load", row_count=99)
    before = content(target)
    with pytest.raises(TransferError, match="another state"):
        moved(ours_in_memory, target, former=left)
    assert content(target) == before
    ours_in_memory.create_run("goes on")


@pytest.mark.parametrize("at", [*range(6), "before the switch", "at the switch"])
def test_an_error_brings_back_what_was_cleared_away(target, ours_in_memory, left, at, monkeypatch):
    before, theirs = content(target), content(ours_in_memory)
    transaction, number = target.transaction, iter(range(999))

    def fail(*_):
        raise KeyboardInterrupt

    def some(lease=None):
        return fail() if next(number) == at else transaction(lease)

    monkeypatch.setattr(target, "transaction", some)
    given = {"before the switch": {"before_switch": fail}, "at the switch": {"on_switch": fail}}.get(at, {})
    with pytest.raises(KeyboardInterrupt):
        moved(ours_in_memory, target, former=left, batch_rows=4, **given)
    assert content(target) == before
    assert content(ours_in_memory) == theirs
    moved(ours_in_memory, target, former=left)
    assert content(target) == theirs


@pytest.mark.parametrize("after", range(6))
def test_a_way_back_that_was_killed_is_begun_again(target, ours_in_memory, left, after, dies, monkeypatch):
    theirs = content(ours_in_memory)
    transaction, number = target.transaction, iter(range(999))

    def some(lease=None):
        return dies() if next(number) == after else transaction(lease)

    monkeypatch.setattr(target, "transaction", some)
    with pytest.raises(Killed):
        moved(ours_in_memory, target, former=left, batch_rows=4)
    monkeypatch.undo()
    moved(ours_in_memory, target, former=left)
    assert content(target) == theirs


def planned(source, target, **given):
    where = {"source_where": "here", "target_where": "there", "target_class": type(target)}
    return plan_portably(source, None if is_plain(type(target)) else target, **where | given)


def test_a_preview_counts_what_is_moved_and_changes_nothing(source, target, ours_in_memory):
    before = content(source)
    plan = planned(source, target)
    assert (plan.refused, plan.is_held, content(source), content(target)[0]) == ([], False, before, [])
    assert plan.seconds > 0
    report = moved(source, target)
    assert (report.counts, report.bytes) == (plan.counts, plan.bytes)
    plan = planned(target, ours_in_memory)
    report = moved(target, ours_in_memory)
    assert (report.counts, report.bytes, plan.refused) == (plan.counts, plan.bytes, [])


def test_a_preview_tells_what_would_refuse(source, target, ours_in_memory):
    class Older(custom.CustomBackend):
        list_worked_nodes = StateBackend.list_worked_nodes

    assert "does not tell which nodes" in planned(source, target, target_class=Older).refused[0]
    ours_in_memory.create_run("mine")
    assert planned(target, ours_in_memory).refused == ["the target already holds another state"]
    source.acquire_lock("b")
    plan = planned(source, target)
    assert (len(plan.refused), plan.is_held) == (1, True)
    source.release_lock("b")
    source.write_successor(source.read_store().store_id, "elsewhere")
    assert "superseded" in planned(source, target).refused[0]


def test_what_cannot_be_done_is_said_in_words():
    def told(source, target):
        return cautions(source, target, source_where="here", target_where="there")

    plain, ours = custom.CustomBackend, MemoryStateBackend
    assert told(ours, ours) == []
    first, second = told(plain, plain)
    assert (first[:25], second[:23]) == ("here cannot refuse writes", "there counts for itself")
    assert (len(told(plain, ours)), len(told(ours, plain))) == (1, 1)


def test_node_states_come_in_the_order_of_their_sequences_and_a_full_disk_is_told():
    with WritingOrder() as order:
        for sequence in (5, 2**62, 1, 5, 3):
            order.add(NodeState(run_id="r", node_id="größe", sequence=sequence))
        assert [state.sequence for state in order] == [1, 3, 5, 5, 2**62]
        order._file.execute("PRAGMA max_page_count = 2")
        with pytest.raises(BackendUnavailableError, match="cannot be sorted on disk"):
            for _ in range(99):
                order.add(NodeState(run_id="r", node_id="n", error_message="x" * 1000))
