"""Follow a run: tell what becomes of its nodes while it goes on, and how it has ended."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import typer

from seeknal.cli.options import at_path
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.run_events import JsonEvents, Lines

if TYPE_CHECKING:
    from seeknal.cli.run_display import Display
    from seeknal.model.records import NodeState
    from seeknal.runner.attempt import NodeEvent
    from seeknal.state.contract import StateBackend

NODE_COLUMNS = ("node_id", "status", "duration_ms", "row_count")

MOST_NAMED = 3
"""Failed nodes that an error names."""


class Teller(Protocol):
    """Whom a run is told to."""

    def begin(self, run_id: str) -> None:
        """Take up that the run has begun."""

    def tell(self, event: NodeEvent, duration_ms: int | None) -> None:
        """Take up what has become of a node; at the end of an attempt with how long that took."""


class Followed:
    """A run that is followed: measures its attempts, and tells of it whoever wants to know.

    Belongs to the thread that runs the project.

    Args:
        tellers: Makes those whom it is told to, in this order, when the run begins: until then it may wait for another
            one, and must not look as if nodes ran.
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, tellers: Callable[[], Collection[Teller]], now: Callable[[], float] = monotonic) -> None:
        self.run_id = ""
        self._make_tellers = tellers
        self._tellers: Collection[Teller] = ()
        self._now = now
        self._began: dict[str, tuple[int, float]] = {}

    def begin(self, run_id: str) -> None:
        """Tell that the run has begun."""
        self.run_id = run_id
        self._tellers = self._make_tellers()
        for teller in self._tellers:
            teller.begin(run_id)

    def tell(self, event: NodeEvent) -> None:
        """Tell of an event; of one that ends an attempt, with how long that took."""
        duration = self._duration_ms(event)
        for teller in self._tellers:
            teller.tell(event, duration)

    def _duration_ms(self, event: NodeEvent) -> int | None:
        """Return how long an attempt took that ends; a node with batches has one, from its first batch to its last."""
        number = 0 if event.total else event.attempt
        if event.status == "running":
            if self._began.get(event.node_id, (None,))[0] != number:
                self._began[event.node_id] = (number, self._now())
            return None
        is_over = event.status in ("success", "failed") or (event.status == "retrying" and not event.total)
        if not is_over or event.node_id not in self._began:
            return None
        return round(1000 * (self._now() - self._began.pop(event.node_id)[1]))


@contextmanager
def watched(
    store: StateBackend,
    inputs: Mapping[str, Sequence[str]],
    printer: Printer,
    *,
    parallel: int = 1,
    project_path: Path = Path(),
) -> Iterator[Followed]:
    """Yield what the events of the one run of the block go to, and tell at its end how it has ended.

    Args:
        store: Where the run is recorded.
        inputs: The nodes that may run with their inputs, in the order of the project.
        printer: How it is told.
        parallel: How many nodes run at once.
        project_path: As it was named, for the commands that an error hints at.

    Raises:
        Exit: With 1 if the run failed, with 130 if it was interrupted; what there is to say was said.
        OSError: The run succeeded, and its events could not be written to its end; `BrokenPipeError` if nobody reads.
    """
    in_json = JsonEvents(store, inputs, printer) if printer.style is not Format.TABLE else None
    with ExitStack() as stack:

        def tellers() -> list[Teller]:
            first = (
                stack.enter_context(_display(store, inputs, parallel))
                if _has_display(printer)
                else Lines(len(inputs), printer)
            )
            return [first, in_json] if in_json else [first]

        followed = Followed(tellers)
        try:
            yield followed
        except KeyboardInterrupt:
            stack.close()
            _end(store, followed.run_id, in_json, printer)
            _fail("interrupted", "Run it again: it goes on with what is not done.", 130)
    status, states = _end(store, followed.run_id, in_json, printer)
    if status != "success":
        failed = [state for state in states.values() if state.status == "failed"]
        named = ", ".join(shown(state.node_id) for state in failed[:MOST_NAMED])
        more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
        why = f"the run failed: {named}{more}" if failed else "the run did not succeed"
        command = _command_that_shows(followed.run_id, failed[:1], project_path)
        _fail(why, f"See why with `{command}`; what succeeded is not run again.", 1)
    if in_json is not None and in_json.lost is not None:
        raise in_json.lost


def _has_display(printer: Printer) -> bool:
    return printer.style is Format.TABLE and not printer.quiet and is_terminal()


def _display(store: StateBackend, inputs: Mapping[str, Sequence[str]], parallel: int) -> Display:
    # Imported here, since it brings Rich, which nothing else needs.
    from seeknal.cli.run_display import Display
    from seeknal.cli.time_left import TimeLeft, usual_durations

    return Display(len(inputs), TimeLeft(inputs, usual_durations(store, inputs), parallel))


def is_terminal() -> bool:
    """Return whether standard error is a terminal on which lines can be drawn again."""
    term = os.environ.get("TERM", "")
    return sys.stderr.isatty() and (os.name == "nt" or term.lower() not in ("", "dumb", "unknown"))


def _end(
    store: StateBackend, run_id: str, in_json: JsonEvents | None, printer: Printer
) -> tuple[str, dict[str, NodeState]]:
    """Print what became of the run, and return its status and that of its nodes; of none, nothing."""
    found = store.get_run(run_id) if run_id else None
    if found is None:
        return "", {}
    states = store.get_all_node_states(run_id)
    if in_json is not None:
        in_json.end(found, states)
    else:
        printer.rows(list(states.values()), NODE_COLUMNS, empty="no nodes")
    return str(found.status), states


def _command_that_shows(run_id: str, failed: Sequence[NodeState], project_path: Path) -> str:
    """Return the command that says most of why a run failed: what its first failed node said, if that was kept."""
    from seeknal.runner.capture import LOG_KEY

    names = [shlex.quote(run_id), *(shlex.quote(state.node_id) for state in failed)]
    has_log = any(LOG_KEY in state.metadata for state in failed)
    return shown(f"seeknal state show {' '.join(names)}{' --log' if has_log else ''}{at_path(project_path)}")


def _fail(what: str, hint: str, code: int) -> None:
    sys.stderr.write(f"error: {what}\nhint: {hint}\n")
    raise typer.Exit(code)
