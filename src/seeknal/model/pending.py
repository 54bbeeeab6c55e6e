"""What a node has to do now: the ticks of its schedule that are due and not done, or that are to be done again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice

from seeknal.errors import InvalidFieldError
from seeknal.model.instants import wall_instant
from seeknal.model.intervals import Interval, as_interval, subtract
from seeknal.model.schedule import Schedule, missing_ticks

NOT_LATE = timedelta(0)


def pending_intervals(
    completed: Iterable[Interval],
    schedule: Schedule,
    *,
    now: datetime,
    start: datetime,
    end: datetime | None = None,
    lookback: int = 0,
    lateness: timedelta = NOT_LATE,
    max_intervals: int | None = None,
    newest_first: bool = False,
) -> Iterator[Interval]:
    """Return the ticks that are left to do, each an interval of its own, one by one, lazily.

    A tick is left if it lies within ``[start, end)`` as a whole, is due, and is not fully completed or falls under
    the lookback. Ticks are never cut: a ``start`` inside of one leaves it out, and the next is the first. Nothing is
    due before the first tick has ended, so the answer may be empty. The same arguments always give the same
    answer: a tick under the lookback is in it every time, however often it was completed.

    Args:
        completed: What the node has completed, in any order.
        schedule: What cuts the ticks, as `seeknal.model.schedule.as_schedule` returns it.
        now: The instant to count from; naive is local time, as ``datetime.now()`` gives.
        start: Where the node's data begins; naive is UTC.
        end: Where it ends, or ``None``; naive is UTC. One that lies in the future makes nothing due before its time.
        lookback: The last so many ticks that are due are to be done again, completed or not: late rows may have
            arrived in them. They are counted back from ``now``, in ticks and not in hours, whether or not they lie
            within ``[start, end)``: once ``end`` is further back than that, nothing is done again.
        lateness: A tick is due when its end is at least so long ago.
        max_intervals: At most so many ticks, those that come first in the order; 0 is none, ``None`` is all.
        newest_first: Turn the order around, which is oldest first.

    Raises:
        InvalidFieldError: ``lookback`` or ``max_intervals`` is not a whole number of 0 or more, ``lateness`` is not
            a timedelta of 0 or more, or ``now`` is not a datetime.
        IntervalError: ``end <= start``, a bound is not a datetime, or they reach into the first or the last year
            that a datetime can hold.
    """
    at = wall_instant(now, "now")
    again = _as_count(lookback, "lookback")
    most = None if max_intervals is None else _as_count(max_intervals, "max_intervals")
    if not isinstance(lateness, timedelta) or lateness < NOT_LATE:
        raise InvalidFieldError(
            "lateness must be a timedelta that is not negative", hint="Pass timedelta(hours=6).", field="lateness"
        )
    span = as_interval(start, datetime.max if end is None else end)
    if at - span.start <= lateness:
        return iter(())
    due = at - lateness
    redone = [Interval(since, due)] if (since := _since(schedule, due, again, span.start)) < due else []
    done = subtract(completed, redone) if redone else completed
    ticks = missing_ticks(done, span.start, min(span.end, due), schedule, newest_first=newest_first)
    return islice(ticks, most)


def _since(schedule: Schedule, due: datetime, count: int, start: datetime) -> datetime:
    """Return where the last so many ticks that have ended by ``due`` begin, or a firing at or before ``start``."""
    if count == 0:
        return due
    for number, firing in enumerate(schedule.past_firings(due)):
        if number == count or firing <= start:
            return firing
    return start


def _as_count(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= sys.maxsize:
        raise InvalidFieldError(
            f"{field} must be a whole number, 0 or more, of 63 bits", hint=f"Pass {field} as an int.", field=field
        )
    return value
