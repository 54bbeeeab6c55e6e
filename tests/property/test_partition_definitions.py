"""Definitions of partitions: keys against the ticks that they tell of, one by one, across changes of the clocks."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from seeknal.errors import InvalidFieldError, InvalidIdError
from seeknal.model.ids import MAX_ID_BYTES
from seeknal.model.partitions import (
    PartitionGrid,
    StaticPartitions,
    TimePartitions,
    grid_key,
    missing_partitions,
    split_key,
)
from seeknal.model.schedule import as_schedule
from seeknal.model.time_format import time_format

HOUR = timedelta(hours=1)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]
EXPRESSIONS = ["@hourly", "@daily", "*/40 * * * *", "0 */6 * * *", "30 2 * * *", "0 9 * * 1-5", "15,45 1 * * *"]
WHOLE = ["%Y-%m-%dT%H:%M%z", "%H:%M%z %d.%m.%Y", "%d %b %Y, %I.%M %p %z", "%G-W%V-%u %H%M%z", "%Y.%j.%H.%M.%z"]
"""Formats that tell every minute from every other one."""

DIRECTIVES = [*"YmdHMjyIGVuwUWBbAapFRTDhz", "-m", "-d", "-H", "-M", "-j", "-y", "-I"]

# Around both changes of the clocks of those zones in 2024, a turn of the year, and a quiet month.
begins = st.sampled_from(
    [datetime(2024, *day) for day in [(3, 9), (3, 30), (4, 6), (10, 5), (10, 26), (11, 2), (12, 28), (6, 1)]]
)
starts = st.builds(lambda day, minutes: day + timedelta(minutes=minutes), begins, st.integers(0, 36 * 60))
lengths = st.integers(1, 72).map(lambda hours: hours * HOUR)
pieces = st.lists(st.tuples(st.sampled_from(DIRECTIVES), st.sampled_from("-_T|")), min_size=1, max_size=5).map(
    lambda drawn: "".join(f"%{directive}{after}" for directive, after in drawn)
)
# Most of these tell every hour from every other one in some way.
formats = pieces | st.builds(
    lambda more, whole: more + whole,
    pieces,
    st.sampled_from(["%F %H%z", "%G%V%u %R%z", "%d.%m.%Y %I%p%z", "%Y%j %T%z"]),
)


def told(moment, form):
    """Return a time as ``strftime`` of the C locale has it, with the years of four digits that Linux lacks."""
    return moment.strftime(form.replace("%F", "%Y-%m-%d").replace("%Y", f"{moment.year:04}"))


@st.composite
def definitions(draw, forms):
    """Draw partitions by time and an instant, and find their ticks up to it in the schedule itself."""
    expression, zone, form = draw(st.sampled_from(EXPRESSIONS)), draw(st.sampled_from(ZONES)), draw(forms)
    start = draw(starts)
    end = start + 4 * 24 * HOUR + draw(lengths)
    if "%Y" in form or "%F" in form or "%G" in form:
        end = draw(st.sampled_from([None, end]))
    try:
        definition = TimePartitions(start=start, end=end, schedule=expression, timezone=zone, format=form)
    except InvalidFieldError:  # two of the first ticks have one key, or nothing tells the year
        assume(False)
    clock = ZoneInfo(zone)
    first = start.replace(tzinfo=clock).astimezone(UTC)
    now = first + draw(lengths)
    until = now if end is None else min(now, end.replace(tzinfo=clock).astimezone(UTC))
    ticks = list(as_schedule(expression, zone).ticks(first, until))
    return definition, now, ticks, [told(tick.start.astimezone(clock), form) for tick in ticks]


@given(definitions(st.sampled_from(WHOLE)))
def test_keys_are_the_beginnings_of_ticks_and_lead_back_to_them(drawn):
    definition, now, ticks, texts = drawn
    assert list(definition.keys(now)) == texts
    assert len(set(texts)) == len(texts)
    for tick, key in zip(ticks, texts, strict=True):
        assert definition.interval_of(key) == tick
        assert definition.contains(key, now)
        assert not definition.contains(key, tick.end - timedelta(seconds=1))


@given(definitions(formats))
def test_with_any_format_keys_lead_back_to_ticks_or_two_of_them_are_named(drawn):
    definition, now, ticks, texts = drawn
    wanted = {}
    for tick, key in zip(ticks, texts, strict=True):
        wanted.setdefault(key, []).append(tick)
    found = definition.keys(now)
    if len(wanted) == len(ticks):
        assert list(found) == texts
    else:
        with pytest.raises(InvalidFieldError, match="gives one key"):
            list(found)
    for key, alike in islice(wanted.items(), 10):
        if len(alike) == 1:
            assert definition.contains(key, now)
        else:
            with pytest.raises(InvalidFieldError, match="gives one key"):
                definition.contains(key, now)


@given(definitions(formats), st.data())
def test_a_text_is_contained_exactly_if_it_is_one_of_the_keys(drawn, data):
    definition, now, ticks, texts = drawn
    assume(texts and len(set(texts)) == len(texts))
    later = [told(tick.end.astimezone(ZoneInfo(definition.timezone)), definition.format) for tick in ticks]
    key = data.draw(st.sampled_from(texts + later) | st.text(max_size=12))
    at = data.draw(st.integers(0, len(key)))
    asked = key[:at] + data.draw(st.sampled_from(["", "0", "1", "9", "-", "+", "|", "A"])) + key[at + 1 :]
    for text in (key, asked):
        assert definition.contains(text, now) == (text in texts)


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), st.sampled_from(ZONES), formats)
@example(datetime(999, 12, 31), "UTC", "%Y-%G-%j-")
def test_a_time_is_told_as_strftime_does_and_lies_where_it_is_looked_for(wall, zone, form):
    moment = wall.replace(tzinfo=ZoneInfo(zone))
    assume(wall.year >= 1000 or "%G" not in form)  # padded neither
    read = time_format(form)
    text = told(moment, form)
    assert read.text(moment) == text
    first, last = read.walls(text)
    assert first <= wall <= last
    assert read.reach is None or last - first == read.reach


parts = st.text(st.sampled_from("a|\\\u00e9 "), min_size=1, max_size=12)


@given(parts, parts, parts, parts)
def test_two_parts_come_back_from_their_key_and_no_others_have_it(outer, inner, another, other):
    assert split_key(grid_key(outer, inner)) == (outer, inner)
    assert (grid_key(outer, inner) == grid_key(another, other)) == ((outer, inner) == (another, other))


@given(st.text(st.sampled_from("ab|\\"), min_size=1, max_size=10))
def test_a_text_is_the_key_of_the_parts_that_it_is_split_into_or_is_none(text):
    try:
        found = split_key(text)
    except InvalidIdError:
        return
    assert grid_key(*found) == text


listed = st.lists(st.text(st.sampled_from("ab|\\"), min_size=1, max_size=4), min_size=1, max_size=6, unique=True)
by_time = st.builds(
    lambda day, schedule: TimePartitions(
        start=datetime(2024, 3, day), end=datetime(2024, 4, 20), schedule=schedule, format="%d|%H"
    ),
    st.integers(25, 30),
    st.sampled_from(["@daily", "0 */8 * * *", "0 0 * * 5"]),
)
axes = listed.map(StaticPartitions) | by_time


@given(axes, axes, st.integers(0, 100), st.data())
def test_a_grid_has_all_pairs_in_order_and_contains_no_others(outer, inner, hours, data):
    now = datetime(2024, 3, 28, tzinfo=UTC) + hours * HOUR
    grid = PartitionGrid(outer=outer, inner=inner)
    wanted = [grid_key(row, column) for row in outer.keys(now) for column in inner.keys(now)]
    assert list(grid.keys(now)) == wanted
    assert len(set(wanted)) == len(wanted)
    for key in data.draw(st.lists(st.sampled_from(wanted), max_size=3)) if wanted else []:
        assert grid.contains(key, now)
    strange = data.draw(st.text(st.sampled_from("ab|\\2"), max_size=8))
    assert grid.contains(strange, now) == (strange in wanted)


@given(st.lists(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdefgh")))
def test_what_is_missing_is_each_expected_key_once_that_is_not_done(expected, done):
    now = datetime(2024, 1, 1, tzinfo=UTC)
    wanted = [key for at, key in enumerate(expected) if key not in done and key not in expected[:at]]
    assert list(missing_partitions(iter(expected), done, now)) == wanted
    if expected:
        listed = StaticPartitions(dict.fromkeys(expected))
        assert list(missing_partitions(listed, done, now)) == wanted


@given(parts, parts)
def test_a_key_that_would_be_too_long_is_refused_and_names_both_parts(outer, inner):
    outer, inner = (outer * MAX_ID_BYTES)[:90], (inner * MAX_ID_BYTES)[:90]
    assume(max(len(outer.encode()), len(inner.encode())) <= MAX_ID_BYTES)
    escaped = sum(2 if char in "|\\" else len(char.encode()) for char in outer + inner) + 1
    if escaped <= MAX_ID_BYTES:
        assert len(grid_key(outer, inner).encode()) == escaped
    else:
        with pytest.raises(InvalidIdError) as refused:
            grid_key(outer, inner)
        assert f"the key of {outer!a} and {inner!a} is {escaped} bytes long" in str(refused.value)
