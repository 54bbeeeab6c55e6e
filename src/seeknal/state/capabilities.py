"""What a backend may or may not offer beyond the contract that all of them keep."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """Something a backend declares; the conformance kit runs the cases of what is declared."""

    PERSISTENT = "persistent"
    """What is committed is there after the process is gone."""

    PROCESSES = "processes"
    """Several processes of one machine may open the store at once."""

    MACHINES = "machines"
    """Several machines may open the store at once."""

    LOG = "log"
    """The store keeps a log of what was done to it, and takes over the token counters of another one's locks."""

    CLAIMS = "claims"
    """Workers can claim intervals and partitions of a node, so that they share its work."""

    PROVENANCE = "provenance"
    """The store keeps which run completed each part of what a node has completed."""

    EXPECTED = "expected"
    """The store can be told which partitions are expected of a node."""
