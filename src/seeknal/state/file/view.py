"""``run_state.json``: the latest run, as people and tools read it.

It follows the committed state and is never read as state. Writing it after every commit would make a
commit cost as much as the run is large, so the time it may take is an allowance: it grows with time and
writing spends it. A pipeline whose nodes take seconds has its view written with every commit; one that
commits without a pause has it written beside, at least twice a second.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import StateBackendError
from seeknal.model.codec import decode, pretty
from seeknal.model.records import NodeState
from seeknal.model.status import RunStatus
from seeknal.state.file import durable
from seeknal.state.file.checkpoint import FileImage
from seeknal.state.file.documents import corrupt, error_offset
from seeknal.state.file.filelock import FileLock, LockedError
from seeknal.state.file.layout import Layout
from seeknal.state.file.store import FileStore

SHARE = 0.05
"""Of the time that passes, what writing the view inside commits may take."""

MOST_SAVED_S = 0.02
LONGEST_LAG_S = 0.5

_logger = logging.getLogger(__name__)


class ViewDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The shape of ``run_state.json``: ``run_id``, ``started_at``, ``nodes``, and what else a run has."""

    run_id: str | None
    status: RunStatus | None = None
    started_at: datetime | None
    finished_at: datetime | None = None
    config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    version: int = 0
    superseded_by: str | None = None
    nodes: dict[str, NodeState]


class View:
    """Keeps ``run_state.json`` up to date for one backend instance. Safe from threads."""

    def __init__(self, store: FileStore, lock: FileLock, *, budget_ms: int) -> None:
        self._store = store
        self._layout: Layout = store.layout
        self._lock = lock
        self._budget_ms = budget_ms
        self._start_anew()

    def _start_anew(self) -> None:
        self._writing = threading.Lock()
        # Locks of C: what the interpreter runs of a Condition or an Event is Python, and a Ctrl-C in the middle of it
        # would leave it locked for ever.
        self._noting = threading.RLock()  # a signal handler may commit, too
        self._pause = threading.Lock()
        """Held until the view is closed, which ends the thread's pauses."""
        self._pause.acquire()
        self._behind = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._allowance = MOST_SAVED_S
        self._counted_at = time.monotonic()

    # ---- following commits ----

    def committed(self) -> None:
        """Take note of a commit: write the view now if the allowance has it, else soon, in a thread."""
        started = time.monotonic()
        self._allowance = min(MOST_SAVED_S, self._allowance + SHARE * (started - self._counted_at))
        self._counted_at = started
        if self._allowance > 0 and not self._behind and self._write_in_passing(budget_ms=0):
            self._allowance -= time.monotonic() - started
            return
        with self._noting:
            self._behind = True
            if self._thread is None and not self._closing:
                thread = threading.Thread(target=self._follow, name="seeknal-view", daemon=True)
                thread.start()
                self._thread = thread

    def _follow(self) -> None:
        """Write the view every half second, until a round finds nothing new."""
        while True:
            self._pause.acquire(timeout=LONGEST_LAG_S)
            with self._noting:
                if self._closing or not self._behind:
                    self._thread = None
                    return
                self._behind = False
            if not self._write_in_passing(budget_ms=400):
                with self._noting:
                    self._behind = True

    def _write_in_passing(self, *, budget_ms: int) -> bool:
        """Write the view unless another process is busy with it; return whether that worked."""
        try:
            self.write(budget_ms)
        except LockedError:
            return False
        except StateBackendError:
            # The commit stands whether its view could be written or not; close() tries again and tells.
            _logger.warning("%s could not be written; it will be tried again", self._layout.view, exc_info=True)
            return False
        return True

    def close(self) -> None:
        """Stop following, and write what is behind.

        Raises:
            BackendUnavailableError: The view could not be written; the state itself is safe.
        """
        with self._noting:
            if not self._closing:
                self._closing = True
                self._pause.release()
            thread = self._thread
        if thread is not None:
            thread.join()
        try:
            if self._behind:
                self.write()
                self._behind = False
        finally:
            self._lock.close()

    def reset_after_fork(self) -> None:
        """Start anew in a child, whose thread did not come along."""
        self._start_anew()
        self._lock.reopen()

    # ---- the file ----

    def catch_up(self) -> None:
        """Write the view if it does not show the last commit, and remove what an interrupted write left.

        Raises:
            BackendUnavailableError: The former view stands.
        """
        if self._is_right() and not self._unfinished():
            return
        with self._writing, self._lock.held(self._budget_ms):
            with durable.unavailable(self._layout.view, "tidy up beside"):
                for path in self._unfinished():
                    durable.remove_file(path)
            if not self._is_right():
                self._keep_what_was_put_here()
                self._write()

    def _is_right(self) -> bool:
        with durable.unavailable(self._layout.view, "read"):
            shown = self._layout.view.read_bytes() if self._layout.view.exists() else b""
        return shown == pretty(self._store.read(view_of))

    def _unfinished(self) -> list[Path]:
        return list(self._layout.base.glob("run_state.json.*.tmp"))

    def _keep_what_was_put_here(self) -> None:
        """Move a ``run_state.json`` aside that is newer than the last commit: somebody else wrote it.

        One that is merely behind, because its writer was killed, is older than the commit that it does not show.
        """
        view = self._layout.view
        with durable.unavailable(view, "look at"):
            if not view.exists() or view.stat().st_mtime_ns <= self._store.last_commit_ns():
                return
            kept = view.with_name(f"run_state.json.{view.stat().st_mtime_ns // 1_000_000_000}.bak")
            view.replace(kept)  # not durable.replace_file: nothing is written, and the view follows at once
        _logger.warning(
            "%s was changed by somebody else. It shows the state and does not hold it, so it was moved to %s",
            view,
            kept,
        )

    def write(self, budget_ms: int | None = None) -> None:
        """Write the view as of the last commit.

        Args:
            budget_ms: How long to wait for another process that writes it; the instance's budget when ``None``.

        Raises:
            BackendUnavailableError: The former view stands.
        """
        with self._writing, self._lock.held(self._budget_ms if budget_ms is None else budget_ms):
            self._write()

    def _write(self) -> None:
        # As old as what it shows: a commit that comes in between makes it one that is behind, not somebody else's.
        shown_ns = self._store.last_commit_ns()
        document = self._store.read(view_of)
        with durable.unavailable(self._layout.view, "write"):
            durable.replace_file(self._layout.view, pretty(document), mtime_ns=shown_ns)

    def keep_backup(self, image: FileImage) -> None:
        """Put the view of an image, as it would be were the store current, into ``run_state.json.bak``.

        The caller is writing, so that nobody else does this at the same time.

        Raises:
            BackendUnavailableError: The former backup stands.
        """
        document = view_of(image)
        with durable.unavailable(self._layout.backup, "write"):
            durable.replace_file(self._layout.backup, pretty(msgspec.structs.replace(document, superseded_by=None)))

    def read(self) -> dict[str, Any] | None:
        """Return what stands in ``run_state.json``, or ``None`` if there is no such file.

        Raises:
            CorruptStateError: It is not a JSON object.
            BackendUnavailableError: It cannot be read.
        """
        path = self._layout.view
        with durable.unavailable(path, "read"):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return decode(content, dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise corrupt(path, str(error), error_offset(error)) from error


def view_of(image: FileImage) -> ViewDocument:
    """Return what ``run_state.json`` shall show: the latest run."""
    latest = next(reversed(image.runs.values()), None)
    if latest is None:
        return ViewDocument(run_id=None, started_at=None, nodes={}, superseded_by=image.superseded_by)
    return ViewDocument(
        run_id=latest.run_id,
        status=latest.status,
        started_at=latest.started_at,
        finished_at=latest.finished_at,
        config=latest.config,
        metadata=latest.metadata,
        version=latest.version,
        superseded_by=image.superseded_by,
        nodes=image.read_nodes(latest.run_id),
    )
