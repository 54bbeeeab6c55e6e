"""How long work is told of: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from seeknal.cli.output import Printer

COUNTED_LINES = 100_000
"""After how many records a line is printed where it is not known how many there are."""


@contextmanager
def progress(printer: Printer, of: str = "records") -> Iterator[Callable[[str, int, int], None]]:
    """Yield what is told of progress: a bar on a terminal, elsewhere a line for each tenth of it.

    It is called with what is being done, how much of it is done, and of how much; 0 where that is not known yet.

    Args:
        printer: Says whether anything is told.
        of: What is counted, where its name is not a part of what is being done.
    """
    if printer.quiet or not sys.stderr.isatty():
        yield _Lines(printer, of).tell
        return
    from rich.console import Console
    from rich.progress import Progress

    tasks: dict[str, Any] = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=None)
            bar.update(tasks[stage], completed=done, total=total or None)

        yield tell


class _Lines:
    """Progress as lines of text."""

    def __init__(self, printer: Printer, of: str) -> None:
        self._printer = printer
        self._of = of
        self._told: dict[str, int] = {}

    def tell(self, stage: str, done: int, total: int) -> None:
        step = done * 10 // total if total else done // COUNTED_LINES
        if step > self._told.get(stage, 0):
            self._told[stage] = step
            self._printer.note(f"{stage}: {done}{f' of {total}' if total else ''} {self._of}".rstrip())
