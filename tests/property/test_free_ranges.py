"""Which ranges may be taken, compared with sets of hours."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from seeknal.model.claims import free_intervals, free_partitions, is_done
from seeknal.model.intervals import Interval, union
from seeknal.model.records import Claim, CompletedInterval
from seeknal.model.status import ClaimStatus

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = st.tuples(st.integers(0, 30), st.integers(1, 6)).map(lambda pair: (pair[0], sum(pair)))
STATUSES = st.sampled_from(ClaimStatus)
CLAIM = Claim(node_id="n", run_id="r", max_attempts=3, since=BEGIN, lease_run_id="r", lease_token=1, lease_owner="o")


def interval(hours):
    return Interval(*(BEGIN + timedelta(hours=hour) for hour in hours))


def completed(spans):
    return [CompletedInterval("n", each.start, each.end, "r") for each in union(map(interval, spans))]


def claims_of(spans):
    """Return claims of which no two that are not open overlap, as in a store."""
    busy, claims = set(), []
    for (start, end), status in spans:
        hours = set(range(start, end))
        if status is ClaimStatus.OPEN or not hours & busy:
            busy |= set() if status is ClaimStatus.OPEN else hours
            span = interval((start, end))
            claims.append(msgspec.structs.replace(CLAIM, start=span.start, end=span.end, status=status))
    return claims, busy


@given(st.lists(HOURS), st.lists(st.tuples(HOURS, STATUSES)), st.lists(HOURS))
def test_what_may_be_taken_is_neither_done_nor_touched_by_anybody(wanted, spans, done):
    claims, _ = claims_of(spans)
    done_hours = {hour for start, end in done for hour in range(start, end)}
    busy = set()
    for claim in claims:
        hours = {hour for hour in range(24 * 3) if claim.start <= interval((hour, hour + 1)).start < claim.end}
        is_over = claim.status is ClaimStatus.PARKED and hours <= done_hours  # somebody else has completed it
        busy |= set() if claim.status is ClaimStatus.OPEN or is_over else hours
    expected = []
    for start, end in wanted:
        hours = set(range(start, end))
        if not hours <= done_hours and not hours & busy:
            expected.append(interval((start, end)))
            busy |= hours
    assert list(free_intervals(map(interval, wanted), claims, completed(done))) == expected


@given(st.lists(st.integers(0, 9)), st.lists(st.tuples(st.integers(0, 9), STATUSES)), st.sets(st.integers(0, 9)))
def test_what_partitions_may_be_taken(wanted, spans, done):
    claims = [msgspec.structs.replace(CLAIM, partition=str(key), status=status) for key, status in spans]
    busy = {key for key, status in spans if status is not ClaimStatus.OPEN}
    expected = [str(key) for key in dict.fromkeys(wanted) if key not in busy | done]
    assert list(free_partitions(map(str, wanted), claims, set(map(str, done)))) == expected


@given(HOURS, st.lists(HOURS))
def test_a_range_is_done_when_every_hour_of_it_is(span, done):
    (claim,), _ = claims_of([(span, ClaimStatus.OPEN)])
    done_hours = {hour for start, end in done for hour in range(start, end)}
    assert is_done(claim, completed(done), ()) == (set(range(*span)) <= done_hours)
