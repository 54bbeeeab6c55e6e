"""Cases about which run completed which part of an interval, and why it was restated."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from random import Random

import pytest

from seeknal.errors import InvalidFieldError
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import NODE, day, spans


def parts(backend: StateBackend, node_id: str = NODE) -> list[tuple[datetime, datetime, str]]:
    """Return which run completed which part, as tuples: start, end, run id."""
    return [(each.start, each.end, each.run_id) for each in backend.get_interval_provenance(node_id)]


class ProvenanceCases:
    """Cases about the history of completed intervals."""

    @needs(Capability.PROVENANCE)
    @clause("PROV-1", "PROV-3")
    def test_provenance_is_kept_through_merges(self, backend: StateBackend, other: StateBackend) -> None:
        """One range of three runs has three parts, or more; the runs may be gone."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        for run_id, first, end in (("r", 1, 3), ("s", 3, 5), ("r", 5, 6), ("r", 6, 7), ("s", 9, 10)):
            backend.add_completed_interval(run_id, NODE, day(first), day(end))
        backend.delete_run("r")
        assert spans(other) == [(day(1), day(7), "r"), (day(9), day(10), "s")]
        assert parts(other) == [
            (day(1), day(3), "r"),
            (day(3), day(5), "s"),
            (day(5), day(7), "r"),
            (day(9), day(10), "s"),
        ]
        assert parts(other, "another") == []

    @needs(Capability.PROVENANCE)
    @clause("PROV-2")
    def test_the_run_that_completed_a_part_last_is_named(self, backend: StateBackend, other: StateBackend) -> None:
        """A part is cut out of another run's, and joins what touches it of its own."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        backend.add_completed_interval("r", NODE, day(1), day(10))
        backend.add_completed_interval("s", NODE, day(4), day(6))
        assert parts(other) == [(day(1), day(4), "r"), (day(4), day(6), "s"), (day(6), day(10), "r")]
        other.add_completed_interval("r", NODE, day(5), day(6))
        assert parts(backend) == [(day(1), day(4), "r"), (day(4), day(5), "s"), (day(5), day(10), "r")]
        backend.add_completed_interval("r", NODE, day(3), day(5))
        assert parts(other) == [(day(1), day(10), "r")]
        backend.add_completed_interval("s", NODE, day(1), day(2))
        backend.add_completed_interval("s", NODE, day(9), day(12))
        assert parts(other) == [(day(1), day(2), "s"), (day(2), day(9), "r"), (day(9), day(12), "s")]
        backend.add_completed_interval("s", NODE, day(1), day(12))
        assert parts(other) == [(day(1), day(12), "s")]

    @needs(Capability.PROVENANCE)
    @clause("PROV-2")
    def test_a_restatement_takes_provenance_away(self, backend: StateBackend, other: StateBackend) -> None:
        """Of that span only, whichever parts it cuts; what is completed then is of the run that did it."""
        for run_id in ("r", "s", "t"):
            backend.create_run(run_id)
        for run_id, first, end in (("r", 1, 4), ("s", 4, 7), ("r", 7, 10)):
            backend.add_completed_interval(run_id, NODE, day(first), day(end))
        other.restate_intervals(NODE, day(3), day(8))
        assert parts(backend) == [(day(1), day(3), "r"), (day(8), day(10), "r")]
        backend.add_completed_interval("t", NODE, day(3), day(8))
        assert parts(other) == [(day(1), day(3), "r"), (day(3), day(8), "t"), (day(8), day(10), "r")]
        assert spans(other) == [(day(1), day(10), "t")]
        backend.restate_intervals(NODE, day(1), day(30))
        assert parts(other) == []

    @needs(Capability.PROVENANCE)
    @clause("PROV-1", "TX-1", "TX-2", "TX-5")
    def test_provenance_in_a_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """It sees its own, others see nothing; what is rolled back was never completed."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        backend.add_completed_interval("r", NODE, day(1), day(5))
        with backend.transaction():
            backend.add_completed_interval("s", NODE, day(2), day(3))
            with pytest.raises(ZeroDivisionError), backend.transaction():
                backend.add_completed_interval("s", NODE, day(4), day(9))
                raise ZeroDivisionError
            inside = parts(backend)
            assert parts(other) == [(day(1), day(5), "r")]
        assert parts(other) == inside == [(day(1), day(2), "r"), (day(2), day(3), "s"), (day(3), day(5), "r")]

    @needs(Capability.PROVENANCE)
    @clause("PROV-1", "PROV-2", "INT-1", "INT-6")
    def test_a_hundred_changes_of_intervals(self, backend: StateBackend, other: StateBackend) -> None:
        """Whatever is completed and restated, each day is told of as a table of days would have it."""
        runs = ("r", "s", "t")
        for run_id in runs:
            backend.create_run(run_id)
        chance = Random(20240110)  # noqa: S311 - the same changes each time
        table: dict[int, str] = {}
        for _ in range(100):
            first, end = sorted(chance.sample(range(1, 29), 2))
            run_id = chance.choice(runs)
            if chance.random() < 0.3:
                backend.restate_intervals(NODE, day(first), day(end))
                table = {number: run for number, run in table.items() if not first <= number < end}
            else:
                backend.add_completed_interval(run_id, NODE, day(first), day(end))
                table |= dict.fromkeys(range(first, end), run_id)
            found = parts(backend)
            assert {n: run for start, last, run in found for n in range(start.day, last.day)} == table
            assert all(a[1] < b[0] or (a[1] == b[0] and a[2] != b[2]) for a, b in pairwise(found))
        covered = {n for start, last, _ in spans(other) for n in range(start.day, last.day)}
        assert covered == table.keys()
        assert parts(other) == parts(backend)

    @needs(Capability.LOG)
    @clause("INT-12")
    def test_a_restatement_says_why(self, backend: StateBackend, other: StateBackend) -> None:
        """In the log and in the same commit; without a reason it is not logged, with an empty one it is."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        for run_id, first in (("r", 1), ("s", 2), ("s", 3), ("r", 4)):
            backend.add_completed_interval(run_id, NODE, day(first), day(first + 1))
        backend.restate_intervals(NODE, day(4), day(5))
        assert other.list_changes() == []
        backend.restate_intervals(NODE, day(2), day(9), reason="the source was wrong")
        (change,) = other.list_changes()
        assert (change.action, change.node_id, change.reason) == ("restate", NODE, "the source was wrong")
        assert change.detail["start"] == day(2).isoformat()
        assert change.detail["end"] == day(9).isoformat()
        assert (change.detail["ranges"], change.detail["changed_seconds"]) == (1, 2 * 86400.0)
        if Capability.PROVENANCE in backend.capabilities:
            assert change.detail["runs"] == ["s"]
        with pytest.raises(ZeroDivisionError), backend.transaction():
            backend.restate_intervals(NODE, day(1), day(2), reason="")
            raise ZeroDivisionError
        assert len(other.list_changes()) == 1
        assert len(spans(other)) == 1
        backend.restate_intervals(NODE, day(1), day(2), reason="")
        assert [each.reason for each in other.list_changes()] == ["the source was wrong", ""]
        with pytest.raises(InvalidFieldError):
            backend.restate_intervals(NODE, day(1), day(2), reason=7)  # type: ignore[arg-type]
