"""Group commit: threads that wait for their turn are served by the one whose turn it is, and one sync is for all.

Whoever commits stands in a queue and waits for the turn. Who gets it writes the frames of all who stand there, each
checked against what those before it have left, and syncs once. Nobody else has to be woken: each of the others gets
the turn next, finds that its commit is durable, and goes. So does one whose leader was interrupted; it finds its frame
written or not, and does what is missing itself.

Source: D. J. DeWitt et al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984, section 5.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from seeknal.errors import BackendUnavailableError
from seeknal.state.batch import Batch, Changes


class Waiting:
    """A commit that waits.

    Attributes:
        batch: What is to be committed.
        changes: What was written, once it was.
        begins_run: Whether a run is among it that was not there before.
        error: Why it was not, or not for certain.
        is_durable: Whether the disk has it.
    """

    __slots__ = ("batch", "begins_run", "changes", "error", "is_durable")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.changes: Changes | None = None
        self.begins_run = False
        self.error: Exception | None = None
        self.is_durable = False

    @property
    def is_over(self) -> bool:
        """Whether its owner has nothing left to do for it."""
        return self.is_durable or self.error is not None


class Queue:
    """The turn of the threads of one instance, and the commits that wait for it.

    Args:
        place: The store, in words.
        budget_ms: How long a thread waits for its turn.
    """

    def __init__(self, place: str, budget_ms: int) -> None:
        self._place = place
        self._budget_ms = budget_ms
        self._turn = Lock()
        self._waiting: deque[Waiting] = deque()

    @contextmanager
    def turn(self, mine: Waiting | None = None, *, is_last: bool = False) -> Iterator[None]:
        """Have the turn for a block; ``mine`` stands in the queue until then.

        Args:
            mine: What others may commit meanwhile.
            is_last: Whether to wait for as long as it takes, to close what others use.

        Raises:
            BackendUnavailableError: Others had it for the whole budget. Nobody will commit ``mine``.
        """
        if mine is not None:
            self._waiting.append(mine)
        try:
            if not self._turn.acquire(timeout=-1 if is_last else max(self._budget_ms, 1) / 1000):
                self._give_up(mine)
            try:
                yield
            finally:
                self._turn.release()
        finally:
            if mine is not None:
                self._leave(mine)

    def _give_up(self, mine: Waiting | None) -> None:
        """Return with the turn if somebody is writing ``mine`` just now, since what comes of that has to be told."""
        if mine is None or self._leave(mine):
            raise BackendUnavailableError(
                f"other threads kept {self._place} busy for {self._budget_ms} ms", hint="Try again."
            )
        self._turn.acquire()

    def _leave(self, mine: Waiting) -> bool:
        """Take a commit out of the queue; return whether it stood there, in one step."""
        try:
            self._waiting.remove(mine)
        except ValueError:
            return False
        return True

    def take(self, mine: Waiting) -> list[Waiting]:
        """Take all commits out of the queue, in the order in which they came; the caller has the turn.

        ``mine`` is among them also if a thread had taken it that was interrupted.
        """
        taken: list[Waiting] = []
        with suppress(IndexError):  # none is left; one that came may have left, too
            while True:
                taken.append(self._waiting.popleft())
        return taken if mine in taken else [mine, *taken]
