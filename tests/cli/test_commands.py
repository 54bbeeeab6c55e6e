"""The commands, as a shell and its user see them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

from seeknal.cli.app import main
from seeknal.errors import SupersededError
from seeknal.state.backend import StateBackendFactory, create_state_backend, open_state_backend
from seeknal.state.file.backend import FileStateBackend


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p # mine\nstate_backend: file\n")
    return tmp_path


@pytest.fixture
def filled(project):
    with open_state_backend(project) as store:
        for number in (1, 2):
            store.create_run(f"run_{number}")
            store.set_node_state(f"run_{number}", "n", status="success", row_count=number)
            store.update_run(f"run_{number}", status="success")
    return project


def seeknal(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "seeknal.cli.app", *arguments], cwd=cwd, capture_output=True, text=True, timeout=50
    )


def test_a_project_from_its_beginning(tmp_path):
    assert seeknal("--version", cwd=tmp_path).stdout.startswith("seeknal ")
    assert seeknal("init", cwd=tmp_path).returncode == 0
    again = seeknal("init", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "nothing was overwritten" in again.stderr
    listed = seeknal("state", "list", "--output", "json", cwd=tmp_path)
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "[]\n", "")


def test_list_and_show(filled):
    table = seeknal("state", "list", cwd=filled)
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["RUN_ID", "run_2", "run_1"]
    assert all(len(line) <= 80 for line in table.stdout.splitlines())
    assert "\x1b" not in table.stdout
    found = json.loads(seeknal("state", "show", "--output", "json", cwd=filled).stdout)
    assert found["run_id"] == "run_2"
    assert found["nodes"]["n"]["row_count"] == 2
    assert found["started_at"].endswith("Z")


def test_light_commands_stay_light(filled):
    code = (
        "import sys; from seeknal.cli.app import main; main(['state', 'list']); "
        "print([m for m in ('duckdb','sqlalchemy','alembic','seeknal.runner','rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=filled, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_nobody_reads_on(filled):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "seeknal.cli.app", "state", "list"]
    done = subprocess.run(command, cwd=filled, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("state list", 141),
        ("state export -", 141),
        ("partitions complete n b --output json", 141),
        ("partitions restate n a", 141),
        ("intervals list nobody", 0),  # which prints nothing there
        ("state list --limit x", 2),
    ],
)
def test_a_closed_standard_output_is_told_like_one_that_nobody_reads(filled, arguments, code):
    with open_state_backend(filled) as store:
        store.add_completed_partition("run_1", "n", "a")
    done = shell(f"{arguments} >&-", filled)
    assert (done.returncode, done.stdout) == (code, "")
    assert "This is a bug" not in done.stderr
    if arguments.startswith("partitions"):  # what was asked for was done before it could not be told
        left = ["a", "b"] if "complete" in arguments else []
        with open_state_backend(filled) as store:
            assert [each.partition for each in store.list_partitions("n")] == left


def test_other_closed_streams_stop_nothing(filled):
    told = shell("state list", filled)
    assert shell("state list <&- 2>&-", filled).stdout == told.stdout != ""
    with open_state_backend(filled) as store:
        store.add_completed_partition("run_1", "n", "a")
    done = shell("partitions restate n a <&- 2>&-", filled)
    assert (done.returncode, done.stdout.split()[4]) == (0, "a")
    assert shell("state list --limit x 2>&- >&- <&-", filled).returncode == 2


def shell(arguments, cwd):
    command = f"{shlex.join([sys.executable, '-m', 'seeknal.cli.app'])} {arguments}"
    return subprocess.run(["sh", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["intervals", "list", "a", "b"], "seeknal intervals list"),
        (["intervals", "pending", "load"], "seeknal intervals pending"),
        (["intervals", "lst"], "seeknal intervals"),
        (["state", "list", "--limit", "x"], "seeknal state list"),
        (["--nope"], "seeknal"),
    ],
)
def test_wrong_usage_is_told_which_help_to_read(filled, capsys, arguments, command):
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[1] == f"hint: See `{command} --help`."


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["state", "list", "--status", "sucess"], 2, "success"),
        (["state", "list", "--limit", "-1"], 2, "--limit"),
        (["state", "list", "--backend", "fiel"], 2, "file"),
        (["state", "list", "-p", "nowhere"], 2, "seeknal init"),
        (["state", "show", "a\tb"], 2, "control"),
        (["state", "show", "run_9"], 1, "state list"),
        (["state", "show", "run_1", "x"], 1, "state show"),
        (["state", "unlock", "run_1", "--reason", " "], 2, "reason"),
        (["state", "cleanup"], 2, "--days"),
        (["state", "rollback"], 1, "no migration"),
        (["migrate-state", "--backend", "file"], 2, "already"),
        (["nothing"], 2, "nothing"),
    ],
)
def test_wrong_input_is_two_lines(filled, capsys, arguments, code, said):
    assert main(arguments) == code
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert said in err


def test_a_corrupt_store(project, capsys):
    (project / "target").mkdir()
    (project / "target" / "run_state.json").write_text("{ not json")
    assert main(["state", "list"]) == 5
    assert "run_state.json" in capsys.readouterr().err


def test_a_file_in_place_of_the_directory(project, capsys):
    (project / "target").write_text("")
    assert main(["state", "list"]) == 4
    assert "target" in capsys.readouterr().err


def test_locks(filled, capsys):
    with open_state_backend(filled) as store:
        store.acquire_lock("run_1", "n")
        assert main(["state", "locks", "--output", "json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["pid"] == os.getpid()
        assert main(["migrate-state", "--backend", "file", "--database-url", "x"]) == 2
        assert main(["state", "unlock", "run_1", "n", "--reason", "gone"]) == 0
        assert store.list_locks() == []


def test_cleanup_does_not_ask_without_a_terminal(filled, capsys):
    assert main(["state", "cleanup", "--days", "0", "--dry-run"]) == 0
    assert "run_1" in capsys.readouterr().out
    assert main(["state", "cleanup", "--days", "0"]) == 0
    assert main(["state", "list", "--output", "jsonl"]) == 0
    assert "run_1" not in capsys.readouterr().out.splitlines()[-1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    class Elsewhere(FileStateBackend):
        def __init__(self):
            super().__init__(tmp_path / "elsewhere")

    monkeypatch.setattr(StateBackendFactory, "_registered", {"elsewhere": Elsewhere})
    return Elsewhere


def test_migrate_and_go_back(filled, elsewhere, capsys):
    before = (filled / "seeknal_project.yml").read_text()
    assert main(["migrate-state", "--backend", "elsewhere"]) == 0
    assert not (filled / "elsewhere").exists()
    assert main(["migrate-state", "--backend", "elsewhere", "--no-dry-run", "--output", "json"]) == 0
    assert (filled / "seeknal_project.yml").read_text() == "name: p # mine\nstate_backend: elsewhere\n"
    assert (filled / "target" / "run_state.json.bak").exists()
    assert main(["state", "rollback"]) == 0
    with create_state_backend("elsewhere") as store:
        store.initialize()
        store.create_run("since")
    capsys.readouterr()
    assert main(["state", "rollback", "--no-dry-run"]) == 1
    assert "since" in capsys.readouterr().err
    assert main(["state", "rollback", "--no-dry-run", "--discard"]) == 0
    assert (filled / "seeknal_project.yml").read_text() == before
    with open_state_backend(filled) as store:
        store.create_run("goes on")


def test_a_held_lock_stops_a_migration(filled, elsewhere):
    with open_state_backend(filled) as store:
        store.acquire_lock("run_1")
        assert main(["migrate-state", "--backend", "elsewhere", "--no-dry-run"]) == 3


def test_a_migration_that_was_killed_in_the_middle_is_undone(filled, elsewhere, monkeypatch):
    monkeypatch.setattr("seeknal.cli.migrate._point_project_at", lambda *_: None)
    assert main(["migrate-state", "--backend", "elsewhere", "--no-dry-run"]) == 0
    with open_state_backend(filled) as store, pytest.raises(SupersededError):
        store.create_run("refused")
    assert main(["state", "rollback"]) == 0
    with open_state_backend(filled) as store, pytest.raises(SupersededError):
        store.create_run("still refused")
    assert main(["state", "rollback", "--no-dry-run"]) == 0
    with open_state_backend(filled) as store:
        store.create_run("goes on")
