"""Runs that nobody works on any more: what a recorder says of itself, and what follows when its lock is free."""

from __future__ import annotations

from collections.abc import Set

from seeknal.model.records import RunState
from seeknal.model.status import RunStatus

RECORDED_BY = "recorded_by"
"""The metadata key by which a recorder says that it holds the run's lock while the run lasts, and who it is."""


def is_recorded(run: RunState) -> bool:
    """Return whether a run is ``running`` and a recorder holds its lock as long as it lives.

    Of runs that were created otherwise nothing says that they are executed under their lock.
    """
    return run.status is RunStatus.RUNNING and RECORDED_BY in run.metadata


def is_abandoned(run: RunState, held: Set[str]) -> bool:
    """Return whether a run's recorder is gone.

    Args:
        run: As it was read before the locks were.
        held: The ids of the runs whose own lock somebody holds.
    """
    return is_recorded(run) and run.run_id not in held
