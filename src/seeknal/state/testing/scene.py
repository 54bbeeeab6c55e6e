"""What the cases of one test share: a store, instances on it, and time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, TypeVar

from seeknal.clock import Clock, FakeClock
from seeknal.state.contract import StateBackend

T = TypeVar("T")

OpenBackend = Callable[..., StateBackend]
"""Opens a new, independent instance on the same store; takes ``clock`` and ``busy_timeout_ms``."""


class SkewedClock:
    """Another machine's clock: its wall clock is set wrong, its ticks are those of ``base``."""

    def __init__(self, base: Clock, skew: timedelta) -> None:
        self._base = base
        self._skew = skew

    def now(self) -> datetime:
        """Return the wrong instant."""
        return self._base.now() + self._skew

    def ticks_us(self) -> int:
        """Return the ticks that all processes share."""
        return self._base.ticks_us()

    def sleep(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self._base.sleep(seconds)


class Scene:
    """Opens instances on one store and closes them at the end.

    Args:
        open_backend: The fixture of that name.
        pass_time: Lets seconds pass for the store; for stores with a clock of their own.
    """

    def __init__(self, open_backend: OpenBackend, pass_time: Callable[[FakeClock, float], None]) -> None:
        self.clock = FakeClock()
        self._open_backend = open_backend
        self._pass_time = pass_time
        self._opened: list[StateBackend] = []

    def open(self, clock: Clock | None = None, **options: Any) -> StateBackend:
        """Return a new instance that is ready; its clock is the scene's unless another is given."""
        backend = self._open_backend(clock=clock or self.clock, **options)
        self._opened.append(backend)
        backend.initialize()
        return backend

    def skewed(self, hours: float) -> SkewedClock:
        """Return a clock whose wall clock is off by so many hours."""
        return SkewedClock(self.clock, timedelta(hours=hours))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, for the store and for everybody who uses the scene's clock."""
        self._pass_time(self.clock, seconds)

    def close(self) -> None:
        """Close every instance."""
        for backend in reversed(self._opened):
            backend.close()


def in_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in another thread and return what it returns, or raise what it raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=30)
