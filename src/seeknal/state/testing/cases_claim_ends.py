"""Cases about how claims end, for backends that offer them."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seeknal.errors import ClaimEndedError, InvalidFieldError, InvalidIdError, LeaseLostError
from seeknal.model.intervals import Interval
from seeknal.model.records import Claim
from seeknal.model.status import ClaimStatus
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.testing.cases_claims import RUN, day, days, end, hold, starts
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import NODE


class ClaimEndCases:
    """Cases about the end of claims, and about what is told of them."""

    @needs(Capability.CLAIMS)
    @clause("CLAIM-9")
    def test_a_completed_claim_is_none_any_more(self, backend: StateBackend, other: StateBackend) -> None:
        """The range is completed by its run, and a restatement makes it free to be taken anew."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        backend.complete_claim(claim)
        (done,) = other.get_completed_intervals(NODE)
        assert (done.start, done.end, done.run_id) == (day(1), day(2), RUN)
        assert other.list_claims(NODE) == []
        assert other.claim_intervals(RUN, NODE, days(1, 1), lease=lease) == []
        other.restate_intervals(NODE, day(1), day(2))
        (anew,) = other.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        assert anew.attempt == 1

    @needs(Capability.CLAIMS)
    @clause("CLAIM-9", "ERR-1")
    def test_what_does_not_complete_a_claim(self, backend: StateBackend) -> None:
        """Counts of an interval, a negative one, metadata that is not JSON, what is no claim."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        (span,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        (part,) = backend.claim_partitions(RUN, NODE, ["p"], lease=lease)
        wrong: list[tuple[Any, dict[str, Any], str]] = [
            (span, {"row_count": 1}, "row_count"),
            (span, {"metadata": {}}, "metadata"),
            (part, {"row_count": -1}, "row_count"),
            (part, {"metadata": {"a": {1}}}, "metadata"),
            ("claim", {}, "claim"),
        ]
        for claim, given, field in wrong:
            with pytest.raises(InvalidFieldError) as caught:
                backend.complete_claim(claim, **given)
            assert caught.value.field == field
        assert (backend.get_completed_intervals(NODE), backend.list_partitions(NODE)) == ([], [])
        assert backend.list_claims(NODE) == [span, part]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-10", "TX-1", "TX-2", "TX-3", "TX-4")
    def test_a_claim_is_completed_in_a_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """With what else it writes, or not at all."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        first, second = backend.claim_intervals(RUN, NODE, days(1, 2), lease=lease, limit=2)
        with pytest.raises(ZeroDivisionError), backend.transaction():
            backend.complete_claim(first)
            raise ZeroDivisionError
        assert other.list_claims(NODE) == [first, second]
        with backend.transaction():
            backend.complete_claim(first)
            failed = backend.fail_claim(second, "no")
            backend.set_node_state(RUN, NODE, status="failed")
            assert backend.list_claims(NODE) == [failed]
            assert other.list_claims(NODE) == [first, second]
        assert other.list_claims(NODE) == [failed]
        assert len(other.get_completed_intervals(NODE)) == 1

    @needs(Capability.CLAIMS)
    @clause("CLAIM-10", "CLAIM-9", "TX-1")
    def test_a_transaction_that_completes_under_a_lost_lease_writes_nothing(
        self, backend: StateBackend, other: StateBackend
    ) -> None:
        """Of all that it wrote."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        with pytest.raises(LeaseLostError), backend.transaction():
            backend.set_node_state(RUN, NODE, status="success")
            backend.complete_claim(claim)
            end(other, lease)
        assert other.get_node_state(RUN, NODE) is None
        assert other.get_completed_intervals(NODE) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-11")
    def test_a_claim_ends_once(self, backend: StateBackend) -> None:
        """However it ended, and whatever is tried."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        ways: list[Callable[[Claim], object]] = [
            backend.complete_claim,
            backend.release_claim,
            lambda claim: backend.fail_claim(claim, "no"),
        ]
        claims = backend.claim_intervals(RUN, NODE, days(1, 3), lease=lease, limit=3)
        for way, claim in zip(ways, claims, strict=True):
            way(claim)
            for again in ways:
                with pytest.raises(ClaimEndedError):
                    again(claim)
        assert [(one.status, one.start) for one in backend.list_claims(NODE)] == [("open", day(3))]
        with pytest.raises(ClaimEndedError):
            backend.complete_claim(backend.list_claims(NODE)[0])
        assert len(backend.get_completed_intervals(NODE)) == 1

    @needs(Capability.CLAIMS)
    @clause("CLAIM-11", "CLAIM-10", "TX-5", "TX-6")
    def test_a_claim_ends_once_in_a_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """What is refused leaves the transaction usable, and what is rolled back has not ended it."""
        backend.create_run(RUN)
        (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=hold(backend, "a"))
        with backend.transaction():
            with pytest.raises(ZeroDivisionError), backend.transaction():
                backend.fail_claim(claim, "no")
                raise ZeroDivisionError
            backend.complete_claim(claim)
            for again in (backend.complete_claim, lambda one: backend.fail_claim(one, "no")):
                with pytest.raises(ClaimEndedError):
                    again(claim)
        assert other.list_claims(NODE) == []
        assert len(other.get_completed_intervals(NODE)) == 1

    @needs(Capability.CLAIMS)
    @clause("CLAIM-12", "ERR-1")
    @pytest.mark.parametrize("bad", [None, 7, "\ud800"], ids=ascii)
    def test_a_claim_fails_for_a_reason(self, backend: StateBackend, bad: Any) -> None:
        """Which is text."""
        backend.create_run(RUN)
        (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=hold(backend, "a"))
        with pytest.raises(InvalidFieldError) as caught:
            backend.fail_claim(claim, bad)
        assert caught.value.field == "error_message"
        assert backend.list_claims(NODE) == [claim]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-13")
    def test_a_range_is_given_back(self, backend: StateBackend, other: StateBackend) -> None:
        """As if it had not been taken; what failed before stays known."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        (claim,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        backend.release_claim(claim)
        assert other.list_claims(NODE) == []
        (claim,) = other.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        assert claim.attempt == 1
        other.fail_claim(claim, "boom")
        (claim,) = other.claim_intervals(RUN, NODE, days(1, 1), lease=lease)
        assert claim.attempt == 2
        other.release_claim(claim)
        (found,) = backend.list_claims(NODE)
        assert (found.status, found.attempt, found.error_message) == ("open", 1, "boom")

    @needs(Capability.CLAIMS)
    @clause("CLAIM-14", "ERR-1")
    def test_claims_are_listed(self, backend: StateBackend, other: StateBackend) -> None:
        """Intervals by their start, then partitions by their bytes; of one status, if asked for."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        parts = backend.claim_partitions(RUN, NODE, ["b", "B", "a"], lease=lease, limit=9)
        spans = backend.claim_intervals(RUN, NODE, reversed(days(1, 3)), lease=lease, limit=9, max_attempts=1)
        failed = backend.fail_claim(parts[0], "no")
        parked = backend.fail_claim(spans[0], "no")
        assert other.list_claims(NODE) == [spans[2], spans[1], parked, parts[1], parts[2], failed]
        assert other.list_claims(NODE, status="parked") == [parked]
        assert other.list_claims(NODE, status="open") == [failed]
        assert other.list_claims("another node") == []
        with pytest.raises(InvalidFieldError):
            other.list_claims(NODE, status="running")
        with pytest.raises(InvalidIdError):
            other.list_claims("")

    @needs(Capability.CLAIMS)
    @clause("CLAIM-14")
    def test_a_range_that_was_completed_otherwise_is_no_claim(self, backend: StateBackend) -> None:
        """Neither open nor parked; who works on it still does."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        claims = backend.claim_intervals(RUN, NODE, days(1, 3), lease=lease, limit=3, max_attempts=1)
        claims += backend.claim_partitions(RUN, NODE, ["p"], lease=lease)
        backend.fail_claim(claims[0], "no")
        backend.fail_claim(claims[3], "no")
        backend.add_completed_interval(RUN, NODE, day(1), day(3))
        backend.add_completed_partition(RUN, NODE, "p")
        assert starts(backend.list_claims(NODE)) == [2, 3]
        assert backend.claim_intervals(RUN, NODE, days(1, 3), lease=lease) == []

    @needs(Capability.CLAIMS)
    @clause("CLAIM-15")
    def test_parked_ranges_are_opened_again(self, backend: StateBackend, other: StateBackend) -> None:
        """Those alone; their attempts are counted anew, and what went wrong is kept."""
        backend.create_run(RUN)
        lease = hold(backend, "a")
        for claim in backend.claim_intervals(RUN, NODE, days(1, 2), lease=lease, limit=2, max_attempts=1):
            backend.fail_claim(claim, "boom")
        (busy,) = backend.claim_intervals(RUN, NODE, days(3, 3), lease=lease)
        opened = other.retry_parked(NODE, reason="the source is back")
        assert starts(opened) == [1, 2]
        assert {(claim.status, claim.attempt, claim.error_message) for claim in opened} == {("open", 0, "boom")}
        assert backend.list_claims(NODE) == [*opened, busy]
        assert other.retry_parked(NODE) == []
        again = backend.claim_intervals(RUN, NODE, days(1, 3), lease=lease, limit=9)
        assert [(claim.start, claim.attempt) for claim in again] == [(day(1), 1), (day(2), 1)]
        with pytest.raises(InvalidIdError):
            backend.retry_parked("")
        with pytest.raises(InvalidFieldError):
            backend.retry_parked(NODE, reason=None)  # type: ignore[arg-type]

    @needs(Capability.CLAIMS, Capability.LOG)
    @clause("CLAIM-15", "LOG-1")
    def test_a_retry_is_logged(self, backend: StateBackend, other: StateBackend) -> None:
        """With the reason; nothing is logged where nothing was parked."""
        backend.create_run(RUN)
        (claim,) = backend.claim_partitions(RUN, NODE, ["p"], lease=hold(backend, "a"), max_attempts=1)
        backend.retry_parked(NODE)
        backend.fail_claim(claim, "boom")
        backend.retry_parked(NODE, reason="the source is back")
        (logged,) = other.list_changes(action="retry")
        assert (logged.node_id, logged.reason, logged.detail) == (NODE, "the source is back", {"ranges": 1})

    @needs(Capability.CLAIMS)
    @clause("CLAIM-3", "LOCK-6", "RUN-11")
    def test_the_end_of_a_run_ends_the_claims_of_its_workers(self, backend: StateBackend, other: StateBackend) -> None:
        """Its status or its deletion, since it frees their locks; what was claimed is open then."""
        endings: list[Callable[[], object]] = [
            lambda: other.update_run(RUN, status="failed"),
            lambda: other.delete_run(RUN),
        ]
        for number, ending in enumerate(endings):
            if not other.exists(RUN):
                other.create_run(RUN)
            lease = hold(backend, f"w{number}")
            (claim,) = backend.claim_intervals(RUN, NODE, days(number + 1, number + 1), lease=lease)
            ending()
            with pytest.raises(LeaseLostError):
                backend.complete_claim(claim)
        assert [claim.status for claim in other.list_claims(NODE)] == ["open", "open"]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-11", "CLAIM-1")
    def test_a_claim_that_is_over_does_not_end_the_next_one_of_its_range(self, backend: StateBackend) -> None:
        """Under the same lease, too, and whether it failed or was given back."""
        backend.create_run(RUN)
        mine = hold(backend, "a")
        (first,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=mine, max_attempts=9)
        backend.fail_claim(first, "no")
        (second,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=mine, max_attempts=9)
        for over in (backend.release_claim, backend.complete_claim):
            with pytest.raises(ClaimEndedError):
                over(first)
        with pytest.raises(ClaimEndedError):
            backend.fail_claim(first, "again")
        backend.release_claim(second)
        (third,) = backend.claim_intervals(RUN, NODE, days(1, 1), lease=mine, max_attempts=9)
        with pytest.raises(ClaimEndedError):
            backend.complete_claim(second)
        assert [claim.attempt for claim in backend.list_claims(NODE, status="claimed")] == [2]
        backend.complete_claim(third)
        assert [span.run_id for span in backend.get_completed_intervals(NODE)] == [RUN]

    @needs(Capability.CLAIMS)
    @clause("CLAIM-2", "CLAIM-14")
    def test_a_parked_range_that_was_completed_by_hand_is_in_nobodys_way(self, backend: StateBackend) -> None:
        """What overlaps with it is taken, since there is nothing left to look at."""
        backend.create_run(RUN)
        mine = hold(backend, "a")
        (claim,) = backend.claim_intervals(RUN, NODE, days(2, 2), lease=mine, max_attempts=1)
        assert backend.fail_claim(claim, "no").status is ClaimStatus.PARKED
        wide = [Interval(day(1), day(4))]
        assert backend.claim_intervals(RUN, NODE, wide, lease=mine) == []
        backend.add_completed_interval(RUN, NODE, day(2), day(3))
        assert backend.list_claims(NODE) == []
        (wider,) = backend.claim_intervals(RUN, NODE, wide, lease=mine)
        assert (wider.start, wider.end) == (day(1), day(4))

    @needs(Capability.CLAIMS)
    @clause("CLAIM-14", "TX-2")
    def test_claims_as_a_transaction_sees_them(self, backend: StateBackend) -> None:
        """What it has completed is claimed no more."""
        backend.create_run(RUN)
        mine = hold(backend, "a")
        (first, second) = backend.claim_intervals(RUN, NODE, days(1, 2), lease=mine, limit=2)
        backend.fail_claim(first, "no")
        with backend.transaction():
            backend.add_completed_interval(RUN, NODE, day(1), day(2))
            assert [claim.start for claim in backend.list_claims(NODE)] == [day(2)]
            backend.complete_claim(second)
            assert backend.list_claims(NODE) == []
        assert len(backend.get_completed_intervals(NODE)) == 1

    @needs(Capability.CLAIMS)
    @clause("CLAIM-16", "TX-2")
    def test_the_nodes_that_have_claims_are_listed(self, backend: StateBackend, other: StateBackend) -> None:
        """By their bytes; those of which every claim is over, or whose range is completed otherwise, are not."""
        assert backend.list_claimed_nodes() == []
        backend.create_run(RUN)
        mine = hold(backend, "a")
        for node_id in ("b", "\u00e9", "B", "done", "given back", "by hand"):
            backend.claim_intervals(RUN, node_id, days(1, 1), lease=mine)
        (part,) = backend.claim_partitions(RUN, "parts", ["p"], lease=mine, max_attempts=1)
        backend.fail_claim(part, "no")
        backend.complete_claim(backend.list_claims("done")[0])
        backend.release_claim(backend.list_claims("given back")[0])
        backend.fail_claim(backend.list_claims("by hand")[0], "no")
        assert other.list_claimed_nodes() == ["B", "b", "by hand", "parts", "\u00e9"]
        with backend.transaction():
            backend.add_completed_interval(RUN, "by hand", day(1), day(2))
            backend.complete_claim(backend.list_claims("b")[0])
            assert backend.list_claimed_nodes() == ["B", "parts", "\u00e9"]
            assert other.list_claimed_nodes() == ["B", "b", "by hand", "parts", "\u00e9"]
        assert other.list_claimed_nodes() == ["B", "parts", "\u00e9"]
