"""Times on the command line, by a clock that stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from seeknal.cli import times
from seeknal.clock import FakeClock
from seeknal.errors import ConfigurationError, IntervalError

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    """A quarter past two in Berlin, on the day after its clocks were put forward."""
    monkeypatch.setattr(times, "CLOCK", FakeClock(datetime(2024, 4, 1, 0, 15, tzinfo=UTC)))


def read(text, zone="UTC"):
    return times.as_moment(text, "--start", ZoneInfo(zone)).isoformat().removesuffix("+00:00")


@pytest.mark.parametrize(
    ("text", "zone", "wanted"),
    [
        ("2024-01-10", "UTC", "2024-01-10T00:00:00"),
        ("2024-01-10", "Europe/Berlin", "2024-01-09T23:00:00"),
        ("2024-07-10T06:30", "Europe/Berlin", "2024-07-10T04:30:00"),
        ("2024-07-10T06:30Z", "Europe/Berlin", "2024-07-10T06:30:00"),
        ("2024-07-10T06:30:00.000001-05:00", "Europe/Berlin", "2024-07-10T11:30:00.000001"),
        ("now", "Europe/Berlin", "2024-04-01T00:15:00"),
        ("today", "UTC", "2024-04-01T00:00:00"),
        ("today", "Europe/Berlin", "2024-03-31T22:00:00"),
        ("today", "America/New_York", "2024-03-31T04:00:00"),
        ("-7d", "UTC", "2024-03-25T00:15:00"),
        ("+1w", "UTC", "2024-04-08T00:15:00"),
        ("now-90m", "UTC", "2024-03-31T22:45:00"),
        ("-30s", "UTC", "2024-04-01T00:14:30"),
        # a day of the calendar had 23 hours there, and no 02:15; 24 hours are 24 hours
        ("today-1d", "Europe/Berlin", "2024-03-30T23:00:00"),
        ("-1d", "Europe/Berlin", "2024-03-31T01:00:00"),
        ("today-24h", "Europe/Berlin", "2024-03-30T22:00:00"),
        # a time that the clocks skipped is when they were changed, one that they showed twice the first of both
        ("2024-03-31T02:30", "Europe/Berlin", "2024-03-31T01:00:00"),
        ("2024-10-27T02:30", "Europe/Berlin", "2024-10-27T00:30:00"),
    ],
)
def test_what_a_text_means(text, zone, wanted) -> None:
    assert read(text, zone) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "7d",
        "-7",
        "-d",
        "yesterday",
        "today-",
        "-7y",
        "2024-13-01",
        "2024-01-10T25:00",
        "-1d-1d",
        "now now",
        "-٣d",
    ],
)
def test_what_means_no_time_is_refused_by_its_option(text) -> None:
    with pytest.raises(ConfigurationError, match=r"--start .* is not a time") as caught:
        read(text)
    assert "today-7d" in caught.value.hint


def test_the_first_and_the_last_day_of_the_calendar_are_times():
    assert read("9999-12-31") == "9999-12-31T00:00:00"
    assert read("9999-12-31", "Europe/Berlin") == "9999-12-30T23:00:00"
    assert read("0001-01-01") == "0001-01-01T00:00:00"


@pytest.mark.parametrize("text", ["-999999999w", "+999999999d", "0001-01-01T00:00+14:00", "9999-12-31T23:59-01:00"])
def test_what_lies_beyond_time_is_refused_by_its_option(text) -> None:
    with pytest.raises(ConfigurationError, match=r"--start .* lies outside the years 1 to 9999"):
        read(text)


def test_a_span_ends_after_it_starts() -> None:
    found = times.as_span("today", "now", BERLIN)
    assert found.end - found.start == timedelta(hours=2, minutes=15)
    for end in ("today", "-1d", "2024-03-31"):
        with pytest.raises(IntervalError, match=r"--end .* is not after --start"):
            times.as_span("today", end, BERLIN)


def test_the_clock_goes_on_and_a_span_still_has_one_present(monkeypatch) -> None:
    class Running(FakeClock):
        def now(self):
            self.advance(seconds=1)
            return super().now()

    monkeypatch.setattr(times, "CLOCK", Running())
    found = times.as_span("-1h", "now", BERLIN)
    assert found.end - found.start == timedelta(hours=1)


@pytest.mark.parametrize("name", ["Mars", "", "../etc/passwd", "a\0b"])
def test_a_time_zone_that_nobody_knows_is_refused(name) -> None:
    with pytest.raises(ConfigurationError, match="--timezone"):
        times.as_zone(name)


def test_how_instants_are_told() -> None:
    one, other = datetime(2024, 3, 30, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, 0, 0, 5, tzinfo=UTC)
    assert times.told(one, times.as_zone(None)) == "2024-03-30T23:00:00Z"
    assert times.told(other, BERLIN) == "2024-04-01T00:00:00.000005+02:00"
    assert times.told(datetime.max.replace(tzinfo=UTC), BERLIN) == "9999-12-31T23:59:59.999999Z"
    assert times.told_briefly([one, other], BERLIN) == ["2024-03-31 00:00", "2024-04-01 00:00"]
    assert times.told_briefly([one], BERLIN) == ["2024-03-31"]


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        ({"days": 9}, "9d"),
        ({"days": 25, "hours": 18}, "25d 18h"),
        ({"minutes": 90}, "1h 30m"),
        ({"seconds": 30}, "30s"),
        ({"days": 1, "microseconds": 5}, "1d 0.000005s"),
        ({}, "0s"),
    ],
)
def test_how_lengths_are_told(length, wanted) -> None:
    assert times.told_length(timedelta(**length)) == wanted


def test_lengths_are_read() -> None:
    assert times.as_length("90m", "--lateness") == timedelta(minutes=90)
    assert times.as_length("2w", "--lateness") == timedelta(days=14)
    for text in ("", "6", "h", "-6h", "6 h", "1.5h", "999999999w"):
        with pytest.raises(ConfigurationError, match=r"--lateness .* is not a length of time"):
            times.as_length(text, "--lateness")
