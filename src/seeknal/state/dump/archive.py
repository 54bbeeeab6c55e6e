"""Archive what a cleanup removes: it is written to an export file and read back before anything goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import TransferError
from seeknal.model.records import CleanupReport, NodeState, RunState
from seeknal.model.status import RunStatus
from seeknal.state.dump.reading import dump_file
from seeknal.state.dump.writing import ExportReport, export_to_file
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.retention import Progress, Rules, clean_runs, mark_of
from seeknal.state.store_info import StoreInfo


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """What a cleanup did, and what stands in the archive; ``None`` if nothing was to go, and no file was written."""

    report: CleanupReport
    archive: ExportReport | None


def clean_into(
    store: RecordStateBackend,
    path: str | os.PathLike[str],
    rules: Rules,
    *,
    budget: timedelta | None = None,
    on_progress: Progress | None = None,
) -> Archived:
    """Write the runs that the rules let go to an export file, and delete those that still are what stands in it.

    The file is whole and on the disk before the first run goes. It is the export of a store of its own that holds these
    runs and nothing else, so any empty store can import it.

    Args:
        store: The store.
        path: The file, which must not exist; compressed if its name ends in ``.gz`` or ``.zst``.
        rules: Which runs.
        budget: How long the deletion may take, once the archive stands.
        on_progress: Called now and then.

    Raises:
        TransferError: The file exists or cannot be written, or the runs did not stop changing. Nothing was deleted.
        CorruptStateError: What was written cannot be read back. Nothing was deleted.
    """
    if Path(path).exists():
        raise TransferError(f"{path} exists already", hint="Name another file: an archive is never replaced.")
    preview = clean_runs(store, rules, dry_run=True, on_progress=on_progress)
    if not preview.deleted:
        return Archived(report=preview, archive=None)

    def tell(stage: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(f"{stage} records", done, total)

    with _Part(store, preview.deleted) as part:
        exported = export_to_file(part, path, on_progress=tell)
    report = clean_runs(store, rules, budget=budget, marks=_marks(path), on_progress=on_progress)
    return Archived(report=report, archive=exported)


def _marks(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Read an archive to its end and return the marks of its runs."""
    marks: dict[str, bytes] = {}
    run: RunState | None = None
    nodes: dict[str, NodeState] = {}
    with dump_file(path) as dump:
        for record in dump.reading():
            if isinstance(record, RunState):
                if run is not None:
                    marks[run.run_id] = mark_of(run, nodes)
                run, nodes = record, {}
            elif isinstance(record, NodeState):
                nodes[record.node_id] = record
    if run is not None:
        marks[run.run_id] = mark_of(run, nodes)
    return marks


class _Part(MemoryStateBackend):
    """An empty store, with an identity of its own, that shows some of the runs of another one."""

    def __init__(self, whole: RecordStateBackend, run_ids: Sequence[str]) -> None:
        super().__init__(clock=whole.clock)
        self._whole = whole
        self._run_ids = run_ids

    def read_store(self) -> StoreInfo:
        version = self._whole.read_store().schema_version
        return msgspec.structs.replace(super().read_store(), schema_version=version)

    def read_run_ids(self, status: RunStatus | None, newest_first: bool, limit: int | None) -> list[str]:
        return list(self._run_ids)

    def read_run(self, run_id: str) -> RunState | None:
        return self._whole.read_run(run_id)

    def scan_runs(self) -> Iterator[RunState]:
        return (run for run in map(self.read_run, self._run_ids) if run is not None)

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        return self._whole.read_nodes(run_id)

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        yield self  # it changes with the other store, and whoever exports it finds that out
