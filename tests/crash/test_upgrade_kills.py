"""A process is killed with SIGKILL while it brings a file store of format 1 up to date; nothing is lost either way."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from tests.processes import PROCESSES

from seeknal.state import doctor
from seeknal.state.backend import create_state_backend
from seeknal.state.file.documents import FORMAT
from seeknal.state.testing.crashes import kill_at

FORMAT_1 = Path(__file__).parents[1] / "integration" / "format_1"
POINTS = ["lock", "write", "fsync", "replace", "fsync-directory", "unlink"]


def open_and_be_killed(folder: Path, point: str, occurrence: int) -> None:
    kill_at(point, occurrence)
    with create_state_backend("file", base_path=folder) as backend:
        backend.initialize()


@pytest.mark.parametrize("point", POINTS)
def test_an_upgrade_killed_at_a_system_call_is_finished_by_the_next_program(point: str, tmp_path: Path) -> None:
    kills = 0
    for occurrence in (1, 2, 3, 4):
        folder = tmp_path / f"{occurrence}"
        shutil.copytree(FORMAT_1, folder)
        for path in folder.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        child = PROCESSES.Process(target=open_and_be_killed, args=(folder, point, occurrence))
        child.start()
        child.join(50)
        kills += child.exitcode == -signal.SIGKILL
        with create_state_backend("file", base_path=folder) as backend:
            backend.initialize()
            assert backend.read_store().schema_version == str(FORMAT)
            assert backend.list_runs() == ["run_1", "run_3", "run_5"]
            assert len(backend.get_completed_intervals("load")) == 3
            assert [(each.run_id, each.token) for each in backend.read_tokens()] == [("run_3", 2)]
            assert backend.list_changes() == []
            assert list(doctor.examine(backend)) == []
    assert kills
