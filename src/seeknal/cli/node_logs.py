"""The logs of the nodes of runs, as the runner writes them under ``target/logs`` of a project."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from seeknal.errors import BackendUnavailableError, NotFoundError, SeeknalError, StateBackendError

if TYPE_CHECKING:
    from seeknal.model.records import NodeState
    from seeknal.state.contract import StateBackend


class LogFolders(msgspec.Struct):
    """Folders of logs.

    Attributes:
        of_runs: Those of the runs that the store knew, by run.
        gone: Those that were deleted, or would be.
        left: Those that could not be deleted, and why.
    """

    of_runs: dict[str, Path]
    gone: list[Path] = []
    left: dict[Path, str] = {}

    def delete(self, run_ids: Collection[str]) -> None:
        """Delete the folders of these runs, and of no others; what cannot be deleted is `left`."""
        for run_id in run_ids:
            folder = self.of_runs.pop(run_id, None)
            if folder is None:
                continue
            try:
                shutil.rmtree(folder)
            except OSError as error:
                self.left[folder] = error.strerror or str(error)
            else:
                self.gone.append(folder)

    def check(self) -> None:
        """Raise if a folder is left.

        Raises:
            StateBackendError: One could not be deleted; its run is gone.
        """
        for folder, why in self.left.items():
            raise StateBackendError(
                f"the runs were deleted, but not the logs of {len(self.left)} of them: {folder}: {why}",
                hint="Delete them by hand: no run names them any more.",
            )


def log_folders(project_path: Path, run_ids: Collection[str]) -> LogFolders:
    """Return the folders that there are of these runs, on this machine; a link in the place of one is none of them."""
    # Imported here: most commands do without the runner.
    from seeknal.runner.capture import log_file

    folders = ((run_id, (project_path / log_file(run_id, "node")).parent) for run_id in run_ids)
    return LogFolders({run_id: path for run_id, path in folders if path.is_dir() and not path.is_symlink()})


@contextmanager
def opened_log(project_path: Path, state: NodeState) -> Iterator[tuple[str, TextIO]]:
    """Yield the name of the log of a node in a run, relative to the project, and its text; closed when the block ends.

    The ids alone lead to it, whatever the metadata of the state name, so it is never another file of this machine.

    Raises:
        NotFoundError: It has none, or none that is here.
        BackendUnavailableError: It cannot be read.
    """
    # Imported here: most commands do without the runner.
    from seeknal.runner.capture import LOG_KEY, log_file

    name = log_file(state.run_id, state.node_id)
    try:
        file = (project_path / name).open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if LOG_KEY not in state.metadata:
            raise NotFoundError(
                f"{state.node_id} has no log in run {state.run_id}",
                hint="Commands and Python nodes that were run have one.",
            ) from None
        raise NotFoundError(
            f"the log {name} is not in the project", hint="It is on the machine of the run, or was deleted."
        ) from None
    except OSError as error:
        raise BackendUnavailableError(f"cannot read {name}: {error.strerror}", hint="Check the file.") from error
    with file:
        yield name, file


@contextmanager
def logs_of_deleted_runs(store: StateBackend, project_path: Path) -> Iterator[LogFolders]:
    """Delete, at the end of the block, the logs of the runs that were deleted in it, also where an error ends it.

    A folder that belongs to no run that the store knew before stays.

    Raises:
        SeeknalError: The store cannot be read. Of an error that ends the block, a note says so instead.
    """
    folders = log_folders(project_path, store.list_runs())
    try:
        yield folders
    except BaseException as error:
        try:
            _delete(store, folders)
        except SeeknalError as unread:
            error.add_note(f"the logs of what was deleted are still there: {unread}")
        raise
    _delete(store, folders)


def _delete(store: StateBackend, folders: LogFolders) -> None:
    if folders.of_runs:
        still = set(store.list_runs())
        folders.delete([run_id for run_id in folders.of_runs if run_id not in still])
