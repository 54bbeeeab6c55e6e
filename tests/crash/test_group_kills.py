"""A process is killed while several of its threads commit together."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from seeknal.state.file.backend import FileStateBackend

THREADS = 4


def write_and_tell(folder: Path, told: int) -> None:
    """Commit in several threads without a pause, and tell each commit once it is acknowledged."""
    backend = FileStateBackend(folder, checkpoint_bytes=20_000)
    backend.initialize()

    def write(number: int) -> None:
        while True:
            state = backend.set_node_state("run", f"node {number}", status="running")
            os.write(told, bytes([number, state.version % 256]))

    for number in range(THREADS):
        threading.Thread(target=write, args=(number,), daemon=True).start()
    threading.Event().wait()


@pytest.mark.parametrize("commits", [1, 7, 40, 150])
def test_a_kill_loses_no_acknowledged_commit_of_a_group(tmp_path: Path, commits: int) -> None:
    with FileStateBackend(tmp_path) as backend:
        backend.initialize()
        backend.create_run("run")
    pipe, told = os.pipe()
    os.set_inheritable(told, True)
    child = os.fork()
    if child == 0:
        try:
            write_and_tell(tmp_path, told)
        finally:
            os._exit(1)
    os.close(told)
    acknowledged = bytearray()
    while len(acknowledged) < 2 * commits:
        acknowledged += os.read(pipe, 4096)
    os.kill(child, 9)
    os.waitpid(child, 0)
    while more := os.read(pipe, 4096):
        acknowledged += more
    os.close(pipe)
    last = dict(zip(acknowledged[::2], acknowledged[1::2], strict=True))
    with FileStateBackend(tmp_path) as backend:
        backend.initialize()
        for number, version in last.items():
            found = backend.get_node_state("run", f"node {number}")
            assert found is not None
            assert (found.version - version) % 256 in (0, 1), "an acknowledged commit is missing"
