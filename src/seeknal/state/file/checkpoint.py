"""The files a journal leads to, and an image that reads them back when they are asked for."""

from __future__ import annotations

from pathlib import Path

from seeknal.model.records import LoggedChange, NodeState, RunState
from seeknal.state.batch import Changes
from seeknal.state.file import durable
from seeknal.state.file.documents import (
    ClaimSet,
    IndexDocument,
    LogDocument,
    NodeDocument,
    RunDocument,
    corrupt,
    read_document,
    run_document,
    write_document,
)
from seeknal.state.file.filelock import is_locked
from seeknal.state.file.layout import Layout
from seeknal.state.history import Columns, History, columns_of
from seeknal.state.image import Image
from seeknal.state.work import NodeWork, all_parts, node_of, parts_by_others

MOST_LOADED_NODES = 25_000
"""Node states kept in memory of runs that are not being written; about 20 MB."""


class FileImage(Image):
    """An image whose runs and completed work are loaded when they are first needed.

    ``behind_runs`` and ``behind_nodes`` are those whose files do not yet hold what the journal says; ``is_log_behind``
    says it of the change log. They stay loaded until a checkpoint has written them.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout
        self._worked: set[str] = set()
        self.behind_runs: set[str] = set()
        self.behind_nodes: set[str] = set()
        self.is_log_behind = False
        self._has_log_file = False

    # ---- loading ----

    def load(self, path: Path) -> None:
        """Become what the index of a checkpoint says, with nothing loaded.

        Raises:
            CorruptStateError, BackendUnavailableError: As `read_document`.
        """
        index = read_document(path, IndexDocument)
        super().__init__()
        self._worked = set(index.worked)
        self.behind_runs, self.behind_nodes = set(), set()
        # A store of format 1 has no file of the log; its next checkpoint makes one.
        self._has_log_file, self.is_log_behind = index.has_log, not index.has_log
        self.runs = {run.run_id: run for run in index.runs}
        try:
            self.history = _history_of(index)
        except (ValueError, OverflowError) as error:
            raise corrupt(path, str(error)) from error
        self.locks = {(entry.holder.run_id, entry.holder.node_id): entry for entry in index.locks}
        self.sequence, self.superseded_by = index.sequence, index.superseded_by
        for node_id, found in index.claims.items():
            self.claim_versions[node_id] = found.version
            self.claims[node_id] = {claim.range_key: claim for claim in found.claims}

    def nodes_of(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, read from its file at first."""
        nodes = self._nodes.get(run_id)
        if nodes is None:
            if run_id not in self.runs:
                return {}
            self._make_room()
            nodes = self._nodes[run_id] = read_document(self._layout.run(run_id), RunDocument).nodes
        return nodes

    def log(self) -> dict[str, LoggedChange]:
        """Return the change log by change id: what its file holds, read each time, and what is not in there yet.

        It is asked for by people, and grows for as long as the store lives: a process that writes keeps none of it.
        """
        filed = read_document(self._layout.log, LogDocument).changes if self._has_log_file else []
        return self._log | {change.change_id: change for change in filed}

    def work_of(self, node_id: str) -> NodeWork:
        """Return what a node has completed, read from its file at first."""
        if node_id in self._worked and node_id not in self.work:
            document = read_document(self._layout.node(node_id), NodeDocument)
            parts = all_parts(document.intervals, document.provenance)
            self.work[node_id] = NodeWork(document.intervals, parts, document.partitions.values(), document.expected)
        return super().work_of(node_id)

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have work, sorted by their bytes."""
        # The index names a node for as long as it has a file, also one of which everything was restated.
        return [node_id for node_id in self.filed_nodes() if self.work_of(node_id)]

    def filed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have a file of their own, or will, sorted by their bytes."""
        return sorted(self._worked, key=str.encode)

    def settle(self) -> None:
        """Take note that all files hold what the journal says."""
        self.behind_runs.clear()
        self.behind_nodes.clear()
        self._log.clear()
        self._has_log_file, self.is_log_behind = True, False
        self._make_room()

    def _make_room(self) -> None:
        loaded = sum(map(len, self._nodes.values())) if len(self._nodes) > 1 else 0
        for run_id in list(self._nodes):
            if loaded <= MOST_LOADED_NODES:
                return
            if run_id not in self.behind_runs:
                loaded -= len(self._nodes.pop(run_id))

    # ---- what a commit leaves behind ----

    def apply(self, batch: Changes) -> None:
        """Apply numbered changes, and remember which files are behind."""
        for change in batch.work:
            node_id = node_of(change)
            self.work.setdefault(node_id, self.work_of(node_id))
            self._worked.add(node_id)
            self.behind_nodes.add(node_id)
        super().apply(batch)

    def put_run(self, run: RunState) -> None:
        """Store a run."""
        super().put_run(run)
        self._write_later(run.run_id)

    def put_node(self, state: NodeState) -> None:
        """Store a node state."""
        super().put_node(state)
        self._write_later(state.run_id)

    def drop_node(self, run_id: str, node_id: str) -> None:
        """Remove a node state."""
        super().drop_node(run_id, node_id)
        self._write_later(run_id)

    def drop_run(self, run_id: str) -> None:
        """Remove a run."""
        super().drop_run(run_id)
        self.behind_runs.discard(run_id)

    def put_change(self, change: LoggedChange) -> None:
        """Store an entry of the change log."""
        super().put_change(change)
        self.is_log_behind = True

    def _write_later(self, run_id: str) -> None:
        if run_id in self.runs:
            self.nodes_of(run_id)
            self.behind_runs.add(run_id)


def _history_of(index: IndexDocument) -> History:
    history = History(run.run_id for run in index.runs)
    places = {run.run_id: place for place, run in enumerate(index.runs)}
    for node_id in list(index.history):
        found = index.history.pop(node_id)  # what was taken in need not stay in memory
        if not isinstance(found, Columns):  # format 1 named runs by their ids
            found = columns_of((places[run_id], number, status) for run_id, number, status in found if run_id in places)
        history.load(node_id, found)
    return history


def write_documents(layout: Layout, image: FileImage) -> int:
    """Write the file of every run and node that is behind, and of the log; return the bytes written.

    Raises:
        OSError: Those that were not written stay behind.
    """
    written = 0
    for run_id in sorted(image.behind_runs):
        written += write_document(layout.run(run_id), run_document(image.runs[run_id], image.nodes_of(run_id)))
    for node_id in sorted(image.behind_nodes):
        work = image.work[node_id]
        document = NodeDocument(
            node_id=node_id,
            intervals=work.intervals,
            partitions=work.partitions,
            provenance=list(parts_by_others(work.intervals, work.provenance)),
            expected=list(work.expected),
        )
        written += write_document(layout.node(node_id), document)
    if image.is_log_behind:
        log = image.log()
        written += write_document(layout.log, LogDocument(changes=[log[change_id] for change_id in sorted(log)]))
    image.settle()
    return written


def sync_directories(layout: Layout) -> None:
    """Wait until the disk has the names of the files that were written.

    Raises:
        OSError: After a power cut the former ones may stand.
    """
    for directory in (layout.runs, layout.nodes, layout.directory):
        durable.sync_directory(directory)


def write_index(path: Path, image: FileImage) -> int:
    """Write what is not in the files of runs and nodes; return the bytes written.

    Raises:
        OSError: Nothing was written.
    """
    index = IndexDocument(
        sequence=image.sequence,
        runs=list(image.runs.values()),
        history={**image.history.columns(image.runs)},
        worked=image.filed_nodes(),
        locks=list(image.locks.values()),
        superseded_by=image.superseded_by,
        has_log=True,
        claims={node_id: ClaimSet(*image.read_claims(node_id)) for node_id in image.claim_versions},
    )
    return write_document(path, index)


def left_copies(layout: Layout) -> list[Path]:
    """Return the copies of the store whose readers were killed; their links keep the space of files that are gone."""
    return [path for path in layout.snapshots() if not is_locked(Layout(path).lock)]


def leftovers(layout: Layout, generation: int) -> list[Path]:
    """Return what nobody needs: journals and indexes of other checkpoints, and what writes that were killed left.

    Only under the lock, or of what is old: the lock of a copy or of a restored journal is taken right after it is made.
    """
    kept = (layout.journal(generation), layout.index(generation))
    numbered = [*layout.directory.glob("journal-*.log"), *layout.directory.glob("index-*.json")]
    unfinished = [
        path for directory in (layout.directory, layout.runs, layout.nodes) for path in directory.glob("*.json.*.tmp")
    ]
    if layout.restored.exists() and not is_locked(layout.restored):
        unfinished.append(layout.restored)
    return [path for path in numbered if path not in kept] + unfinished + left_copies(layout)


def remove_leftovers(layout: Layout, generation: int) -> None:
    """Remove the `leftovers`; under the lock, since another process may be writing them.

    Raises:
        OSError: Some of them still stand.
    """
    for path in leftovers(layout, generation):
        if path.is_dir():
            durable.at("unlink")
            durable.remove_tree(path)
        else:
            durable.remove_file(path)


def remove_run_files(layout: Layout, image: FileImage) -> None:
    """Remove the files of runs that are gone; only right after a checkpoint, since replaying may need them.

    Raises:
        OSError: Some of them still stand.
    """
    kept = {layout.run(run_id) for run_id in image.runs}
    for path in layout.runs.glob("*.json"):
        if path not in kept:
            durable.remove_file(path)
