"""Cases about completed intervals and partitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from seeknal.errors import CapabilityError, IntervalError, InvalidFieldError, RunNotFoundError
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import NODE, day, everything, spans

BAD_BOUNDS: tuple[tuple[Any, Any], ...] = (
    (day(2), day(2)),
    (day(2), day(1)),
    ("2024-01-01", day(2)),
    (day(1), "2024-01-02"),
    (None, day(2)),
    (day(1), None),
    (day(1).date(), day(2).date()),
    (0, 1),
)


class IntervalCases:
    """Cases about completed intervals and partitions."""

    @clause("INT-1", "INT-5")
    def test_touching_and_overlapping_merge(self, backend: StateBackend, other: StateBackend) -> None:
        """In any order of adding; the last addition is the provenance."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        backend.add_completed_interval("r", NODE, day(5), day(6))
        backend.add_completed_interval("r", NODE, day(1), day(2))
        assert spans(other) == [(day(1), day(2), "r"), (day(5), day(6), "r")]
        other.add_completed_interval("s", NODE, day(2), day(3))
        assert spans(backend) == [(day(1), day(3), "s"), (day(5), day(6), "r")]
        backend.add_completed_interval("r", NODE, day(1), day(9))
        backend.add_completed_interval("s", NODE, day(2), day(3))
        assert spans(other) == [(day(1), day(9), "s")]
        assert spans(other, "another") == []
        assert all(each.node_id == NODE for each in backend.get_completed_intervals(NODE))

    @clause("INT-1")
    def test_a_gap_of_a_microsecond_stays(self, backend: StateBackend) -> None:
        """Bounds are exact."""
        backend.create_run("r")
        tick = timedelta(microseconds=1)
        backend.add_completed_interval("r", NODE, day(1), day(2))
        backend.add_completed_interval("r", NODE, day(2) + tick, day(3))
        assert len(spans(backend)) == 2
        backend.add_completed_interval("r", NODE, day(2), day(2) + tick)
        assert spans(backend) == [(day(1), day(3), "r")]

    @clause("INT-1", "TIME-1")
    def test_the_ends_of_time(self, backend: StateBackend, other: StateBackend) -> None:
        """Years 1 to 9999, and before 1970, keep their microseconds."""
        backend.create_run("r")
        ends = [
            (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)),
            (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
            (datetime(9999, 12, 31, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        ]
        for start, end in ends:
            backend.add_completed_interval("r", NODE, start, end)
        assert spans(other) == [(start, end, "r") for start, end in ends]

    @clause("TIME-2", "INT-7")
    def test_naive_bounds_are_utc(self, backend: StateBackend) -> None:
        """And other zones are converted."""
        backend.create_run("r")
        backend.add_completed_interval("r", NODE, datetime(2024, 1, 1), datetime(2024, 1, 2))
        assert spans(backend) == [(day(1), day(2), "r")]
        east = timezone(timedelta(hours=5))
        backend.restate_intervals(NODE, datetime(2024, 1, 1, 5, tzinfo=east), datetime(2024, 1, 1, 17))
        assert spans(backend) == [(day(1, 17), day(2), "r")]
        (missing,) = backend.get_missing_intervals(NODE, datetime(2024, 1, 1), datetime(2024, 1, 2))
        assert (missing.start, missing.end) == (day(1), day(1, 17))

    @clause("INT-2", "PART-1")
    def test_completed_work_survives_its_run(self, backend: StateBackend, other: StateBackend) -> None:
        """It belongs to the node, across runs."""
        backend.create_run("r")
        backend.add_completed_interval("r", NODE, day(1), day(2))
        backend.add_completed_partition("r", NODE, "p")
        with backend.transaction():
            backend.add_completed_interval("r", NODE, day(2), day(3))
            backend.delete_run("r")
        assert spans(other) == [(day(1), day(3), "r")]
        assert [each.partition for each in other.list_partitions(NODE)] == ["p"]

    @clause("INT-3")
    def test_interval_of_a_missing_run(self, backend: StateBackend) -> None:
        """It cannot complete anything."""
        with pytest.raises(RunNotFoundError):
            backend.add_completed_interval("no", NODE, day(1), day(2))
        assert spans(backend) == []

    @clause("INT-4", "INT-9", "ERR-1")
    @pytest.mark.parametrize(("start", "end"), BAD_BOUNDS, ids=str)
    def test_bad_bounds(self, backend: StateBackend, start: Any, end: Any) -> None:
        """Refused by every verb, with nothing changed."""
        backend.create_run("r")
        backend.add_completed_interval("r", NODE, day(1), day(3))
        before = everything(backend)
        for call in (
            lambda: backend.add_completed_interval("r", NODE, start, end),
            lambda: backend.restate_intervals(NODE, start, end),
            lambda: backend.get_missing_intervals(NODE, start, end),
            lambda: backend.get_missing_intervals(NODE, start, end, "@daily"),
        ):
            with pytest.raises(IntervalError) as caught:
                call()
            assert caught.value.hint
        assert everything(backend) == before

    @clause("INT-6")
    def test_restate_intervals(self, backend: StateBackend, other: StateBackend) -> None:
        """A range that is cut keeps its other parts and their provenance; what was not complete stays so."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        backend.add_completed_interval("r", NODE, day(1), day(5))
        backend.add_completed_interval("s", NODE, day(6), day(8))
        backend.add_completed_interval("s", "another", day(1), day(9))
        other.restate_intervals(NODE, day(2), day(3))
        assert spans(backend) == [(day(1), day(2), "r"), (day(3), day(5), "r"), (day(6), day(8), "s")]
        backend.restate_intervals(NODE, day(4), day(7))
        assert spans(other) == [(day(1), day(2), "r"), (day(3), day(4), "r"), (day(7), day(8), "s")]
        backend.restate_intervals(NODE, day(20), day(21))
        backend.restate_intervals("never", day(1), day(2))
        assert len(spans(other)) == 3
        backend.restate_intervals(NODE, day(1), day(30))
        assert spans(other) == []
        assert spans(other, "another") == [(day(1), day(9), "s")]
        with other.transaction():
            other.add_completed_interval("r", NODE, day(1), day(5))
            other.restate_intervals(NODE, day(2), day(3))
            other.add_completed_interval("s", NODE, day(2), day(3))
            inside = spans(other)
        assert spans(backend) == inside == [(day(1), day(5), "s")]

    @clause("INT-7")
    def test_missing_intervals(self, backend: StateBackend) -> None:
        """The gaps, cut to the span."""
        backend.create_run("r")
        for start, end in ((2, 3), (5, 6)):
            backend.add_completed_interval("r", NODE, day(start), day(end))

        def missing(start: int, end: int) -> list[tuple[int, int]]:
            return [(gap.start.day, gap.end.day) for gap in backend.get_missing_intervals(NODE, day(start), day(end))]

        assert missing(1, 9) == [(1, 2), (3, 5), (6, 9)]
        assert missing(2, 3) == []
        assert missing(4, 5) == [(4, 5)]
        assert backend.get_missing_intervals("never", day(1), day(2))[0].start == day(1)

    @clause("INT-8")
    def test_missing_ticks(self, backend: StateBackend) -> None:
        """Whole ticks within the span; one that is half complete is missing as a whole, once."""
        backend.create_run("r")
        backend.add_completed_interval("r", NODE, day(2), day(3, 12))
        backend.add_completed_interval("r", NODE, day(3, 13), day(3, 20))

        def missing(*options: str) -> list[tuple[datetime, datetime]]:
            found = backend.get_missing_intervals(NODE, day(1, 5), day(5, 23), *options)
            return [(tick.start, tick.end) for tick in found]

        assert missing("@daily") == missing("0 0 * * *") == [(day(3), day(4)), (day(4), day(5))]
        assert missing("@weekly") == []
        assert missing("0 12 * * *", "UTC") == [
            (day(1, 12), day(2, 12)),
            (day(3, 12), day(4, 12)),
            (day(4, 12), day(5, 12)),
        ]
        hourly = [(tick.start, tick.end) for tick in backend.get_missing_intervals(NODE, day(3), day(4), "@hourly")]
        assert hourly == [(day(3, hour), day(3, hour + 1)) for hour in (12, 20, 21, 22)] + [(day(3, 23), day(4))]

    @clause("INT-8")
    def test_missing_ticks_across_daylight_saving(self, backend: StateBackend) -> None:
        """Days of 23 and of 25 hours, in the zone that is named."""
        backend.create_run("r")
        found = backend.get_missing_intervals(
            NODE, datetime(2024, 3, 29, 23, tzinfo=UTC), datetime(2024, 4, 1, 22, tzinfo=UTC), "@daily", "Europe/Berlin"
        )
        assert [(tick.end - tick.start) // timedelta(hours=1) for tick in found] == [24, 23, 24]
        assert found[1].start == datetime(2024, 3, 30, 23, tzinfo=UTC)
        backend.add_completed_interval("r", NODE, found[1].start, found[1].end)
        assert backend.get_missing_intervals(NODE, found[0].start, found[2].end, "@daily", "Europe/Berlin") == [
            found[0],
            found[2],
        ]
        (autumn,) = backend.get_missing_intervals(
            NODE,
            datetime(2024, 10, 26, 22, tzinfo=UTC),
            datetime(2024, 10, 27, 23, tzinfo=UTC),
            "@daily",
            "Europe/Berlin",
        )
        assert autumn.end - autumn.start == timedelta(hours=25)

    @clause("INT-11")
    def test_missing_ticks_as_of_their_end(self, backend: StateBackend) -> None:
        """Done again, late, and only some of them."""
        backend.create_run("r")
        backend.add_completed_interval("r", NODE, day(1), day(6))
        backend.restate_intervals(NODE, day(2), day(3))

        def missing(**options: Any) -> list[int]:
            found = backend.get_missing_intervals(NODE, day(1), day(6, 12), "@daily", **options)
            return [tick.start.day for tick in found]

        assert missing() == [2]
        assert missing(lookback=2) == [2, 4, 5]
        assert missing(lookback=2, lateness=timedelta(hours=13)) == [2, 3, 4]
        assert missing(lookback=2, max_intervals=2) == [2, 4]
        assert missing(lookback=2, max_intervals=2, newest_first=True) == [5, 4]
        assert missing(lookback=2, max_intervals=0) == []

    @clause("INT-11", "INT-9", "ERR-1")
    def test_bad_counts_of_ticks(self, backend: StateBackend) -> None:
        """Refused by their names; and ticks of no schedule."""
        bad: dict[str, Any] = {"lookback": -1, "max_intervals": 1.5, "lateness": 3}
        for field, value in bad.items():
            with pytest.raises(InvalidFieldError) as caught:
                backend.get_missing_intervals(NODE, day(1), day(2), "@daily", **{field: value})
            assert caught.value.field == field
            assert caught.value.hint
        for given in ({"lookback": 1}, {"max_intervals": 1}, {"lateness": timedelta(1)}, {"newest_first": True}):
            with pytest.raises(IntervalError, match="schedule"):
                backend.get_missing_intervals(NODE, day(1), day(2), **given)

    @clause("INT-9", "ERR-1")
    @pytest.mark.parametrize(
        ("schedule", "zone"),
        [
            ("", None),
            ("daily", None),
            ("@reboot", None),
            ("* * * *", None),
            ("* * * * * *", None),
            ("61 * * * *", None),
            ("0 0 30 2 *", None),
            (5, None),
            ("@daily", "Mars/Olympus"),
            ("@daily", ""),
            ("@daily", "../etc/passwd"),
            ("@daily", 5),
            (None, "UTC"),
        ],
    )
    def test_bad_schedules(self, backend: StateBackend, schedule: Any, zone: Any) -> None:
        """Refused, with a hint."""
        with pytest.raises(IntervalError) as caught:
            backend.get_missing_intervals(NODE, day(1), day(2), schedule, zone)
        assert caught.value.hint

    @clause("INT-9", "ERR-1")
    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
    def test_ticks_at_the_ends_of_time(self, backend: StateBackend, zone: str) -> None:
        """Refused, not overrun."""
        for start, end in ((datetime.min, datetime(1, 1, 3)), (datetime(9999, 12, 30), datetime.max)):
            with pytest.raises(IntervalError):
                backend.get_missing_intervals(NODE, start, end, "@daily", zone)
        assert backend.get_missing_intervals(NODE, datetime(9997, 1, 1), datetime(9998, 1, 1), "0 0 29 2 *", zone) == []
        assert backend.get_missing_intervals(NODE, datetime(2, 1, 1), datetime(2, 2, 1), "0 0 29 2 *", zone) == []

    @clause("INT-10")
    def test_worked_nodes(self, backend: StateBackend, other: StateBackend) -> None:
        """Those of runs that are gone are among them; a node with nothing left is not. Who cannot tell says so."""
        backend.create_run("r")
        if type(backend).list_worked_nodes is StateBackend.list_worked_nodes:
            with pytest.raises(CapabilityError) as caught:
                backend.list_worked_nodes()
            assert caught.value.hint
            return
        assert backend.list_worked_nodes() == []
        backend.set_node_state("r", "idle", status="success")
        for node_id in ("b", "\u00e9", "B", "never here"):
            backend.add_completed_interval("r", node_id, day(1), day(3))
        for node_id in ("a", "b", "\U0001f600"):
            backend.add_completed_partition("r", node_id, "p")
        backend.restate_intervals("never here", day(1), day(3))
        backend.restate_intervals("B", day(1), day(2))
        backend.delete_run("r")
        assert other.list_worked_nodes() == ["B", "a", "b", "\u00e9", "\U0001f600"]
        with backend.transaction():
            backend.create_run("s")
            backend.add_completed_partition("s", "c", "p")
            backend.restate_partition("a", "p")
            backend.restate_partition("b", "p")
            backend.restate_intervals("\u00e9", day(1), day(3))
            assert backend.list_worked_nodes() == ["B", "b", "c", "\U0001f600"]
        assert other.list_worked_nodes() == ["B", "b", "c", "\U0001f600"]
