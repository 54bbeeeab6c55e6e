"""One attempt at a node or at one of its ranges: what it runs on, and until when."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Self

import msgspec

from seeknal.errors import NodeFailedError, SeeknalError
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.runner.compute import Outcome
from seeknal.runner.executors import Endable
from seeknal.runner.stopping import GIVE_UP_SECONDS, KILL_SECONDS
from seeknal.runner.work import Taken, Work, told


class NodeEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of a node.

    Attributes:
        node_id: The node.
        status: That of its state; or ``retrying``, ``ending`` and ``stopping`` while it is not over. ``running`` comes
            once for each attempt, and again whenever a part of its work is done.
        detail: Why.
        log: The file with what it said, relative to the project; empty if it has none.
        said: The last lines of that, where it failed.
        attempt: Which one this is about, counted from 1; 0 where there was none.
        done: How many of its batches are completed; 0 for a node that has one.
        total: Of how many.
        row_count: How many rows it has, once it succeeded.
        usual_ms: How long its newest success took, once it began; ``None`` where that is not known.
    """

    node_id: str
    status: str
    detail: str = ""
    log: str = ""
    said: str = ""
    attempt: int = 0
    done: int = 0
    total: int = 0
    row_count: int | None = None
    usual_ms: int | None = None

    def __str__(self) -> str:
        return f"{self.status:8} {self.node_id}" + (f": {self.detail}" if self.detail else "")


class Attempt(msgspec.Struct, kw_only=True, eq=False):
    """An attempt that is under way; belongs to the thread that runs the project.

    Attributes:
        work: The node it is a part of.
        taken: The range it computes, of a node that is computed range by range.
        made: What its part is made of.
        number: Counted from 1.
        control: Ends it; ``None`` where it runs on an executor that nothing can be ended on.
        future: Its outcome.
        began_us: When it began, in ticks of the store's clock.
        due_us: When it has to end, in ticks of the store's clock.
        ending: Why it is being ended; empty as long as it is not.
        is_killed: Whether that is no longer a question.
    """

    work: Work
    taken: Taken | None = None
    made: str = ""
    number: int
    control: Endable | None
    future: Future[Outcome]
    began_us: int = 0
    due_us: int | None
    ending: str = ""
    is_killed: bool = False

    @classmethod
    def of_nothing(cls, work: Work, number: int) -> Self:
        """Return an attempt that is over before it began."""
        future: Future[Outcome] = Future()
        future.cancel()
        return cls(work=work, number=number, control=None, future=future, due_us=None)

    @property
    def node(self) -> Node:
        """The node."""
        return self.work.node

    @property
    def name(self) -> str:
        """The id of its node, and its range if it has one."""
        return self.node.node_id + (f" {told(self.taken.unit)}" if self.taken is not None else "")

    @property
    def can_be_killed(self) -> bool:
        """Whether there is a process that can be."""
        return self._is_shell or (self.control is not None and self.control.has_process)

    @property
    def _is_shell(self) -> bool:
        return self.node.kind == "command" and self.node.format != PYTHON and self.control is not None

    def end(self, why: str, now_us: int) -> None:
        """Ask it to end; ``due_us`` is then until when it may take."""
        self.ending = why
        self.due_us = now_us + int(KILL_SECONDS * 1_000_000)
        self.future.cancel()  # what no worker has begun yet
        self.nudge()

    def nudge(self) -> None:
        """Ask it again, since an interruption between two queries is lost."""
        if self.control is not None:
            self.control.end()

    def kill(self, now_us: int) -> None:
        """End it without asking; ``due_us`` is then when it is given up."""
        self.is_killed = True
        self.due_us = now_us + int(GIVE_UP_SECONDS * 1_000_000)
        if self.control is not None:
            self.control.kill()

    def outcome(self) -> Outcome:
        """Return what was computed, or raise why there is nothing.

        Raises:
            NodeFailedError: It failed, was ended, or is given up.
            KeyboardInterrupt: It raised that.
        """
        if not self.future.done():
            what = f"its {'function' if self.node.format == PYTHON else 'work'} cannot be interrupted"
            raise NodeFailedError(
                f"{self.ending}; {what if self.control else 'its executor cannot end it'}, so it was left going on",
                hint="What it still does changes neither its output nor its state.",
            )
        # A command that exits with 0 since it was asked to end has not done its work.
        if self.ending and (self._is_shell or self.future.cancelled() or self.future.exception() is not None):
            raise NodeFailedError(self.ending, hint=f"Look at {self.work.log or self.node.file}.") from None
        try:
            return self.future.result()
        except (SeeknalError, KeyboardInterrupt):
            raise
        except Exception as error:
            if self.control is not None:
                raise  # in a thread or a process of our own nothing else can be raised but by a fault of the runner
            raise NodeFailedError(
                f"its executor gave up: {type(error).__name__}: {error}", hint="Look at the executor's own log."
            ) from error
