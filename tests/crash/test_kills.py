"""A process is killed with SIGKILL in the middle of its commits; what was promised must be there, whole."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest
from tests.processes import PROCESSES

from seeknal.state.backend import create_state_backend
from seeknal.state.testing.crashes import check_survivor, commit_number, commit_until_killed

MOST_COMMITS = 250
"""Enough that each point is reached as often as is asked: the larger the index, the rarer its checkpoints."""

POINTS = ["lock", "write", "fsync", "replace", "fsync-directory", "unlink"]


def options_of(kind: str, folder: Path) -> dict[str, object]:
    # A small journal, so that checkpoints are killed as often as commits.
    return {"base_path": folder, "checkpoint_bytes": 4000} if kind == "file" else {"db_path": folder / "state.db"}


def run_and_kill(
    kind: str, options: dict[str, object], *, most: int, point: str = "", occurrence: int = 0, after: int = 0
) -> int:
    """Let a child commit until it kills itself, or until it was heard ``after`` times; return the last number heard."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=commit_until_killed, args=(kind, options, theirs, most, point, occurrence))
    child.start()
    theirs.close()
    heard = 0
    try:
        while True:
            heard = ours.recv()
            if after and heard >= after:
                os.kill(child.pid or 0, signal.SIGKILL)
                after = 0
    except EOFError:
        pass
    child.join()
    assert child.exitcode == -signal.SIGKILL
    ours.close()
    child.close()
    return heard


def check(kind: str, folder: Path, heard: int) -> None:
    if kind == "file" and (folder / "run_state.json").exists():
        json.loads((folder / "run_state.json").read_bytes())
    with create_state_backend(kind, **options_of(kind, folder)) as backend:
        backend.initialize()
        last = check_survivor(backend, heard)
        commit_number(backend, last + 1)
        check_survivor(backend, last + 1)
    if kind == "file":
        view = json.loads((folder / "run_state.json").read_bytes())
        assert view["nodes"]["left"]["row_count"] == last + 1
        assert not list(folder.rglob("*.tmp")), "an unfinished file was left behind"


@pytest.mark.parametrize("occurrence", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("point", POINTS)
def test_a_file_store_killed_at_a_system_call_keeps_every_promise(point: str, occurrence: int, tmp_path: Path) -> None:
    heard = run_and_kill("file", options_of("file", tmp_path), most=MOST_COMMITS, point=point, occurrence=occurrence)
    assert heard < MOST_COMMITS, f"{point} was not reached {occurrence} times"
    check("file", tmp_path, heard)


def kill_at_random_moments(kind: str, tmp_path: Path, rounds: int) -> int:
    promised = 0
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        heard = run_and_kill(kind, options_of(kind, folder), most=2000, after=random.randint(1, 150))
        check(kind, folder, heard)
        promised += heard
    return promised


@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_store_killed_at_random_moments_keeps_every_promise(kind: str, tmp_path: Path) -> None:
    kill_at_random_moments(kind, tmp_path, 10)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_store_killed_often_at_random_moments_keeps_every_promise(kind: str, tmp_path: Path, capsys) -> None:
    promised = kill_at_random_moments(kind, tmp_path, 250)
    with capsys.disabled():
        print(f"\n{kind}: 250 kills at random moments, {promised} promised commits kept")


@pytest.mark.nightly
@pytest.mark.parametrize("point", POINTS)
def test_a_file_store_killed_at_every_system_call_keeps_every_promise(point: str, tmp_path: Path, capsys) -> None:
    promised = 0
    for occurrence in range(1, 60):
        folder = tmp_path / str(occurrence)
        folder.mkdir()
        heard = run_and_kill("file", options_of("file", folder), most=400, point=point, occurrence=occurrence)
        check("file", folder, heard)
        promised += heard
    with capsys.disabled():
        print(f"\n{point}: 59 kills, {promised} promised commits kept")
