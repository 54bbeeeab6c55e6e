"""Which node a name on the command line means, and what is said of one that nobody knows."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection
from contextlib import redirect_stdout, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.cli.output import Printer, shown
from seeknal.errors import CapabilityError, NodeNotFoundError, SeeknalError

if TYPE_CHECKING:
    from seeknal.state.contract import StateBackend


class Unknown(Enum):
    """What becomes of a node that neither the store nor the project knows.

    Attributes:
        REFUSED: It is an error.
        REFUSED_IN_PROJECT: It is one where a project says which nodes there are; elsewhere it may be a node of a
            program, of which nothing is done yet.
        NEW: It is taken for a new one, and that is said.
        EMPTY: It is one that has nothing, which whoever lists that says.
    """

    REFUSED = "refused"
    REFUSED_IN_PROJECT = "refused in a project"
    NEW = "new"
    EMPTY = "empty"


def which_node(store: StateBackend, project_path: Path, name: str, printer: Printer, unknown: Unknown) -> str:
    """Return the id of the node that a name means: itself, if the store knows it, or the id in the project.

    The files of the project are read, which runs those in Python, only where the store does not know the name.

    Args:
        store: Where the node may be known.
        project_path: Where the project may be.
        name: An id, or the bare name of one node of the project.
        printer: Says which node is meant, where it is another one than was named, and that one is new.
        unknown: What becomes of one that neither knows; where there is no node at all, every one may be.

    Raises:
        NodeNotFoundError: Neither knows it, and it may not be new; the hint names the nearest.
        ConfigurationError: Several nodes of the project have this bare name.
        InvalidIdError: It cannot be an id.
    """
    if _is_known(store, name):
        return name
    nodes = _project_nodes(project_path)
    if name in nodes:
        return name
    if any(node_id.partition(".")[2] == name for node_id in nodes):
        from seeknal.runner.selection import find_node

        found = find_node(nodes, name)
        printer.note(f"{shown(name)} is {shown(found)}")
        return found
    others = {*nodes, *_stored_nodes(store)}
    if not others or unknown is Unknown.EMPTY:
        return name
    near = nearest_node(name, others)
    if unknown is Unknown.REFUSED or (unknown is Unknown.REFUSED_IN_PROJECT and nodes):
        raise NodeNotFoundError(
            f"neither the store nor the project knows a node {name!a}",
            hint=f"{near}`seeknal state show` and `seeknal run --dry-run` list the nodes there are.",
            node_id=name,
        )
    printer.note(f"{shown(name)} is new: neither the store nor the project knows it. {near}".rstrip())
    return name


def nearest_node(name: str, nodes: Collection[str]) -> str:
    """Return a question whether the nearest node was meant, with a blank behind it; empty where none is near.

    Args:
        name: As it was written, with or without the kind.
        nodes: The ids there are.
    """
    told = {node_id.partition(".")[2]: node_id for node_id in sorted(nodes)} | {node_id: node_id for node_id in nodes}
    near = difflib.get_close_matches(name, told, n=1)
    return f"Did you mean {shown(told[near[0]])}? " if near else ""


def _is_known(store: StateBackend, name: str) -> bool:
    """Return whether anything was ever stored of a node, as far as this kind of store can tell."""
    from seeknal.state.capabilities import Capability

    if store.get_latest_node_state(name) is not None:
        return True
    try:
        has_work = name in store.list_worked_nodes()
    except CapabilityError:
        has_work = bool(store.get_completed_intervals(name) or store.list_partitions(name, limit=1))
    return bool(
        has_work
        or (Capability.CLAIMS in store.capabilities and name in store.list_claimed_nodes())
        or (Capability.LOG in store.capabilities and store.list_changes(node_id=name, limit=1))
    )


def _stored_nodes(store: StateBackend) -> set[str]:
    """Return the nodes that have completed or claimed something, and those of the newest run."""
    from seeknal.state.capabilities import Capability

    found = {node_id for run_id in store.list_runs(newest_first=True, limit=1) for node_id in store.list_nodes(run_id)}
    with suppress(CapabilityError):  # such a store cannot tell, and then these are not among the nearest
        found |= set(store.list_worked_nodes())
    return found | set(store.list_claimed_nodes() if Capability.CLAIMS in store.capabilities else ())


def _project_nodes(project_path: Path) -> Collection[str]:
    """Return the ids of the nodes of a project; none where there is none that can be read: the store is enough."""
    try:
        from seeknal.pipeline.load import load_project

        with redirect_stdout(sys.stderr):  # a file in Python may print, and results alone stand on stdout
            return load_project(project_path).nodes.keys()
    except (SeeknalError, ImportError):
        return ()
