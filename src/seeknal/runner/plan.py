"""What happens to a node, and why: a pure function of what is known about it."""

from __future__ import annotations

import msgspec

from seeknal.model.intervals import Interval
from seeknal.model.records import NodeState

RUN, CACHED, SKIPPED = "run", "cached", "skipped"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a node before it is decided on.

    Attributes:
        fingerprint: What it is made of now.
        newest: Its newest success, or ``None``.
        output_fingerprint: What its output says it was made of; ``None`` for a node without output.
        is_output_whole: Whether its output holds exactly the intervals that the store calls completed.
        missing: The intervals it has not completed.
        is_forced: Whether it is to run in any case.
    """

    fingerprint: str
    newest: NodeState | None
    output_fingerprint: str | None
    is_output_whole: bool = True
    missing: tuple[Interval, ...] = ()
    is_forced: bool = False


class Decision(msgspec.Struct, frozen=True):
    """What to do; ``anew`` is whether everything is computed, and not only what is missing."""

    action: str
    reason: str
    anew: bool = True


def decide(known: Known) -> Decision:
    """Return what to do with a node whose inputs are all up to date."""
    if known.is_forced:
        return Decision(RUN, "forced")
    if known.newest is None:
        return Decision(RUN, "it is new")
    if known.newest.fingerprint != known.fingerprint:
        return Decision(RUN, "it changed, or an input of it did")
    if known.output_fingerprint is not None and known.output_fingerprint != known.fingerprint:
        return Decision(RUN, "its output is missing or another one")
    if not known.is_output_whole:
        return Decision(RUN, "its output does not hold what the store calls completed")
    if known.missing:
        return Decision(RUN, f"{len(known.missing)} missing interval{'s' * (len(known.missing) > 1)}", anew=False)
    return Decision(CACHED, "up to date", anew=False)
