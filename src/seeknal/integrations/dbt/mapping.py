"""What dbt's words mean in ours: one invocation as a run, node states and completed intervals. Pure but for reading.

*Which commands.* Only those that build or test: ``compile``, ``show``, ``docs generate`` and others leave results of
the status ``success``, too, of nodes that nothing was done to.

*Statuses.* ``partial success`` (some batches of a microbatch model) is a failure; ``no-op`` is skipped; what dbt
``reused`` is cached.

*Fingerprints* are the checksums of the manifest: of a node's own file, not of macros, configuration or what it is built
on. A checksum of a path (of a seed over 1 MiB) says nothing of the content and makes none.

*Batches.* A successful batch ``[start, end)`` is a completed interval unless it was still going on when its node began:
dbt runs the batch of today, too, and what comes later today is not in it. Such batches are `NodeWork.open`. A retry
repeats the successful batches of the invocation before, and does not say when that was; so its last batch is taken for
open unless ``--event-time-end`` named its end. What ``--full-refresh`` rebuilds is un-completed first. ``--empty`` and
``--sample`` write batches without their rows, or without some: these are un-completed, and no fingerprint is made.

Source: dbt-core 1.11, ``dbt/task/run.py`` (``MicrobatchModelRunner``) and
``dbt/materializations/incremental/microbatch.py``.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import TransferError
from seeknal.integrations.dbt.artifacts import (
    MANIFEST,
    RUN_RESULTS,
    Arguments,
    BatchResults,
    Manifest,
    ManifestNode,
    Metadata,
    Result,
    RunResults,
    read_manifest,
    read_run_results,
)
from seeknal.model.ids import MAX_ID_BYTES
from seeknal.model.intervals import Interval, as_interval, union
from seeknal.model.records import NodeState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.tracking.node import MOST_MESSAGE_CHARS

COMMANDS = ("build", "retry", "run", "seed", "snapshot", "test")
"""Those that do something to the nodes that they leave results of."""

STATUSES = {
    "success": NodeStatus.SUCCESS,
    "pass": NodeStatus.SUCCESS,
    "warn": NodeStatus.SUCCESS,
    "error": NodeStatus.FAILED,
    "fail": NodeStatus.FAILED,
    "runtime error": NodeStatus.FAILED,
    "partial success": NodeStatus.FAILED,
    "skipped": NodeStatus.SKIPPED,
    "no-op": NodeStatus.SKIPPED,
    "reused": NodeStatus.CACHED,
}

ALGORITHM = "dbt"
"""The fingerprints' name: ``dbt-sha256:`` and the checksum, as dbt calls its algorithm."""

DIGEST_KEY = "run_results_sha256"
"""Under which the metadata of a run says what it was imported from."""

DIGEST_CHARS = 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NodeWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a microbatch model has done and undone of its event time.

    Attributes:
        node_id: The node.
        completed: What it completed, sorted, touching batches as one.
        undone: What it wrote without all of its rows.
        open: Successful batches that were not over when they were run; they are completed by a later run.
        is_rebuilt: Whether all that was there before has been replaced.
    """

    node_id: str
    completed: list[Interval] = []
    undone: list[Interval] = []
    open: list[Interval] = []
    is_rebuilt: bool = False


class DbtRun(msgspec.Struct, frozen=True, kw_only=True):
    """One dbt invocation in our words.

    Attributes:
        run_id: ``dbt_`` and the invocation's id.
        status: ``failed`` if a node failed, else ``success``.
        started_at: When the invocation began.
        finished_at: When it wrote its results.
        config: What dbt was told, without its variables.
        metadata: What else there is to know of it, and the digest of its results.
        nodes: A state of each node that has a result, in the order of the file.
        work: Of the microbatch models among them.
    """

    run_id: str
    status: RunStatus
    started_at: datetime
    finished_at: datetime
    config: dict[str, Any]
    metadata: dict[str, Any]
    nodes: list[NodeState]
    work: list[NodeWork]


def read_dbt(target_dir: str | Path, *, use_manifest: bool = True) -> DbtRun:
    """Read what the last dbt invocation left in its target directory.

    Args:
        target_dir: The directory of ``run_results.json`` and ``manifest.json``.
        use_manifest: Whether to read the manifest. Without it there are no fingerprints, no tags and so on, and no
            intervals: whether a model is rebuilt stands in it.

    Raises:
        ConfigurationError: It is not a directory.
        TransferError: A file is missing or not what dbt writes; the two are of different invocations; the command
            builds and tests nothing; a status is unknown; a node has two results.
        SchemaVersionError: A file is of a schema that this program does not know.
        IntervalError: A batch ends where it begins, or before.
    """
    directory = Path(target_dir)
    results, digest = read_run_results(directory)
    _check_command(results.args, directory / RUN_RESULTS)
    manifest = read_manifest(directory) if use_manifest else None
    if manifest is not None:
        _check_together(results.metadata, manifest.metadata, directory)
    return mapped(results, manifest, digest)


def mapped(results: RunResults, manifest: Manifest | None, digest: str) -> DbtRun:
    """Return an invocation in our words.

    Args:
        results: Its results.
        manifest: Its manifest, or ``None`` to do without.
        digest: The SHA-256 of its results.

    Raises:
        TransferError: A status is unknown, or a node has two results.
        IntervalError: A batch ends where it begins, or before.
    """
    facts = results.metadata
    finished = _utc(facts.generated_at)
    began = facts.invocation_started_at
    started = _utc(began) if began is not None else finished - timedelta(seconds=results.elapsed_time)
    told = results.args
    twice = next(
        (name for name, count in Counter(each.unique_id for each in results.results).items() if count > 1), None
    )
    if twice is not None:
        raise TransferError(
            f"{twice!a} has more than one result", hint="Take the file as dbt left it, of one invocation."
        )
    nodes, work = [], []
    for result in results.results:
        known = manifest.node(result.unique_id) if manifest is not None else None
        state = _state(result, known, finished, has_all_rows=not _is_in_part(told))
        nodes.append(state)
        if known is not None and known.config is not None and known.config.is_microbatch:
            work.append(_work(result, known, told, state.node_id, state.started_at or started))
    failed = any(state.status is NodeStatus.FAILED for state in nodes)
    about = {
        "imported_from": "dbt",
        "dbt_version": facts.dbt_version,
        "invocation_id": facts.invocation_id,
        "project_name": manifest.metadata.project_name if manifest is not None else None,
        DIGEST_KEY: digest,
    }
    config = {
        "command": _command(told),
        "select": told.select,
        "exclude": told.exclude,
        "selector": told.selector,
        "target": told.target,
        "full_refresh": told.full_refresh,
        "empty": told.empty,
        "sample": told.sample,
        "event_time_start": told.event_time_start,
        "event_time_end": told.event_time_end,
    }
    return DbtRun(
        run_id=f"dbt_{facts.invocation_id}",
        status=RunStatus.FAILED if failed else RunStatus.SUCCESS,
        started_at=started,
        finished_at=finished,
        config=_said(config),
        metadata=_said(about),
        nodes=nodes,
        work=work,
    )


def node_id_of(unique_id: str) -> str:
    """Return the id under which a dbt node is recorded: its ``unique_id``, shortened where that is too long for an id.

    The name of a generic test holds all of its arguments, that of a unit test is free text. A shortened one ends with
    ``~`` and a digest of the whole; one with control characters, too, has them replaced.
    """
    if len(unique_id.encode()) <= MAX_ID_BYTES and not _CONTROL.search(unique_id):
        return unique_id
    mark = f"~{hashlib.sha256(unique_id.encode()).hexdigest()[:DIGEST_CHARS]}"
    head = _CONTROL.sub("?", unique_id).encode()[: MAX_ID_BYTES - len(mark)]
    return head.decode(errors="ignore") + mark


def _state(result: Result, known: ManifestNode | None, finished: datetime, *, has_all_rows: bool) -> NodeState:
    status = STATUSES.get(result.status)
    if status is None:
        raise TransferError(
            f"{result.unique_id!a} has the status {result.status!a}, which this program does not know",
            hint=f"Import it with a newer version of this package. Known: {', '.join(STATUSES)}.",
        )
    begun = [_utc(each.started_at) for each in result.timing if each.started_at is not None]
    ended = [_utc(each.completed_at) for each in result.timing if each.completed_at is not None]
    message = result.message[:MOST_MESSAGE_CHARS] if result.message else None
    is_failed = status is NodeStatus.FAILED
    rows = (result.adapter_response or {}).get("rows_affected")
    node_id = node_id_of(result.unique_id)
    about = {
        "unique_id": result.unique_id if node_id != result.unique_id else None,
        "dbt_status": result.status,
        "message": None if is_failed else message,
        "failures": result.failures,
        "relation_name": result.relation_name or (known.relation_name if known else None),
        "resource_type": known.resource_type if known else None,
        "tags": known.tags if known else None,
        "depends_on": known.depends_on.nodes if known and known.depends_on else None,
        "compiled_path": known.compiled_path if known else None,
        "original_file_path": known.original_file_path if known else None,
    }
    return NodeState(
        node_id=node_id,
        status=status,
        started_at=min(begun, default=None),
        finished_at=max(ended, default=finished),
        duration_ms=round(result.execution_time * 1000) if status is not NodeStatus.SKIPPED else None,
        # Drivers that do not know say -1.
        row_count=rows if type(rows) is int and rows >= 0 else None,
        fingerprint=_fingerprint(known) if has_all_rows else None,
        error_message=(message or result.status) if is_failed else None,
        metadata=_said(about),
    )


def _work(result: Result, known: ManifestNode, told: Arguments, node_id: str, began: datetime) -> NodeWork:
    assert known.config is not None
    batches = result.batch_results or BatchResults()
    good = [as_interval(start, end) for start, end in batches.successful]
    if not good:
        return NodeWork(node_id=node_id)
    is_rebuilt = known.config.full_refresh if known.config.full_refresh is not None else bool(told.full_refresh)
    if _is_in_part(told):
        return NodeWork(node_id=node_id, undone=union(good), is_rebuilt=is_rebuilt)
    ended = {batch for batch in good if batch.end <= began}
    if _is_retry(told) and told.event_time_end is None:
        last = max(batch.end for batch in [*good, *(as_interval(start, end) for start, end in batches.failed)])
        ended = {batch for batch in ended if batch.end != last}
    return NodeWork(
        node_id=node_id,
        completed=union(ended),
        open=sorted(batch for batch in good if batch not in ended),
        is_rebuilt=is_rebuilt,
    )


def _fingerprint(known: ManifestNode | None) -> str | None:
    found = known.checksum if known is not None else None
    if not isinstance(found, dict):
        return None
    name, checksum = found.get("name"), found.get("checksum")
    if not checksum or not isinstance(checksum, str) or name in (None, "none", "path"):
        return None
    return f"{ALGORITHM}-{name}:{checksum}"


def _command(told: Arguments) -> str | None:
    return told.which or told.rpc_method


def _is_retry(told: Arguments) -> bool:
    """Return whether it was ``dbt retry``, which leaves the arguments of the invocation before."""
    return _command(told) == "retry" or "retry" in (told.invocation_command or "").split()


def _is_in_part(told: Arguments) -> bool:
    """Return whether dbt built without all rows on purpose."""
    return bool(told.empty or told.sample)


def _check_command(told: Arguments, path: Path) -> None:
    command = _command(told)
    if command not in COMMANDS:
        raise TransferError(
            f"{path} is of `dbt {command}`, which builds and tests nothing"
            if command
            else f"{path} does not say which dbt command left it",
            hint=f"Import it right after `dbt` {', '.join(COMMANDS)}; each command writes the file anew.",
        )


def _check_together(results: Metadata, manifest: Metadata, directory: Path) -> None:
    if results.invocation_id != manifest.invocation_id:
        raise TransferError(
            f"{directory / RUN_RESULTS} is of the dbt invocation {results.invocation_id}, and {MANIFEST} beside it of "
            f"{manifest.invocation_id}, which may be of other code",
            hint="Import right after the command that is to be recorded, before `dbt ls`, `parse` or `source "
            "freshness` write the manifest anew; or do without its fingerprints and intervals: --without-manifest.",
        )


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _said(facts: dict[str, Any]) -> dict[str, Any]:
    """Return those that say something."""
    return {name: value for name, value in facts.items() if value not in (None, [], "")}
