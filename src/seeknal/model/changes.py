"""How one record follows from another: pure, given the instant at which it happens.

Every backend calls these, so a patch means the same in every store. They check all that can be
checked without a store; what they raise names the field, and nothing has been written by then.
"""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from typing import Any

import msgspec

from seeknal.errors import (
    ConcurrencyError,
    InvalidFieldError,
    RunNotFoundError,
    StaleVersionError,
)
from seeknal.model.codec import encode, json_object
from seeknal.model.ids import check_id
from seeknal.model.instants import wall_instant
from seeknal.model.records import LoggedChange, NodeState, PartitionState, RunState
from seeknal.model.status import NodeStatus, RunStatus, as_status

MAX_COUNT = 2**63 - 1
"""Counts fit the 64-bit integers that every store has."""

MAX_TEXT_BYTES = 4_000_000
"""The longest text or metadata: a libSQL server refuses a value of 5 MB, the tightest limit of the stores."""

RUN_FIELDS = ("status", "started_at", "finished_at", "config", "metadata")
NODE_FIELDS = (
    "status",
    "started_at",
    "finished_at",
    "duration_ms",
    "row_count",
    "fingerprint",
    "error_message",
    "attempt",
    "metadata",
)

_ACTION = re.compile(r"[a-z][a-z0-9-]{0,39}")


def new_run(
    run_id: str,
    now: datetime,
    *,
    status: object = RunStatus.RUNNING,
    started_at: object = None,
    config: object = None,
    metadata: object = None,
) -> RunState:
    """Return the first version of a run.

    ``running`` and the final statuses start now where no start is given; a final status also
    finishes now.

    Raises:
        InvalidIdError, InvalidFieldError: Naming the field.
    """
    checked = as_status(RunStatus, status)
    start = wall_instant(started_at, "started_at") if started_at is not None else None
    if start is None and checked is not RunStatus.PENDING:
        start = now
    return RunState(
        run_id=check_id(run_id, "run_id"),
        status=checked,
        started_at=start,
        finished_at=now if checked.is_final else None,
        config=_short_enough(json_object(config, "config"), "config") if config is not None else {},
        metadata=_short_enough(json_object(metadata, "metadata"), "metadata") if metadata is not None else {},
        version=1,
    )


def patched_run(run: RunState, now: datetime, fields: dict[str, Any]) -> RunState:
    """Return the next version of a run: what ``fields`` does not name stays.

    ``metadata`` merges by key. Entering ``running`` sets ``started_at`` where there is none;
    entering a final status sets ``finished_at``, leaving one clears it, unless given.

    Raises:
        InvalidFieldError: An unknown field, or a value that its field cannot hold.
    """
    _check_names(fields, RUN_FIELDS)
    new: dict[str, Any] = {}
    for name in ("started_at", "finished_at"):
        if name in fields:
            new[name] = _optional_instant(fields[name], name)
    if "config" in fields:
        new["config"] = _short_enough(json_object(fields["config"], "config"), "config")
    if "metadata" in fields:
        new["metadata"] = _short_enough(run.metadata | json_object(fields["metadata"], "metadata"), "metadata")
    if "status" in fields:
        status = as_status(RunStatus, fields["status"])
        new["status"] = status
        if status is RunStatus.RUNNING and run.started_at is None:
            new.setdefault("started_at", now)
        if status.is_final and (status is not run.status or run.finished_at is None):
            new.setdefault("finished_at", now)
        if not status.is_final:
            new.setdefault("finished_at", None)
    return msgspec.structs.replace(run, version=run.version + 1, **new)


def written_node(
    previous: NodeState | None,
    run_id: str,
    node_id: str,
    now: datetime,
    state: NodeState | None,
    fields: dict[str, Any],
) -> NodeState:
    """Return the next version of a node state.

    Args:
        previous: What is stored, or ``None``.
        run_id: The run, checked.
        node_id: The node, checked.
        now: When it happens.
        state: A whole state that replaces everything but the version; then ``fields`` is empty.
        fields: A patch: what it does not name stays; ``metadata`` merges by key.

    ``running`` sets ``started_at`` when the node enters it and clears the end of an earlier
    attempt; a final status sets ``finished_at`` and ``duration_ms``; always unless given.

    Raises:
        InvalidFieldError: An unknown field, a value that its field cannot hold, or a state
            together with fields.
    """
    version = 1 if previous is None else previous.version + 1
    if state is not None:
        return _replaced_node(run_id, node_id, now, state, fields, version)
    _check_names(fields, NODE_FIELDS)
    base = previous or NodeState(run_id=run_id, node_id=node_id)
    new = {name: _node_value(name, value) for name, value in fields.items()}
    if "metadata" in new:
        new["metadata"] = _short_enough(base.metadata | new["metadata"], "metadata")
    if "status" in new:
        _time_the_change(base, new, now, entered=previous is None or new["status"] is not base.status)
    return msgspec.structs.replace(base, version=version, sequence=0, **new)


def new_partition(
    run_id: str,
    node_id: str,
    partition: str,
    now: datetime,
    *,
    row_count: object = None,
    metadata: object = None,
    completed_at: object = None,
) -> PartitionState:
    """Return the record of a partition that was completed now, unless ``completed_at`` says when.

    Raises:
        InvalidIdError, InvalidFieldError: Naming the field.
    """
    return PartitionState(
        node_id=check_id(node_id, "node_id"),
        partition=check_id(partition, "partition"),
        run_id=check_id(run_id, "run_id"),
        completed_at=now if completed_at is None else wall_instant(completed_at, "completed_at"),
        row_count=_optional_count(row_count, "row_count"),
        metadata=_short_enough(json_object(metadata, "metadata"), "metadata") if metadata is not None else {},
    )


def check_unwritten(found: RunState | NodeState | None, what: str) -> None:
    """Raise `ConcurrencyError` if the record that is to be created exists."""
    if found is not None:
        raise ConcurrencyError(
            f"{what} already exists (version {found.version})",
            hint="Choose another id, or update the one that exists.",
        )


def check_version(found: RunState | NodeState | None, expected: object, what: str) -> None:
    """Raise `StaleVersionError` unless the record stands at the version the caller saw; 0 means "no record"."""
    if expected is None:
        return
    if not isinstance(expected, int) or isinstance(expected, bool):
        raise InvalidFieldError(
            f"expected_version must be an integer, not {type(expected).__name__}",
            hint="Pass the version of the record you read.",
            field="expected_version",
        )
    version = found.version if found else 0
    if version != expected:
        raise stale(what, expected, version)


def stale(what: str, expected: int, found: int | None) -> StaleVersionError:
    """Return the error of a record that somebody else wrote in between."""
    stands = "has changed" if found is None else f"is at version {found}" if found else "does not exist"
    return StaleVersionError(
        f"{what} {stands}; the writer saw {f'version {expected}' if expected else 'no record'}",
        hint="Read it again and repeat the change, or use run_transaction, which does both.",
        expected=expected,
        found=found,
    )


def added_to(run_id: str) -> StaleVersionError:
    """Return the error of the deletion of a run whose nodes are not those that were listed."""
    return StaleVersionError(
        f"run {run_id!a} has not the nodes any more that the writer saw",
        hint="List them again and repeat the deletion, or use run_transaction, which does both.",
    )


def missing_run(run_id: str) -> RunNotFoundError:
    """Return the error of a write that names a missing run."""
    return RunNotFoundError(f"run {run_id!a} does not exist", hint="Create it first with create_run().", run_id=run_id)


def _replaced_node(
    run_id: str, node_id: str, now: datetime, state: NodeState, fields: dict[str, Any], version: int
) -> NodeState:
    if not isinstance(state, NodeState):
        raise InvalidFieldError(
            f"state must be a NodeState, not {type(state).__name__}",
            hint="Pass single fields by name: set_node_state(run_id, node_id, status='success').",
            field="state",
        )
    if fields:
        raise InvalidFieldError(
            f"state and {', '.join(sorted(fields))} cannot be given together",
            hint="A NodeState replaces the whole record; put the fields into it.",
            field=min(fields),
        )
    for field, given, named in (("run_id", state.run_id, run_id), ("node_id", state.node_id, node_id)):
        if given not in ("", named):
            raise InvalidFieldError(
                f"state.{field} is {given!a}, but the call names {named!a}",
                hint="Leave it empty in the state, or name the same.",
                field=field,
            )
    new = {name: _node_value(name, getattr(state, name)) for name in NODE_FIELDS}
    _short_enough(new["metadata"], "metadata")
    for derived in ("started_at", "finished_at", "duration_ms"):
        if new[derived] is None:
            del new[derived]
    blank = NodeState(run_id=run_id, node_id=node_id)
    _time_the_change(blank, new, now, entered=True)
    return msgspec.structs.replace(blank, version=version, **new)


def checked_change(change: LoggedChange) -> LoggedChange:
    """Return an entry of the change log whose fields are what a store can keep.

    Raises:
        InvalidIdError, InvalidFieldError: One of them is not; the message names it.
    """
    if not isinstance(change.action, str) or not _ACTION.fullmatch(change.action):
        raise InvalidFieldError(
            f"action is {change.action!a}; it must be one word",
            hint="Use 1 to 40 lower-case letters, digits and hyphens, a letter first.",
            field="action",
        )
    for field in ("run_id", "node_id"):
        if getattr(change, field) is not None:
            check_id(getattr(change, field), field)
    if not isinstance(change.reason, str):
        raise InvalidFieldError("reason must be text", hint="Pass reason as a str.", field="reason")
    optional_text(change.reason, "reason")
    detail = _short_enough(json_object(change.detail, "detail"), "detail")
    return msgspec.structs.replace(change, detail=detail)


def check_limit(limit: object) -> None:
    """Raise unless at most so many things can be asked for; ``None`` is all of them.

    Raises:
        InvalidFieldError: It is not a whole number, 0 or more, of 63 bits.
    """
    if limit is not None and (not isinstance(limit, int) or not 0 <= limit <= MAX_COUNT):
        raise InvalidFieldError(
            f"limit is {limit!r}; it must be a whole number, 0 or more, of 63 bits",
            hint="Pass limit as an int.",
            field="limit",
        )


def _time_the_change(base: NodeState, new: dict[str, Any], now: datetime, *, entered: bool) -> None:
    """Add the times that a change of status implies, where they are not given."""
    status: NodeStatus = new["status"]
    if not entered:
        return
    if status is NodeStatus.RUNNING:
        new.setdefault("started_at", now)
        new.setdefault("finished_at", None)
        new.setdefault("duration_ms", None)
    elif status.is_final:
        finished = new.setdefault("finished_at", now)
        started = new.get("started_at", base.started_at)
        if "duration_ms" not in new and started is not None and finished is not None:
            new["duration_ms"] = max(0, round((finished - started).total_seconds() * 1000))


def _node_value(name: str, value: object) -> Any:
    match name:
        case "status":
            return as_status(NodeStatus, value)
        case "started_at" | "finished_at":
            return _optional_instant(value, name)
        case "duration_ms" | "row_count":
            return _optional_count(value, name)
        case "fingerprint" | "error_message":
            return optional_text(value, name)
        case "attempt":
            count = _optional_count(value, name)
            if not count:
                raise InvalidFieldError("attempt must be at least 1", hint="Attempts are counted from 1.", field=name)
            return count
        case _:
            return json_object(value, name)


def _check_names(fields: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidFieldError(
                f"there is no field {name!r}",
                hint=f"{f'Did you mean {near[0]}? ' if near else ''}Known: {', '.join(known)}.",
                field=name,
            )


def _optional_instant(value: object, field: str) -> datetime | None:
    return None if value is None else wall_instant(value, field)


def _optional_count(value: object, field: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidFieldError(
            f"{field} must be a whole number, not {type(value).__name__}",
            hint=f"Pass {field} as an int.",
            field=field,
        )
    if not 0 <= value <= MAX_COUNT:
        raise InvalidFieldError(
            f"{field} is {value}; it must lie between 0 and {MAX_COUNT}",
            hint="Counts are never negative.",
            field=field,
        )
    return int(value)


def optional_text(value: object, field: str) -> str | None:
    """Return a text that every store can hold, or ``None``.

    Raises:
        InvalidFieldError: It is something else; the message names the field.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidFieldError(
            f"{field} must be text, not {type(value).__name__}", hint=f"Pass {field} as a str.", field=field
        )
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidFieldError(
            f"{field} holds a lone surrogate", hint="Pass valid Unicode text.", field=field
        ) from None
    _check_size(size, field)
    return str(value)


def _short_enough(value: dict[str, Any], field: str) -> dict[str, Any]:
    if value:
        _check_size(len(encode(value)), field)
    return value


def _check_size(size: int, field: str) -> None:
    if size > MAX_TEXT_BYTES:
        raise InvalidFieldError(
            f"{field} is {size} bytes long; at most {MAX_TEXT_BYTES} are allowed",
            hint="Store a reference to it instead.",
            field=field,
        )
