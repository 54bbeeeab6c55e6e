"""What a preview of ``seeknal migrate-state`` says where a move was killed, is done, or meets an older store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.test_migrate import tree

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend
from seeknal.state.migration.ends import KEY

NOT_OURS = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN")
FORMAT_1 = Path(__file__).parents[1] / "integration" / "format_1"
PREVIEW = ["migrate-state", "--backend", "database", "--output", "json"]
MOVER = """
import sys
from seeknal.state.backend import open_state_backend

with open_state_backend() as ours, open_state_backend(backend="database") as theirs:
    with ours.lock(sys.argv[1]), theirs.lock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    return tmp_path


def write_run(run_id, **options):
    with open_state_backend(**options) as store:
        store.create_run(run_id)


def make_version_1(path):
    """Turn an SQLite store into one as the first revision made it."""
    with closing(sqlite3.connect(path)) as database, database:
        for name in ("change_log", "claims", "claim_sets", "interval_provenance", "expected_partitions"):
            database.execute(f"DROP TABLE {name}")
        database.execute("UPDATE store SET schema_version = 1")
        database.execute("UPDATE alembic_version SET version_num = '0001'")


def said(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("told_to", [[], ["--no-dry-run"]])
def test_a_state_is_not_moved_to_or_from_memory(project, capsys, told_to):
    write_run("r1")
    before = tree(project)
    assert main(["migrate-state", "--backend", "memory", *told_to]) == 2
    assert "is gone when its process ends" in capsys.readouterr().err
    assert tree(project) == before
    (project / "seeknal_project.yml").write_text("name: p\nstate_backend: memory\n")
    assert main(["migrate-state", "--backend", "file", *told_to]) == 2


def test_a_preview_judges_the_lock_of_a_move_by_whether_its_process_lives(project, capsys):
    write_run("r1")
    child = subprocess.Popen([sys.executable, "-c", MOVER, KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        assert main(PREVIEW) == 3
        (reason,) = said(capsys)["refused"]
        assert f"process {child.pid}" in reason
    finally:
        child.kill()
        child.communicate()
    assert main(PREVIEW) == 0
    assert said(capsys)["refused"] == []


def test_a_preview_of_a_move_that_only_the_project_does_not_know_yet_says_so(project, capsys):
    write_run("r1")
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    (project / "seeknal_project.yml").write_text("name: p\n")  # as it is where a kill came before it was edited
    write_run("since then", backend="database")
    capsys.readouterr()
    assert main(PREVIEW) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["is_done"] is True
    assert "only the project file is left to change" in printed.err
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert store.list_runs() == ["r1", "since then"]


def test_a_migration_that_is_told_again_after_its_end_says_that_it_is_done(project, capsys):
    write_run("r1")
    assert main(["migrate-state", "--backend", "file"]) == 2
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    before = tree(project)
    for told_to in ([], ["--no-dry-run"]):
        capsys.readouterr()
        assert main([*PREVIEW, *told_to]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["from"] == "file target"
        assert "was there already" in printed.err
    assert tree(project) == before


def test_a_preview_does_not_bring_an_older_source_up_to_date(project, capsys):
    shutil.copytree(FORMAT_1, project / "target")
    before = tree(project)
    assert main(PREVIEW) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["counts"] is None
    assert "the schema of file target is 1: the move would bring it up to date first" in printed.err
    assert tree(project) == before
    assert main([*PREVIEW, "--no-dry-run"]) == 0
    assert said(capsys)["counts"]["runs"] > 0


def test_a_preview_does_not_bring_an_older_target_up_to_date(project, capsys):
    write_run("r1")
    write_run("theirs", backend="database")
    make_version_1(project / "target" / "state.db")
    before = tree(project)
    assert main(PREVIEW) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["counts"]["runs"] == 1
    assert "the schema of database target/state.db is 1" in printed.err
    assert tree(project) == before
    assert main([*PREVIEW, "--merge", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert store.list_runs() == ["theirs", "r1"]


def test_a_full_directory_of_temporary_files_is_named_and_both_stores_stay_as_they_were(project, monkeypatch, capsys):
    write_run("r1")
    write_run("gone", backend="database")
    with open_state_backend(backend="database") as store:
        store.delete_run("gone")
    full = lambda **_: open("/dev/full", "r+b", buffering=0)  # noqa: E731, SIM115
    monkeypatch.setattr("seeknal.state.migration.undo.tempfile.TemporaryFile", full)
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 1
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.endswith("No space left on device")
    assert "TMPDIR" in hint
    write_run("goes on")
    write_run("goes on there", backend="database")
