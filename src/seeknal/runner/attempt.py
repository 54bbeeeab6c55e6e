"""One attempt at a node: what was decided about it, what it runs on, and until when."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack

import msgspec

from seeknal.errors import NodeFailedError
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.runner.control import Control
from seeknal.runner.plan import Observed, Planned
from seeknal.runner.stopping import GIVE_UP_SECONDS, KILL_SECONDS
from seeknal.tracking import NodeRecorder


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
        node: The node.
        observed: What was known before.
        planned: What was decided.
        block: Ends the record of it, when it is left.
        recorder: The record.
        log: The file for what it says, relative to the project; or empty.
        control: Ends it; ``None`` where it runs on an executor that nothing can be ended on.
        future: Its outcome.
        due_us: When it has to end, in ticks of the store's clock.
        ending: Why it is being ended; empty as long as it is not.
        is_killed: Whether that is no longer a question.
    """

    node: Node
    observed: Observed
    planned: Planned
    block: ExitStack
    recorder: NodeRecorder
    log: str
    control: Control | None
    future: Future[int | None]
    due_us: int | None
    ending: str = ""
    is_killed: bool = False

    @property
    def is_command(self) -> bool:
        """Whether there is a process that can be killed."""
        return self.node.kind == "command" and self.control is not None

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

    def outcome(self) -> int | None:
        """Return the number of rows, or raise why there are none.

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
        if self.ending and (self.is_command or self.future.cancelled() or self.future.exception() is not None):
            raise NodeFailedError(self.ending, hint=f"Look at {self.log or self.node.file}.") from None
        return self.future.result()
