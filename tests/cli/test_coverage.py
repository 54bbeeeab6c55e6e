"""The coverage bar: a table that was checked by hand, and what holds for every span."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.cli.coverage import LEAST_WIDTH, UNITS, Cell, buckets, cells, drawn, legend, scale
from seeknal.model.intervals import Interval, covers, intersect, union

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")


def at(text):
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def span(start, end):
    return Interval(at(start), at(end))


def bar(done, of, width, zone=UTC_ZONE):
    found = buckets(of, width, zone)
    return found.unit, drawn(cells(union(done), found.spans), is_plain=True), scale(found, width, zone)


@pytest.mark.parametrize(
    ("done", "of", "width", "wanted"),
    [
        # five minutes, of which the second and a half of the fourth are done
        (
            [("2024-01-10T06:01", "2024-01-10T06:02"), ("2024-01-10T06:03", "2024-01-10T06:03:30")],
            ("2024-01-10T06:00", "2024-01-10T06:05"),
            20,
            ("minute", ".#.+.", "06:00"),
        ),
        # eleven hours over a midnight; the first cell is the half hour before 20:00
        (
            [("2024-01-10T19:30", "2024-01-10T22:00")],
            ("2024-01-10T19:30", "2024-01-11T06:00"),
            20,
            ("hour", "###........", "01-10"),
        ),
        # ten days, of which the first three and the last one
        (
            [("2024-01-01", "2024-01-04"), ("2024-01-10", "2024-01-11")],
            ("2024-01-01", "2024-01-11"),
            20,
            ("day", "###......#", "2024-01"),
        ),
        # 20 days fill 20 cells exactly; February begins at the eleventh
        (
            [("2024-01-22", "2024-02-11")],
            ("2024-01-22", "2024-02-11"),
            20,
            ("day", "#" * 20, "2024-01   2024-02"),
        ),
        # 21 days do not fit: weeks begin on Mondays, the first and the last cell are shorter
        (
            [("2024-01-24", "2024-01-30")],
            ("2024-01-24", "2024-02-14"),
            20,
            ("week", "#+..", "2024-01"),
        ),
        # two years in months
        (
            [("2023-01-01", "2024-01-01"), ("2024-02-01", "2024-03-01"), ("2024-12-31", "2025-01-01")],
            ("2023-01-01", "2025-01-01"),
            24,
            ("month", "############.#.........+", "2023        2024"),
        ),
        # the same in eleven cells: years
        (
            [("2023-01-01", "2024-01-01"), ("2024-02-01", "2024-03-01")],
            ("2023-01-01", "2025-01-01"),
            11,
            ("year", "#+", "2023"),
        ),
        # from Luther to now in centuries
        ([("1517-10-31", "1900-01-01")], ("1517-10-31", "2024-01-01"), 11, ("century", "####..", "1517 2000")),
        # all of time
        ([], ("0001-01-01", "9999-12-31T23:59:59.999999"), 11, ("millennium", "..........", "0001")),
    ],
)
def test_a_bar_that_was_checked_by_hand(done, of, width, wanted) -> None:
    assert bar([span(*each) for each in done], span(*of), width) == wanted


def test_days_are_those_of_the_time_zone_and_as_long_as_its_clocks_make_them() -> None:
    of = span("2024-03-30T00:00+01:00", "2024-04-02T00:00+02:00")
    assert [each.end - each.start for each in buckets(of, 20, BERLIN).spans] == [
        timedelta(hours=24),
        timedelta(hours=23),
        timedelta(hours=24),
    ]
    done = [span("2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00")]
    assert bar(done, of, 20, BERLIN)[:2] == ("day", ".#.")
    assert bar(done, of, 20)[:2] == ("day", ".++.")


def test_an_hour_that_clocks_show_twice_has_two_cells() -> None:
    of = span("2024-10-27T00:00+02:00", "2024-10-28T00:00+01:00")
    assert {each.end - each.start for each in buckets(of, 40, BERLIN).spans} == {timedelta(hours=1)}
    assert len(buckets(of, 40, BERLIN).spans) == 25


def test_a_day_that_the_clocks_skipped_has_no_cell() -> None:
    apia = ZoneInfo("Pacific/Apia")  # it went from the 29th to the 31st of December 2011
    of = span("2011-12-29T00:00-10:00", "2012-01-01T00:00+14:00")
    assert [each.start.astimezone(apia).day for each in buckets(of, 20, apia).spans] == [29, 31]


def test_blocks_and_what_they_mean() -> None:
    assert drawn(list(Cell), is_plain=False) == "█▄░"
    found = buckets(span("2024-01-01", "2024-01-02"), 40, UTC_ZONE)
    assert legend(found, UTC_ZONE, is_plain=False) == "one hour a cell, UTC: █ done, ▄ partly, ░ not"
    longest = ZoneInfo("America/Argentina/ComodRivadavia")
    assert max(len(legend(type(found)(unit, []), longest, is_plain=True)) for unit in UNITS) <= 80


moments = st.datetimes(timezones=st.just(UTC))
near = st.builds(
    lambda start, seconds: Interval(start, start + timedelta(seconds=seconds)),
    st.datetimes(datetime(1850, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.one_of(st.integers(1, 7200), st.integers(1, 40 * 86400), st.integers(1, 10**9)),
)
far = st.tuples(moments, moments).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Interval(*pair))
zones = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/Havana",
    ]
).map(ZoneInfo)


@given(st.one_of(near, far), st.integers(LEAST_WIDTH, 120), zones)
def test_buckets_hold_the_span_exactly_once_and_no_more_than_fit(of, width, zone) -> None:
    found = buckets(of, width, zone)
    assert (found.spans[0].start, found.spans[-1].end) == (of.start, of.end)
    assert all(before.end == after.start for before, after in pairwise(found.spans))
    assert all(each.start < each.end for each in found.spans)
    assert len(found.spans) <= width
    assert len(scale(found, width, zone)) <= width


@given(
    near, st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8), st.integers(LEAST_WIDTH, 80), zones
)
def test_a_cell_is_full_exactly_if_all_of_its_bucket_is_done(of, parts, width, zone) -> None:
    step = (of.end - of.start) / 40
    done = union(
        Interval(of.start + (low - 5) * step, of.start + (high - 5) * step)
        for low, high in parts
        if step and low < high
    )
    found = buckets(of, width, zone)
    for bucket, cell in zip(found.spans, cells(done, found.spans), strict=True):
        if cell is Cell.FULL:
            assert covers(done, bucket)
        elif cell is Cell.EMPTY:
            assert intersect(done, [bucket]) == []
        else:
            assert not covers(done, bucket)
            assert intersect(done, [bucket])
