"""Cases about partitions: completed, expected, and how each stands."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import count

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import CapabilityError, InvalidFieldError, InvalidIdError, RunNotFoundError
from seeknal.model.partitions import TimePartitions
from seeknal.model.records import PartitionReport
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import BAD_IDS, BAD_NODE_FIELDS, NODE, RICH, day, everything

KEYS = ["B", "a", "b", "b ", "\u00e9", "\U0001f600"]
"""In the order of their bytes."""


def keys(backend: StateBackend, **page: object) -> list[str]:
    """Return the keys of completed partitions."""
    return [each.partition for each in backend.list_partitions(NODE, **page)]  # type: ignore[arg-type]


def standing(found: list[PartitionReport]) -> dict[str, str]:
    """Return statuses by key."""
    return {each.partition: str(each.status) for each in found}


class PartitionCases:
    """Cases about partitions."""

    @clause("PART-1", "PART-3")
    def test_partitions(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """Sorted by the bytes of their keys; completing one again replaces it whole."""
        for run_id in ("r", "s"):
            backend.create_run(run_id)
        for key in ("b", "\u00e9", "B", "a"):
            made = backend.add_completed_partition("r", NODE, key, row_count=0, metadata={"k": key})
        assert made == other.list_partitions(NODE)[1]
        clock.advance(seconds=5)
        again = other.add_completed_partition("s", NODE, "b", metadata=RICH)
        assert (again.run_id, again.row_count, again.metadata) == ("s", None, RICH)
        assert again.completed_at == clock.now()
        found = backend.list_partitions(NODE)
        assert [each.partition for each in found] == ["B", "a", "b", "\u00e9"]
        assert found[2] == again
        assert backend.list_partitions("another") == []

    @clause("PART-2", "ERR-1")
    def test_bad_partitions(self, backend: StateBackend) -> None:
        """A missing run, a bad count, metadata that is not JSON: refused, nothing changed."""
        backend.create_run("r")
        before = everything(backend)
        with pytest.raises(RunNotFoundError):
            backend.add_completed_partition("no", NODE, "p")
        for field, bad in BAD_NODE_FIELDS:
            if field in ("row_count", "metadata") and bad is not None:
                with pytest.raises(InvalidFieldError) as caught:
                    backend.add_completed_partition("r", NODE, "p", **{field: bad})
                assert caught.value.field == field
        assert everything(backend) == before

    @clause("PART-5", "TIME-1", "ERR-1")
    def test_a_partition_completed_earlier(self, backend: StateBackend, other: StateBackend) -> None:
        """The caller says when, to the microsecond; other zones are converted, a naive time is local."""
        backend.create_run("r")
        at = datetime(2024, 1, 1, 12, 30, 0, 1, tzinfo=UTC)
        made = backend.add_completed_partition("r", NODE, "p", completed_at=at.astimezone(timezone(timedelta(hours=5))))
        backend.add_completed_partition("r", NODE, "q", completed_at=at.astimezone().replace(tzinfo=None))
        assert made.completed_at == at
        assert made.completed_at.utcoffset() == timedelta()
        assert [each.completed_at for each in other.list_partitions(NODE)] == [at, at]
        for bad in ("2024-01-01", 0, at.date()):
            with pytest.raises(InvalidFieldError) as caught:
                backend.add_completed_partition("r", NODE, "p", completed_at=bad)  # type: ignore[arg-type]
            assert caught.value.field == "completed_at"
        assert other.list_partitions(NODE)[0] == made

    @clause("PART-4")
    def test_restate_partition(self, backend: StateBackend, other: StateBackend) -> None:
        """It tells whether it was completed; keys are exact."""
        backend.create_run("r")
        for key in ("p", "P"):
            backend.add_completed_partition("r", NODE, key)
        assert not backend.restate_partition("another", "p")
        assert not backend.restate_partition(NODE, "p ")
        assert other.restate_partition(NODE, "p")
        assert not backend.restate_partition(NODE, "p")
        assert [each.partition for each in backend.list_partitions(NODE)] == ["P"]
        with backend.transaction():
            backend.add_completed_partition("r", NODE, "q")
            assert backend.restate_partition(NODE, "q")
            assert not backend.restate_partition(NODE, "q")
            assert backend.restate_partition(NODE, "P")
        assert other.list_partitions(NODE) == []

    @clause("PART-6", "PART-3")
    def test_partitions_in_pages(self, backend: StateBackend, other: StateBackend) -> None:
        """Each page comes after the last key of the one before, in either direction, also within a transaction."""
        backend.create_run("r")
        for key in reversed(KEYS):
            backend.add_completed_partition("r", NODE, key)
            backend.add_completed_partition("r", "another", f"{key}!")
        assert keys(other, limit=2) == KEYS[:2]
        assert keys(other, after=KEYS[1], limit=3) == KEYS[2:5]
        assert keys(other, after=KEYS[4]) == KEYS[5:]
        assert keys(other, after=KEYS[5]) == []
        assert keys(other, after="aa", limit=1) == ["b"]
        assert keys(other, limit=0) == []
        assert keys(other, descending=True) == KEYS[::-1]
        assert keys(other, descending=True, limit=2) == KEYS[:3:-1]
        assert keys(other, descending=True, after=KEYS[2], limit=5) == KEYS[1::-1]
        with backend.transaction():
            backend.restate_partition(NODE, "b")
            backend.add_completed_partition("r", NODE, "aa")
            assert keys(backend, after="B", limit=2) == ["a", "aa"]
            assert keys(backend, after="b ", limit=2, descending=True) == ["aa", "a"]
        assert keys(other, after="a", limit=2) == ["aa", "b "]

    @clause("PART-6", "ERR-1")
    def test_bad_pages_of_partitions(self, backend: StateBackend) -> None:
        """A limit or a key that is none names the field."""
        with pytest.raises(InvalidFieldError) as caught:
            backend.list_partitions(NODE, limit=-1)
        assert caught.value.field == "limit"
        with pytest.raises(InvalidIdError):
            backend.list_partitions(NODE, after="a\nb")

    @clause("PART-7")
    def test_one_partition_and_how_many(self, backend: StateBackend, other: StateBackend) -> None:
        """Exact keys, of this node; also within a transaction."""
        backend.create_run("r")
        made = backend.add_completed_partition("r", NODE, "p", row_count=3, metadata=RICH)
        backend.add_completed_partition("r", NODE, "P")
        assert other.get_partition(NODE, "p") == made
        assert other.get_partition(NODE, "p ") is other.get_partition("another", "p") is None
        assert (other.count_partitions(NODE), other.count_partitions("another")) == (2, 0)
        with backend.transaction():
            backend.restate_partition(NODE, "p")
            backend.add_completed_partition("r", NODE, "q", row_count=1)
            assert backend.get_partition(NODE, "p") is None
            found = backend.get_partition(NODE, "q")
            assert found is not None
            assert (found.row_count, backend.count_partitions(NODE)) == (1, 2)
        assert other.count_partitions(NODE) == 2
        with pytest.raises(InvalidIdError):
            backend.get_partition(NODE, "")

    @clause("PART-8", "ERR-1")
    def test_restate_partitions(self, backend: StateBackend, other: StateBackend) -> None:
        """All of them or none; it tells which had been completed."""
        backend.create_run("r")
        for key in KEYS:
            backend.add_completed_partition("r", NODE, key)
        assert other.restate_partitions(NODE, ["b", "never", "B", "b"]) == ["b", "B"]
        assert backend.restate_partitions(NODE, []) == []
        for bad in BAD_IDS:
            with pytest.raises(InvalidIdError):
                backend.restate_partitions(NODE, ["a", bad])
        assert keys(other) == ["a", *KEYS[3:]]

    @needs(Capability.LOG)
    @clause("PART-9")
    def test_a_restatement_of_partitions_says_why(self, backend: StateBackend, other: StateBackend) -> None:
        """With the keys that were completed, in the same commit; without a reason it is not logged."""
        backend.create_run("r")
        for key in KEYS:
            backend.add_completed_partition("r", NODE, key)
        backend.restate_partition(NODE, "a")
        assert other.list_changes() == []
        backend.restate_partitions(NODE, ["a", "b", "B"], reason="late data")
        (change,) = other.list_changes()
        assert (change.action, change.node_id, change.reason) == ("restate", NODE, "late data")
        assert change.detail == {"partitions": ["b", "B"]}
        assert not backend.restate_partition(NODE, "b", reason="again")
        with pytest.raises(ZeroDivisionError), backend.transaction():
            backend.restate_partition(NODE, "b ", reason="")
            raise ZeroDivisionError
        assert len(other.list_changes()) == 1
        assert backend.restate_partition(NODE, "b ", reason="")
        assert [each.reason for each in other.list_changes()] == ["late data", ""]

    @needs(Capability.EXPECTED)
    @clause("EXP-1", "EXP-2", "EXP-5")
    def test_expected_partitions(self, backend: StateBackend, other: StateBackend) -> None:
        """Told once, kept for the node across runs, whatever is completed; in the order of their bytes."""
        assert backend.expect_partitions(NODE, ["b", "B", "b", "a"]) == ["b", "B", "a"]
        assert other.expect_partitions(NODE, ["a", "\u00e9"]) == ["\u00e9"]
        assert backend.expect_partitions(NODE, []) == []
        assert backend.list_expected_partitions(NODE) == ["B", "a", "b", "\u00e9"]
        assert backend.list_expected_partitions("another") == []
        backend.create_run("r")
        backend.add_completed_partition("r", NODE, "a")
        backend.restate_partition(NODE, "a")
        backend.add_completed_partition("r", NODE, "b")
        backend.delete_run("r")
        assert other.list_expected_partitions(NODE) == ["B", "a", "b", "\u00e9"]
        assert keys(other) == ["b"]
        assert other.list_expected_partitions(NODE, after="B", limit=2) == ["a", "b"]
        assert other.list_expected_partitions(NODE, after="b") == ["\u00e9"]
        assert other.list_expected_partitions(NODE, limit=0) == []

    @needs(Capability.EXPECTED)
    @clause("EXP-4", "EXP-5", "INT-10")
    def test_partitions_that_are_expected_no_longer(self, backend: StateBackend, other: StateBackend) -> None:
        """What is completed stays so; a node of which nothing is left has no work."""
        backend.expect_partitions(NODE, KEYS)
        assert other.list_worked_nodes() == [NODE]
        assert other.drop_expected_partitions(NODE, ["never", "b", "b", "a"]) == ["b", "a"]
        assert backend.list_expected_partitions(NODE) == ["B", *KEYS[3:]]
        backend.create_run("r")
        backend.add_completed_partition("r", NODE, "B")
        assert other.drop_expected_partitions(NODE, KEYS) == ["B", *KEYS[3:]]
        assert keys(backend) == ["B"]
        backend.restate_partition(NODE, "B")
        assert other.list_worked_nodes() == []

    @needs(Capability.EXPECTED)
    @clause("EXP-1", "EXP-4", "TX-1", "TX-2", "TX-5")
    def test_expected_partitions_in_a_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """It sees its own, others see nothing; what is rolled back was never expected."""
        backend.expect_partitions(NODE, ["a", "b"])
        with backend.transaction():
            backend.drop_expected_partitions(NODE, ["a"])
            assert backend.expect_partitions(NODE, ["b", "c"]) == ["c"]
            with pytest.raises(ZeroDivisionError), backend.transaction():
                backend.expect_partitions(NODE, ["d"])
                raise ZeroDivisionError
            inside = backend.list_expected_partitions(NODE)
            assert backend.list_expected_partitions(NODE, after="b", limit=1) == ["c"]
            assert other.list_expected_partitions(NODE) == ["a", "b"]
        assert other.list_expected_partitions(NODE) == inside == ["b", "c"]

    @needs(Capability.EXPECTED)
    @clause("EXP-3", "ERR-1")
    def test_bad_expected_partitions(self, backend: StateBackend) -> None:
        """A key or a node that is none is refused, and nothing is expected; a text is no list of keys."""
        for bad in BAD_IDS:
            for change in (backend.expect_partitions, backend.drop_expected_partitions):
                with pytest.raises(InvalidIdError):
                    change(NODE, ["a", bad])
                with pytest.raises(InvalidIdError):
                    change(bad, ["a"])
        with pytest.raises(InvalidFieldError) as caught:
            backend.expect_partitions(NODE, "abc")
        assert caught.value.field == "partitions"
        assert backend.list_expected_partitions(NODE) == []

    @clause("EXP-1")
    def test_who_keeps_no_expected_partitions_says_so(self, backend: StateBackend) -> None:
        """And names a way out."""
        if Capability.EXPECTED in backend.capabilities:
            assert backend.list_expected_partitions(NODE) == []
            return
        for call in (backend.expect_partitions, backend.drop_expected_partitions):
            with pytest.raises(CapabilityError) as caught:
                call(NODE, ["a"])
            assert caught.value.hint

    @clause("MISS-1", "ERR-1")
    def test_missing_partitions(self, backend: StateBackend, other: StateBackend) -> None:
        """Expected and not completed, in the order of what is expected, of a list or a definition."""
        backend.create_run("r")
        days = TimePartitions(start=day(10), schedule="@daily")
        assert other.get_missing_partitions(NODE, days, now=day(13, 12)) == ["2024-01-10", "2024-01-11", "2024-01-12"]
        for key in ("2024-01-11", "b", "never expected"):
            backend.add_completed_partition("r", NODE, key)
            backend.add_completed_partition("r", "another", "c")
        assert other.get_missing_partitions(NODE, days, now=day(13, 12)) == ["2024-01-10", "2024-01-12"]
        assert other.get_missing_partitions(NODE, ["c", "b", "a", "c"]) == ["c", "a"]
        assert other.get_missing_partitions(NODE, ["c", "b", "a"], limit=1) == ["c"]
        assert other.get_missing_partitions(NODE, (str(n) for n in count()), limit=3) == ["0", "1", "2"]
        with backend.transaction():
            backend.add_completed_partition("r", NODE, "a")
            assert backend.get_missing_partitions(NODE, ["c", "b", "a"]) == ["c"]
        for bad in BAD_IDS:
            with pytest.raises(InvalidIdError):
                backend.get_missing_partitions(NODE, ["a", bad])
        with pytest.raises(InvalidFieldError):
            backend.get_missing_partitions(NODE, "abc")

    @needs(Capability.EXPECTED)
    @clause("MISS-2")
    def test_missing_partitions_of_what_the_store_expects(self, backend: StateBackend, other: StateBackend) -> None:
        """In the order of the keys, until they are completed; restated, they are missing again."""
        backend.expect_partitions(NODE, ["b", "a", "c"])
        backend.create_run("r")
        backend.add_completed_partition("r", NODE, "b")
        assert other.get_missing_partitions(NODE) == ["a", "c"]
        assert other.get_missing_partitions(NODE, limit=1) == ["a"]
        assert other.get_missing_partitions("another") == []
        backend.restate_partition(NODE, "b")
        backend.drop_expected_partitions(NODE, ["c"])
        assert other.get_missing_partitions(NODE) == ["a", "b"]

    @clause("STAT-1", "STAT-3")
    def test_statuses_of_what_is_completed(self, backend: StateBackend, other: StateBackend) -> None:
        """With the run, the rows and the time; in pages."""
        backend.create_run("r")
        for number, key in enumerate(KEYS):
            backend.add_completed_partition("r", NODE, key, row_count=number)
        found = other.list_partition_statuses(NODE)
        assert standing(found) == dict.fromkeys(KEYS, "completed")
        assert [each.partition for each in found] == KEYS
        assert [(each.run_id, each.row_count) for each in found] == [("r", number) for number in range(len(KEYS))]
        assert found[0].at == backend.list_partitions(NODE)[0].completed_at
        assert other.list_partition_statuses(NODE, after="B", limit=2) == found[1:3]
        assert other.list_partition_statuses(NODE, limit=0) == []
        assert other.list_partition_statuses(NODE, status="failed") == []
        with pytest.raises(InvalidFieldError):
            other.list_partition_statuses(NODE, status="done")
        for status in (None, "completed", "failed", "missing"):
            for bad in BAD_IDS:
                if bad is not None:
                    with pytest.raises(InvalidIdError):
                        other.list_partition_statuses(NODE, status=status, after=bad)

    @needs(Capability.CLAIMS, Capability.EXPECTED)
    @clause("STAT-1", "STAT-2", "STAT-3")
    def test_statuses_of_what_is_expected_and_claimed(self, backend: StateBackend, other: StateBackend) -> None:
        """Running while its worker lives; failed once it failed or its worker is gone; missing if nobody tried."""
        wanted = ["a", "b", "c", "d", "e", "f"]
        backend.expect_partitions(NODE, wanted)
        backend.create_run("r")
        assert standing(other.list_partition_statuses(NODE)) == dict.fromkeys(wanted, "missing")
        with backend.lock("r", "worker") as lease:
            claims = backend.claim_partitions("r", NODE, ["a", "b", "c", "d", "x"], lease=lease, limit=5)
            assert set(standing(other.list_partition_statuses(NODE, status="running"))) == {"a", "b", "c", "d", "x"}
            backend.complete_claim(claims[0], row_count=7)
            backend.fail_claim(claims[1], "no such table")
            backend.release_claim(claims[2])
            found = other.list_partition_statuses(NODE)
            assert standing(found) == {
                "a": "completed",
                "b": "failed",
                "c": "missing",
                "d": "running",
                "e": "missing",
                "f": "missing",
                "x": "running",
            }
            assert (found[0].row_count, found[0].attempt) == (7, None)
            assert (found[1].error_message, found[1].attempt, found[1].is_parked) == ("no such table", 1, False)
            assert [each for page in _pages(other) for each in page] == found
        later = other.list_partition_statuses(NODE, status="failed")
        assert set(standing(later)) == {"b", "d", "x"}
        assert all(each.error_message for each in later)

    @needs(Capability.CLAIMS, Capability.EXPECTED)
    @clause("STAT-2")
    def test_a_parked_partition_has_failed(self, backend: StateBackend, other: StateBackend) -> None:
        """It says that its attempts are used up; once completed by hand it is completed."""
        backend.create_run("r")
        backend.expect_partitions(NODE, ["a"])
        with backend.lock("r", "worker") as lease:
            (claim,) = backend.claim_partitions("r", NODE, ["a"], lease=lease, max_attempts=1)
            backend.fail_claim(claim, "no")
        (found,) = other.list_partition_statuses(NODE)
        assert (str(found.status), found.is_parked, found.run_id) == ("failed", True, "r")
        other.add_completed_partition("r", NODE, "a")
        (found,) = backend.list_partition_statuses(NODE)
        assert (str(found.status), found.is_parked) == ("completed", False)


def _pages(backend: StateBackend) -> list[list[PartitionReport]]:
    """Return the statuses in pages of two."""
    pages: list[list[PartitionReport]] = []
    after = None
    while page := backend.list_partition_statuses(NODE, after=after, limit=2):
        pages.append(page)
        after = page[-1].partition
    return pages
