"""What is told of a run while it goes on: events, as records of JSON and as lines of text."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.spans import span_text

if TYPE_CHECKING:
    from seeknal.model.records import NodeState, RunState
    from seeknal.runner.attempt import NodeEvent
    from seeknal.state.contract import StateBackend


class JsonEvents:
    """Tells of a run in JSON: each event as a line at once, or all of them in one object at its end.

    A reader that goes away ends the output, not the run: `lost` is then the error, to be raised when the run is over.

    Args:
        store: Has the clock.
        selected: The nodes that may run.
        printer: Of the style JSON or JSONL.
    """

    def __init__(self, store: StateBackend, selected: Collection[str], printer: Printer) -> None:
        self.lost: OSError | None = None
        self._store = store
        self._selected = list(selected)
        self._printer = printer
        self._run_id = ""
        self._events: list[dict[str, Any]] = []

    def begin(self, run_id: str) -> None:
        """Write, or keep, that the run has begun."""
        self._run_id = run_id
        self._take({"event": "run", **self._about(), "status": "running", "selected": self._selected})

    def tell(self, event: NodeEvent, duration_ms: int | None) -> None:
        """Write, or keep, what has become of a node."""
        record = {
            "event": "node",
            **self._about(),
            "node_id": event.node_id,
            "status": event.status,
            "detail": event.detail,
            "attempt": event.attempt or None,
            "done": event.done if event.total else None,
            "total": event.total or None,
            "duration_ms": duration_ms,
            "row_count": event.row_count,
            "log": event.log or None,
        }
        self._take(record)

    def end(self, run: RunState, nodes: dict[str, NodeState]) -> None:
        """Write how the run has ended."""
        whole = {**msgspec.structs.asdict(run), "nodes": nodes}
        if self._printer.style is Format.JSON:
            self._printer.thing({**whole, "events": self._events}, [])
        else:
            self._write({"event": "run", **self._about(), **whole})

    def _about(self) -> dict[str, Any]:
        return {"run_id": self._run_id, "at": self._store.clock.now()}

    def _take(self, record: dict[str, Any]) -> None:
        if self._printer.style is Format.JSON:
            self._events.append(record)
        else:
            self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        if self.lost is not None:
            return
        line = msgspec.json.encode(record).decode()
        try:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        except OSError as error:
            self.lost = error
            self._printer.note("the events cannot be written any more; the run goes on")
            # What is left in the buffer of stdout must not fail once more when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Lines:
    """Tells of a run in lines on stderr: first its id; when a node begins, for each tenth of its batches, when it ends.

    Args:
        total: How many nodes may run.
        printer: Says whether anything is told.
    """

    def __init__(self, total: int, printer: Printer) -> None:
        self._total = total
        self._printer = printer
        self._tenths: dict[str, int] = {}

    def begin(self, run_id: str) -> None:
        """Print the id of the run, and how many nodes it is about."""
        self._printer.note(f"run {run_id}: {self._total} node{'' if self._total == 1 else 's'}")

    def tell(self, event: NodeEvent, duration_ms: int | None) -> None:
        """Print what has become of a node."""
        if event.status == "running" and event.total:
            tenths = event.done * 10 // event.total
            if tenths <= self._tenths.get(event.node_id, -1) or event.done == event.total:
                return
            self._tenths[event.node_id] = tenths
        for line in lines_of(event, duration_ms):
            self._printer.note(line)


def lines_of(event: NodeEvent, duration_ms: int | None) -> list[str]:
    """Return what is said of an event: one line, more for a detail of several, and what a node said where it failed."""
    head = f"{event.status:8} {shown(event.node_id)}"
    if event.status == "running":
        attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
        what = f"{event.done} of {event.total} batches" if event.done else shown(event.detail)
        return [f"{head}{attempt}: {what}"]
    took = f" in {span_text(duration_ms)}" if duration_ms is not None and event.status != "retrying" else ""
    if event.status == "success":
        return [f"{head}{took}{rows_text(event.row_count)}"]
    first, *others = event.detail.strip().splitlines() or [""]
    lines = [f"{head}{took}{f': {shown(first)}' if first else ''}", *(f"  {shown(line)}" for line in others)]
    lines += [f"  | {shown(line)}" for line in event.said.splitlines()]
    if event.log and event.status in ("failed", "retrying"):
        lines.append(f"  all of it: {event.log}")
    return lines


def rows_text(count: int | None) -> str:
    """Return a number of rows as it is appended to a line; nothing where it is not known."""
    return "" if count is None else f", {count} row{'' if count == 1 else 's'}"
