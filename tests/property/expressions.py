"""Random cron expressions, and the firings of a schedule by a walk through every minute."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MINUTE = timedelta(minutes=1)


def expression(random):
    """Return an expression of everything that is accepted and that croniter reads the same way.

    It reads ``3-3`` as everything, a list of all days or weekdays as ``*``, a day beside ``MON#2`` as a further
    condition, and ``5/2`` as a Friday that is not followed by the Sunday called 7; cron does not.
    """
    day, weekday = "1-31", "0-6"
    while day != "*" and len(_read(f"* * {day} * *").days) == 31:
        day = _field(random, 1, 31, special="L")
    nth = f"{random.choice(WEEKDAYS)}#{random.randint(1, 5)}" if day == "*" else None
    while weekday != "*" and len(_read(f"* * * * {weekday}").weekdays) >= 7:
        weekday = _field(random, 0, 6, WEEKDAYS, special=nth)
    return " ".join([_field(random, 0, 59), _field(random, 0, 23), day, _field(random, 1, 12, MONTHS), weekday])


def _read(text):
    return CronSim(text, datetime(2024, 1, 1))


def _field(random, low, high, names=(), special=None):
    chosen = random.random()
    if chosen < 0.35:
        return "*"
    if special and chosen < 0.45:
        return special
    return ",".join(_term(random, low, high, names) for _ in range(random.choice((1, 1, 1, 2, 3))))


def _term(random, low, high, names):
    def said(value):
        name = names[value - low] if names else str(value)
        return random.choice([str(value), name, name.lower()])

    first, last = sorted(random.sample(range(low, high + 1), 2))
    return random.choice(
        [
            said(first),
            said(first),
            f"{said(first)}-{said(last)}",
            f"{first}-{last}/{random.randint(1, high)}",
            f"{first}/{random.randint(1, high)}" if names is not WEEKDAYS else said(last),
            f"*/{random.randint(1, high)}",
        ]
    )


def walked(schedule, start, end):
    """Return the firings in ``[start, end)`` by looking at the clocks at every minute. Bounds are whole minutes."""
    cron, zone = _read(schedule.expression), ZoneInfo(schedule.timezone)
    minute, hour, *_ = schedule.expression.split()
    is_repeating = minute.startswith("*") or hour.startswith("*")

    def fires_at(wall):
        return (
            wall.minute in cron.minutes
            and wall.hour in cron.hours
            and wall.month in cron.months
            and cron.match_day(wall.date())
        )

    found = []
    before = (start - MINUTE).astimezone(zone)
    at = start
    while at < end:
        now = at.astimezone(zone)
        # What lies between two minutes that follow each other was left out: it counts now. A second showing counts
        # only for what repeats.
        skipped = (now.replace(tzinfo=None) - before.replace(tzinfo=None)) // MINUTE - 1
        walls = [now.replace(tzinfo=None) - MINUTE * back for back in range(1, skipped + 1)]
        if any(map(fires_at, walls)) or (fires_at(now) and (is_repeating or not now.fold)):
            found.append(at)
        before, at = now, at + MINUTE
    return found


@cache
def changes(zone, first_year=1973, last_year=2037):
    """Return the days, in UTC, within which the clocks of a zone were changed. Whole minutes, in these years."""
    clock = ZoneInfo(zone)
    days = [datetime(first_year, 1, 1, tzinfo=UTC)]
    while days[-1].year <= last_year:
        days.append(days[-1] + timedelta(days=1))
    offsets = [day.astimezone(clock).utcoffset() for day in days]
    return [day for day, now, later in zip(days, offsets, offsets[1:], strict=False) if now != later]
