"""A run on a terminal: what runs now, in lines that are drawn again and again, below the lines of what has ended."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seeknal.cli.output import LEAST_WIDTH, cells, shortened, shown
from seeknal.cli.run_events import lines_of
from seeknal.cli.spans import span_text

if TYPE_CHECKING:
    from seeknal.cli.time_left import Left, TimeLeft
    from seeknal.runner.attempt import NodeEvent

REFRESH_SECONDS = 0.25
JUDGE_SECONDS = 1.0
"""How often it is judged how much time is left: that looks at every node that is."""

LEAST_SECONDS = 1.0
"""What is less than that is not told of as time that is left."""

MARGIN = 3
"""Columns that stay empty: a terminal writes ``^C`` behind the last line when somebody presses that."""

GAP = 2
BAR_WIDTH = 20
WIDTH_BEFORE_BAR = 24
"""Where ids would have to be cut to less, they get the room of the bars."""

STYLES = {"success": "green", "cached": "dim", "failed": "red", "skipped": "yellow", "retrying": "yellow"}
ENDED = ("success", "cached", "failed", "skipped")


class _Attempt(msgspec.Struct):
    """What runs now; ``began`` is in seconds of the display's clock."""

    began: float
    number: int
    done: int = 0
    total: int = 0
    usual_ms: int | None = None
    note: str = ""


class Display:
    """Tells of a run on the terminal that standard error is; a context manager that leaves nothing half drawn.

    Events are taken up in the thread that runs the project, and drawn by another one, so the run never waits for the
    terminal. While it is open, what is written to ``sys.stderr`` stands above it, whole lines at a time. The cursor
    is never hidden, so a killed process need not show it again.

    Args:
        total: How many nodes may run.
        left: Judges how long that takes.
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, total: int, left: TimeLeft, now: Callable[[], float] = monotonic) -> None:
        self._total = total
        self._left = left
        self._now = now
        self._began = now()
        self._lock = Lock()
        self._running: dict[str, _Attempt] = {}
        self._counts: Counter[str] = Counter()
        self._lines: list[str] = []
        self._judged: tuple[float, Left | None] | None = None
        self._is_over = Event()
        self._stderr = sys.stderr
        self._above = _Above(self._stderr, self._take_line)
        self._console = _Console(file=cast("TextIO", _Terminal(self._stderr)), highlight=False, markup=False)
        self._live = Live(
            self,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._drawer = Thread(target=self._draw_on, name="seeknal-display", daemon=True)

    def __enter__(self) -> Display:
        sys.stderr = cast("TextIO", self._above)
        _move_handlers(self._stderr, self._above)
        self._live.start(refresh=True)
        self._drawer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing, and leave the lines of what has ended and the one of the whole."""
        self._is_over.set()
        self._drawer.join()
        # Somebody may have put a stream of theirs over ours and left it there, as a node that still goes on does:
        # then ours stays under it, and passes on what it gets.
        if sys.stderr is self._above:
            sys.stderr = self._stderr
        _move_handlers(self._above, self._stderr)
        self._above.end()
        with self._lock:
            if self._counts:
                self._lines.append(self._whole(self._console.width - MARGIN))
        self._draw()
        self._live.stop()

    def begin(self, run_id: str) -> None:
        """Do nothing: the display shows from its beginning that there is a run."""

    def tell(self, event: NodeEvent, duration_ms: int | None) -> None:
        """Take up what has become of a node."""
        with self._lock:
            if event.status == "running":
                self._take_running(event)
                return
            self._lines += lines_of(event, duration_ms)
            if event.status in ("stopping", "ending"):
                if event.node_id in self._running:
                    self._running[event.node_id].note = event.status
                return
            if event.status == "retrying" and event.total:
                return  # others of its batches run meanwhile
            self._running.pop(event.node_id, None)
            if event.status in ENDED:
                self._counts[event.status] += 1
                self._left.end(event.node_id)

    def _take_running(self, event: NodeEvent) -> None:
        attempt = self._running.get(event.node_id)
        number = 1 if event.total else event.attempt  # each of its batches has attempts of its own
        if attempt is None or attempt.number != number:
            attempt = self._running[event.node_id] = _Attempt(self._now(), number, usual_ms=event.usual_ms)
        attempt.done, attempt.total = event.done, event.total
        if event.usual_ms is not None:
            self._left.learn(event.node_id, event.usual_ms)

    def _take_line(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    # ---- draw ----

    def _draw_on(self) -> None:
        while not self._is_over.wait(REFRESH_SECONDS):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._console.print(Text("\n").join(map(self._styled, lines)))
        else:
            self._live.refresh()

    def _styled(self, line: str) -> Text:
        """Return a line that stays; one that is too long is cut, but for what says why something failed."""
        status = line.split(" ", 1)[0]
        line = self._encodable(line)
        if status in ("success", "cached", "skipped"):
            line = shortened(line, self._console.width - MARGIN, "...")
        text = Text(line)
        if status in STYLES:
            text.stylize(STYLES[status], 0, len(status))
        return text

    def __rich__(self) -> Group:
        """Return what is drawn now."""
        if self._is_over.is_set():
            return Group()
        width, height = self._console.size
        room = max(LEAST_WIDTH, width - MARGIN)
        with self._lock:
            attempts = [(node_id, msgspec.structs.replace(each)) for node_id, each in self._running.items()]
            whole = self._whole(room)
        most = max(0, height - 2)  # the line of the whole, and that of the cursor
        hidden = 0 if len(attempts) <= most else len(attempts) - max(0, most - 1)
        lines: list[Any] = []
        if len(attempts) > hidden:
            lines.append(self._table(attempts[: len(attempts) - hidden], room))
        if hidden and most:
            lines.append(Text(shortened(f"and {hidden} more", room, "..."), style="dim"))
        return Group(*lines, Text(whole, no_wrap=True, overflow="crop"))

    def _table(self, attempts: Sequence[tuple[str, _Attempt]], room: int) -> Table:
        now = self._now()
        ids = [self._encodable(shown(node_id)) for node_id, _ in attempts]
        told = [_progress(each, now - each.began) for _, each in attempts]
        room -= max(map(cells, told)) + GAP
        has_bars = room - BAR_WIDTH - GAP >= min(WIDTH_BEFORE_BAR, max(map(cells, ids)))
        room -= (BAR_WIDTH + GAP) if has_bars else 0
        table = Table.grid(padding=(0, GAP, 0, 0))
        for _ in range(3 if has_bars else 2):
            table.add_column(no_wrap=True, overflow="crop")
        for name, (_, each), text in zip(ids, attempts, told, strict=True):
            bar = [_bar(each, now - each.began)] if has_bars else []
            table.add_row(Text(shortened(name, max(LEAST_WIDTH, room), "...")), *bar, Text(text))
        return table

    def _whole(self, room: int) -> str:
        """Return the line of the whole, in as many words as there is room for."""
        ended = self._counts.total()
        counts = ", ".join(f"{self._counts[status]} {status}" for status in ENDED if self._counts[status])
        elapsed = span_text(1000 * (self._now() - self._began))
        head = f"{ended} of {self._total} done"
        left = "" if self._is_over.is_set() else self._left_text()
        failed = f", {self._counts['failed']} failed" if self._counts["failed"] else ""
        words = [f"{head}{f': {counts}' if counts else ''}; {elapsed}{left}", f"{head}{failed}; {elapsed}{left}"]
        fitting = [each for each in words if len(each) <= room]
        return fitting[0] if fitting else shortened(f"{head}{failed}; {elapsed}", room, "...")

    def _left_text(self) -> str:
        now = self._now()
        if self._judged is None or now - self._judged[0] >= JUDGE_SECONDS:
            running = {node_id: now - each.began for node_id, each in self._running.items()}
            batches = {
                node_id: running[node_id] / each.done * (each.total - each.done)
                for node_id, each in self._running.items()
                if each.done
            }
            self._judged = (now, self._left.judge(running, batches))
        judged_at, left = self._judged
        seconds = left.seconds - (now - judged_at) if left is not None else 0.0
        if left is None or seconds < LEAST_SECONDS:
            return ""
        return f", {'about' if left.is_whole else 'at least'} {span_text(1000 * seconds)} left"

    def _encodable(self, text: str) -> str:
        """Return a text with what this terminal cannot show written as escapes, so that its width is known."""
        encoding = self._console.encoding
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _progress(attempt: _Attempt, seconds: float) -> str:
    """Return how far an attempt is, in words."""
    parts = [f"attempt {attempt.number}"] if attempt.number > 1 else []
    parts += [f"{attempt.done} of {attempt.total}"] if attempt.total > 1 else []
    parts += [attempt.note] if attempt.note else []
    has_usual = attempt.usual_ms is not None and attempt.total <= 1 and not attempt.note
    usual = f" of ~{span_text(attempt.usual_ms or 0)}" if has_usual else ""
    return ", ".join([*parts, f"{span_text(1000 * seconds)}{usual}"])


def _bar(attempt: _Attempt, seconds: float) -> ProgressBar | Text:
    """Return a bar of its batches, or of the time it took before; none where neither is known."""
    if attempt.total > 1:
        done, total = float(attempt.done), attempt.total
    elif attempt.usual_ms is not None:
        done, total = 1000 * seconds, max(1, attempt.usual_ms)
    else:
        return Text("")
    return ProgressBar(total, done, width=BAR_WIDTH, style="dim", complete_style="cyan", finished_style="cyan")


class _Console(Console):
    """One that leaves the cursor as it is."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class _Terminal:
    """A stream that does not mind when its terminal is gone: what nobody can see must not stop what it is about."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Above:
    """Stands for standard error while something is drawn there: takes whole lines, until it has ended."""

    def __init__(self, stream: TextIO, take: Callable[[str], None]) -> None:
        self._stream = stream
        self._take = take
        self._rest = ""
        self._has_ended = False
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lock:
            if self._has_ended:
                return self._stream.write(text)
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(shown(line.expandtabs()))
        return len(text)

    def flush(self) -> None:
        if self._has_ended:
            self._stream.flush()

    def end(self) -> None:
        """Give up the line that was begun, and pass on all that comes."""
        with self._lock:
            self._has_ended = True
            rest, self._rest = self._rest, ""
        if rest:
            self._take(shown(rest))


def _move_handlers(source: object, target: object) -> None:
    """Let what is logged to one stream go to another."""
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is source:
            handler.setStream(cast("TextIO", target))
