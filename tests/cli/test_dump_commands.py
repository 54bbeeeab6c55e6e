"""`seeknal state export` and `seeknal state import`, as a shell and its user see them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from tests.cli.older import make_older, schemas

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend
from seeknal.state.dump.reading import dump_file
from seeknal.state.store_info import moving_mark
from seeknal.state.transfer import digest_of

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    for name, backend in (("copy", "file"), ("base", "database")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seeknal_project.yml").write_text(f"name: {name}\nstate_backend: {backend}\n")
    with open_state_backend() as store:
        store.create_run("r \N{SNOWMAN}", config={"ü": 1})
        store.set_node_state("r \N{SNOWMAN}", "n", status="success", row_count=1)
    return tmp_path


def state_of(project):
    with open_state_backend(project) as store:
        return digest_of(store)


def run(*arguments, **options):
    return subprocess.run([*SEEKNAL, *arguments], capture_output=True, timeout=50, check=False, **options)


@pytest.mark.parametrize("to", ["copy", "base"])
def test_a_store_goes_through_a_pipe(project, to):
    exporting = subprocess.Popen([*SEEKNAL, "state", "export", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    imported = run("state", "import", "-", "--project-path", to, "--output", "json", stdin=exporting.stdout)
    exporting.stdout.close()
    with exporting.stderr as told:
        assert b"exported 2 records: 1 runs, 1 node states" in told.read()
    assert (exporting.wait(), imported.returncode) == (0, 0)
    assert json.loads(imported.stdout)["written"] == 2
    assert b"imported 2 of 2 records" in imported.stderr
    assert state_of(to) == state_of(".")


def test_a_compressed_pipe_is_recognised(project):
    for ending in ("gz", "zst"):
        assert main(["state", "export", f"d.{ending}"]) == 0
        with open(f"d.{ending}", "rb") as stdin:
            assert run("state", "import", "-", "-p", "copy", stdin=stdin).returncode == 0
    assert state_of("copy") == state_of(".")


def test_the_report_of_an_export_stands_beside_it(project, capsysbinary):
    assert main(["state", "export", "d.jsonl", "--output", "json", "--quiet"]) == 0
    found = capsysbinary.readouterr()
    assert (json.loads(found.out)["counts"]["node_states"], found.err) == (1, b"")
    assert main(["state", "export", "-", "--output", "json", "--quiet"]) == 0
    found = capsysbinary.readouterr()
    assert found.out.splitlines()[1:-1] == (project / "d.jsonl").read_bytes().splitlines()[1:-1]
    assert json.loads(found.err)["file"] == "-"
    assert main(["state", "export", "e.jsonl"]) == 0
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        (moving_mark("there", "since then"), "this store is being moved to there, since then"),
        ("there", "this store is superseded: its state moved to there"),
    ],
)
def test_an_export_says_where_the_state_of_the_store_is(project, capsys, mark, told):
    with open_state_backend() as store:
        store.write_successor(store.read_store().store_id, mark)
    assert main(["state", "export", "dump.jsonl"]) == 0
    assert told in capsys.readouterr().err.splitlines()


def test_a_file_that_stands_is_replaced_by_force_only(project, capsys):
    assert main(["state", "export", "d.jsonl"]) == 0
    assert main(["state", "export", "d.jsonl"]) == 1
    assert "hint: Choose another name, or replace it with --force." in capsys.readouterr().err
    assert main(["state", "export", "d.jsonl", "--force"]) == 0


def test_a_preview_makes_no_store(project, capsys):
    main(["state", "export", "d.jsonl"])
    assert main(["state", "import", "d.jsonl", "--dry-run", "-p", "base", "--output", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dry_run"], shown["counts"]["runs"], shown["present"]) == (True, 1, 0)
    assert os.listdir(project / "base") == ["seeknal_project.yml"]
    assert main(["state", "import", "d.jsonl", "-p", "base"]) == 0
    assert main(["state", "import", "d.jsonl", "--dry-run", "-p", "base"]) == 0
    assert "present       2" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["file", "database"])
def test_a_preview_does_not_bring_an_older_store_up_to_date_and_says_so(project, capsys, backend):
    assert main(["state", "export", "e.jsonl"]) == 0
    with open_state_backend(backend=backend) as store:
        store.list_runs()
    make_older(project)
    capsys.readouterr()
    assert main(["state", "import", "e.jsonl", "--dry-run", "--backend", backend]) == 0
    assert "is 1: an import would bring it up to date first" in capsys.readouterr().err
    assert set(schemas(project)) == {1}


def test_a_damaged_file_makes_no_store(project, capsys):
    main(["state", "export", "d.jsonl"])
    content = (project / "d.jsonl").read_bytes()
    (project / "d.jsonl").write_bytes(content.replace(b'"row_count":1', b'"row_count":2'))
    assert main(["state", "import", "d.jsonl", "-p", "base"]) == 5
    assert "d.jsonl is damaged at line 4" in capsys.readouterr().err
    assert os.listdir(project / "base") == ["seeknal_project.yml"]
    (project / "d.jsonl").write_bytes(content.replace(b'"version":2', b'"version":9', 1))
    assert main(["state", "import", "d.jsonl", "-p", "base"]) == 1
    assert "newer version" in capsys.readouterr().err
    assert main(["state", "import", "seeknal_project.yml", "-p", "base"]) == 1


def test_another_state_and_a_held_lock_refuse(project, capsys):
    main(["state", "export", "d.jsonl"])
    with open_state_backend("copy") as store:
        store.create_run("mine")
    assert main(["state", "import", "d.jsonl", "-p", "copy"]) == 1
    assert "already holds another state" in capsys.readouterr().err
    with open_state_backend("base") as store:
        store.acquire_lock("r")
        assert main(["state", "import", "d.jsonl", "-p", "base"]) == 3


def test_progress_is_told_in_lines_unless_quiet(project, capsys):
    main(["state", "export", "d.jsonl"])
    capsys.readouterr()
    assert main(["state", "import", "d.jsonl", "-p", "copy"]) == 0
    assert "importing: 2 of 2 records" in capsys.readouterr().err
    assert main(["state", "import", "d.jsonl", "-p", "base", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("answer", "runs"), [(b"n\n", []), (b"y\n", ["r \N{SNOWMAN}"])])
def test_a_terminal_is_asked(project, answer, runs):
    main(["state", "export", "d.jsonl"])
    ours, theirs = pty.openpty()
    asking = subprocess.Popen(
        [*SEEKNAL, "state", "import", "d.jsonl", "-p", "copy"], stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    os.write(ours, answer)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert asking.wait() == 0
    assert b"Import 1 runs, 1 node states" in shown
    with open_state_backend("copy") as store:
        assert store.list_runs() == runs


def test_a_reader_that_goes_away_is_no_bug(project):
    reading, writing = os.pipe()
    os.close(reading)
    command = [*SEEKNAL, "state", "export", "-"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=50, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert b"bug" not in done.stderr


def test_an_export_of_the_command_is_one_that_can_be_read(project):
    main(["state", "export", "d.jsonl.zst"])
    with dump_file("d.jsonl.zst") as dump:
        assert [record.run_id for record in dump.reading()] == ["r \N{SNOWMAN}"] * 2
