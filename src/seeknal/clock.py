"""Time, in one place: the only module that reads a clock.

Two kinds of time, never mixed. *Instants* (``now``) are what people read: when a run started.
*Ticks* (``ticks_us``) are what leases of a one-machine store are measured in: a clock that every
process of the machine shares and that no administrator, NTP step or daylight saving can turn.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the package asks of time. Safe from threads."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""

    def ticks_us(self) -> int:
        """Return microseconds that only grow, the same count in every process of this machine."""

    def sleep(self, seconds: float) -> None:
        """Wait; the only way in which the package waits for somebody else."""


class SystemClock:
    """The machine's clocks.

    Source: ``time.monotonic`` is CLOCK_MONOTONIC on Linux and mach_absolute_time on macOS, both
    counted since boot for the whole system (https://docs.python.org/3/library/time.html#time.monotonic).
    """

    def now(self) -> datetime:
        """Return the wall clock's instant in UTC, with microseconds."""
        return datetime.now(UTC)

    def ticks_us(self) -> int:
        """Return microseconds since boot."""
        return time.monotonic_ns() // 1000

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)


class FakeClock:
    """A clock that stands still until it is told to move; for tests.

    ``sleep`` moves it, so code that waits under a deadline runs in no time. ``skew`` shifts what
    ``now`` says without moving the ticks, as a badly set wall clock does. Not safe from threads.
    """

    def __init__(self, start: datetime = datetime(2024, 1, 10, 12, tzinfo=UTC), skew: timedelta = timedelta()) -> None:
        self._start = start
        self._elapsed = timedelta()
        self.skew = skew

    def now(self) -> datetime:
        """Return the instant it was set to, plus what has passed, plus the skew."""
        return self._start + self._elapsed + self.skew

    def ticks_us(self) -> int:
        """Return the microseconds that have passed, from an arbitrary positive origin."""
        return 1_000_000_000 + self._elapsed // timedelta(microseconds=1)

    def sleep(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self.advance(seconds=seconds)

    def advance(self, *, seconds: float = 0, **units: float) -> None:
        """Let time pass; the units are those of ``timedelta``."""
        self._elapsed += timedelta(seconds=seconds, **units)
