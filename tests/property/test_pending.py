"""What is left to do against all ticks looked at one by one, and how few of them are looked at."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.errors import IntervalError, InvalidFieldError
from seeknal.model.calendar import Calendar
from seeknal.model.intervals import Interval, covers, subtract, union
from seeknal.model.pending import pending_intervals
from seeknal.model.schedule import as_schedule, missing_ticks

ORIGIN = datetime(2024, 3, 29, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

schedules = st.builds(
    as_schedule,
    st.sampled_from(["@hourly", "@daily", "*/40 * * * *", "0 */6 * * *", "30 2 * * *", "0 9 * * 1-5"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
minutes = st.integers(-600, 5 * 24 * 60).map(lambda number: ORIGIN + timedelta(minutes=number))
spans = st.tuples(minutes, st.integers(1, 3000)).map(lambda drawn: Interval(drawn[0], drawn[0] + drawn[1] * HOUR / 60))


@given(
    schedules,
    st.lists(spans, max_size=5),
    minutes,
    minutes,
    st.none() | st.integers(1, 4000),
    st.integers(0, 8),
    st.integers(0, 40),
    st.none() | st.integers(0, 5),
    st.booleans(),
)
def test_what_is_left_is_what_one_finds_tick_by_tick(
    schedule, completed, now, start, length, lookback, late_hours, most, newest_first
):
    end, lateness = None if length is None else start + length * HOUR / 60, late_hours * HOUR
    due = list(schedule.ticks(ORIGIN - 30 * DAY, now - lateness))
    again = due[-lookback:] if lookback else []
    wanted = [
        tick
        for tick in due
        if start <= tick.start
        and (end is None or tick.end <= end)
        and (tick in again or not covers(union(completed), tick))
    ]
    wanted = wanted[::-1] if newest_first else wanted
    found = pending_intervals(
        completed,
        schedule,
        now=now,
        start=start,
        end=end,
        lookback=lookback,
        lateness=lateness,
        max_intervals=most,
        newest_first=newest_first,
    )
    assert list(found) == wanted[:most]


@given(schedules, st.lists(spans, max_size=5), spans)
def test_the_order_of_missing_ticks_is_only_turned_around(schedule, completed, span):
    found = list(missing_ticks(completed, span.start, span.end, schedule))
    assert list(missing_ticks(completed, span.start, span.end, schedule, newest_first=True)) == found[::-1]


def days(*numbers):
    return [
        Interval(datetime(2024, 1, number, tzinfo=UTC), datetime(2024, 1, number + 1, tzinfo=UTC)) for number in numbers
    ]


def left(now, completed=(), schedule="@daily", zone=None, **options):
    """Return the days of January on which what is left begins."""
    given = {"start": datetime(2024, 1, 1), **options}
    found = pending_intervals(completed, as_schedule(schedule, zone), now=now, **given)
    return [tick.start.day for tick in found]


NOON = datetime(2024, 1, 6, 12, tzinfo=UTC)


def test_a_day_that_is_not_over_is_not_due():
    assert left(NOON) == [1, 2, 3, 4, 5]
    assert left(datetime(2024, 1, 6, tzinfo=UTC)) == [1, 2, 3, 4, 5]
    assert left(datetime(2024, 1, 6, tzinfo=UTC) - timedelta(microseconds=1)) == [1, 2, 3, 4]
    assert left(datetime(2024, 1, 1, 12, tzinfo=UTC)) == []
    assert left(datetime(2023, 1, 1, tzinfo=UTC)) == []


def test_an_end_in_the_future_makes_nothing_due_and_one_in_the_past_ends_it():
    assert left(NOON, end=datetime(2030, 1, 1)) == [1, 2, 3, 4, 5]
    assert left(NOON, end=datetime(2024, 1, 3)) == [1, 2]
    assert left(NOON, end=datetime(2024, 1, 3, 23)) == [1, 2]


def test_a_start_inside_of_a_tick_leaves_that_tick_out():
    assert left(NOON, start=datetime(2024, 1, 2, 0, 0, 1)) == [3, 4, 5]


def test_the_last_ticks_are_done_again_and_again():
    assert left(NOON, days(1, 2, 3, 4, 5)) == []
    assert left(NOON, days(1, 2, 3, 4, 5), lookback=2) == [4, 5]
    assert left(NOON, days(1, 3, 4, 5), lookback=2) == [2, 4, 5]
    assert left(NOON, days(1, 2, 3, 4, 5), lookback=99) == [1, 2, 3, 4, 5]


def test_the_lookback_is_counted_from_now_and_not_from_the_end():
    assert left(NOON, days(1, 2, 3, 4, 5), lookback=2, end=datetime(2024, 1, 5)) == [4]
    assert left(NOON, days(1, 2, 3), lookback=2, end=datetime(2024, 1, 4)) == []


def test_the_lookback_counts_ticks_and_not_hours():
    weekdays = left(NOON, days(1, 2, 3, 4, 5), "0 0 * * 1-5", lookback=2)  # noon of a Saturday; Friday ends on Monday
    assert weekdays == [3, 4]
    eight = datetime(2024, 3, 31, 8, tzinfo=UTC)
    done = [Interval(datetime(2024, 3, 1, tzinfo=UTC), eight)]
    found = pending_intervals(done, as_schedule("@daily", "Europe/Berlin"), now=eight + DAY, start=ORIGIN, lookback=1)
    assert [(tick.end - tick.start) / HOUR for tick in found] == [23]


def test_a_tick_is_due_only_when_it_is_as_late_as_asked_for():
    assert left(NOON, lateness=12 * HOUR) == [1, 2, 3, 4, 5]
    assert left(NOON, lateness=13 * HOUR) == [1, 2, 3, 4]
    assert left(NOON, days(1, 2, 3, 4, 5), lateness=13 * HOUR, lookback=1) == [4]
    assert left(NOON, lateness=timedelta.max) == []


def test_at_most_so_many_the_oldest_or_the_newest_first():
    assert left(NOON, days(2), max_intervals=3) == [1, 3, 4]
    assert left(NOON, days(4), max_intervals=3, newest_first=True) == [5, 3, 2]
    assert left(NOON, max_intervals=0) == []
    assert left(NOON, newest_first=True) == [5, 4, 3, 2, 1]


def test_naive_bounds_are_utc_and_a_naive_now_is_local_time():
    now = datetime(2024, 1, 6, 12)
    assert left(now) == left(now.astimezone())
    berlin = pending_intervals([], as_schedule("@daily"), now=NOON.astimezone(), start=datetime(2024, 1, 5))
    assert [tick.start for tick in berlin] == [datetime(2024, 1, 5, tzinfo=UTC)]


@pytest.mark.parametrize("field", ["lookback", "max_intervals"])
@pytest.mark.parametrize(
    "value", [-1, True, 1.5, "3", 2**64, 10**5000], ids=["-1", "True", "1.5", "text", "65 bits", "huge"]
)
def test_a_count_that_is_none_is_refused_by_its_name(field, value):
    with pytest.raises(InvalidFieldError, match=field) as caught:
        left(NOON, **{field: value})
    assert (caught.value.field, bool(caught.value.hint)) == (field, True)


@pytest.mark.parametrize("value", [-HOUR, 3, None, "1h"])
def test_a_lateness_that_is_none_is_refused_by_its_name(value):
    with pytest.raises(InvalidFieldError, match="lateness") as caught:
        left(NOON, lateness=value)
    assert (caught.value.field, bool(caught.value.hint)) == ("lateness", True)


def test_instants_that_are_none_are_refused_by_their_names():
    with pytest.raises(InvalidFieldError, match="now"):
        left("2024-01-06")
    for bounds in ({"start": "2024-01-01"}, {"end": NOON.date()}, {"end": datetime(2024, 1, 1)}, {"start": None}):
        with pytest.raises(IntervalError, match="|".join(bounds)) as caught:
            left(NOON, **bounds)
        assert caught.value.hint
    with pytest.raises(IntervalError, match="ends of time"):
        left(NOON, start=datetime(1, 1, 1))


@pytest.fixture
def looked_at(monkeypatch):
    """The days that anybody looks at."""
    seen, day = [], Calendar.day
    monkeypatch.setattr(Calendar, "day", lambda self, date: seen.append(date) or day(self, date))
    return seen


FIVE_YEARS = Interval(datetime(2019, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_few_missing_of_five_years_of_minutes_cost_a_few_days(looked_at, zone, newest_first):
    schedule = as_schedule("* * * * *", zone)
    starts = [(2019, 5, 1, 7, 3), (2021, 10, 31, 1), (2023, 12, 31)]
    holes = [datetime(*start, tzinfo=UTC) for start in starts]
    done = subtract([FIVE_YEARS], [Interval(hole, hole + HOUR / 60) for hole in holes])
    looked_at.clear()
    found = missing_ticks(done, FIVE_YEARS.start, FIVE_YEARS.end, schedule, newest_first=newest_first)
    assert sorted(tick.start for tick in found) == holes
    assert len(looked_at) <= 6 * len(holes)


@pytest.mark.parametrize("newest_first", [False, True])
def test_ten_of_five_years_of_minutes_of_which_none_is_done_cost_a_few_days(looked_at, newest_first):
    schedule = as_schedule("* * * * *", "Europe/Berlin")
    looked_at.clear()
    found = pending_intervals(
        [],
        schedule,
        now=FIVE_YEARS.end,
        start=FIVE_YEARS.start,
        max_intervals=10,
        newest_first=newest_first,
        lookback=60,
    )
    assert len(list(found)) == 10
    assert len(looked_at) <= 10


def test_no_more_is_cut_than_is_asked_for(looked_at):
    schedule = as_schedule("* * * * *")
    looked_at.clear()
    ticks = missing_ticks([], FIVE_YEARS.start, FIVE_YEARS.end, schedule)
    assert len(looked_at) <= 4  # both ends
    assert len(list(islice(ticks, 3 * 1440))) == 3 * 1440
    assert len(looked_at) <= 4 + 4
