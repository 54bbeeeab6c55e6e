"""A state moves from store to store, over all kinds of them, and nobody writes to the one that it left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest

from seeknal.errors import SupersededError
from seeknal.state.backend import create_state_backend
from seeknal.state.migration.moving import move
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import BATCH_ROWS, digest_of

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def at(hour: int) -> datetime:
    return BEGIN + timedelta(hours=hour)


def fill(store: RecordStateBackend) -> None:
    for run_id in ("b", "a", "\u00e9/../x", "it's %s \\"):
        store.create_run(run_id, config={"k": run_id})
        for node_id in ("n1", "N1", "n2"):
            store.set_node_state(run_id, node_id, status="success", row_count=3, error_message="\x00'")
    store.set_node_state("b", "n1", status="success", metadata={"late": [True, None, "\U0001f600"]})
    for start, end in ((0, 1), (2, 3), (3, 4)):
        store.add_completed_interval("b", "n1", at(start), at(end))
    store.add_completed_interval("a", "n1", at(9), at(10))
    store.add_completed_partition("a", "n2", "p", row_count=2**63 - 1)
    store.update_run("a", status="success")
    store.create_run("gone")
    store.add_completed_interval("gone", "n3", at(1), at(3))
    store.delete_run("gone")


def sequences(store: RecordStateBackend) -> list[int]:
    runs = [store.get_run(run_id) for run_id in store.list_runs()]
    states = [state for run_id in store.list_runs() for state in store.get_all_node_states(run_id).values()]
    return [record.sequence for record in (*runs, *states)]


def write_something_new(store: RecordStateBackend, name: str) -> None:
    """Write as if nothing had happened; what is new must come after all that was there."""
    highest = max(sequences(store))
    assert store.get_latest_node_state("n1").run_id == "b"
    assert store.set_node_state("a", "n1", row_count=1).sequence > highest
    assert store.get_latest_node_state("n1").run_id == "a"
    with store.transaction():
        store.create_run(name)
        store.set_node_state(name, "n1", status="success")
        store.set_node_state(name, "other", status="success")
        store.set_node_state("b", "N1", status="failed")
    assert store.list_runs()[-1] == name
    assert store.get_latest_node_state("n1").run_id == name
    assert store.get_latest_node_state("N1").run_id == "b"
    store.set_node_state("b", "n1", status="success")
    assert store.get_latest_node_state("n1").run_id == "b"


@pytest.fixture
def open_store(shared_store, tmp_path):
    """Return a function that opens a new store of a kind."""
    with ExitStack() as stack:

        def opened(kind: str) -> RecordStateBackend:
            options = {
                "file": lambda: {"kind": "file", "base_path": tmp_path / kind},
                "file again": lambda: {"kind": "file", "base_path": tmp_path / kind},
                "sqlite": lambda: {"kind": "database", "db_path": tmp_path / kind},
            }.get(kind, lambda: {"kind": "database", **shared_store(kind).options})()
            backend = stack.enter_context(create_state_backend(options.pop("kind"), **options))
            backend.initialize()
            return backend

        yield opened


@pytest.mark.parametrize("rows", [1, BATCH_ROWS])
def test_a_state_goes_through_every_kind_of_store_and_stays_the_same(open_store, rows: int) -> None:
    source = open_store("file")
    fill(source)
    for kind in ("postgresql", "mysql", "libsql", "sqlite", "file again"):
        target, before = open_store(kind), digest_of(source)
        move(source, target, source_where="before", target_where=kind, batch_rows=rows)
        assert digest_of(target) == before
        for write in (lambda old=source: old.create_run("late"), lambda old=source: old.set_node_state("a", "n1")):
            with pytest.raises(SupersededError, match=kind):
                write()
        write_something_new(target, f"written to {kind}")
        source = target
    assert source.list_runs()[-5:] == [
        f"written to {kind}" for kind in ("postgresql", "mysql", "libsql", "sqlite", "file again")
    ]


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "libsql"])
def test_a_state_that_comes_back_goes_on_after_what_was_written_elsewhere(open_store, kind: str) -> None:
    store, other = open_store(kind), open_store("postgresql")
    fill(store)
    for number in range(2):
        move(store, other, source_where="the first", target_where="the other")
        write_something_new(other, f"other {number}")
        move(other, store, source_where="the other", target_where="the first")
        write_something_new(store, f"first {number}")
        assert len(set(sequences(store))) == len(sequences(store))


# ---- late writers ----


class Writer:
    """Writes in one way until the store says that it is superseded, and counts what was acknowledged."""

    def __init__(self, options: dict[str, object], name: str) -> None:
        self.name = name
        self.acknowledged = 0
        self._options = options

    def work(self, began: Barrier) -> None:
        with create_state_backend("database", **self._options) as backend:
            backend.initialize()
            began.wait(20)
            with pytest.raises(SupersededError):
                while True:
                    getattr(self, self.name)(backend)
                    self.acknowledged += 1

    def transition(self, backend) -> None:
        backend.set_node_state("run", "transition", metadata={f"{self.acknowledged}": 1})

    def transaction(self, backend) -> None:
        with backend.transaction():
            backend.set_node_state("run", "left", row_count=self.acknowledged + 1)
            backend.set_node_state("run", "right", row_count=self.acknowledged + 1)

    def interval(self, backend) -> None:
        start = 2 * self.acknowledged
        backend.add_completed_interval("run", "interval", at(start), at(start + 1))

    def run(self, backend) -> None:
        backend.create_run(f"run {self.acknowledged}")

    def leased(self, backend) -> None:
        with backend.lock("run", "leased") as lease, backend.transaction(lease=lease):
            backend.set_node_state("run", "leased", row_count=self.acknowledged + 1)


WAYS = ("transition", "transaction", "interval", "run", "leased")


def found(backend: RecordStateBackend) -> dict[str, int]:
    """Return how often the store was written to in each way."""
    states = backend.get_all_node_states("run")
    assert states["left"].row_count == states["right"].row_count, "a transaction was torn"
    return {
        "transition": len(states["transition"].metadata),
        "transaction": states["left"].row_count,
        "interval": len(backend.get_completed_intervals("interval")),
        "run": len(backend.list_runs()) - 1,
        "leased": states["leased"].row_count,
    }


def supersede_among_writers(options: dict[str, object]) -> int:
    with create_state_backend("database", **options) as backend, ThreadPoolExecutor(len(WAYS)) as threads:
        backend.initialize()
        backend.create_run("run")
        for node_id in ("transition", "left", "right", "leased"):
            backend.set_node_state("run", node_id, row_count=0)
        store_id = backend.read_store().store_id
        writers = [Writer(options, way) for way in WAYS]
        began = Barrier(len(WAYS) + 1)
        futures = [threads.submit(writer.work, began) for writer in writers]
        began.wait(20)
        while not all(writer.acknowledged > 3 for writer in writers) and not any(each.done() for each in futures):
            found(backend)  # look on while they get under way
        backend.write_successor(store_id, "elsewhere")
        seen = digest_of(backend)
        for future in futures:
            future.result()
        assert digest_of(backend) == seen, "a write was let in after the mark"
        assert found(backend) == {writer.name: writer.acknowledged for writer in writers}
        return sum(writer.acknowledged for writer in writers)


def test_a_store_that_is_left_keeps_what_it_acknowledged_and_takes_no_more(server_store) -> None:
    for _ in range(5):
        supersede_among_writers(server_store.options)
        server_store.server.drop(server_store.schema)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_store_that_is_left_a_hundred_times_keeps_what_it_acknowledged(server_store, capsys) -> None:
    acknowledged = 0
    for _ in range(100):
        acknowledged += supersede_among_writers(server_store.options)
        server_store.server.drop(server_store.schema)
    with capsys.disabled():
        print(f"\n{server_store.kind}: left 100 times, with {acknowledged} acknowledged writes before and none after")
