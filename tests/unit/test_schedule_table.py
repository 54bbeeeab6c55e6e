"""Schedules against a table that was checked by hand, with a calendar and the rules of each zone."""

from datetime import UTC, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from seeknal.errors import IntervalError
from seeknal.model.intervals import Interval
from seeknal.model.schedule import SHORTHANDS, as_schedule
from seeknal.model.wall_clock import instants, midnight

# An expression; an instant; the firings that follow it.
CALENDAR = [
    ("0 0 29 2 *", "2023-01-01", "2024-02-29, 2028-02-29, 2032-02-29"),
    ("0 0 29 2 *", "2096-03-01", "2104-02-29"),  # 2100 is no leap year
    ("0 0 29 * *", "2023-01-30", "2023-03-29"),
    ("0 0 31 * *", "2024-01-01", "2024-01-31, 2024-03-31, 2024-05-31, 2024-07-31, 2024-08-31, 2024-10-31"),
    ("0 0 L * *", "2024-01-01", "2024-01-31, 2024-02-29, 2024-03-31, 2024-04-30"),
    ("0 0 L 2 *", "2023-01-01", "2023-02-28, 2024-02-29"),
    ("0 0 L 2 *", "2100-01-01", "2100-02-28"),
    ("0 0 LW * *", "2024-03-01", "2024-03-29, 2024-04-30, 2024-05-31, 2024-06-28"),
    ("0 0 15,L * *", "2024-02-10", "2024-02-15, 2024-02-29, 2024-03-15"),
    ("0 0 * * 5L", "2024-01-01", "2024-01-26, 2024-02-23, 2024-03-29"),
    ("0 0 * * MON#2", "2024-01-01", "2024-01-08, 2024-02-12, 2024-03-11"),
    ("0 0 * * mon#5", "2024-01-01", "2024-01-29, 2024-04-29, 2024-07-29, 2024-09-30"),
    ("0 0 13 * FRI", "2024-09-01", "2024-09-06, 2024-09-13, 2024-09-20"),  # either is enough
    ("0 0 */13 * FRI", "2024-01-01", "2024-03-01, 2024-06-14, 2024-09-27"),  # with a star both must hold
    ("0 0 29 2 1", "2024-02-20", "2024-02-26, 2024-02-29, 2025-02-03"),
    ("0 0 */28 2 1", "2027-02-01", "2038-02-01, 2044-02-01, 2044-02-29"),
    ("0 0 * * 0", "2024-01-01", "2024-01-07, 2024-01-14"),
    ("0 0 * * 7", "2024-01-01", "2024-01-07, 2024-01-14"),
    ("59 23 31 12 *", "2024-01-01", "2024-12-31 23:59, 2025-12-31 23:59"),
    ("*/30 * * * *", "2024-12-31 23:30", "2025-01-01, 2025-01-01 00:30"),
    ("0 12 * JAN-mar MON-FRI", "2024-03-28 12:00", "2024-03-29 12:00, 2025-01-01 12:00"),
    ("10-50/20 9-17/4 1 * *", "2024-01-01", "2024-01-01 09:10, 2024-01-01 09:30, 2024-01-01 09:50, 2024-01-01 13:10"),
    ("5/20 * * * *", "2024-01-01", "2024-01-01 00:05, 2024-01-01 00:25, 2024-01-01 00:45, 2024-01-01 01:05"),
    ("@hourly", "2024-02-28 23:00", "2024-02-29, 2024-02-29 01:00"),
    ("@daily", "2024-02-28", "2024-02-29, 2024-03-01"),
    ("@daily", "2023-02-28", "2023-03-01"),
    ("@weekly", "2024-12-23", "2024-12-29, 2025-01-05"),
    ("@monthly", "2024-01-31", "2024-02-01, 2024-03-01"),
    ("@quarterly", "2024-02-29", "2024-04-01, 2024-07-01, 2024-10-01, 2025-01-01"),
    ("@yearly", "2024-02-29", "2025-01-01, 2026-01-01"),
    ("@every 15m", "2024-01-01 00:20", "2024-01-01 00:30, 2024-01-01 00:45, 2024-01-01 01:00"),
    ("@every 8h", "2024-01-01 00:20", "2024-01-01 08:00, 2024-01-01 16:00, 2024-01-02"),
]  # fmt: skip

# An expression and a zone; an instant; the firings that follow it, as the clocks of the zone show them.
CLOCKS = [
    # 31 March 2024: 02:00 +01 becomes 03:00 +02. 27 October: 03:00 +02 becomes 02:00 +01.
    ("30 2 * * *", "Europe/Berlin", "2024-03-29 12:00+01", "30 02:30 +01, 31 03:00 +02, 01 02:30 +02"),
    ("*/30 * * * *", "Europe/Berlin", "2024-03-31 01:00+01", "31 01:30 +01, 31 03:00 +02, 31 03:30 +02"),
    ("0 */2 * * *", "Europe/Berlin", "2024-03-31 00:00+01", "31 03:00 +02, 31 04:00 +02, 31 06:00 +02"),
    ("0,45 2 * * *", "Europe/Berlin", "2024-03-31 00:00+01", "31 03:00 +02, 01 02:00 +02, 01 02:45 +02"),
    ("0 2,3 * * *", "Europe/Berlin", "2024-03-31 00:00+01", "31 03:00 +02, 01 02:00 +02, 01 03:00 +02"),
    ("30 2 * * *", "Europe/Berlin", "2024-10-25 12:00+02", "26 02:30 +02, 27 02:30 +02, 28 02:30 +01"),
    ("30 * * * *", "Europe/Berlin", "2024-10-27 01:00+02", "27 01:30 +02, 27 02:30 +02, 27 02:30 +01, 27 03:30 +01"),
    ("*/30 2 * * *", "Europe/Berlin", "2024-10-27 02:00+02", "27 02:30 +02, 27 02:00 +01, 27 02:30 +01, 28 02:00 +01"),
    ("0,30 2 * * *", "Europe/Berlin", "2024-10-27 00:00+02", "27 02:00 +02, 27 02:30 +02, 28 02:00 +01"),
    ("30 2 * * *", "Europe/Berlin", "2024-10-27 02:30+02", "28 02:30 +01"),
    ("30 2 * * SUN", "Europe/Berlin", "2024-03-25 00:00+01", "31 03:00 +02, 07 02:30 +02"),
    ("0 0 1 * *", "Europe/Berlin", "2024-02-15 00:00+01", "01 00:00 +01, 01 00:00 +02, 01 00:00 +02"),
    # 10 March 2024: 02:00 -05 becomes 03:00 -04. 3 November: 02:00 -04 becomes 01:00 -05.
    ("0 2 * * *", "America/New_York", "2024-03-09 00:00-05", "09 02:00 -05, 10 03:00 -04, 11 02:00 -04"),
    ("30 1 * * *", "America/New_York", "2024-11-02 00:00-04", "02 01:30 -04, 03 01:30 -04, 04 01:30 -05"),
    ("@hourly", "America/New_York", "2024-11-03 00:00-04", "03 01:00 -04, 03 01:00 -05, 03 02:00 -05"),
    # 7 April 2024: 02:00 +11 becomes 01:30 +1030. 6 October: 02:00 +1030 becomes 02:30 +11.
    ("15 2 * * *", "Australia/Lord_Howe", "2024-10-05 00:00+1030", "05 02:15 +1030, 06 02:30 +11, 07 02:15 +11"),
    ("45 1 * * *", "Australia/Lord_Howe", "2024-04-06 00:00+11", "06 01:45 +11, 07 01:45 +11, 08 01:45 +1030"),
    ("*/15 * * * *", "Australia/Lord_Howe", "2024-04-07 01:30+11",
     "07 01:45 +11, 07 01:30 +1030, 07 01:45 +1030, 07 02:00 +1030"),
    # Ramadan. 10 March 2024: 03:00 +01 becomes 02:00 +00. 14 April: 02:00 +00 becomes 03:00 +01.
    ("30 2 * * *", "Africa/Casablanca", "2024-03-09 00:00+01", "09 02:30 +01, 10 02:30 +01, 11 02:30 +00"),
    ("30 2 * * *", "Africa/Casablanca", "2024-04-13 00:00+00", "13 02:30 +00, 14 03:00 +01, 15 02:30 +01"),
    # 10 March 2024: midnight -05 becomes 01:00 -04. 3 November: 01:00 -04 becomes midnight -05.
    ("@daily", "America/Havana", "2024-03-08 12:00-05", "09 00:00 -05, 10 01:00 -04, 11 00:00 -04"),
    ("@daily", "America/Havana", "2024-11-01 12:00-04", "02 00:00 -04, 03 00:00 -04, 04 00:00 -05"),
    ("@hourly", "America/Havana", "2024-11-02 23:00-04", "03 00:00 -04, 03 00:00 -05, 03 01:00 -05"),
    # 7 April 2024: midnight -03 becomes 23:00 -04 of the 6th. 8 September: midnight -04 becomes 01:00 -03.
    ("30 23 * * *", "America/Santiago", "2024-04-05 00:00-03", "05 23:30 -03, 06 23:30 -03, 07 23:30 -04"),
    ("30 * * * *", "America/Santiago", "2024-04-06 23:00-03", "06 23:30 -03, 06 23:30 -04, 07 00:30 -04"),
    ("@daily", "America/Santiago", "2024-04-05 12:00-03", "06 00:00 -03, 07 00:00 -04, 08 00:00 -04"),
    ("@daily", "America/Santiago", "2024-09-06 12:00-04", "07 00:00 -04, 08 01:00 -03, 09 00:00 -03"),
    # 7 November 2010: 00:01 -0230 becomes 23:01 -0330 of the 6th: midnight comes twice, 23:00 once.
    ("@hourly", "America/St_Johns", "2010-11-06 22:00-0230",
     "06 23:00 -0230, 07 00:00 -0230, 07 00:00 -0330, 07 01:00 -0330"),
    ("@daily", "America/St_Johns", "2010-11-06 12:00-0230", "07 00:00 -0230, 08 00:00 -0330"),
    ("30 23 * * *", "America/St_Johns", "2010-11-06 12:00-0230", "06 23:30 -0230, 07 23:30 -0330"),
    ("30 23 * * 6", "America/St_Johns", "2010-11-06 12:00-0230", "06 23:30 -0230, 13 23:30 -0330"),
    ("*/30 23 * * 6", "America/St_Johns", "2010-11-06 22:00-0230",
     "06 23:00 -0230, 06 23:30 -0230, 06 23:30 -0330, 13 23:00 -0330"),
    # 29 March 2025: 23:00 -02 becomes midnight -01 of the 30th.
    ("30 23 * * *", "America/Scoresbysund", "2025-03-28 00:00-02", "28 23:30 -02, 30 00:00 -01, 30 23:30 -01"),
    ("30 23 * * 6", "America/Scoresbysund", "2025-03-28 00:00-02", "30 00:00 -01, 05 23:30 -01"),
    # The 30th of December 2011 was left out.
    ("@daily", "Pacific/Apia", "2011-12-28 12:00-10", "29 00:00 -10, 31 00:00 +14, 01 00:00 +14"),
    ("0 12 * * *", "Pacific/Apia", "2011-12-29 00:00-10", "29 12:00 -10, 31 00:00 +14, 31 12:00 +14"),
    ("0 12 30 * *", "Pacific/Apia", "2011-12-01 00:00-10", "31 00:00 +14, 30 12:00 +14"),
    # 15 August 2015: midnight +09 becomes 23:30 +0830 of the 14th.
    ("45 23 * * *", "Asia/Pyongyang", "2015-08-13 00:00+09", "13 23:45 +09, 14 23:45 +09, 15 23:45 +0830"),
    # 1 October 1969: midnight +11 becomes 01:00 -12 of 30 September: 23 hours come twice.
    ("0 */6 * * *", "Pacific/Kwajalein", "1969-09-30 12:00+11",
     "30 18:00 +11, 30 06:00 -12, 30 12:00 -12, 30 18:00 -12, 01 00:00 -12"),
    ("0 9 * * *", "Pacific/Kwajalein", "1969-09-29 12:00+11", "30 09:00 +11, 01 09:00 -12"),
    # Offsets that are no whole hours, and no whole minutes.
    ("@daily", "Asia/Kathmandu", "2024-02-28 12:00+0545", "29 00:00 +0545, 01 00:00 +0545"),
    ("0 2 * * *", "Pacific/Chatham", "2024-09-28 00:00+1245", "28 02:00 +1245, 29 02:00 +1245, 30 02:00 +1345"),
    ("@daily", "Africa/Monrovia", "1971-12-31 12:00+00", "01 00:00 -004430, 02 00:00 -004430"),
    # Leap days and month ends where the zone's day is not that of UTC.
    ("0 0 29 2 *", "Pacific/Auckland", "2024-01-01 00:00+13", "29 00:00 +13, 29 00:00 +13"),
    ("0 20 L * *", "America/Los_Angeles", "2024-01-31 20:00-08", "29 20:00 -08, 31 20:00 -07, 30 20:00 -07"),
]  # fmt: skip


def said(moment):
    """Return a local time as the table has it: an offset without minutes that are zero."""
    offset = f"{moment:%z}"
    return f"{moment:%d %H:%M} {offset.removesuffix('00') if len(offset) == 5 else offset}"


@pytest.mark.parametrize(("expression", "after", "wanted"), CALENDAR)
def test_days_of_the_calendar(expression, after, wanted):
    firings = as_schedule(expression).firings(datetime.fromisoformat(after).replace(tzinfo=UTC))
    found = islice(firings, len(wanted.split(", ")))
    assert ", ".join(moment.strftime("%Y-%m-%d %H:%M").removesuffix(" 00:00") for moment in found) == wanted


@pytest.mark.parametrize(("expression", "zone", "after", "wanted"), CLOCKS)
def test_times_of_the_clocks(expression, zone, after, wanted):
    schedule, at, clock = as_schedule(expression, zone), datetime.fromisoformat(after).astimezone(UTC), ZoneInfo(zone)
    firings = list(islice(schedule.firings(at), len(wanted.split(", "))))
    assert ", ".join(said(moment.astimezone(clock)) for moment in firings) == wanted
    # The same ones going back, and from each to the next.
    assert [next(schedule.firings(moment)) for moment in firings[:-1]] == firings[1:]
    assert list(islice(schedule.past_firings(firings[-1]), len(firings))) == firings[::-1]
    assert list(schedule.ticks(firings[0], firings[-1])) == list(
        schedule.ticks_of(schedule.ticks(firings[0], firings[-1]))
    )
    assert [(tick.start, tick.end) for tick in schedule.ticks(firings[0], firings[-1])] == list(pairwise(firings))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", datetime(2024, 3, 31), 23),
        ("Europe/Berlin", datetime(2024, 10, 27), 25),
        ("Australia/Lord_Howe", datetime(2024, 4, 7), 24.5),
        ("Australia/Lord_Howe", datetime(2024, 10, 6), 23.5),
        ("Antarctica/Troll", datetime(2024, 3, 31), 22),
        ("Antarctica/Troll", datetime(2024, 10, 27), 26),
        ("America/Santiago", datetime(2024, 4, 6), 25),
        ("Pacific/Apia", datetime(2011, 12, 29), 24),  # the day after it is the 31st
        ("Pacific/Kwajalein", datetime(1969, 9, 30), 47),
    ],
)
def test_hours_of_a_daily_tick(zone, day, hours):
    start = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    tick = next(as_schedule("@daily", zone).ticks(start, start + timedelta(days=3)))
    assert (tick.start, (tick.end - tick.start) / timedelta(hours=1)) == (start, hours)


@pytest.mark.parametrize(
    ("zone", "wall", "wanted"),
    [
        ("Europe/Berlin", datetime(2024, 6, 1, 12), "12:00 +02"),
        ("Europe/Berlin", datetime(2024, 3, 31, 1, 59), "01:59 +01"),
        ("Europe/Berlin", datetime(2024, 3, 31, 2, 30), "03:00 +02"),
        ("Europe/Berlin", datetime(2024, 3, 31, 3), "03:00 +02"),
        ("Europe/Berlin", datetime(2024, 10, 27, 1, 59), "01:59 +02"),
        ("Europe/Berlin", datetime(2024, 10, 27, 2), "02:00 +02, 02:00 +01"),
        ("Europe/Berlin", datetime(2024, 10, 27, 2, 59), "02:59 +02, 02:59 +01"),
        ("Europe/Berlin", datetime(2024, 10, 27, 3), "03:00 +01"),
        ("Australia/Lord_Howe", datetime(2024, 4, 7, 1, 45), "01:45 +11, 01:45 +1030"),
        ("America/St_Johns", datetime(2010, 11, 7, 0, 0), "00:00 -0230, 00:00 -0330"),
        ("Pacific/Apia", datetime(2011, 12, 30, 12), "00:00 +14"),
    ],
)
def test_instants_of_a_wall_clock_time(zone, wall, wanted):
    clock = ZoneInfo(zone)
    found = instants(wall, clock, both=True)
    assert ", ".join(said(moment.astimezone(clock)).split(" ", 1)[1] for moment in found) == wanted
    assert instants(wall, clock, both=False) == found[:1]
    assert midnight(wall.date(), clock) == instants(datetime.combine(wall, time()), clock, both=False)[0]


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        *SHORTHANDS.items(),
        ("@every 1m", "*/1 * * * *"),
        ("@every 5m", "*/5 * * * *"),
        ("@every 60m", "0 * * * *"),
        ("@every 1h", "0 * * * *"),
        ("@every 120m", "0 */2 * * *"),
        ("@every 12h", "0 */12 * * *"),
        ("@every 24h", "0 0 * * *"),
        ("@every 1d", "0 0 * * *"),
        ("  0   6 * * * ", "0 6 * * *"),
    ],
)
def test_shorthands(written, expression):
    assert as_schedule(written).expression == expression


FIVE = "is not a cron expression of five fields"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", FIVE),
        ("daily", FIVE),
        ("@reboot", FIVE),
        ("@once", FIVE),
        ("@Daily", FIVE),
        ("* * * *", FIVE),
        ("0 * * * * *", FIVE),  # no seconds
        ("0 0 1 1 * 2024", FIVE),  # no years
        ("@every 7m", FIVE),  # does not come round with the hour
        ("@every 90m", FIVE),
        ("@every 5h", FIVE),
        ("@every 2d", FIVE),
        ("@every 0m", FIVE),
        ("@every 1.5h", FIVE),
        ("@every  5m", FIVE),
        ("60 * * * *", "its minute is '60'"),
        ("*/0 * * * *", "its minute is '*/0'"),
        ("-1 * * * *", "its minute is '-1'"),
        ("1,,2 * * * *", "its minute is '1,,2'"),
        ("9" * 5000 + " * * * *", "its minute is '999"),
        ("0 24 * * *", "its hour is '24'"),
        ("0 22-2 * * *", "its hour is '22-2'"),
        ("0 H * * *", "its hour is 'H'"),
        ("0 0 0 * *", "its day is '0'"),
        ("0 0 32 * *", "its day is '32'"),
        ("0 0 15W * *", "its day is '15W'"),
        ("0 0 L-3 * *", "its day is 'L-3'"),
        ("0 0 ? * *", "its day is '?'"),
        ("0 0 1 13 *", "its month is '13'"),
        ("0 0 1 JANUARY *", "its month is 'JANUARY'"),
        ("0 0 * * 8", "its weekday is '8'"),
        ("0 0 * * FRI-MON", "its weekday is 'FRI-MON'"),
        ("0 0 * * MON#6", "its weekday is 'MON#6'"),
        ("0 0 * * L", "its weekday is 'L'"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 */30 2 1#2", "never fires"),
        (None, "must be text, not NoneType"),
        (10**5000, "must be text, not int"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_refused_names_the_field_and_the_next_step(written, message):
    with pytest.raises(IntervalError) as caught:
        as_schedule(written)
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../etc/passwd", "Europe/Berlin ", 5, pytest.param(10**5000, id="huge")]
)
def test_a_time_zone_that_is_not_known_is_refused(zone):
    with pytest.raises(IntervalError, match="time zone"):
        as_schedule("@daily", zone)


def test_firings_end_with_time_itself():
    hourly = as_schedule("@hourly", "Asia/Tokyo")
    for moment in (datetime.min, datetime.max):
        at = moment.replace(tzinfo=UTC)
        assert len(list(islice(hourly.firings(at), 5))) in (0, 5)
        assert len(list(islice(hourly.past_firings(at), 5))) in (0, 5)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for start, end in ((first, first + timedelta(days=3)), (last - timedelta(days=3), last)):
        assert all(start <= tick.start and tick.end <= end for tick in hourly.ticks(start, end))
        assert all(tick.start < end and start < tick.end for tick in hourly.past_ticks_of([Interval(start, end)]))
    assert list(as_schedule("0 0 29 2 *").firings(datetime(9996, 3, 1, tzinfo=UTC))) == []
    assert list(as_schedule("0 0 29 2 *").past_firings(datetime(4, 2, 28, tzinfo=UTC))) == []
