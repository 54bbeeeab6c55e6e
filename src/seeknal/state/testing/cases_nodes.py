"""Cases about node states and the latest of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seeknal.clock import FakeClock, SystemClock
from seeknal.errors import ConcurrencyError, InvalidFieldError, RunNotFoundError, StaleVersionError
from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import BAD_NODE_FIELDS, NODE, RICH, day, everything
from seeknal.state.testing.scene import Scene


class NodeCases:
    """Cases about node states and the latest of them."""

    @clause("NODE-1", "NODE-4", "NODE-10")
    def test_patch_node(self, backend: StateBackend, other: StateBackend) -> None:
        """What is not named stays; metadata merges by key; each write raises the version by one."""
        backend.create_run("r")
        assert backend.get_node_state("r", NODE) is None
        first = backend.set_node_state("r", NODE, row_count=0, fingerprint="", error_message="", metadata={"a": 1})
        assert (first.status, first.attempt, first.version) == ("pending", 1, 1)
        assert (first.row_count, first.fingerprint, first.error_message) == (0, "", "")
        second = other.set_node_state("r", NODE, attempt=2, metadata={"b": RICH, "a": None})
        assert (second.row_count, second.fingerprint, second.attempt, second.version) == (0, "", 2, 2)
        assert second.metadata == {"a": None, "b": RICH}
        third = backend.set_node_state("r", NODE, row_count=None, fingerprint=None)
        assert (third.row_count, third.fingerprint, third.error_message, third.version) == (None, None, "", 3)
        assert backend.set_node_state("r", NODE).version == 4
        found = other.get_node_state("r", NODE)
        assert found == backend.get_node_state("r", NODE)
        assert found is not None
        assert (found.run_id, found.node_id, found.metadata) == ("r", NODE, second.metadata)

    @clause("NODE-1")
    def test_what_is_returned_is_what_is_stored(self, backend: StateBackend, other: StateBackend) -> None:
        """The record of a write, its sequence included, is the one that is read."""
        backend.create_run("r")
        for status in NodeStatus:
            assert backend.set_node_state("r", NODE, status=status) == other.get_node_state("r", NODE)

    @clause("NODE-2")
    def test_a_whole_state_replaces(self, backend: StateBackend, clock: FakeClock) -> None:
        """Nothing of the earlier one stays but the count of versions."""
        backend.create_run("r")
        backend.set_node_state("r", NODE, status="running", row_count=1, fingerprint="f", metadata={"a": 1})
        clock.advance(seconds=5)
        whole = NodeState(status=NodeStatus.SUCCESS, started_at=day(1), finished_at=day(2), metadata={"b": 2})
        found = backend.set_node_state("r", NODE, whole)
        assert (found.run_id, found.node_id, found.version) == ("r", NODE, 2)
        assert (found.row_count, found.fingerprint, found.metadata) == (None, None, {"b": 2})
        assert (found.started_at, found.finished_at, found.duration_ms) == (day(1), day(2), 86_400_000)
        copied = backend.set_node_state("r", NODE, found)
        assert copied.version == 3
        assert backend.set_node_state("r", NODE, state=NodeState()).status == "pending"

    @clause("NODE-2", "NODE-9")
    def test_a_whole_state_that_does_not_fit(self, backend: StateBackend) -> None:
        """Another node's, one with fields beside it, one that is none: refused."""
        backend.create_run("r")
        before = everything(backend)
        bad: tuple[Callable[[], object], ...] = (
            lambda: backend.set_node_state("r", NODE, NodeState(run_id="s")),
            lambda: backend.set_node_state("r", NODE, NodeState(node_id="n")),
            lambda: backend.set_node_state("r", NODE, NodeState(), status="success"),
            lambda: backend.set_node_state("r", NODE, {"status": "success"}),  # type: ignore[arg-type]
            lambda: backend.set_node_state("r", NODE, "success"),  # type: ignore[arg-type]
            lambda: backend.set_node_state("r", NODE, NodeState(row_count=-1)),
            lambda: backend.set_node_state("r", NODE, NodeState(status="done")),  # type: ignore[arg-type]
            lambda: backend.set_node_state("r", NODE, NodeState(attempt=0)),
            lambda: backend.set_node_state("r", NODE, NodeState(metadata={"a": {1}})),
        )
        for call in bad:
            with pytest.raises(InvalidFieldError):
                call()
        assert everything(backend) == before

    @clause("NODE-3")
    @pytest.mark.parametrize("status", ["success", "failed", "skipped", "cached"])
    def test_times_follow_the_status(self, backend: StateBackend, clock: FakeClock, status: str) -> None:
        """``running`` sets the start; a final status the end and the duration; where not given."""
        backend.create_run("r")
        start = clock.now()
        running = backend.set_node_state("r", NODE, status="running")
        assert (running.started_at, running.finished_at, running.duration_ms) == (start, None, None)
        clock.advance(seconds=2, microseconds=400)
        done = backend.set_node_state("r", NODE, status=status)
        assert (done.started_at, done.finished_at, done.duration_ms) == (start, clock.now(), 2000)
        clock.advance(seconds=1)
        assert backend.set_node_state("r", NODE, status=status, row_count=3).finished_at == done.finished_at
        again = backend.set_node_state("r", NODE, status="running")
        assert (again.started_at, again.finished_at, again.duration_ms) == (clock.now(), None, None)
        given = backend.set_node_state("r", NODE, status=status, duration_ms=7, finished_at=day(20))
        assert (given.finished_at, given.duration_ms) == (day(20), 7)
        straight = backend.set_node_state("r", "never.ran", status=status)
        assert (straight.started_at, straight.finished_at, straight.duration_ms) == (None, clock.now(), None)

    @clause("NODE-3", "TIME-2")
    def test_naive_times_are_local(self, backend: StateBackend) -> None:
        """As ``datetime.now()`` gives them; an end before the start lasts no time."""
        backend.create_run("r")
        start, end = datetime(2024, 7, 1, 12), datetime(2024, 7, 1, 11)
        state = backend.set_node_state("r", NODE, status="success", started_at=start, finished_at=end)
        assert (state.started_at, state.finished_at) == (start.astimezone(UTC), end.astimezone(UTC))
        assert state.duration_ms == 0

    @clause("NODE-5")
    def test_concurrent_patches_all_take_effect(self, scene: Scene) -> None:
        """From threads of two instances, each writing a key of its own."""
        opened = [scene.open(SystemClock()), scene.open(SystemClock())]
        opened[0].create_run("r")

        def patch(number: int) -> None:
            opened[number % 2].set_node_state("r", NODE, metadata={f"k{number}": number})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(patch, range(24)))
        state = opened[1].get_node_state("r", NODE)
        assert state is not None
        assert state.metadata == {f"k{number}": number for number in range(24)}
        assert state.version == 24

    @clause("NODE-6")
    def test_node_of_a_missing_run(self, backend: StateBackend) -> None:
        """Also after its deletion, whatever the arguments."""
        backend.create_run("r")
        backend.set_node_state("r", NODE)
        backend.delete_run("r")
        for options in ({}, {"overwrite": False}, {"expected_version": 0}, {"state": NodeState()}):
            with pytest.raises(RunNotFoundError):
                backend.set_node_state("r", NODE, **options)
        assert backend.list_nodes("r") == []

    @clause("NODE-7")
    def test_no_overwrite(self, backend: StateBackend, other: StateBackend) -> None:
        """Only the first one writes."""
        backend.create_run("r")
        backend.set_node_state("r", NODE, overwrite=False, row_count=1)
        before = everything(backend)
        with pytest.raises(ConcurrencyError):
            other.set_node_state("r", NODE, overwrite=False, row_count=2)
        with pytest.raises(ConcurrencyError):
            other.set_node_state("r", NODE, NodeState(row_count=2), overwrite=False)
        assert everything(backend) == before

    @clause("NODE-8")
    def test_stale_node_version(self, backend: StateBackend, other: StateBackend) -> None:
        """A writer that saw an earlier version is refused; 0 is "no record"."""
        backend.create_run("r")
        for stale in (1, 7, -1):
            with pytest.raises(StaleVersionError):
                backend.set_node_state("r", NODE, expected_version=stale, row_count=1)
        assert backend.set_node_state("r", NODE, expected_version=0, row_count=1).version == 1
        assert other.set_node_state("r", NODE, expected_version=1, row_count=2).version == 2
        before = everything(backend)
        for stale in (0, 1, 3):
            with pytest.raises(StaleVersionError) as caught:
                backend.set_node_state("r", NODE, expected_version=stale, row_count=3)
            assert (caught.value.expected, caught.value.found) == (stale, 2)
            with pytest.raises(StaleVersionError):
                backend.set_node_state("r", NODE, NodeState(), expected_version=stale)
        for bad in ("2", 2.0, True):
            with pytest.raises(InvalidFieldError):
                backend.set_node_state("r", NODE, expected_version=bad)  # type: ignore[arg-type]
        assert everything(backend) == before

    @clause("NODE-9", "ERR-1")
    @pytest.mark.parametrize(("field", "bad"), BAD_NODE_FIELDS, ids=lambda value: ascii(value)[:40])
    def test_bad_node_fields(self, backend: StateBackend, field: str, bad: Any) -> None:
        """The error names the field; nothing changed, in a transaction neither."""
        backend.create_run("r")
        backend.set_node_state("r", NODE, row_count=1)
        before = everything(backend, [NODE, "new"])
        for node_id in (NODE, "new"):
            with pytest.raises(InvalidFieldError) as caught:
                backend.set_node_state("r", node_id, **{field: bad})
            assert caught.value.field == field
            assert caught.value.hint
        with backend.transaction():
            with pytest.raises(InvalidFieldError):
                backend.set_node_state("r", NODE, **{field: bad})
            assert everything(backend, [NODE, "new"]) == before
        assert everything(backend, [NODE, "new"]) == before

    @clause("NODE-9")
    def test_metadata_that_grows_too_long(self, backend: StateBackend) -> None:
        """Merged, it is over the limit: refused, as it would be by the store with the tightest one."""
        backend.create_run("r")
        backend.set_node_state("r", NODE, metadata={"a": "x" * 2_500_000})
        with pytest.raises(InvalidFieldError):
            backend.set_node_state("r", NODE, metadata={"b": "x" * 2_500_000})
        state = backend.get_node_state("r", NODE)
        assert state is not None
        assert state.metadata.keys() == {"a"}

    @clause("NODE-11", "NODE-13", "NODE-14")
    def test_list_nodes(self, backend: StateBackend, other: StateBackend) -> None:
        """Sorted by the bytes of the ids; empty for a missing run."""
        backend.create_run("r")
        backend.create_run("s")
        for node_id in ("b", "\U0001f600", "B", "\uffff", "a", "\u00e9"):
            backend.set_node_state("r", node_id, fingerprint=node_id)
        in_order = ["B", "a", "b", "\u00e9", "\uffff", "\U0001f600"]
        for each in (backend, other):
            assert each.list_nodes("r") == in_order
            assert list(each.get_all_node_states("r")) == in_order
            assert [state.fingerprint for state in each.get_all_node_states("r").values()] == in_order
        assert backend.get_all_node_states("r")["a"] == backend.get_node_state("r", "a")
        assert backend.node_exists("r", "a")
        assert not backend.node_exists("r", "A")
        for missing in ("s", "no"):
            assert backend.list_nodes(missing) == []
            assert backend.get_all_node_states(missing) == {}

    @clause("NODE-12")
    def test_delete_node_state(self, backend: StateBackend, other: StateBackend) -> None:
        """It tells whether there was one; a new one begins at version 1."""
        backend.create_run("r")
        backend.set_node_state("r", NODE, metadata={"a": 1})
        backend.set_node_state("r", "n")
        assert other.delete_node_state("r", NODE)
        assert not backend.delete_node_state("r", NODE)
        assert backend.list_nodes("r") == ["n"]
        again = backend.set_node_state("r", NODE)
        assert (again.version, again.metadata) == (1, {})

    @clause("LATEST-1")
    def test_latest_is_what_was_written_last(self, backend: StateBackend, scene: Scene) -> None:
        """Whatever the clocks, the times in the records and the order of runs say."""
        late = scene.open(scene.skewed(hours=-1))
        assert backend.get_latest_node_state(NODE) is None
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        backend.set_node_state("s", NODE, status="success", finished_at=day(20))
        late.set_node_state("r", NODE, status="failed", finished_at=day(1))
        for each in (backend, late):
            latest = each.get_latest_node_state(NODE)
            assert latest == each.get_node_state("r", NODE)
        assert backend.get_latest_node_state("transform") is None
        backend.set_node_state("s", NODE, row_count=1)
        latest = late.get_latest_node_state(NODE)
        assert latest is not None
        assert (latest.run_id, latest.row_count) == ("s", 1)

    @clause("LATEST-1")
    def test_latest_within_one_transaction(self, backend: StateBackend) -> None:
        """The order of writing counts, before the commit as after it, through savepoints."""
        for run_id in ("a", "b", "c"):
            backend.create_run(run_id)
        with backend.transaction():
            for run_id in ("a", "b", "c"):
                backend.set_node_state(run_id, NODE)
            with backend.transaction():
                backend.set_node_state("a", NODE, row_count=1)
            latest = backend.get_latest_node_state(NODE)
            assert latest is not None
            assert latest.run_id == "a"
        latest = backend.get_latest_node_state(NODE)
        assert latest is not None
        assert latest.run_id == "a"

    @clause("LATEST-2")
    def test_latest_of_a_status(self, backend: StateBackend) -> None:
        """A state that left the status does not count; an unknown status is refused."""
        for run_id, status in (("a", "success"), ("b", "success"), ("c", "failed")):
            backend.create_run(run_id)
            backend.set_node_state(run_id, NODE, status=status)

        def latest(status: str | None = None) -> str | None:
            found = backend.get_latest_node_state(NODE, status)
            return found.run_id if found else None

        assert (latest(), latest("success"), latest("failed"), latest("cached")) == ("c", "b", "c", None)
        with backend.transaction():
            backend.set_node_state("b", NODE, status="running")
            assert (latest(), latest("success"), latest("running")) == ("b", "a", "b")
        assert (latest(), latest("success"), latest("running")) == ("b", "a", "b")
        for bad in ("", "done", "cancelled"):
            with pytest.raises(InvalidFieldError):
                backend.get_latest_node_state(NODE, bad)

    @clause("LATEST-3")
    def test_deleting_uncovers_the_one_before(self, backend: StateBackend) -> None:
        """The run's deletion, or the node's, in a transaction or after it."""
        for run_id in ("a", "b", "c"):
            backend.create_run(run_id)
            backend.set_node_state(run_id, NODE, status="success", row_count=ord(run_id))
        with backend.transaction():
            backend.delete_run("c")
            latest = backend.get_latest_node_state(NODE, "success")
            assert latest is not None
            assert latest.run_id == "b"
            backend.delete_node_state("b", NODE)
            latest = backend.get_latest_node_state(NODE)
            assert latest is not None
            assert latest.run_id == "a"
        assert backend.get_latest_node_state(NODE) == latest
        backend.delete_run("a")
        assert backend.get_latest_node_state(NODE) is None

    @clause("TIME-1")
    def test_order_survives_a_clock_set_back(self, backend: StateBackend, clock: FakeClock) -> None:
        """Nothing is lost or reordered by it."""
        backend.create_run("r")
        backend.set_node_state("r", NODE, status="running")
        clock.skew = timedelta(hours=-1)
        done = backend.set_node_state("r", NODE, status="success")
        assert done.duration_ms == 0
        backend.create_run("s")
        assert backend.list_runs() == ["r", "s"]
