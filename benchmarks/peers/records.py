"""What each peer records, as far as it has a place for it: nodes of one run that are completed, one after the other."""

from __future__ import annotations

NODES = 100
"""In the run; after the last one the first is completed again."""
NOTE = "x" * 200
"""What each completed node has to say, beside its status and its rows."""


def node_of(number: int) -> str:
    """Return the node which is completed when the work is done for a number."""
    return f"transform.node_{number % NODES}"
