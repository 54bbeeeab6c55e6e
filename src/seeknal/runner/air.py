"""The attempts that are under way: waits for their ends, and ends those whose time is over."""

from __future__ import annotations

import signal
from collections.abc import Collection
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from seeknal.clock import Clock
from seeknal.runner.attempt import Attempt
from seeknal.runner.compute import Outcome
from seeknal.runner.work import Work

MOST_WAIT_SECONDS = 1.0
NUDGE_SECONDS = 0.05
"""How often an attempt that was asked to end is asked again: an interruption between two queries is lost."""


class InTheAir:
    """The attempts that are under way. All in one thread, but for `stop`.

    Args:
        clock: Of the store.
        most: How many attempts there may be at once.
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._running: dict[Future[Outcome], Attempt] = {}
        self._events: SimpleQueue[Future[Outcome] | signal.Signals] = SimpleQueue()
        self._grace_ends_us: int | None = None
        self._grace_over = ""

    def __bool__(self) -> bool:
        return bool(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another attempt may begin; not as long as something waits to be looked at."""
        return len(self._running) < self._most and self.is_quiet

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has happened that was not looked at."""
        return self._events.empty()

    def stop(self, number: signal.Signals) -> None:
        """Let a signal be what happens next. May be called from a signal handler and from any thread."""
        self._events.put(number)

    def add(self, attempt: Attempt) -> None:
        """Wait for an attempt, too."""
        self._running[attempt.future] = attempt
        attempt.future.add_done_callback(self._events.put)

    def works(self) -> list[Work]:
        """Return the nodes that have attempts, each once."""
        return list({id(attempt.work): attempt.work for attempt in self._running.values()}.values())

    def wait(self, due_us: Collection[int]) -> list[Attempt | signal.Signals]:
        """Wait until something happens or is due; return the attempts that ended and the signals, in order.

        Args:
            due_us: When else there is something to do, in ticks of the clock.
        """
        found: list[Attempt | signal.Signals] = []
        for event in self._happened(due_us):
            if isinstance(event, signal.Signals):
                found.append(event)
            elif event in self._running:
                found.append(self._running.pop(event))
        return found

    def _happened(self, due_us: Collection[int]) -> list[Future[Outcome] | signal.Signals]:
        due = [*due_us, *(attempt.due_us for attempt in self._running.values()), self._grace_ends_us]
        first = min((at for at in due if at is not None), default=None)
        room = MOST_WAIT_SECONDS if first is None else (first - self._clock.ticks_us()) / 1_000_000
        if any(attempt.ending for attempt in self._running.values()):
            room = min(room, NUDGE_SECONDS)
        room = max(0.0, min(room, MOST_WAIT_SECONDS))
        found = []
        try:
            if self._running:
                found.append(self._events.get(timeout=room))
            elif self._events.empty():
                self._clock.sleep(room)
            while True:
                found.append(self._events.get_nowait())
        except Empty:
            return found

    def let_finish(self, seconds: float, why: str) -> None:
        """End all attempts after so many seconds."""
        self._grace_ends_us = self._clock.ticks_us() + int(seconds * 1_000_000)
        self._grace_over = why

    def end_all(self, why: str) -> None:
        """End all attempts at once."""
        now = self._clock.ticks_us()
        self._grace_ends_us = None
        for attempt in self._running.values():
            attempt.end(why, now)
            attempt.kill(now)

    def end_what_is_due(self) -> tuple[list[Attempt], list[Attempt]]:
        """End what has taken too long; return what was asked to end just now, and what is waited for no more."""
        now = self._clock.ticks_us()
        asked, given_up = [], []
        if self._grace_ends_us is not None and self._grace_ends_us <= now:
            self._grace_ends_us = None
            for attempt in self._running.values():
                if not attempt.ending:
                    attempt.end(self._grace_over, now)
        for future, attempt in list(self._running.items()):
            is_due = attempt.due_us is not None and attempt.due_us <= now
            if attempt.ending:
                attempt.nudge()
                if is_due and attempt.can_be_killed and not attempt.is_killed:
                    attempt.kill(now)
                elif is_due:
                    given_up.append(self._running.pop(future))
            elif is_due and not future.done():
                attempt.end(f"timed out after {attempt.node.timeout_seconds:g} s", now)
                asked.append(attempt)
        return asked, given_up
