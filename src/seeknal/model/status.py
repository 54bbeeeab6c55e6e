"""The statuses of runs, of node states, of claims and of partitions."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import TypeVar

from seeknal.errors import InvalidFieldError


class RunStatus(StrEnum):
    """What has become of a run."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self in _FINAL_RUN


class NodeStatus(StrEnum):
    """What has become of a node in a run.

    ``cached``: it was up to date and did not run. ``skipped``: it did not run because something
    before it failed, or because it was left out.
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CACHED = "cached"

    @property
    def is_final(self) -> bool:
        """Whether the node is done with in this run."""
        return self in _FINAL_NODE


class ClaimStatus(StrEnum):
    """What has become of a claim that is not completed.

    ``claimed``: somebody who lives works on it. ``open``: the last attempt failed, or whoever made it is gone; anybody
    may take it again. ``parked``: its attempts are used up, and somebody has to look at it.
    """

    CLAIMED = "claimed"
    OPEN = "open"
    PARKED = "parked"


class PartitionStatus(StrEnum):
    """How a partition of a node stands.

    ``running``: somebody who lives has claimed it. ``failed``: its last attempt did, or whoever made it is gone.
    ``missing``: it is expected, and nobody has tried yet.
    """

    COMPLETED = "completed"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


_FINAL_RUN = frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED})
_FINAL_NODE = frozenset({NodeStatus.SUCCESS, NodeStatus.FAILED, NodeStatus.SKIPPED, NodeStatus.CACHED})

S = TypeVar("S", RunStatus, NodeStatus, ClaimStatus, PartitionStatus)


def as_status(kind: type[S], value: object, field: str = "status") -> S:
    """Return ``value`` as a status of this kind.

    Raises:
        InvalidFieldError: It is none; the hint lists those that exist and names the nearest.
    """
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        known = [str(status) for status in kind]
        near = difflib.get_close_matches(str(value), known, n=1)
        raise InvalidFieldError(
            f"{field} {value!r} is not a status",
            hint=f"{f'Did you mean {near[0]}? ' if near else ''}Known: {', '.join(known)}.",
            field=field,
        ) from None
