"""Cases about cleaning up."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from seeknal.clock import FakeClock, SystemClock
from seeknal.errors import InvalidFieldError, RunNotFoundError
from seeknal.model.records import RunState
from seeknal.state import pins
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.retention import Retirement
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import NODE, day, everything, spans
from seeknal.state.testing.scene import Scene

MONTH = timedelta(days=30)


class RetentionCases:
    """Cases about cleaning up."""

    @clause("CLEAN-1")
    def test_only_finished_runs_go(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """By when they finished, not by when they started."""
        for status in ("pending", "running", "success", "failed", "cancelled"):
            backend.create_run(status, status=status, started_at=day(1))
        backend.create_run("late", started_at=day(1))
        clock.advance(days=31)
        backend.update_run("late", status="success")
        report = other.cleanup(older_than=MONTH)
        assert report.deleted == ["success", "failed", "cancelled"]
        assert report.kept == {"pending": "unfinished", "running": "unfinished", "late": "too young"}
        assert report.cutoff == clock.now() - MONTH
        assert backend.list_runs() == ["pending", "running", "late"]
        assert backend.cleanup(older_than=MONTH).deleted == []

    @clause("CLEAN-1")
    def test_the_limit_is_exact(self, backend: StateBackend, clock: FakeClock) -> None:
        """What finished exactly that long ago stays; zero takes all that finished before now."""
        backend.create_run("r", status="failed")
        clock.advance(days=30)
        assert backend.cleanup(older_than=MONTH).deleted == []
        clock.advance(microseconds=1)
        assert backend.cleanup(older_than=timedelta()).deleted == ["r"]

    @clause("CLEAN-2")
    def test_the_newest_success_of_a_node_stays(self, backend: StateBackend, clock: FakeClock) -> None:
        """However old it is; the report says why."""
        for run_id, status in (("a", "success"), ("b", "success"), ("c", "failed")):
            backend.create_run(run_id)
            backend.set_node_state(run_id, NODE, status=status)
            backend.update_run(run_id, status=status)
        backend.create_run("d")
        backend.set_node_state("d", NODE, status="running")
        clock.advance(days=99)
        report = backend.cleanup(older_than=MONTH)
        assert report.deleted == ["a", "c"]
        assert report.kept == {"b": f"newest success: {NODE}", "d": "unfinished"}
        assert backend.list_runs() == ["b", "d"]
        latest = backend.get_latest_node_state(NODE, "success")
        assert latest is not None
        assert latest.run_id == "b"

    @clause("CLEAN-3")
    def test_completed_work_stays(self, backend: StateBackend, clock: FakeClock) -> None:
        """Intervals and partitions are never forgotten."""
        backend.create_run("r")
        backend.add_completed_interval("r", NODE, day(1), day(2))
        backend.add_completed_partition("r", NODE, "p")
        backend.update_run("r", status="success")
        clock.advance(days=99)
        assert backend.cleanup(older_than=MONTH).deleted == ["r"]
        assert spans(backend) == [(day(1), day(2), "r")]
        assert [each.partition for each in backend.list_partitions(NODE)] == ["p"]

    @clause("CLEAN-1")
    def test_many_runs(self, backend: StateBackend, clock: FakeClock) -> None:
        """More than one batch: a preview names the same runs and deletes none."""
        with backend.transaction():
            for number in range(45):
                backend.create_run(f"r{number}", status="failed")
        clock.advance(days=99)
        before = everything(backend)
        preview = backend.cleanup(older_than=MONTH, dry_run=True)
        assert everything(backend) == before
        assert preview == backend.cleanup(older_than=MONTH)
        assert preview.deleted == [f"r{number}" for number in range(45)]
        assert backend.list_runs() == []

    @clause("CLEAN-1")
    def test_a_run_that_was_made_anew_is_not_taken_for_the_old_one(
        self, backend: StateBackend, other: StateBackend, clock: FakeClock
    ) -> None:
        """Even if it has the name and the version of one that was old when the cleanup began."""
        with backend.transaction():
            for run_id in ("a", "b"):
                backend.create_run(run_id, status="failed")
        clock.advance(days=99)
        retire = backend._retire
        renewed: list[bool] = []

        def interrupted(runs: Sequence[RunState], **options: Any) -> Retirement:
            if not renewed:
                renewed.append(other.delete_run("b"))
                other.create_run("b", status="failed")
            return retire(runs, **options)

        backend._retire = interrupted  # type: ignore[method-assign]
        report = backend.cleanup(older_than=MONTH)
        assert (report.deleted, report.kept) == (["a"], {"b": "written meanwhile"})
        assert backend.exists("b")

    @clause("CLEAN-2")
    def test_one_node_of_many_keeps_its_run(self, backend: StateBackend, clock: FakeClock) -> None:
        """Nodes that failed, were skipped or succeeded again later keep none."""
        for run_id, states in (("a", "success skipped failed"), ("b", "success success failed"), ("c", "success")):
            backend.create_run(run_id)
            for number, status in enumerate(states.split()):
                backend.set_node_state(run_id, f"n{number}", status=status)
            backend.update_run(run_id, status="failed")
        clock.advance(days=99)
        report = backend.cleanup(older_than=MONTH)
        assert report.kept == {"b": "newest success: n1", "c": "newest success: n0"}
        assert [(run.run_id, run.status, run.nodes) for run in report.runs] == [("a", "failed", 3)]
        assert backend.get_all_node_states("a") == {}

    @clause("CLEAN-4")
    def test_a_pinned_run_stays(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """Under every rule, until its pin is taken away."""
        for run_id in ("a", "b", "c"):
            backend.create_run(run_id, status="failed")
        pins.pin_run(other, "a", "audit 2024")
        backend.set_metadata("b", {pins.PINNED: True, "mine": 1})
        clock.advance(days=99)
        report = backend.cleanup(older_than=timedelta(), status="failed")
        assert (report.deleted, report.kept) == (["c"], {"a": "pinned: audit 2024", "b": "pinned"})
        assert pins.unpin_run(other, "a")
        assert not pins.unpin_run(other, "a")
        assert backend.cleanup(older_than=MONTH).deleted == ["a"]
        assert backend.get_metadata("b")["mine"] == 1

    @clause("CLEAN-4")
    def test_a_missing_run_cannot_be_pinned(self, backend: StateBackend) -> None:
        """Nor can it lose a pin."""
        for change in (pins.pin_run, pins.unpin_run):
            with pytest.raises(RunNotFoundError):
                change(backend, "r")
        assert not backend.exists("r")

    @clause("CLEAN-5")
    def test_the_newest_runs_stay(self, backend: StateBackend, clock: FakeClock) -> None:
        """By creation, whatever their status; a run goes only if it is old enough as well."""
        for number, status in enumerate(("failed", "failed", "failed", "running", "failed")):
            backend.create_run(f"r{number}", status=status)
            clock.advance(days=20)
        report = backend.cleanup(older_than=MONTH, keep_last=3)
        assert report.deleted == ["r0", "r1"]
        assert report.kept == {"r2": "among the last: 3", "r3": "unfinished", "r4": "too young"}
        assert backend.cleanup(older_than=timedelta(), keep_last=3).deleted == []
        assert backend.cleanup(older_than=timedelta(), keep_last=99).deleted == []
        assert backend.cleanup(older_than=timedelta(), keep_last=1).deleted == ["r2"]

    @clause("CLEAN-6")
    @pytest.mark.parametrize("status", ["success", "failed", "cancelled"])
    def test_only_runs_of_a_status_go(self, backend: StateBackend, clock: FakeClock, status: str) -> None:
        """The others say so."""
        for each in ("success", "failed", "cancelled"):
            backend.create_run(each, status=each)
        clock.advance(days=99)
        report = backend.cleanup(older_than=MONTH, status=status)
        assert report.deleted == [status]
        assert set(report.kept.values()) == {"another status"}
        assert set(backend.list_runs()) == report.kept.keys()

    @clause("CLEAN-7")
    def test_a_run_whose_lock_is_held_stays(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """Its own or that of a node in it; the lock stays, too, and goes on counting."""
        for run_id in ("a", "b", "c"):
            backend.create_run(run_id, status="failed")
        clock.advance(days=99)
        with other.lock("a") as lease, other.lock("b", NODE):
            report = backend.cleanup(older_than=MONTH)
            assert (report.deleted, report.kept) == (["c"], {"a": "locked", "b": "locked"})
            assert len(other.list_locks()) == 2
            with other.transaction(lease=lease):
                other.set_node_state("a", NODE, status="failed")
        assert backend.cleanup(older_than=MONTH).deleted == ["a", "b"]
        with other.lock("a") as again:
            assert again.token == lease.token + 1

    @clause("CLEAN-7")
    def test_a_lock_that_is_taken_after_a_preview_keeps_its_run(
        self, backend: StateBackend, other: StateBackend, clock: FakeClock
    ) -> None:
        """A preview binds nobody."""
        backend.create_run("r", status="failed")
        clock.advance(days=99)
        assert backend.cleanup(older_than=MONTH, dry_run=True).deleted == ["r"]
        assert other.acquire_lock("r", timeout_ms=0)
        assert backend.cleanup(older_than=MONTH).kept == {"r": "locked"}
        assert other.release_lock("r")

    @clause("CLEAN-8")
    def test_every_run_is_told_of(self, backend: StateBackend, clock: FakeClock) -> None:
        """In the order of creation, with how much went."""
        with backend.transaction():
            for number in range(9):
                backend.create_run(f"r{number}", status=("failed", "running", "success")[number % 3])
                backend.set_node_state(f"r{number}", NODE, status="success")
        clock.advance(days=99)
        told: list[tuple[int, int]] = []
        report = backend.cleanup(older_than=MONTH, on_progress=lambda _, done, of: told.append((done, of)))
        assert report.deleted == ["r0", "r2", "r3", "r5", "r6"]
        assert list(report.kept) == ["r1", "r4", "r7", "r8"]
        assert [run.nodes for run in report.runs] == [1] * 5
        assert told[-1] == (9, 9)
        assert (report.is_complete, report.remaining) == (True, 0)

    @clause("CLEAN-9")
    def test_no_transaction_begins_after_the_budget(self, backend: StateBackend, clock: FakeClock) -> None:
        """It says how much is left, and the next one goes on there."""
        with backend.transaction():
            for number in range(5):
                backend.create_run(f"r{number}", status="failed")
        clock.advance(days=99)
        before = everything(backend)
        report = backend.cleanup(older_than=MONTH, budget=timedelta())
        assert (report.deleted, report.is_complete, report.remaining) == ([], False, 5)
        assert everything(backend) == before
        report = backend.cleanup(older_than=MONTH, budget=timedelta(hours=1))
        assert (len(report.deleted), report.is_complete, report.remaining) == (5, True, 0)

    @clause("CLEAN-9")
    def test_several_at_once(self, scene: Scene) -> None:
        """Each run goes once, and no newest success with it."""
        # In real time: whoever waits for the other one would make a clock of the scene run away.
        first, second = scene.open(SystemClock()), scene.open(SystemClock())
        with first.transaction():
            for number in range(60):
                first.create_run(f"r{number}")
                first.set_node_state(f"r{number}", f"n{number % 7}", status="success")
                first.update_run(f"r{number}", status="success", finished_at=day(1))
        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(lambda each: each.cleanup(older_than=MONTH), (first, second)))
        gone = [run_id for report in reports for run_id in report.deleted]
        assert sorted(gone) == sorted(f"r{number}" for number in range(53))
        assert first.list_runs() == [f"r{number}" for number in range(53, 60)]

    @clause("ERR-1")
    @pytest.mark.parametrize("bad", [timedelta(microseconds=-1), 30, None, "30 days", timedelta.max])
    def test_bad_limits(self, backend: StateBackend, bad: Any) -> None:
        """Refused; a limit before the beginning of time too."""
        backend.create_run("r", status="failed")
        with pytest.raises(InvalidFieldError) as caught:
            backend.cleanup(older_than=bad)
        assert caught.value.field == "older_than"
        assert backend.exists("r")

    @clause("ERR-1")
    @pytest.mark.parametrize(
        ("field", "bad"),
        [
            *(("keep_last", bad) for bad in (-1, 1.0, "1", None, True)),
            *(("status", bad) for bad in ("running", "pending", "succeeded", 1)),
            *(("budget", bad) for bad in (timedelta(microseconds=-1), 30)),
        ],
    )
    def test_bad_rules(self, backend: StateBackend, clock: FakeClock, field: str, bad: Any) -> None:
        """Refused before anything goes; the error names the field."""
        backend.create_run("r", status="failed")
        clock.advance(days=99)
        with pytest.raises(InvalidFieldError) as caught:
            backend.cleanup(older_than=MONTH, **{field: bad})
        assert caught.value.field == field
        assert backend.exists("r")

    @needs(Capability.LOG)
    @clause("LOG-1")
    def test_pins_and_cleanups_are_logged(self, backend: StateBackend, clock: FakeClock) -> None:
        """Who pinned what, and how much went; a preview and a cleanup of nothing are no change."""
        for run_id in ("a", "b"):
            backend.create_run(run_id, status="failed")
            backend.set_node_state(run_id, NODE, status="failed")
        pins.pin_run(backend, "a", "audit")
        clock.advance(days=99)
        for dry_run in (True, False, False):
            backend.cleanup(older_than=MONTH, dry_run=dry_run)
        pins.unpin_run(backend, "a")
        pins.unpin_run(backend, "a")
        logged = [(each.action, each.run_id, each.reason) for each in backend.list_changes()]
        assert logged == [("pin", "a", "audit"), ("cleanup", None, ""), ("unpin", "a", "")]
        (cleaned,) = backend.list_changes(action="cleanup")
        assert (cleaned.detail["runs"], cleaned.detail["node_states"], cleaned.detail["keep_last"]) == (1, 1, 0)
