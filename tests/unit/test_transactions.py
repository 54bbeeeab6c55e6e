"""What a transaction saw missing, and what a deletion rested on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import ConcurrencyError, StaleVersionError
from seeknal.state.backend import create_state_backend
from seeknal.state.memory import MemoryStateBackend, MemoryStore


@pytest.fixture
def pair():
    store, clock = MemoryStore(), FakeClock(datetime(2024, 6, 1, tzinfo=UTC))
    with MemoryStateBackend(store, clock=clock) as ours, MemoryStateBackend(store, clock=clock) as theirs:
        yield ours, theirs


def test_a_node_that_a_listing_did_not_show_may_not_appear_before_it_is_written(pair) -> None:
    ours, theirs = pair
    ours.create_run("run")
    with pytest.raises(ConcurrencyError), ours.transaction():
        assert ours.list_nodes("run") == []
        theirs.set_node_state("run", "node", status="success")
        assert ours.list_nodes("run") == []
        ours.set_node_state("run", "node", status="failed")
    assert ours.get_node_state("run", "node").status == "success"


def test_a_run_is_not_deleted_for_what_its_nodes_no_longer_are(pair) -> None:
    ours, theirs = pair
    ours.create_run("run")
    ours.set_node_state("run", "node", status="failed")
    with pytest.raises(ConcurrencyError), ours.transaction():
        assert all(state.status == "failed" for state in ours.get_all_node_states("run").values())
        theirs.set_node_state("run", "node", status="success")
        ours.delete_run("run")
    assert ours.get_node_state("run", "node").status == "success"


@pytest.mark.parametrize("kind", ["memory", "file", "database"])
def test_a_run_is_not_deleted_with_a_node_that_was_added_since_its_nodes_were_listed(kind, pair, tmp_path) -> None:
    options = {"file": {"base_path": tmp_path}, "database": {"db_path": tmp_path / "state.db"}}.get(kind)
    ours, theirs = pair if options is None else [create_state_backend(kind, **options) for _ in range(2)]
    with ours, theirs:
        ours.initialize()
        theirs.initialize()
        ours.create_run("run")
        ours.set_node_state("run", "node", status="failed")
        with pytest.raises(ConcurrencyError), ours.transaction():
            assert ours.list_nodes("run") == ["node"]
            theirs.set_node_state("run", "other", status="success")
            ours.delete_run("run")
        assert theirs.list_nodes("run") == ["node", "other"]


def test_cleanup_keeps_a_run_whose_lock_is_taken_while_it_looks(pair) -> None:
    ours, theirs = pair
    for run_id in ("old", "other"):
        ours.create_run(run_id, status="failed")
    ours.clock.advance(days=60)
    reads, taken = ours.list_locks, []

    def interrupted():
        found = reads()
        if not taken:
            taken.append(theirs.acquire_lock("old", "node", timeout_ms=0))
        return found

    ours.list_locks = interrupted
    report = ours.cleanup(older_than=timedelta(days=30))
    assert (report.deleted, report.kept) == (["other"], {"old": "locked"})
    assert [lock.node_id for lock in theirs.list_locks()] == ["node"]


def test_cleanup_keeps_a_run_whose_node_succeeds_while_it_looks(pair) -> None:
    ours, theirs = pair
    for run_id in ("old", "new"):
        ours.create_run(run_id, status="success")
        ours.set_node_state(run_id, "node", status="success")
    ours.clock.advance(days=60)
    reads = ours.get_latest_node_state
    written = []

    def interrupted(node_id: str, status: str | None = None):
        found = reads(node_id, status)
        if not written:
            written.append(theirs.set_node_state("old", "node", status="success", row_count=9))
        return found

    ours.get_latest_node_state = interrupted
    report = ours.cleanup(older_than=timedelta(days=30))
    assert "old" in report.kept
    assert ours.get_node_state("old", "node").row_count == 9


def test_a_version_that_the_caller_names_wrongly_is_refused_without_waiting(pair) -> None:
    ours, _ = pair
    ours.create_run("run")
    ours.set_node_state("run", "node")
    before = ours.clock.ticks_us()
    with pytest.raises(StaleVersionError):
        ours.set_node_state("run", "node", expected_version=3)
    with pytest.raises(StaleVersionError):
        ours.update_run("run", expected_version=3)
    assert ours.clock.ticks_us() == before
