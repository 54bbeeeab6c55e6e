"""Cases about cleaning up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import InvalidFieldError
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import NODE, day, everything, spans

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
        assert report.kept == {}
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
        assert report.kept.keys() == {"b"}
        assert NODE in report.kept["b"]
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

    @clause("ERR-1")
    @pytest.mark.parametrize("bad", [timedelta(microseconds=-1), 30, None, "30 days", timedelta.max])
    def test_bad_limits(self, backend: StateBackend, bad: Any) -> None:
        """Refused; a limit before the beginning of time too."""
        backend.create_run("r", status="failed")
        with pytest.raises(InvalidFieldError) as caught:
            backend.cleanup(older_than=bad)
        assert caught.value.field == "older_than"
        assert backend.exists("r")
