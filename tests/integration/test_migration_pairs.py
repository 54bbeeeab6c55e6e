"""A state goes from every kind of store to every other one and back, and not a byte of it changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import permutations
from threading import Barrier

import pytest

from seeknal.errors import ConcurrencyError, MoveInProgressError, SupersededError
from seeknal.model.records import NodeState, PartitionState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch, IntervalCompleted, PartitionCompleted, PartitionExpected
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.moving import move
from seeknal.state.store_info import filling_mark
from seeknal.state.transfer import digest_of

KINDS = ("file", "sqlite", "postgresql", "mysql", "libsql")
OTHERS = [(KINDS[at], KINDS[(at + step) % len(KINDS)]) for step in (1, 2) for at in range(len(KINDS))]
"""Each kind comes before two others and after two: a move knows what it reads and what it writes, and no pairs."""

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("load", "Load", "größe", "数据", "it's %s \\ \"", "emoji 🚀", "../x", "e\u0301t\u00e9")


def name_of(number: int) -> str:
    return f"{NAMES[number % len(NAMES)]} {number}"


def state_of(run_count: int, node_count: int) -> MemoryStateBackend:
    """Return runs of so many nodes each, written in an order that is not that of the runs."""
    store = MemoryStateBackend()
    sequence = iter(range(1, 10**6))
    runs = {}
    for nth in range(run_count):
        at = BEGIN + timedelta(hours=nth, microseconds=nth)
        runs[nth] = RunState(
            run_id=f"run {name_of(nth)}",
            status=[RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.RUNNING][nth % 3],
            started_at=at,
            finished_at=None if nth % 3 == 2 else at + timedelta(minutes=5),
            config={"größe": nth, "on": [True, None, 0.5]},
            metadata={"owner": "数据", "nested": {"deep": ["\u2028", "\x00", "🚀"]}},
            version=1 + nth % 4,
            sequence=next(sequence),
        )
    states = [
        NodeState(
            run_id=runs[nth].run_id,
            node_id=name_of(node),
            status=list(NodeStatus)[(nth + node) % len(NodeStatus)],
            started_at=runs[nth].started_at,
            duration_ms=node * 7,
            row_count=None if node % 5 == 0 else 2**62 + node,
            fingerprint=f"sha256:{nth * node:064x}" if node % 3 else None,
            error_message="Zeile 1\nline 2 \x00 '" if node % 7 == 0 else None,
            attempt=1 + node % 3,
            metadata={"größe": {"n": node}} if node % 2 else {},
            version=1 + node % 9,
            sequence=next(sequence),
        )
        for node in range(node_count)
        for nth in reversed(range(run_count))
    ]
    for nth, run in runs.items():
        store.commit(Batch(runs=[run], nodes=[state for state in states if state.run_id == runs[nth].run_id]))
    work = []
    for node in range(0, node_count, node_count // 50):
        for nth in range(20):
            start = BEGIN + timedelta(days=2 * nth, microseconds=node)
            work.append(IntervalCompleted(name_of(node), start, start + timedelta(days=1), f"run {name_of(nth)}"))
        work += [
            PartitionCompleted(
                PartitionState(
                    node_id=name_of(node),
                    partition=f"région={name_of(nth)}",
                    run_id="a run that is gone",
                    completed_at=BEGIN + timedelta(days=nth, microseconds=1),
                    row_count=nth or None,
                    metadata={"größe": nth} if nth % 2 else {},
                )
            )
            for nth in range(10)
        ]
        start = BEGIN + timedelta(days=100)
        for nth in range(5):  # one interval of three runs, in five parts
            day = start + timedelta(days=nth)
            work.append(IntervalCompleted(name_of(node), day, day + timedelta(days=1), f"run {name_of(nth % 3)}"))
        work += [PartitionExpected(name_of(node), f"région={name_of(nth)}") for nth in range(5, 15)]
    store.commit(Batch(work=work))
    return store


@pytest.fixture(scope="module")
def some():
    """More than a page of what is read and a batch of what is written."""
    with state_of(25, 100) as store:
        yield store


@pytest.fixture(scope="module")
def large():
    with state_of(50, 200) as store:
        yield store


@pytest.fixture
def open_store(shared_store, tmp_path):
    """Return a function that opens a new store of a kind."""
    with ExitStack() as stack:

        def opened(kind):
            if kind == "file":
                backend = create_state_backend("file", base_path=tmp_path / kind)
            elif kind == "sqlite":
                backend = create_state_backend("database", db_path=tmp_path / "state.db")
            else:
                backend = create_state_backend("database", **shared_store(kind).options)
            stack.enter_context(backend).initialize()
            return backend

        yield opened


def go_over_and_back(open_store, state, first, second):
    a, b = open_store(first), open_store(second)
    state.write_successor(state.read_store().store_id, None)
    digest = digest_of(state)
    report = move(state, a, source_where="memory", target_where=first)
    runs = state.list_runs()
    nodes = sum(len(state.list_nodes(run_id)) for run_id in runs)
    assert (report.counts.runs, report.counts.node_states) == (len(runs), nodes)
    assert (report.counts.intervals, report.counts.partitions) == (1050, 500)
    assert (report.counts.provenance, report.counts.expected) == (150, 500)
    assert report.digest == digest
    assert move(a, b, source_where=first, target_where=second).digest == digest
    newest = b.get_latest_node_state(name_of(3))
    assert newest == state.get_latest_node_state(name_of(3))
    b.set_node_state(f"run {name_of(7)}", name_of(3), status="failed")  # what was changed there comes back too
    b.create_run("made there")
    changed = digest_of(b)
    assert move(b, a, source_where=second, target_where=first).digest == changed
    assert digest_of(a) == changed
    assert a.get_latest_node_state(name_of(3)).run_id == f"run {name_of(7)}"


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_over_and_back(open_store, some, first, second):
    go_over_and_back(open_store, some, first, second)


@pytest.mark.nightly
@pytest.mark.parametrize(("first", "second"), list(permutations(KINDS, 2)))
def test_a_large_state_goes_over_and_back(open_store, large, first, second):
    go_over_and_back(open_store, large, first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_is_set_only_where_the_expected_one_stands(open_store, kind):
    store = open_store(kind)
    store_id = store.read_store().store_id
    store.write_successor(store_id, "mine", expected=None)
    for wrong in (None, "another"):
        with pytest.raises((SupersededError, ConcurrencyError)):
            store.write_successor("changed", "theirs", expected=wrong)
    assert store.read_store().store_id == store_id
    store.write_successor(store_id, "moved on", expected="mine")
    assert store.read_store().superseded_by == "moved on"
    store.write_successor(store_id, None, expected="moved on")
    store.create_run("goes on")


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_who_expect_the_same_mark_one_sets_its_own(shared_store, tmp_path, kind):
    options = {"file": {"base_path": tmp_path / "target"}, "sqlite": {"db_path": tmp_path / "state.db"}}
    given = options.get(kind) or shared_store(kind).options
    with ExitStack() as stack:
        stores = []
        for _ in range(4):
            stores.append(stack.enter_context(create_state_backend("file" if kind == "file" else "database", **given)))
            stores[-1].initialize()
        store_id, start = stores[0].read_store().store_id, Barrier(len(stores))

        def mark(nth):
            start.wait()
            try:
                stores[nth].write_successor(store_id, f"by {nth}", expected=None)
            except (SupersededError, ConcurrencyError):
                return None
            return f"by {nth}"

        with ThreadPoolExecutor(len(stores)) as threads:
            won = [found for found in threads.map(mark, range(len(stores))) if found]
        assert [stores[0].read_store().superseded_by] == won


def test_a_backup_does_not_bring_half_a_copy_back(tmp_path):
    """The file store was left, and its state was on its way back when that was killed."""
    with create_state_backend("file", base_path=tmp_path) as store:
        store.initialize()
        store.create_run("old")
        store_id = store.read_store().store_id
        store.write_successor(store_id, "a database")
        store.write_successor(store_id, filling_mark("a database", "by a move that was killed"))
    (tmp_path / "run_state.json").write_bytes((tmp_path / "run_state.json.bak").read_bytes())
    with create_state_backend("file", base_path=tmp_path) as store:
        store.initialize()
        with pytest.raises(MoveInProgressError, match="being filled from a database"):
            store.create_run("into half a copy")
