"""Schedules: ticks against a walk through every minute, across changes of the clocks."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from seeknal.model.intervals import Interval
from seeknal.model.schedule import as_schedule, missing_ticks

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]
EXPRESSIONS = ["@hourly", "@daily", "*/15 * * * *", "0 */6 * * *", "30 2 * * *", "0 9 * * 1-5", "15,45 1 * * *"]

# Around both changes of the clocks of those zones in 2024, and a quiet month.
days = st.sampled_from([(3, 9), (3, 30), (4, 6), (10, 5), (10, 26), (11, 2), (6, 1)])
spans = st.tuples(days, st.integers(0, 36 * 60), st.integers(1, 36 * 60)).map(
    lambda drawn: (
        datetime(2024, *drawn[0], tzinfo=UTC) + timedelta(minutes=drawn[1]),
        datetime(2024, *drawn[0], tzinfo=UTC) + timedelta(minutes=drawn[1] + drawn[2]),
    )
)
schedules = st.builds(as_schedule, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES))


@given(schedules, spans)
def test_ticks_touch_and_begin_at_firings(schedule, span):
    start, end = span
    ticks = list(schedule.ticks(start, end))
    assert all(start <= tick.start < tick.end <= end for tick in ticks)
    assert all(before.end == after.start for before, after in pairwise(ticks))
    firings = [moment for moment in islice(schedule.firings(start - timedelta(days=4)), 2000) if start <= moment <= end]
    assert [tick.start for tick in ticks] == firings[:-1]
    assert [tick.end for tick in ticks] == firings[1:]


@given(schedules, spans)
def test_the_last_firing_is_the_one_that_comes_out_going_forward(schedule, span):
    at, _ = span
    forward = [moment for moment in islice(schedule.firings(at - timedelta(days=5)), 2000) if moment <= at]
    assert schedule.last_firing(at) == forward[-1]


@given(schedules, spans, st.lists(st.tuples(st.integers(-300, 2500), st.integers(1, 600)), max_size=5))
def test_missing_ticks_are_those_not_fully_done(schedule, span, done):
    start, end = span
    completed = [
        Interval(start + timedelta(minutes=first), start + timedelta(minutes=first + length)) for first, length in done
    ]
    covered = {
        moment
        for interval in completed
        for moment in range(
            int(interval.start.timestamp()) // 60, int(interval.end.timestamp()) // 60
        )
    }  # fmt: skip

    def is_done(tick):
        return all(
            minute in covered for minute in range(int(tick.start.timestamp()) // 60, int(tick.end.timestamp()) // 60)
        )

    wanted = [tick for tick in schedule.ticks(start, end) if not is_done(tick)]
    assert list(missing_ticks(completed, start, end, schedule)) == wanted


@pytest.mark.parametrize("zone", ZONES)
def test_days_are_local_days(zone):
    schedule = as_schedule("@daily", zone)
    ticks = list(schedule.ticks(datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)))
    assert 364 <= len(ticks) <= 366
    assert {tick.start.astimezone(ZoneInfo(zone)).strftime("%H:%M") for tick in ticks} == {"00:00"}
    assert len({tick.start.astimezone(ZoneInfo(zone)).date() for tick in ticks}) == len(ticks)


def test_no_firing_is_lost_where_the_clocks_move_by_half_an_hour():
    schedule = as_schedule("0 */6 * * *", "Australia/Lord_Howe")
    firings = islice(schedule.firings(datetime(2024, 10, 5, 14, tzinfo=UTC)), 2)
    assert [moment.astimezone(ZoneInfo(schedule.timezone)).hour for moment in firings] == [6, 12]


def local(expression, zone, begin, count):
    schedule, clock = as_schedule(expression, zone), ZoneInfo(zone)
    after = begin.replace(tzinfo=clock) - timedelta(microseconds=1)
    return [moment.astimezone(clock).strftime("%d %H:%M %z") for moment in islice(schedule.firings(after), count)]


def test_a_daily_firing_that_the_clocks_skip_comes_when_they_are_changed():
    found = local("30 2 * * *", "Europe/Berlin", datetime(2024, 3, 30), 3)
    assert found == ["30 02:30 +0100", "31 03:00 +0200", "01 02:30 +0200"]


def test_a_daily_firing_that_the_clocks_show_twice_comes_once():
    found = local("30 2 * * *", "Europe/Berlin", datetime(2024, 10, 26), 3)
    assert found == ["26 02:30 +0200", "27 02:30 +0200", "28 02:30 +0100"]


def test_an_hourly_firing_comes_every_hour_of_the_day_that_has_twenty_five():
    found = local("0 * * * *", "Europe/Berlin", datetime(2024, 10, 27, 1), 4)
    assert found == ["27 01:00 +0200", "27 02:00 +0200", "27 02:00 +0100", "27 03:00 +0100"]


def test_firings_within_an_hour_that_is_shown_twice_keep_their_order():
    found = local("*/30 * * * *", "Europe/Berlin", datetime(2024, 10, 27, 2), 5)
    assert found == ["27 02:00 +0200", "27 02:30 +0200", "27 02:00 +0100", "27 02:30 +0100", "27 03:00 +0100"]


def test_firings_on_a_day_that_does_not_exist_come_once():
    found = local("0 12 * * *", "Pacific/Apia", datetime(2011, 12, 29), 3)  # the 30th was left out
    assert found == ["29 12:00 -1000", "31 00:00 +1400", "31 12:00 +1400"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["@hourly", "@daily", "*/15 * * * *", "0 9 * * 1-5", "0 0 1 * *"])
def test_firings_are_those_of_croniter_where_the_clocks_are_left_alone(expression, zone):
    schedule, clock = as_schedule(expression, zone), ZoneInfo(zone)
    quiet = datetime(2024, 5, 1, tzinfo=clock)
    theirs = croniter(schedule.expression, quiet, ret_type=datetime)
    ours = [moment for moment in islice(schedule.firings(quiet), 30) if moment < quiet + timedelta(days=40)]
    assert ours == [theirs.get_next().astimezone(UTC) for _ in ours]
