"""The interval algebra against sets of minutes."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from seeknal.model.intervals import Interval, covers, gaps, intersect, subtract, union
from seeknal.model.records import CompletedInterval
from seeknal.state.batch import IntervalCompleted, IntervalRestated
from seeknal.state.work import change_intervals

ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
LAST = 40


def at(minute):
    return ORIGIN + timedelta(minutes=minute)


bounds = st.integers(0, LAST - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, LAST)))
intervals = bounds.map(lambda pair: Interval(at(pair[0]), at(pair[1])))
lists = st.lists(intervals, max_size=8)


def minutes(spans):
    return {minute for minute in range(LAST) for span in spans if span.start <= at(minute) < span.end}


def check_canonical(spans):
    assert all(span.start < span.end for span in spans)
    assert all(before.end < after.start for before, after in itertools.pairwise(spans))


@given(lists, lists)
def test_set_operations(left, right):
    for found, wanted in (
        (union(left, right), minutes(left) | minutes(right)),
        (subtract(left, right), minutes(left) - minutes(right)),
        (intersect(left, right), minutes(left) & minutes(right)),
    ):
        assert minutes(found) == wanted
        check_canonical(found)


@given(lists, intervals)
def test_gaps_and_covers(done, span):
    found = gaps(done, span.start, span.end)
    assert minutes(found) == minutes([span]) - minutes(done)
    check_canonical(found)
    assert covers(done, span) is (minutes([span]) <= minutes(done))


@given(lists)
def test_contains(spans):
    assert {minute for minute in range(LAST) for span in spans if at(minute) in span} == minutes(spans)


@given(st.lists(st.tuples(st.booleans(), bounds, st.sampled_from("rs")), max_size=15))
def test_changes_one_after_another(changes):
    done = []
    wanted = set()
    for completes, (start, end), run_id in changes:
        span = set(range(start, end))
        if completes:
            change_intervals(done, IntervalCompleted("n", at(start), at(end), run_id))
            wanted |= span
            assert next(each.run_id for each in done if each.start <= at(start) < each.end) == run_id
        else:
            before = done
            change_intervals(done, IntervalRestated("n", at(start), at(end)))
            wanted -= span
            for each in done:
                assert any(
                    old.start <= each.start and each.end <= old.end and old.run_id == each.run_id for old in before
                )
        assert minutes(done) == wanted
        check_canonical(done)
        assert all(isinstance(each, CompletedInterval) for each in done)
