"""Which nodes of a project a run is about: names with the operators of a graph, tags, and what is left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from seeknal.errors import ConfigurationError
from seeknal.model.pending import pending_intervals
from seeknal.model.schedule import as_schedule
from seeknal.pipeline.nearest import nearest
from seeknal.pipeline.nodes import Node, Project
from seeknal.runner.held import FAR
from seeknal.runner.observe import expected_partitions
from seeknal.runner.outputs import list_parts, output_path, parts_folder
from seeknal.runner.plan import Asked
from seeknal.runner.ranges import Window
from seeknal.state.contract import StateBackend


def select(
    nodes: Mapping[str, Node], names: Sequence[str] = (), tags: Sequence[str] = (), exclude: Sequence[str] = ()
) -> frozenset[str] | None:
    """Return the ids of the nodes that are selected, or ``None`` if nothing was asked for, which means all.

    A name is an id, a bare name that one node alone has, or a pattern with ``*`` and ``?`` over ids. ``+name`` adds
    all that it needs, ``name+`` all that needs it. Several names, or several tags, add up; names and tags together
    select what is both; ``exclude``, which takes what ``names`` takes, is left out in the end.

    Args:
        nodes: All of the project, by id.
        names: Each one may hold several, with blanks or commas between them.
        tags: As names; a node needs one of them.
        exclude: As names.

    Raises:
        ConfigurationError: A name, a pattern or a tag that nothing has, a bare name that several nodes have, or a
            selection that is empty.
    """
    if not (names or tags or exclude):
        return None
    selected = set(nodes)
    if names:
        selected &= _named(nodes, names)
    if tags:
        selected &= _tagged(nodes, tags)
    if not selected:
        raise ConfigurationError("no node is selected", hint="Each of the names and tags has nodes, but not together.")
    if exclude:
        selected -= _named(nodes, exclude)
    if not selected:
        raise ConfigurationError("--exclude leaves nothing", hint="Exclude less: it takes away all that is selected.")
    return frozenset(selected)


def find_node(nodes: Collection[str], name: str) -> str:
    """Return the id of the node that an id or a bare name means.

    Raises:
        ConfigurationError: None or several do; the hint names the nearest.
    """
    if name in nodes:
        return name
    found = sorted(node_id for node_id in nodes if node_id.partition(".")[2] == name)
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(f"{name!a} may be {' or '.join(found)}", hint="Name it with its kind.")
    bare = {node_id.partition(".")[2]: node_id for node_id in nodes}
    raise ConfigurationError(f"there is no node {name!a}", hint=nearest(name, nodes, bare))


def check_parents(project: Project, backend: StateBackend | None, selected: Collection[str]) -> None:
    """Raise if a selected node needs one that is not selected and that has nothing to read.

    Raises:
        ConfigurationError: The message names both, the hint how to select the other one, too.
    """
    for node_id in [node_id for node_id in project.nodes if node_id in selected]:
        for input_id in project.nodes[node_id].inputs:
            lack = "" if input_id in selected else _lack(project.nodes[input_id], project.path, backend)
            if not lack:
                continue
            raise ConfigurationError(
                f"{node_id} needs {input_id}, {lack}",
                hint=f"Select it, too: --nodes '+{node_id}' takes all that it needs.",
            )


def check_window(project: Project, backend: StateBackend | None, asked: Asked, now: datetime) -> None:
    """Raise if a run is asked for ranges that none of its nodes has.

    Args:
        project: The project.
        backend: Its store, which may know what partitions are expected; ``None`` where there is none yet.
        asked: What is asked for.
        now: Until when ticks are due.

    Raises:
        ConfigurationError: A bound or a backfill without a node that has ranges, a partition that no node has, or
            nothing that could be done again; the message names what was asked for.
    """
    window = asked.window
    nodes = [node for node_id, node in project.nodes.items() if asked.takes(node_id)]
    given = [name for name, bound in (("--start", window.start), ("--end", window.end)) if bound is not None]
    if given and not any(node.schedule for node in nodes):
        raise ConfigurationError(
            f"no selected node has a schedule, which {' and '.join(given)} would be about",
            hint="Leave them out, or select a node that has one.",
        )
    if asked.is_shared and not any(node.is_ranged for node in nodes):
        raise ConfigurationError(
            "no selected node has a schedule or partitions, which --backfill would share",
            hint="Leave it out, or select a node that has.",
        )
    if window.partitions is not None:
        known = {key for node in nodes for key in expected_partitions(node, backend)}
        for key in window.partitions:
            if key not in known:
                raise ConfigurationError(
                    f"no selected node has the partition {key!a}", hint=nearest(key, known, of="partitions")
                )
    if window.restates_ticks and not any(_has_tick(node, window, now) for node in nodes):
        raise ConfigurationError(
            f"--restate would do nothing again: no tick of a selected node lies within {' and '.join(given)}",
            hint="A tick is done as a whole, once it has ended: give bounds that have all of it.",
        )


def _has_tick(node: Node, window: Window, now: datetime) -> bool:
    """Return whether a tick of a node lies in a window as a whole and is due."""
    if node.schedule is None or node.start is None:
        return False
    start, end = max(node.start, window.start or node.start), min(node.end or FAR, window.end or FAR, FAR)
    if end <= start:
        return False
    schedule, lateness = as_schedule(node.schedule, node.timezone), timedelta(seconds=node.lateness_seconds)
    due = pending_intervals([], schedule, now=now, start=start, end=end, lateness=lateness, max_intervals=1)
    return next(due, None) is not None


def _lack(node: Node, project_path: Path, backend: StateBackend | None) -> str:
    """Return why there is nothing to read of a node that is not selected; empty if there is something."""
    if backend is None or backend.get_latest_node_state(node.node_id, "success") is None:
        return "which was never computed and is not selected"
    if node.is_ranged and node.has_output:
        is_there = bool(list_parts(parts_folder(project_path, node.node_id)))
    else:
        is_there = not node.has_output or output_path(project_path, node.node_id).exists()
    return "" if is_there else "whose output is gone and which is not selected"


def _named(nodes: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in _each(names, nodes):
        is_id = name in nodes  # which may begin or end with a sign
        bare = name if is_id else name.removeprefix("+").removesuffix("+")
        chosen = _matching(nodes, bare)
        found |= chosen
        if not is_id and name.startswith("+"):
            found |= _reached(chosen, {node_id: node.inputs for node_id, node in nodes.items()})
        if not is_id and name.endswith("+"):
            found |= _reached(chosen, _users(nodes))
    return found


def _matching(nodes: Mapping[str, Node], pattern: str) -> set[str]:
    if pattern in nodes or not set(pattern) & set("*?"):
        return {find_node(nodes, pattern)}
    found = {node_id for node_id in nodes if fnmatchcase(node_id, pattern.replace("[", "[[]"))}
    if not found:
        raise ConfigurationError(
            f"no node is like {pattern!a}", hint=f"A pattern is held against ids. {nearest(pattern.strip('*?'), nodes)}"
        )
    return found


def _tagged(nodes: Mapping[str, Node], tags: Iterable[str]) -> set[str]:
    known = sorted({tag for node in nodes.values() for tag in node.tags})
    wanted = _each(tags, known)
    for tag in wanted:
        if tag not in known:
            raise ConfigurationError(f"no node has the tag {tag!a}", hint=nearest(tag, known, of="tags"))
    return {node_id for node_id, node in nodes.items() if set(node.tags) & set(wanted)}


def _each(texts: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the single names in some texts; a text that is a name as a whole stays whole."""
    found = []
    for text in texts:
        single = [text] if text in known else text.replace(",", " ").split()
        if not single:
            raise ConfigurationError("a name is empty", hint="Leave the option out to select all.")
        found += single
    return found


def _users(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {node_id: [] for node_id in nodes}
    for node_id, node in nodes.items():
        for input_id in node.inputs:
            found[input_id].append(node_id)
    return found


def _reached(start: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        for node_id in edges[waiting.pop()]:
            if node_id not in found:
                found.add(node_id)
                waiting.append(node_id)
    return found
