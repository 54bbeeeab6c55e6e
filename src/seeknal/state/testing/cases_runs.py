"""Cases about runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import ConcurrencyError, InvalidFieldError, RunNotFoundError, StaleVersionError
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import BAD_RUN_FIELDS, NODE, RICH, day, everything, spans


class RunCases:
    """Cases about runs."""

    @clause("RUN-1", "RUN-9")
    @pytest.mark.parametrize("status", ["pending", "running", "success", "failed", "cancelled"])
    def test_create_run(self, backend: StateBackend, clock: FakeClock, status: str) -> None:
        """A new run stands at version 1, with the times that its status implies."""
        made = backend.create_run("r", status=status)
        assert (made.run_id, made.status, made.version) == ("r", status, 1)
        assert made.started_at == (None if status == "pending" else clock.now())
        assert made.finished_at == (None if status in ("pending", "running") else clock.now())
        assert (made.config, made.metadata) == ({}, {})
        assert backend.get_run("r") == made

    @clause("RUN-1", "TIME-2")
    def test_create_with_a_start(self, backend: StateBackend) -> None:
        """A naive start is local time; an aware one is kept as the instant it is."""
        naive = datetime(2024, 7, 1, 12, 30)
        backend.create_run("naive", "running", naive, {"c": 1}, {"m": 1})
        backend.create_run("aware", started_at=datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=5))))
        first, second = backend.get_run("naive"), backend.get_run("aware")
        assert first is not None
        assert second is not None
        assert first.started_at == naive.astimezone(UTC)
        assert (first.config, first.metadata) == ({"c": 1}, {"m": 1})
        assert second.started_at == datetime(2024, 7, 1, 7, tzinfo=UTC)

    @clause("RUN-2", "ERR-1")
    def test_create_twice(self, backend: StateBackend, other: StateBackend) -> None:
        """The second one is refused, from another instance too, and changes nothing."""
        backend.create_run("r", metadata={"a": 1})
        before = everything(backend)
        for each in (backend, other):
            with pytest.raises(ConcurrencyError):
                each.create_run("r", status="failed", metadata={"b": 2})
        assert everything(backend) == before

    @clause("RUN-3", "ERR-1")
    @pytest.mark.parametrize(("field", "bad"), BAD_RUN_FIELDS, ids=lambda value: ascii(value)[:40])
    def test_bad_run_fields(self, backend: StateBackend, field: str, bad: Any) -> None:
        """The error names the field; nothing changed; the run can still be written."""
        backend.create_run("r", config={"c": 1}, metadata={"m": 1})
        before = everything(backend)
        with pytest.raises(InvalidFieldError) as caught:
            backend.update_run("r", **{field: bad})
        assert caught.value.field == field
        assert caught.value.hint
        if field in ("status", "started_at", "config", "metadata") and bad is not None:
            with pytest.raises(InvalidFieldError) as caught:
                backend.create_run("s", **{field: bad})
            assert caught.value.field == field
        assert everything(backend) == before
        assert backend.update_run("r", status="success").version == 2

    @clause("RUN-4", "RUN-6")
    def test_update_patches(self, backend: StateBackend, other: StateBackend) -> None:
        """What is not named stays; metadata merges by key; every write raises the version by one."""
        backend.create_run("r", config={"c": 1}, metadata={"a": 1, "b": {"x": 1}})
        first = backend.update_run("r", metadata={"b": {"y": 2}, "c": None})
        assert first.metadata == {"a": 1, "b": {"y": 2}, "c": None}
        assert (first.status, first.config, first.version) == ("running", {"c": 1}, 2)
        second = other.update_run("r", config=RICH)
        assert (second.config, second.metadata, second.version) == (RICH, first.metadata, 3)
        assert backend.update_run("r").version == 4
        assert other.get_run("r") == backend.get_run("r")

    @clause("RUN-5")
    @pytest.mark.parametrize("status", ["success", "failed", "cancelled"])
    def test_final_status_sets_the_finish(self, backend: StateBackend, clock: FakeClock, status: str) -> None:
        """Where it was not given; leaving it clears the finish."""
        backend.create_run("r")
        clock.advance(seconds=90)
        done = backend.update_run("r", status=status)
        assert done.finished_at == clock.now()
        assert done.started_at == clock.now() - timedelta(seconds=90)
        clock.advance(seconds=1)
        assert backend.update_run("r", status=status, metadata={"a": 1}).finished_at == done.finished_at
        assert backend.update_run("r", status=status, finished_at=day(2)).finished_at == day(2)
        again = backend.update_run("r", status="running")
        assert (again.finished_at, again.started_at) == (None, done.started_at)

    @clause("RUN-5", "TIME-2")
    def test_finish_that_is_given(self, backend: StateBackend) -> None:
        """A naive one is local time."""
        naive = datetime(2024, 1, 1, 9)
        backend.create_run("r")
        assert backend.update_run("r", status="success", finished_at=naive).finished_at == naive.astimezone(UTC)

    @clause("RUN-7", "ERR-1")
    def test_writes_to_a_missing_run(self, backend: StateBackend) -> None:
        """Each is refused, and creates nothing."""
        before = everything(backend)
        for call in (
            lambda: backend.update_run("no", status="success"),
            lambda: backend.update_run("no", expected_version=0, status="success"),
            lambda: backend.set_metadata("no", {"a": 1}),
            lambda: backend.get_metadata("no"),
            lambda: backend.set_node_state("no", NODE, status="success"),
            lambda: backend.delete_node_state("no", NODE),
            lambda: backend.add_completed_interval("no", NODE, day(1), day(2)),
            lambda: backend.add_completed_partition("no", NODE, "p"),
        ):
            with pytest.raises(RunNotFoundError) as caught:
                call()
            assert caught.value.run_id == "no"
        assert everything(backend) == before

    @clause("RUN-8")
    def test_stale_run_version(self, backend: StateBackend, other: StateBackend) -> None:
        """A writer that saw an earlier version is refused; 0 is "no record"."""
        run = backend.create_run("r")
        other.update_run("r", metadata={"a": 1})
        before = everything(backend)
        for stale in (run.version, 0, 3, -1):
            with pytest.raises(StaleVersionError) as caught:
                backend.update_run("r", expected_version=stale, status="failed")
            assert (caught.value.expected, caught.value.found) == (stale, 2)
        for bad in ("2", 2.0, True):
            with pytest.raises(InvalidFieldError):
                backend.update_run("r", expected_version=bad, status="failed")  # type: ignore[arg-type]
        assert everything(backend) == before
        assert backend.update_run("r", expected_version=2, status="failed").version == 3

    @clause("RUN-9", "RUN-13")
    def test_missing_is_none(self, backend: StateBackend) -> None:
        """Never an error, never an empty record."""
        assert backend.get_run("no") is None
        assert not backend.exists("no")
        backend.create_run("r")
        assert backend.exists("r")
        assert not backend.exists("R")

    @clause("RUN-10")
    def test_list_runs(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """In the order of creation, whatever the clocks, ids and later writes say."""
        assert backend.list_runs() == []
        for number, run_id in enumerate(("c", "a", "b", "d")):
            (backend, other)[number % 2].create_run(run_id, started_at=day(9 - number))
            clock.skew -= timedelta(hours=1)
        other.update_run("c", status="success")
        backend.update_run("b", status="success")
        assert backend.list_runs() == other.list_runs() == ["c", "a", "b", "d"]
        assert backend.list_runs(newest_first=True) == ["d", "b", "a", "c"]
        assert backend.list_runs(newest_first=True, limit=1) == ["d"]
        assert backend.list_runs(status="success") == ["c", "b"]
        assert backend.list_runs(status="success", newest_first=True, limit=1) == ["b"]
        assert backend.list_runs(status="cancelled") == []
        assert backend.list_runs(limit=10) == ["c", "a", "b", "d"]

    @clause("RUN-10")
    def test_limit_zero_is_none_at_all(self, backend: StateBackend) -> None:
        """Empty never means all; a bad limit or status is refused."""
        backend.create_run("r")
        assert backend.list_runs(limit=0) == []
        with backend.transaction():
            backend.create_run("s")
            assert backend.list_runs(limit=0) == []
        for bad in (-1, 1.5, "1"):
            with pytest.raises(InvalidFieldError):
                backend.list_runs(limit=bad)  # type: ignore[arg-type]
        for status in ("", "done", "skipped"):
            with pytest.raises(InvalidFieldError):
                backend.list_runs(status=status)

    @clause("RUN-11", "RUN-12", "NODE-14")
    def test_delete_run(self, backend: StateBackend, other: StateBackend) -> None:
        """It takes the node states along, and leaves completed work."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
            backend.set_node_state(run_id, NODE, status="success")
        backend.add_completed_interval("r", NODE, day(1), day(2))
        backend.add_completed_partition("r", NODE, "p")
        assert other.delete_run("r")
        assert not backend.delete_run("r")
        assert backend.list_runs() == ["s"]
        assert backend.get_node_state("r", NODE) is None
        assert backend.get_all_node_states("r") == {}
        assert backend.node_exists("s", NODE)
        assert spans(backend) == [(day(1), day(2), "r")]
        assert [each.partition for each in backend.list_partitions(NODE)] == ["p"]

    @clause("RUN-11", "RUN-10")
    def test_delete_and_create_again(self, backend: StateBackend) -> None:
        """It is a new run: no nodes, version 1, last in order; in one transaction too."""
        for run_id in ("r", "s"):
            backend.create_run(run_id, metadata={"a": 1})
        backend.set_node_state("r", NODE)
        backend.delete_run("r")
        assert backend.create_run("r").metadata == {}
        assert backend.list_nodes("r") == []
        assert backend.list_runs() == ["s", "r"]
        backend.set_node_state("s", NODE, row_count=1)
        with backend.transaction():
            backend.delete_run("s")
            assert backend.get_node_state("s", NODE) is None
            backend.create_run("s", status="pending")
            assert backend.list_runs() == ["r", "s"]
            backend.set_node_state("s", "new")
            assert backend.list_nodes("s") == ["new"]
        run = backend.get_run("s")
        assert run is not None
        assert (run.version, run.status, run.metadata) == (1, "pending", {})
        assert backend.list_nodes("s") == ["new"]
        assert backend.list_runs() == ["r", "s"]

    @clause("RUN-10")
    def test_order_of_runs_created_in_one_transaction(self, backend: StateBackend) -> None:
        """A run that is deleted and created again comes last, before the commit as after it."""
        with backend.transaction():
            for run_id in ("b", "a"):
                backend.create_run(run_id)
            backend.delete_run("b")
            backend.create_run("b")
            with backend.transaction():
                backend.delete_run("a")
                backend.create_run("a")
            assert backend.list_runs() == ["b", "a"]
        assert backend.list_runs() == ["b", "a"]

    @clause("RUN-14", "RUN-15")
    def test_run_metadata(self, backend: StateBackend, other: StateBackend) -> None:
        """It is read whole and merged by key."""
        backend.create_run("r")
        assert backend.get_metadata("r") == {}
        backend.set_metadata("r", {"a": 1})
        other.set_metadata("r", {"b": RICH})
        backend.set_metadata("r", {"a": 2})
        assert other.get_metadata("r") == {"a": 2, "b": RICH}
        with pytest.raises(InvalidFieldError):
            backend.set_metadata("r", {"a": {1}})
        assert other.get_metadata("r") == {"a": 2, "b": RICH}
