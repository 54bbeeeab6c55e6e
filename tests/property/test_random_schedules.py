"""Random expressions: the calendar against croniter, and what clocks do against a walk through every minute.

croniter handles changes of the clocks by rules of its own, so the two are compared in UTC, and in zones away from
changes.
"""

import random
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import CroniterBadDateError, croniter
from hypothesis import given
from hypothesis import strategies as st
from tests.property.expressions import MINUTE, changes, expression, walked

from seeknal.errors import IntervalError
from seeknal.model.intervals import Interval, union
from seeknal.model.schedule import as_schedule

CHANGING = [
    "Africa/Cairo",  # at midnight
    "Africa/Casablanca",  # twice more a year, around Ramadan
    "America/Havana",  # from 01:00 back to midnight
    "America/New_York",
    "America/Santiago",  # from midnight back to 23:00 of the day before
    "America/Scoresbysund",  # to midnight, from 2024 on
    "America/St_Johns",  # at one minute past midnight, until 2011
    "Antarctica/Troll",  # by two hours
    "Antarctica/Vostok",  # by seven, once
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Pyongyang",  # by half an hour, for good
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Berlin",
    "Europe/Dublin",  # whose winter is the time that is saved
    "Pacific/Apia",  # left out a day
    "Pacific/Chatham",  # a quarter of an hour beside
    "Pacific/Kwajalein",  # left out a day
]
# Every kind of expression that is common, and random ones.
COMMON = ["@hourly", "@daily", "*/5 * * * *", "30 2 * * *", "30 23 * * *", "0 0 * * 1", "0 0 1 * *", "1 0-3 L * *"]
expressions = st.one_of(
    st.sampled_from(COMMON),
    st.integers(0, 2**32).map(lambda seed: expression(random.Random(seed))),
    # Likelier to meet the change: any times of all days.
    st.integers(0, 2**32).map(lambda seed: " ".join([*expression(random.Random(seed)).split()[:2], "* * *"])),
)


def readable(text, zone="UTC"):
    """Return the schedule, or ``None`` for the 31st of April and its like."""
    try:
        return as_schedule(text, zone)
    except IntervalError as error:
        if "never fires" not in str(error):
            raise
        return None


@st.composite
def around_changes(draw):
    """Return a schedule, and two days around a change of its clocks."""
    zone = draw(st.sampled_from(CHANGING))
    day = draw(st.sampled_from(changes(zone)))
    start = day + timedelta(minutes=draw(st.integers(-24 * 60, 0)))
    return readable(draw(expressions), zone), start, start + timedelta(minutes=draw(st.integers(1, 60 * 60)))


def check_against_the_walk(schedule, start, end):
    wanted = walked(schedule, start, end)
    assert list(takewhile(lambda each: each < end, schedule.firings(start - MINUTE / 2))) == wanted
    assert list(takewhile(lambda each: each >= start, schedule.past_firings(end - MINUTE / 2))) == wanted[::-1]


@given(around_changes())
def test_firings_around_changes_of_the_clocks_are_those_that_a_walk_through_every_minute_finds(drawn):
    schedule, start, end = drawn
    if schedule is not None:
        check_against_the_walk(schedule, start, end)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("zone", sorted(available_timezones() - {"localtime"}))
def test_firings_around_every_change_of_every_zone(zone):
    randomly = random.Random(zone)
    for day in changes(zone):
        anything = " ".join([*expression(randomly).split()[:2], "* * *"])
        for text in ("@hourly", randomly.choice(["30 2 * * *", "@daily", "*/20 23 * * *", anything])):
            check_against_the_walk(as_schedule(text, zone), day - timedelta(hours=12), day + timedelta(hours=48))
    check_that_changes_are_far_apart(zone)


def check_that_changes_are_far_apart(zone):
    assert all(later - earlier >= timedelta(days=6) for earlier, later in pairwise(changes(zone)))


@pytest.mark.parametrize("zone", CHANGING)
def test_no_zone_changes_its_clocks_twice_within_six_days(zone):
    check_that_changes_are_far_apart(zone)


@given(around_changes(), st.lists(st.tuples(st.integers(-600, 4000), st.integers(1, 900)), max_size=5))
def test_ticks_of_spans_are_all_that_share_an_instant_with_them_in_both_orders(drawn, pieces):
    schedule, start, _ = drawn
    if schedule is None:
        return
    spans = union(
        Interval(start + timedelta(minutes=first), start + timedelta(minutes=first + length))
        for first, length in pieces
    )
    found = list(schedule.ticks_of(spans))
    assert list(schedule.past_ticks_of(spans)) == found[::-1]
    if spans:
        first = schedule.last_firing(spans[0].start)
        bounds = [first, *takewhile(lambda each: each < spans[-1].end, schedule.firings(first))]
        bounds.append(next(schedule.firings(bounds[-1])))
        ticks = [Interval(*pair) for pair in pairwise(bounds)]
        assert found == [
            tick for tick in ticks if any(tick.start < span.end and span.start < tick.end for span in spans)
        ]


def agree(seed, count, zone="UTC", quiet=None):
    """Compare so many expressions with croniter, three firings forwards and one back; return how many ever fire."""
    randomly, clock, firing = random.Random(seed), ZoneInfo(zone), 0
    for _ in range(count):
        text = expression(randomly)
        start = (quiet or datetime(1990, 1, 1)) + timedelta(
            minutes=randomly.randrange(60 * 24 * (30 if quiet else 18_000))
        )
        theirs = croniter(
            text, start.replace(tzinfo=clock), ret_type=datetime, implement_cron_bug=True, max_years_between_matches=60
        )
        schedule = readable(text, zone)
        if schedule is None:
            with pytest.raises(CroniterBadDateError):
                theirs.get_next()
            continue
        firing += 1
        at = start.replace(tzinfo=clock).astimezone(UTC)
        ours = [each for each in islice(schedule.firings(at), 3) if not quiet or each < at + timedelta(days=30)]
        assert ours == [theirs.get_next().astimezone(UTC) for _ in ours], (text, start)
        theirs.set_current(start.replace(tzinfo=clock), force=True)
        before = schedule.last_firing(at - MINUTE)
        if not quiet or before > at - timedelta(days=30):
            assert before == theirs.get_prev().astimezone(UTC), (text, start)
    return firing


@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_random_expressions_fire_when_croniter_says(seed):
    assert agree(seed, 1000) > 900


# Each has no change of its clocks within a month of these.
@pytest.mark.parametrize(
    ("zone", "quiet"),
    [
        ("Europe/Berlin", datetime(2024, 6, 1)),
        ("America/St_Johns", datetime(2024, 6, 1)),
        ("Australia/Lord_Howe", datetime(2024, 6, 1)),
        ("Asia/Kathmandu", datetime(2024, 2, 1)),
        ("Africa/Casablanca", datetime(2024, 7, 1)),
        ("Pacific/Chatham", datetime(2024, 12, 1)),
    ],
)
def test_random_expressions_fire_when_croniter_says_in_zones_away_from_changes(zone, quiet):
    assert agree(zone, 150, zone, quiet) > 100


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(100, 150))
def test_more_random_expressions_fire_when_croniter_says(seed):
    assert agree(seed, 5000) > 4500
