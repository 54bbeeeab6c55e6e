"""Cases about taking ranges, for backends that offer claims."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from seeknal.errors import (
    IntervalError,
    InvalidFieldError,
    InvalidIdError,
    LeaseLostError,
    RunNotFoundError,
    TransactionError,
)
from seeknal.model.intervals import Interval
from seeknal.model.records import Claim
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import BAD_IDS, NODE
from seeknal.state.testing.scene import Scene

RUN = "backfill"


def day(number: int, hour: int = 0) -> datetime:
    """Return an instant of January 2024."""
    return datetime(2024, 1, number, hour, tzinfo=UTC)


def days(first: int, last: int) -> list[Interval]:
    """Return days of January 2024, the last one included."""
    return [Interval(day(number), day(number + 1)) for number in range(first, last + 1)]


def starts(claims: list[Claim]) -> list[int]:
    """Return the days on which claimed intervals begin."""
    return [claim.start.day for claim in claims if claim.start is not None]


def hold(backend: StateBackend, name: str, ttl_ms: int = 30_000) -> Lease:
    """Return the lease of a lock that nobody holds, until somebody ends it."""
    assert backend.acquire_lock(RUN, name, 0, ttl_ms=ttl_ms)
    (lock,) = [lock for lock in backend.list_locks() if lock.node_id == name]
    return Lease(lock.run_id, lock.node_id, lock.token, lock.owner)


def end(backend: StateBackend, lease: Lease) -> None:
    """End a lease, as its expiry does."""
    assert backend.break_lock(lease.run_id, lease.node_id, reason="its worker is dead") is not None


class ClaimCases:
    """Cases about what may be taken, by whom."""

    @needs(Capability.CLAIMS)
    @clause("CLAIM-1")
    def test_two_workers_get_different_ranges(self, backend: StateBackend, other: StateBackend) -> None:
        """In the wanted order, at most as many as asked for, until nothing is left."""
        backend.create_run(RUN)
        mine, theirs = hold(backend, "a"), hold(other, "b")
        wanted = days(1, 5)
        assert starts(backend.claim_intervals(RUN, NODE, wanted, lease=mine)) == [1]
        assert starts(other.claim_intervals(RUN, NODE, wanted, lease=theirs, limit=2)) == [2, 3]
        assert backend.claim_intervals(RUN, NODE, wanted, lease=mine, limit=0) == []
        assert starts(backend.claim_intervals(RUN, NODE, reversed(wanted), lease=mine, limit=9)) == [5, 4]
        assert other.claim_intervals(RUN, NODE, wanted, lease=theirs, limit=9) == []
        assert starts(other.claim_intervals(RUN, "another node", wanted, lease=theirs)) == [1]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-1")
    def test_a_claim_says_who_has_what(self, backend: StateBackend, other: StateBackend) -> None:
        """The range, the run, the attempt and the lease."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease, max_attempts=7)
        assert (claim.node_id, claim.start, claim.end, claim.partition) == (NODE, day(1), day(2), None)
        assert (claim.run_id, claim.status, claim.attempt, claim.max_attempts) == (RUN, "claimed", 1, 7)
        assert (claim.lease_run_id, claim.lease_node_id) == (RUN, "a")
        assert (claim.lease_token, claim.lease_owner) == (lease.token, lease.owner)
        assert other.list_claims(NODE) == [claim]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-1")
    def test_wanted_ranges_are_asked_for_as_they_are_needed(self, backend: StateBackend) -> None:
        """They may have no end."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        asked: list[int] = []

        def hours() -> Iterator[Interval]:
            for number in count():
                asked.append(number)
                yield Interval(day(1 + number // 23, number % 23), day(1 + number // 23, number % 23 + 1))

        assert len(backend.claim_intervals(RUN, NODE, hours(), lease=lease, limit=3)) == 3
        assert asked == [0, 1, 2]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-2")
    def test_what_is_done_or_taken_is_passed_over(self, backend: StateBackend) -> None:
        """A half of it is not enough to be done, and enough to be taken."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        backend.add_completed_interval(RUN, NODE, day(1), day(3, 12))
        assert starts(backend.claim_intervals(RUN, NODE, days(1, 3), lease=lease, limit=9)) == [3]
        wide = [Interval(day(3, 23), day(4, 1)), Interval(day(4), day(6)), Interval(day(5), day(7))]
        assert starts(backend.claim_intervals(RUN, NODE, wide, lease=lease, limit=9)) == [4]
        assert backend.claim_intervals(RUN, NODE, days(4, 5), lease=lease) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-3")
    def test_the_ranges_of_a_worker_that_is_gone_are_taken_again(
        self, backend: StateBackend, other: StateBackend
    ) -> None:
        """Whatever its lease ended by; the attempts are counted, and what went wrong is kept."""
        backend.create_run(RUN)
        mine, theirs = hold(backend, "a"), hold(other, "b")
        (lost,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=mine)
        assert other.claim_intervals(RUN, NODE, days(1, 1), lease=theirs) == []
        end(other, mine)
        (gone,) = other.list_claims(NODE)
        assert (gone.status, gone.attempt) == ("open", 1)
        assert gone.error_message
        (again,) = other.claim_intervals(RUN, NODE, days(1, 1), lease=theirs)
        assert (again.start, again.status, again.attempt) == (lost.start, "claimed", 2)
        assert again.error_message == gone.error_message
        assert other.list_claims(NODE) == [again]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-3", "LOCK-4", "CLAIM-9")
    def test_a_worker_that_sleeps_too_long_has_lost_its_ranges(self, scene: Scene, other: StateBackend) -> None:
        """They are somebody else's then, and it cannot write."""
        other.create_run(RUN)
        sleeper = scene.open()
        lease = hold(sleeper, "a", ttl_ms=600_000)
        (claim,) = sleeper.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        scene.pass_time(601)
        (again,) = other.claim_intervals(RUN, NODE, days(1, 1), lease=hold(other, "b"))
        assert again.attempt == 2
        for late in (sleeper.complete_claim, sleeper.release_claim, lambda one: sleeper.fail_claim(one, "late")):
            with pytest.raises(LeaseLostError):
                late(claim)
        assert other.list_claims(NODE) == [again]
        assert other.get_completed_intervals(NODE) == []
        other.complete_claim(again)
        assert len(sleeper.get_completed_intervals(NODE)) == 1

    @needs(Capability.CLAIMS)
    @clause("CLAIM-4", "CLAIM-12")
    def test_a_range_that_fails_too_often_is_parked(self, backend: StateBackend, other: StateBackend) -> None:
        """With its last error; it is not taken any more, nor is what overlaps with it."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        for attempt, status in ((1, "open"), (2, "parked")):
            (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease, max_attempts=2)
            failed = backend.fail_claim(claim, f"no {attempt} \x00 caf\u00e9")
            assert (failed.attempt, failed.status) == (attempt, status)
            assert other.list_claims(NODE) == [failed]
        assert failed.error_message == "no 2 \x00 caf\u00e9"
        wide = [Interval(day(1, 12), day(2, 12))]
        assert other.claim_intervals(RUN, NODE, days(1, 1) + wide, lease=lease, limit=9) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-4", "CLAIM-3")
    def test_a_worker_that_is_gone_uses_up_an_attempt(self, backend: StateBackend, other: StateBackend) -> None:
        """So a range that kills its workers is parked."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease, max_attempts=1)
        end(other, lease)
        (found,) = other.list_claims(NODE, status="parked")
        assert found.error_message
        assert other.claim_intervals(RUN, NODE, days(1, 1), lease=hold(other, "b")) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-5")
    def test_nothing_is_taken_under_a_lost_lease(self, backend: StateBackend, other: StateBackend) -> None:
        """Whether there is anything to take or not."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        end(other, lease)
        for wanted in (days(1, 1), []):
            with pytest.raises(LeaseLostError):
                backend.claim_intervals(RUN, NODE, wanted, lease=lease)
        assert other.list_claims(NODE) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-6", "ERR-1", "ID-1")
    def test_what_cannot_be_claimed(self, backend: StateBackend) -> None:
        """A missing run, what is no interval or key, bad ids, numbers and leases."""
        backend.create_run(RUN)
        lease = hold(backend, "a")

        def claim(run_id: Any = RUN, node_id: Any = NODE, wanted: Any = None, **given: Any) -> object:
            return backend.claim_intervals(run_id, node_id, wanted or days(1, 1), **{"lease": lease, **given})

        with pytest.raises(RunNotFoundError):
            claim("nobody")
        for bad in BAD_IDS:
            with pytest.raises(InvalidIdError):
                claim(run_id=bad)
            with pytest.raises(InvalidIdError):
                claim(node_id=bad)
            with pytest.raises(InvalidIdError):
                backend.claim_partitions(RUN, NODE, ["good", bad], lease=lease, limit=2)
        for wrong in ("day", (day(1), day(2)), Interval(day(2), day(1)), Interval("a", "b")):  # type: ignore[arg-type]
            with pytest.raises(IntervalError):
                claim(wanted=[wrong])
        for field, values in {
            "limit": (-1, 1.5, "1", None),
            "max_attempts": (0, -1, 1.5, None, True),
            "lease": (None, "a"),
        }.items():
            for value in values:
                with pytest.raises(InvalidFieldError) as caught:
                    claim(**{field: value})
                assert caught.value.field == field
        assert backend.list_claims(NODE) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-7")
    def test_claims_are_not_taken_in_a_transaction(self, backend: StateBackend) -> None:
        """Nor opened again; the transaction goes on."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        with backend.transaction():
            backend.set_metadata(RUN, {"a": 1})
            with pytest.raises(TransactionError):
                backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
            with pytest.raises(TransactionError):
                backend.claim_partitions(RUN, NODE, ["p"], lease=lease)
            with pytest.raises(TransactionError):
                backend.retry_parked(NODE)
        assert backend.get_metadata(RUN) == {"a": 1}
        assert backend.list_claims(NODE) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-8", "CLAIM-9", "CLAIM-2")
    def test_partitions_are_claimed_and_completed(self, backend: StateBackend, other: StateBackend) -> None:
        """In the wanted order, byte for byte; with how many rows they have, and what else there is to know."""
        backend.create_run(RUN)
        mine, theirs = hold(backend, "a"), hold(other, "b")
        backend.add_completed_partition(RUN, NODE, "done")
        wanted = ["done", "z", "a", "A", "z", "k" * 190]
        (first,) = backend.claim_partitions(RUN, NODE, wanted, lease=mine)
        assert (first.partition, first.start, first.end) == ("z", None, None)
        rest = other.claim_partitions(RUN, NODE, wanted, lease=theirs, limit=9)
        assert [claim.partition for claim in rest] == ["a", "A", "k" * 190]
        backend.complete_claim(first, row_count=3, metadata={"a": [1]})
        (found,) = [state for state in other.list_partitions(NODE) if state.partition == "z"]
        assert (found.run_id, found.row_count, found.metadata) == (RUN, 3, {"a": [1]})
        assert backend.claim_partitions(RUN, NODE, wanted, lease=mine) == []
