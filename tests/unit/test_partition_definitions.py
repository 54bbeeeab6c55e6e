"""Definitions of partitions against a table that was checked by hand, and what they refuse."""

import pickle
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from itertools import count, islice

import msgspec
import pytest

from seeknal.errors import IntervalError, InvalidFieldError, InvalidIdError
from seeknal.model.intervals import Interval
from seeknal.model.partitions import (
    PartitionDefinition,
    PartitionGrid,
    StaticPartitions,
    TimePartitions,
    grid_key,
    missing_partitions,
    split_key,
)

NOW = datetime(2024, 1, 4, 12, tzinfo=UTC)
BERLIN, HOURS = "Europe/Berlin", "%Y-%m-%dT%H%z"


def by_time(start, schedule="@daily", zone=None, form="%Y-%m-%d", end=None):
    """Return partitions by time; bounds are ISO 8601, and those without an offset on the clocks of the zone."""
    return TimePartitions(
        start=datetime.fromisoformat(start),
        schedule=schedule,
        timezone=zone,
        format=form,
        end=None if end is None else datetime.fromisoformat(end),
    )


# A start, a schedule, a zone and a format; now; the keys.
KEYS = [
    ("2024-02-28", "@daily", None, "%Y-%m-%d", "2024-03-02T12:00Z", "2024-02-28, 2024-02-29, 2024-03-01"),
    ("2024-02-28T00:01", "@daily", None, "%Y-%m-%d", "2024-03-01T00:00Z", "2024-02-29"),  # the 28th had begun before
    ("2024-02-28", "@daily", BERLIN, "%Y-%m-%d", "2024-02-29T22:59Z", "2024-02-28"),
    ("2024-02-28", "@daily", BERLIN, "%Y-%m-%d", "2024-02-29T23:00Z", "2024-02-28, 2024-02-29"),
    ("2024-02-28", "@daily", "Asia/Jakarta", "%Y%m%d", "2024-02-28T17:00Z", "20240228"),
    ("2024-01-01", "@monthly", None, "month=%Y%m", "2024-03-31T00:00Z", "month=202401, month=202402"),
    ("2024-01-01", "@monthly", None, "y=%Y/m=%-m", "2024-03-01T00:00Z", "y=2024/m=1, y=2024/m=2"),
    ("2024-03-01", "@monthly", None, "%b %Y", "2024-06-01T00:00Z", "Mar 2024, Apr 2024, May 2024"),
    ("2023-10-01", "@quarterly", None, "%Y-%m", "2024-04-01T00:00Z", "2023-10, 2024-01"),
    ("2024-12-22", "@weekly", None, "%G-W%V", "2025-01-12T00:00Z", "2024-W51, 2024-W52, 2025-W01"),  # Sundays
    ("2023-12-30", "@daily", None, "%Y.%j", "2024-01-02T00:00Z", "2023.364, 2023.365, 2024.001"),
    ("2024-01-05", "0 6 * * MON-FRI", None, "%A %d %B %Y", "2024-01-09T06:00Z",
     "Friday 05 January 2024, Monday 08 January 2024"),
    ("0999-12-30", "@daily", None, "%Y-%m-%d", "1000-01-02T00:00Z", "0999-12-30, 0999-12-31, 1000-01-01"),
    ("0009-06-07", "@daily", None, "%G%%%F", "0009-06-08T00:00Z", "0009%0009-06-07"),
    ("2024-03-31", "@hourly", BERLIN, "%Y-%jT%H%z", "2024-03-31T02:00Z",
     "2024-091T00+0100, 2024-091T01+0100, 2024-091T03+0200"),
    ("2024-10-27T02:00", "@hourly", BERLIN, HOURS, "2024-10-27T02:00Z", "2024-10-27T02+0200, 2024-10-27T02+0100"),
    ("2024-10-27T00:00", "0 */6 * * *", BERLIN, "%Y%m%d%H", "2024-10-27T17:00Z", "2024102700, 2024102706, 2024102712"),
    # 7 April 2024: 02:00 +11 becomes 01:30 +10:30.
    ("2024-04-07T01:00", "*/30 * * * *", "Australia/Lord_Howe", "%F %R%:z", "2024-04-06T15:30Z",
     "2024-04-07 01:00+11:00, 2024-04-07 01:30+11:00, 2024-04-07 01:30+10:30"),
    ("2011-12-29", "@daily", "Pacific/Apia", "%Y-%m-%d", "2012-01-01T00:00+14:00", "2011-12-29, 2011-12-31"),
    ("1900-01-01", "@daily", "Asia/Kathmandu", "%Y-%m-%d%z", "1900-01-02T00:00Z", "1900-01-01+054116"),
    ("2024-01-01T00:00+02:00", "@daily", None, "%F %T", "2024-01-02T00:00Z", "2024-01-01 00:00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("start", "schedule", "zone", "form", "now", "keys"), KEYS)
def test_each_whole_tick_until_now_is_a_key(start, schedule, zone, form, now, keys):
    definition = by_time(start, schedule, zone, form)
    assert list(definition.keys(datetime.fromisoformat(now))) == keys.split(", ")


# A start, a schedule, a zone and a format; a key; its tick.
TICKS = [
    ("2024-01-01", "@daily", None, "%Y-%m-%d", "2024-01-10", "2024-01-10T00:00Z", "2024-01-11T00:00Z"),
    ("2024-01-01", "@daily", BERLIN, "%Y-%m-%d", "2024-03-31", "2024-03-30T23:00Z", "2024-03-31T22:00Z"),
    ("2024-01-01", "@daily", BERLIN, "%Y-%m-%d", "2024-10-27", "2024-10-26T22:00Z", "2024-10-27T23:00Z"),
    ("2024-01-01", "0 6 * * *", None, "%Y-%m-%d", "2024-01-10", "2024-01-10T06:00Z", "2024-01-11T06:00Z"),
    ("2024-01-01", "0 6 * * FRI", None, "%d.%m.%Y", "12.01.2024", "2024-01-12T06:00Z", "2024-01-19T06:00Z"),
    ("2024-01-01", "@hourly", BERLIN, HOURS, "2024-10-27T02+0200", "2024-10-27T00:00Z", "2024-10-27T01:00Z"),
    ("2024-01-01", "@hourly", BERLIN, HOURS, "2024-10-27T02+0100", "2024-10-27T01:00Z", "2024-10-27T02:00Z"),
    (
        "2024-01-01",
        "*/30 * * * *",
        BERLIN,
        "%FT%R%z",
        "2024-10-27T02:30+0100",
        "2024-10-27T01:30Z",
        "2024-10-27T02:00Z",
    ),
    # The last day of what a key tells.
    ("2024-01-01", "0 0 L * *", None, "%Y-%m", "2024-01", "2024-01-31T00:00Z", "2024-02-29T00:00Z"),
    ("2024-01-01", "0 0 31 12 *", None, "%Y", "2024", "2024-12-31T00:00Z", "2025-12-31T00:00Z"),
    ("2024-01-01", "30 2 * * *", BERLIN, "%FT%R", "2024-03-31T03:00", "2024-03-31T01:00Z", "2024-04-01T00:30Z"),
    ("2024-01-01", "@weekly", None, "%G-W%V", "2025-W01", "2025-01-05T00:00Z", "2025-01-12T00:00Z"),
    ("2024-01-01", "@monthly", None, "%B %Y", "February 2024", "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
    ("0999-01-01", "@yearly", None, "%Y", "0999", "0999-01-01T00:00Z", "1000-01-01T00:00Z"),
    ("2011-01-01", "@daily", "Pacific/Apia", "%Y-%m-%d", "2011-12-31", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
]


@pytest.mark.parametrize(("start", "schedule", "zone", "form", "key", "first", "last"), TICKS)
def test_a_key_leads_back_to_its_tick(start, schedule, zone, form, key, first, last):
    definition = by_time(start, schedule, zone, form)
    tick = Interval(datetime.fromisoformat(first), datetime.fromisoformat(last))
    assert definition.interval_of(key) == tick
    assert definition.contains(key, tick.end)
    assert not definition.contains(key, tick.end - timedelta(microseconds=1))


def test_the_last_days_of_a_long_iso_year_are_looked_at():
    years = by_time("2021-01-01", "0 0 2 1 *", form="%G", end="2025-01-01")
    assert list(years.keys(datetime(2025, 1, 1, tzinfo=UTC))) == ["2020", "2021", "2023"]
    assert years.interval_of("2020").start == datetime(2021, 1, 2, tzinfo=UTC)  # a Saturday, in week 53


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (
            "2024-01-06",
            "is no whole tick of '0 0 * * 1-5', Europe/Berlin, in "
            "[2023-12-31T23:00:00+00:00, 2024-12-31T11:00:00+00:00)",
        ),
        ("2023-12-29", "is no whole tick of"),
        ("2024-12-31", "is no whole tick of"),  # it ends in 2025
        ("2025-01-01", "is no whole tick of"),
        ("2024-02-30", "is no whole tick of"),
        ("2024-13-01", "is no whole tick of"),
        ("0000-01-01", "is no whole tick of"),
        ("0001-01-01", "is no whole tick of"),
        ("9999-12-31", "is no whole tick of"),
        ("2024-1-10", "is not of the format '%Y-%m-%d'"),
        ("2024-01-10 ", "is not of the format"),
        ("2024-01-10\n", "is not of the format"),
        ("2024-01-1\u0661", "is not of the format"),  # a digit, and none of a key
        ("", "is not of the format"),
        (20240110, "is not of the format"),
        (None, "is not of the format"),
    ],
)
def test_what_is_no_key_is_named_and_contained_in_nothing(key, problem):
    weekdays = by_time("2024-01-01", "0 0 * * 1-5", BERLIN, end="2024-12-31T12:00")
    assert not weekdays.contains(key, datetime(2030, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidFieldError) as refused:
        weekdays.interval_of(key)
    assert f"partition {key!a} {problem}" in str(refused.value)
    assert (refused.value.field, refused.value.hint) == ("partition", "The first key is '2024-01-01'.")


def test_an_end_ends_it_and_one_in_the_future_makes_no_key_before_its_time():
    def keys(end):
        return [key[-2:] for key in by_time("2024-01-01", end=end).keys(NOW)]

    assert keys("2024-01-03") == keys("2024-01-03T23:59") == ["01", "02"]
    assert keys("2030-01-01") == keys(None) == ["01", "02", "03"]
    assert list(by_time("2024-06-01").keys(NOW)) == []


def test_a_bound_without_an_offset_is_a_time_on_the_clocks_of_the_zone():
    definition = by_time("2024-01-01", zone="Asia/Jakarta", end="2024-01-03")
    assert (definition.start, definition.end) == (
        datetime(2023, 12, 31, 17, tzinfo=UTC),
        datetime(2024, 1, 2, 17, tzinfo=UTC),
    )
    aware = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=7)))
    assert definition == TimePartitions(start=aware, end=aware + timedelta(days=2), timezone="Asia/Jakarta")


# What time partitions are made of; the key and the two ticks of it; what to do.
ONE_KEY = [
    (("2024-01-01", "@hourly"), "2024-01-01", "2024-01-01T00:00:00+00:00", "2024-01-01T01:00:00+00:00", "%Y-%m-%dT%H"),
    (("2024-01-01", "@daily", None, "%Y-%m"),
     "2024-01", "2024-01-01T00:00:00+00:00", "2024-01-02T00:00:00+00:00", "%Y-%m-%d"),
    (("2024-01-01", "*/15 * * * *", None, "%FT%H"),
     "2024-01-01T00", "2024-01-01T00:00:00+00:00", "2024-01-01T00:15:00+00:00", "%Y-%m-%dT%H:%M"),
    (("2024-01-01", "@hourly", BERLIN, "%F %H"),
     "2024-10-27 02", "2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00", "%F %H%z"),
    (("2024-01-01", "*/30 * * * *", BERLIN, "%FT%R"),
     "2024-10-27T02:00", "2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00", "%FT%R%z"),
    (("2024-10-27T02:30", "*/30 * * * *", BERLIN, "%FT%R"),
     "2024-10-27T02:30", "2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00", "%FT%R%z"),
    (("2024-10-28", "@hourly", BERLIN, "%FT%H"),
     "2025-10-26T02", "2025-10-26T02:00:00+02:00", "2025-10-26T02:00:00+01:00", "%FT%H%z"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "key", "first", "second", "advice"), ONE_KEY)
def test_a_format_that_gives_one_key_to_two_ticks_is_refused_before_there_are_any(given, key, first, second, advice):
    with pytest.raises(InvalidFieldError) as refused:
        by_time(*given)
    form = given[3] if len(given) > 3 else "%Y-%m-%d"
    assert str(refused.value) == f"format {form!r} gives one key, {key!r}, to two ticks: {first} and {second}"
    assert refused.value.hint.endswith(f"{advice!r}.")
    assert refused.value.field == "format"


def test_a_format_that_is_not_used_up_to_where_it_fails_is_taken():
    assert list(by_time("2024-10-26", "@hourly", BERLIN, "%FT%H", end="2024-10-26T02:00").keys(NOW)) == []
    assert len(list(by_time("2024-10-27T02:59", "@hourly", BERLIN, "%FT%H", end="2025-10-26T03:00").keys(NOW))) == 0
    assert by_time("2024-01-01", "0 */6 * * *", BERLIN, "%FT%H").timezone == BERLIN
    assert by_time("2024-01-01", "30 2 * * *", BERLIN, "%FT%R").timezone == BERLIN
    assert by_time("2024-01-01", "@hourly", "UTC", "%FT%H").timezone == "UTC"


@pytest.mark.parametrize("form", ["%m-%d", "%y-%m-%d", "%H:%M:%S.%f%z", "W%V"])
def test_a_format_without_a_year_needs_an_end(form):
    with pytest.raises(InvalidFieldError, match="does not tell the year") as refused:
        by_time("2024-01-08", "@weekly", form=form)
    assert refused.value.field == "format"
    assert refused.value.hint == f"Write the year into it, like '%Y-{form}', or give an end."
    if "H" not in form:
        definition = by_time("2024-01-08", "@weekly", form=form, end="2024-03-01")
        for key in definition.keys(NOW + timedelta(days=60)):
            assert definition.interval_of(key).start.strftime(form) == key


def test_one_key_of_two_ticks_is_found_however_far_they_are_apart():
    late = datetime(2030, 1, 1, tzinfo=UTC)
    days = by_time("2024-01-01", form="%m-%d", end="2030-01-01").keys(late)
    assert len(list(islice(days, 366))) == 366
    with pytest.raises(InvalidFieldError, match=r"'01-01', to two ticks: 2024-01-01T.* and 2025-01-01T"):
        next(days)

    weeks = by_time("2022-01-02", "@weekly", form="%Y-W%V").keys(late)  # the year of the week would be %G
    with pytest.raises(InvalidFieldError, match=r"'2023-W52', to two ticks: 2023-01-01T.* and 2023-12-31T"):
        list(weeks)

    # Moscow left its clocks alone from 2011 to 2014.
    hours = by_time("2012-01-01", "@hourly", "Europe/Moscow", "%Y-%m-%dT%H")
    found = hours.keys(late)
    twice = r"'2014-10-26T01', to two ticks: 2014-10-26T01:00:00\+04:00 and 2014-10-26T01:00:00\+03:00"
    with pytest.raises(InvalidFieldError, match=twice):
        list(found)
    for asked in (lambda: hours.contains("2014-10-26T01", late), lambda: hours.interval_of("2014-10-26T01")):
        with pytest.raises(InvalidFieldError, match=twice):
            asked()
    assert hours.contains("2014-10-26T02", late)
    assert hours.contains("2014-10-26T01", datetime(2014, 10, 25, 22, tzinfo=UTC))  # the second is not over


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("", "tells nothing of the time"),
        ("day", "tells nothing of the time"),
        ("100%%", "tells nothing of the time"),
        ("%Y%", "ends with a single %"),
        ("%c", "has '%c'"),
        ("%Z", "has '%Z'"),
        ("%Y-%Q", "has '%Q'"),
        ("%-Y", "has '%-Y'"),
        ("%-B", "has '%-B'"),
        ("%F%\u00e9", "has '%\\xe9'"),
        ("%F\n", "holds a control character"),
        ("%F%n", "has '%n'"),
        ("%F\udcff", "is not valid Unicode text"),
        ("%-m%d", "what follows its %m could be a part of it"),
        ("%F%-H0", "what follows its %H could be a part of it"),
        ("%F%z%H", "what follows its %z could be a part of it"),
        ("%F%:z:%H", "what follows its %z could be a part of it"),
        ("%F" + "x" * 180, None),
        ("%F" + "x" * 181, "makes keys of up to 191 bytes"),
        ("%F" + "\u00e9" * 91, "makes keys of up to 192 bytes"),
        ("%F" + "x" * 191, "at most 190"),
        (None, "must be text, not NoneType"),
    ],
)
def test_a_format_whose_texts_cannot_be_keys_is_refused(form, problem):
    if problem is None:
        assert by_time("2024-01-01", form=form).contains("2024-01-02" + "x" * 180, NOW)
        return
    with pytest.raises(InvalidFieldError) as refused:
        by_time("2024-01-01", form=form)
    assert problem in str(refused.value)
    assert refused.value.field == "format"
    assert refused.value.hint


@pytest.mark.parametrize(
    ("kind", "named", "given"),
    [
        (IntervalError, "schedule 'often'", {"schedule": "often"}),
        (IntervalError, "time zone 'Mars'", {"timezone": "Mars"}),
        (IntervalError, "no whole tick", {"end": datetime(2024, 1, 1, 23)}),
        (IntervalError, "no whole tick", {"start": datetime(9998, 12, 31), "schedule": "@weekly"}),
        (IntervalError, "must end after it starts", {"end": datetime(2024, 1, 1)}),
        (InvalidFieldError, "start must be a datetime", {"start": "2024-01-01"}),
        (InvalidFieldError, "end must be a datetime", {"end": "2024-01-01"}),
        (InvalidFieldError, "start 0001-06-01", {"start": datetime(1, 6, 1)}),
        (InvalidFieldError, "end 9999-06-01", {"end": datetime(9999, 6, 1)}),
    ],
)
def test_what_time_partitions_cannot_be_made_of_is_named(kind, named, given):
    with pytest.raises(kind) as refused:
        TimePartitions(**{"start": datetime(2024, 1, 1), **given})
    assert named in str(refused.value)
    assert refused.value.hint


def test_the_ends_of_time_are_in_reach():
    first, last = by_time("0002-01-01"), by_time("9998-12-30")
    assert list(islice(first.keys(NOW), 2)) == ["0002-01-01", "0002-01-02"]
    assert list(last.keys(datetime.max.replace(tzinfo=UTC))) == ["9998-12-30", "9998-12-31"]
    assert list(last.keys(datetime.min.replace(tzinfo=UTC))) == []


def test_listed_partitions_keep_their_order():
    listed = StaticPartitions(["SG", "ID", "id", "a|b"])
    assert list(listed.keys(NOW)) == ["SG", "ID", "id", "a|b"]
    assert [listed.contains(key, NOW) for key in ("ID", "Id", "", None)] == [True, False, False, False]
    assert listed == StaticPartitions(each for each in listed.members)


@pytest.mark.parametrize(
    ("kind", "named", "members"),
    [
        (InvalidFieldError, "members is empty", []),
        (InvalidFieldError, "members has 'ID' twice", ["ID", "SG", "ID"]),
        (InvalidFieldError, "members must be a list of keys, not str", "ID"),
        (InvalidFieldError, "members must be a list of keys, not int", 5),
        (InvalidIdError, "partition '' is empty", ["ID", ""]),
        (InvalidIdError, "partition must be a string", ["ID", 5]),
        (InvalidIdError, "191 bytes", ["x" * 191]),
    ],
)
def test_a_list_that_names_no_partitions_or_one_twice_is_refused(kind, named, members):
    with pytest.raises(kind) as refused:
        StaticPartitions(members)
    assert named in str(refused.value)
    assert refused.value.hint


DAYS, COUNTRIES = by_time("2024-01-01"), StaticPartitions(["ID", "SG"])


def test_a_grid_has_every_pair_the_outer_one_first():
    grid = PartitionGrid(outer=COUNTRIES, inner=DAYS)
    assert list(grid.keys(NOW)) == [
        "ID|2024-01-01", "ID|2024-01-02", "ID|2024-01-03", "SG|2024-01-01", "SG|2024-01-02", "SG|2024-01-03",
    ]  # fmt: skip
    assert list(PartitionGrid(outer=DAYS, inner=COUNTRIES).keys(NOW))[:3] == [
        "2024-01-01|ID", "2024-01-01|SG", "2024-01-02|ID",
    ]  # fmt: skip
    assert grid.split("SG|2024-01-02") == ("SG", "2024-01-02")
    asked = ["SG|2024-01-03", "SG|2024-01-04", "2024-01-03|SG", "SG", "SG|2024-01-03|", "", None, r"S\G|2024-01-03"]
    assert [grid.contains(key, NOW) for key in asked] == [True] + [False] * 7


@pytest.mark.parametrize(
    ("outer", "inner", "key"),
    [
        ("2024-01-10", "ID", "2024-01-10|ID"),
        ("a|b", "c", r"a\|b|c"),
        ("a", "b|c", r"a|b\|c"),
        ("a\\", "b", r"a\\|b"),
        ("a\\", "|b", r"a\\|\|b"),
        ("|", "\\", r"\||\\"),
        ("x" * 100, "y" * 89, "x" * 100 + "|" + "y" * 89),
    ],
)
def test_a_separator_within_a_part_is_escaped(outer, inner, key):
    assert grid_key(outer, inner) == key
    assert split_key(key) == (outer, inner)


@pytest.mark.parametrize("key", ["", "a", "|", "a|", "|b", "a|b|c", r"a\|b", r"a\b|c", "a|b\\", "a\\||", 5])
def test_what_has_not_two_parts_is_not_split(key):
    with pytest.raises(InvalidIdError) as refused:
        split_key(key)
    assert refused.value.hint


def test_two_keys_that_are_too_long_together_are_named_both():
    outer, inner = StaticPartitions(["a", "x" * 100, "b"]), StaticPartitions(["c", "|" * 45])
    with pytest.raises(InvalidIdError) as refused:
        PartitionGrid(outer=outer, inner=inner)
    assert str(refused.value) == f"the key of {'x' * 100!r} and {'|' * 45!r} is 191 bytes long; at most 190 are allowed"
    assert "Shorten" in refused.value.hint
    with pytest.raises(InvalidIdError, match="'2024-01-01' and 'y"):
        PartitionGrid(outer=DAYS, inner=StaticPartitions(["y" * 180]))
    assert PartitionGrid(outer=DAYS, inner=StaticPartitions(["y" * 179])).contains("2024-01-01|" + "y" * 179, NOW)
    with pytest.raises(InvalidIdError, match="191 bytes"):
        grid_key("x" * 100, "y" * 90)


def test_a_key_that_is_too_long_only_now_and_then_is_refused_where_it_comes():
    grid = PartitionGrid(outer=by_time("2024-01-01", "@monthly", form="%B %Y"), inner=StaticPartitions(["y" * 177]))
    found = grid.keys(datetime(2025, 1, 1, tzinfo=UTC))
    assert next(found).startswith("January 2024|")
    with pytest.raises(InvalidIdError, match="'February 2024' and 'y"):
        next(found)


@pytest.mark.parametrize("given", [["ID"], "ID", None, PartitionGrid(outer=COUNTRIES, inner=DAYS)])
@pytest.mark.parametrize("field", ["outer", "inner"])
def test_a_grid_is_made_of_two_definitions_that_are_none(field, given):
    with pytest.raises(InvalidFieldError, match=f"{field} must be StaticPartitions or TimePartitions") as refused:
        PartitionGrid(**{"outer": COUNTRIES, "inner": COUNTRIES, field: given})
    assert refused.value.field == field


def test_what_is_missing_is_what_is_expected_and_not_done():
    def missing(expected, *done):
        return list(missing_partitions(expected, set(done), NOW))

    assert missing(DAYS, "2024-01-02", "2024-01-09") == ["2024-01-01", "2024-01-03"]
    assert missing(COUNTRIES, "ID", "SG") == []
    assert missing(PartitionGrid(outer=DAYS, inner=COUNTRIES), "2024-01-01|ID")[:2] == [
        "2024-01-01|SG",
        "2024-01-02|ID",
    ]
    assert missing(["b", "a", "b", "c", "a"], "c") == ["b", "a"]
    assert missing([]) == []


def test_what_is_missing_is_looked_for_as_it_is_asked_for():
    taken = []
    found = missing_partitions((taken.append(each) or str(each) for each in count()), {"0", "1"}, NOW)
    assert taken == []
    assert list(islice(found, 2)) == ["2", "3"]
    assert taken == [0, 1, 2, 3]

    ever = by_time("0002-01-01", "* * * * *", form="%FT%R")
    late = datetime(9998, 1, 1, tzinfo=UTC)
    found = missing_partitions(PartitionGrid(outer=ever, inner=ever), set(), late)
    assert list(islice(found, 2)) == ["0002-01-01T00:00|0002-01-01T00:00", "0002-01-01T00:00|0002-01-01T00:01"]
    assert ever.contains("9997-12-31T23:59", late)
    assert not ever.contains("9998-12-31T23:59", late)


def test_what_is_no_set_of_keys_is_refused():
    for given in (("ab", set(), NOW), (["a"], "ab", NOW), (DAYS, set(), "now")):
        with pytest.raises(InvalidFieldError) as refused:
            missing_partitions(*given)
        assert refused.value.field in {"expected", "done", "now"}
    with pytest.raises(InvalidIdError, match="partition '' is empty"):
        list(missing_partitions(["a", ""], set(), NOW))


def test_many_keys_take_no_more_memory_than_few():
    hours = by_time("2024-01-01", "@hourly", form="%FT%H")

    def peak(days):
        tracemalloc.start()
        for _ in hours.keys(hours.start + timedelta(days=days)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(300)  # what is kept of the calendar is there now
    assert peak(300) < 2 * peak(10)


@pytest.mark.parametrize("definition", [DAYS, COUNTRIES, PartitionGrid(outer=DAYS, inner=COUNTRIES)])
def test_a_definition_is_a_value(definition):
    again = msgspec.json.decode(msgspec.json.encode(definition), type=PartitionDefinition)
    assert again == definition == pickle.loads(pickle.dumps(definition))
    assert hash(again) == hash(definition)
    assert list(again.keys(NOW)) == list(definition.keys(NOW))


def test_a_file_that_defines_what_cannot_be_is_refused_as_the_call_is():
    text = b'{"type": "time", "start": "2024-01-01T00:00:00", "schedule": "@hourly"}'
    with pytest.raises(msgspec.ValidationError, match="gives one key"):
        msgspec.json.decode(text, type=PartitionDefinition)
