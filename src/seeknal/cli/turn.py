"""The lock of a project, which one run at a time holds: whom a run waits for, and what to do if it is refused."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.cli.options import at_path
from seeknal.cli.output import Printer, shown
from seeknal.errors import LockHeldError

if TYPE_CHECKING:
    from seeknal.pipeline.nodes import Project
    from seeknal.state.contract import StateBackend


@contextmanager
def taking_turns(
    project: Project, store: StateBackend, printer: Printer, project_path: Path, *, is_waiting: bool
) -> Iterator[None]:
    """Say whom the run of the block waits for, and, if it is refused, how to wait or to free the lock.

    Args:
        project: What is run.
        store: Where its lock is.
        printer: How it is told.
        project_path: As it was named, for the command that frees the lock.
        is_waiting: Whether the run waits where another one holds the lock.

    Raises:
        LockHeldError: As the block; of the lock of the project, with what to do about that very lock.
    """
    key = f"pipeline:{project.name}"
    holder = next((each for each in store.list_locks() if (each.run_id, each.node_id) == (key, None)), None)
    if is_waiting and holder is not None:
        since = shown(holder.acquired_at)
        printer.note(f"waiting for {shown(holder.host)}, process {holder.pid}, since {since}; nothing runs yet")
    try:
        yield
    except LockHeldError as error:
        if error.holder is not None and (error.holder.run_id, error.holder.node_id) != (key, None):
            raise
        hint = "Wait for it with --wait 1m"
        if error.holder is not None:
            free = f"seeknal state unlock {shlex.quote(key)}{at_path(project_path)}"
            hint += f"; if process {error.holder.pid} is gone for good, free it with `{free}`"
        raise LockHeldError(str(error), hint=f"{hint}.", holder=error.holder) from error
