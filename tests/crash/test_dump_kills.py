"""An import that is killed between its commits leaves what the same import finishes."""

from __future__ import annotations

import io
import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from tests.processes import PROCESSES

from seeknal.state.backend import create_state_backend
from seeknal.state.dump.importing import import_dump, plan_import
from seeknal.state.dump.reading import dump_file
from seeknal.state.dump.writing import export_to_file, export_to_stream
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.transfer import digest_of

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
RECORDS = 6 * 6 + 8 + 4


@pytest.fixture
def dump_and_digest(tmp_path):
    with MemoryStateBackend() as source:
        for run in range(6):
            source.create_run(f"r{run}")
            for node in range(5):
                source.set_node_state(f"r{run}", f"n{node}", status="success", row_count=run)
        for number in range(8):
            start = FIRST + timedelta(days=2 * number)
            source.add_completed_interval("r1", f"n{number % 3}", start, start + timedelta(days=1))
        for number in range(4):
            source.add_completed_partition("r2", "n1", f"p{number}")
        export_to_file(source, tmp_path / "d.jsonl.gz")
        yield tmp_path / "d.jsonl.gz", digest_of(source)


def options_of(kind, folder):
    return {"base_path": folder / "target"} if kind == "file" else {"db_path": folder / "state.db"}


def import_until_killed(kind, options, path, commits):
    """Import in small commits; after some of them the process is gone, with all that it would still do."""

    def kill(stage, done, total):
        nonlocal commits
        commits -= stage == "importing"
        if not commits:
            os.kill(os.getpid(), signal.SIGKILL)

    with create_state_backend(kind, **options) as target, dump_file(path) as dump:
        target.initialize()
        import_dump(dump, target, batch_rows=5, on_progress=kill)


@pytest.mark.parametrize("commits", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_killed_import_is_finished_by_the_same_import(kind, commits, dump_and_digest, tmp_path):
    path, digest = dump_and_digest
    options = options_of(kind, tmp_path)
    child = PROCESSES.Process(target=import_until_killed, args=(kind, options, path, commits))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with create_state_backend(kind, **options) as target, dump_file(path) as dump:
        target.initialize()
        assert plan_import(dump, target).present == commits * 5
        assert import_dump(dump, target).written == RECORDS - commits * 5
        assert digest_of(target) == digest


def export_until_killed(path):
    class Deadly(io.BytesIO):
        def write(self, line):
            if b'"run"' in line[:20]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write(line)

    with MemoryStateBackend() as source:
        source.create_run("r")
        packing = "seeknal.state.dump.writing.packing"
        with pytest.MonkeyPatch.context() as patched:
            from contextlib import nullcontext

            patched.setattr(packing, lambda name, sink: nullcontext(Deadly()))
            export_to_file(source, path, force=True)
        export_to_stream(source, io.BytesIO())


def test_a_killed_export_leaves_the_former_file(dump_and_digest, tmp_path):
    path, _ = dump_and_digest
    before = path.read_bytes()
    child = PROCESSES.Process(target=export_until_killed, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert path.read_bytes() == before
