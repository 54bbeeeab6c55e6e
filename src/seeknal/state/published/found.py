"""A run as the published platform wrote it, before it is turned into records; and how copies of one are merged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from seeknal.errors import CorruptStateError, SeeknalError
from seeknal.model.instants import data_instant, wall_instant

EARLIEST = datetime.min.replace(tzinfo=UTC)
EPOCH_DIGITS = range(9, 12)
"""Whole seconds since 1970 that a number in text may have: the years 1973 to 5138."""


class FoundNode(msgspec.Struct, frozen=True):
    """The fields of a node state, and where they stand."""

    fields: dict[str, Any]
    location: str


class FoundRun(msgspec.Struct, frozen=True):
    """The fields of a run without its nodes, its nodes by id, and where it stands.

    ``is_named`` is false for ``execution_state.json``, which knows no runs: the id was made up.
    """

    run_id: str
    fields: dict[str, Any]
    nodes: dict[str, FoundNode]
    location: str
    is_named: bool = True


def moment(value: object, field: str) -> datetime | None:
    """Return an instant of the platform, or ``None`` for nothing.

    It writes ``datetime.now().isoformat()``: local time without an offset, which is read with the time zone of
    this process. ``execution_state.json`` has seconds since 1970, as a number or, once converted, as text.

    Raises:
        ValueError: It is neither; the message names the field.
    """
    if value is None or value == "":
        return None
    text = str(value)
    whole = text.partition(".")
    is_epoch = whole[0].isdigit() and len(whole[0]) in EPOCH_DIGITS and (whole[2] or "0").isdigit()
    try:
        if is_epoch or (isinstance(value, int | float) and not isinstance(value, bool)):
            return datetime.fromtimestamp(float(text), UTC)
        return wall_instant(datetime.fromisoformat(text), field)
    except (ValueError, OverflowError, OSError, SeeknalError) as error:
        raise ValueError(f"{field} {text!a} is not an instant") from error


def utc_moment(value: object, field: str) -> datetime | None:
    """Return an instant that the database's ``CURRENT_TIMESTAMP`` gave: UTC, without saying so.

    Raises:
        ValueError: It is none; the message names the field.
    """
    if value is None or value == "":
        return None
    try:
        return data_instant(datetime.fromisoformat(str(value)), field)
    except (ValueError, SeeknalError) as error:
        raise ValueError(f"{field} {str(value)!a} is not an instant") from error


def refused(location: str, what: str) -> CorruptStateError:
    """Return the error of a file that holds state of the platform and cannot be understood."""
    return CorruptStateError(
        f"{location} is not a run state that can be taken in: {what}",
        hint="Correct the file, or move it away to go on without what it holds.",
        location=location,
    )


def merged(runs: Iterable[FoundRun]) -> list[FoundRun]:
    """Return one run for each id: of a run, and of each of its nodes, what was written last wins.

    Args:
        runs: In the order of preference between equally old copies.

    Raises:
        CorruptStateError: A time cannot be read.
    """
    kept: dict[str, FoundRun] = {}
    for run in runs:
        other = kept.get(run.run_id)
        kept[run.run_id] = run if other is None else _newest(other, run)
    return [run for run in (_without_copies(run, kept) for run in kept.values()) if run is not None]


def _newest(first: FoundRun, second: FoundRun) -> FoundRun:
    newer, older = (second, first) if _time(second) > _time(first) else (first, second)
    nodes = dict(first.nodes)
    for node_id, node in second.nodes.items():
        if node_id not in nodes or _time(node) > _time(nodes[node_id]):
            nodes[node_id] = node
    return FoundRun(newer.run_id, older.fields | newer.fields, nodes, newer.location, newer.is_named)


def _without_copies(run: FoundRun, runs: dict[str, FoundRun]) -> FoundRun | None:
    """Leave out of a nameless run what the platform has copied from it into a named one; ``None`` if that was all."""
    if run.is_named:
        return run
    others = [other.nodes for other in runs.values() if other.is_named]
    nodes = {
        node_id: node
        for node_id, node in run.nodes.items()
        if not any(node_id in other and _time(other[node_id]) == _time(node) for other in others)
    }
    return msgspec.structs.replace(run, nodes=nodes) if nodes or not run.nodes else None


def _time(found: FoundRun | FoundNode) -> datetime:
    try:
        return moment(found.fields.get("last_run"), "last_run") or EARLIEST
    except ValueError as error:
        raise refused(found.location, str(error)) from error
