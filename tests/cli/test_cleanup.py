"""`seeknal state cleanup`, `pin`, `unpin` and `pins`, as a shell and its user see them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from tests.cli.older import make_older, schemas

from seeknal.cli.app import main
from seeknal.errors import BackendUnavailableError
from seeknal.runner.capture import log_file
from seeknal.state import retention
from seeknal.state.backend import open_state_backend
from seeknal.state.file.backend import FileStateBackend
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.sql.backend import DatabaseStateBackend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A store with a run for each reason to go or stay."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        for number, (run_id, status) in enumerate(
            [("old", "failed"), ("older", "success"), ("best", "success"), ("kept", "failed"), ("begun", "running")]
        ):
            store.create_run(run_id)
            store.set_node_state(run_id, "load", status=status)
            if status != "running":
                store.update_run(run_id, status=status, finished_at=LONG_AGO + timedelta(days=number))
        store.create_run("new", status="failed")
        store.set_node_state("new", "load", status="failed")
    assert main(["state", "pin", "kept", "--reason", "audit of March", "--quiet"]) == 0
    return tmp_path


def listed():
    with open_state_backend() as store:
        return store.list_runs()


def held(store, *run_ids):
    return {run_id: (store.get_run(run_id), store.get_all_node_states(run_id)) for run_id in run_ids}


def test_a_preview_says_what_would_go_and_why_the_others_stay(project, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    gone, kept = (part.splitlines() for part in out.split("\n\n"))
    assert gone[0].split() == ["FINISHED_AT", "STATUS", "NODES", "RUN_ID"]
    assert [line.split() for line in gone[1:]] == [
        ["2024-01-01T00:00:00Z", "failed", "1", "old"],
        ["2024-01-02T00:00:00Z", "success", "1", "older"],
    ]
    assert [line.split("  ")[-1].strip() for line in kept[1:]] == [
        "best (load)",
        "kept (audit of March)",
        "begun",
        "new",
    ]
    assert "would delete 2 runs with 2 node states" in err
    assert len(listed()) == 6


def test_json_has_everything_and_stands_alone(project, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30", "--output", "json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["deleted"] == ["old", "older"]
    assert found["runs"][1] == {
        "run_id": "older",
        "status": "success",
        "finished_at": "2024-01-02T00:00:00Z",
        "nodes": 1,
    }
    assert found["kept"] == {
        "best": "newest success: load",
        "kept": "pinned: audit of March",
        "begun": "unfinished",
        "new": "too young",
    }
    assert (found["is_complete"], found["remaining"], found["dry_run"], found["archive"]) == (True, 0, False, None)
    assert listed() == ["best", "kept", "begun", "new"]


def test_both_rules_must_let_a_run_go(project, capsys) -> None:
    def previewed(*rules):
        assert main(["state", "cleanup", *rules, "--dry-run", "--output", "json", "--quiet"]) == 0
        return json.loads(capsys.readouterr().out)["deleted"]

    assert previewed("--days", "30", "--keep-last", "5") == ["old"]
    assert previewed("--keep-last", "5") == ["old"]
    assert previewed("--keep-last", "0") == ["old", "older", "new"]
    assert previewed("--days", "30", "--status", "success") == ["older"]


def test_many_runs_do_not_flood_a_terminal(project, capsys) -> None:
    with open_state_backend() as store, store.transaction():
        for number in range(300):
            store.create_run(f"run {number:03} of {'x' * 100}", status="failed")
    assert main(["state", "cleanup", "--days", "30", "--dry-run"]) == 0
    few = capsys.readouterr().out.splitlines()
    assert main(["state", "cleanup", "--days", "0", "--dry-run"]) == 0
    many = capsys.readouterr().out.splitlines()
    assert len(few) < 10
    assert len(many) < 40
    assert "and 283 more; --all shows each of them" in many
    assert max(map(len, [*few, *many])) <= 80
    assert main(["state", "cleanup", "--days", "30", "--dry-run", "--all"]) == 0
    every = capsys.readouterr().out
    assert f"run 299 of {'x' * 100}" in every


def test_what_is_not_said_rightly_deletes_nothing(project, capsys) -> None:
    for arguments, said in (
        ([], "--keep-last"),
        (["--days", "30", "--status", "running"], "running"),
        (["--days", "-1"], "--days"),
        (["--keep-last", "-1"], "--keep-last"),
        (["--days", "30", "--max-seconds", "-1"], "--max-seconds"),
        (["--days", "30", "--max-seconds", "nan"], "--max-seconds"),
    ):
        assert main(["state", "cleanup", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 2)
        assert said in err
    assert len(listed()) == 6


def test_no_time_is_said_and_is_no_failure(project, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30", "--max-seconds", "0"]) == 0
    assert "the time is up" in capsys.readouterr().err
    assert len(listed()) == 6


def on_a_terminal(answer, *arguments):
    """Run the command on a terminal, answer its question, and return its code and what it said."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*SEEKNAL, *arguments], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
            if said.rstrip().endswith(b"[y/N]:"):
                os.write(ours, answer)
    except OSError:  # the other end is closed
        pass
    out, _ = process.communicate(timeout=50)
    os.close(ours)
    return process.returncode, out.decode(), said.decode()


def test_on_a_terminal_it_shows_and_asks(project) -> None:
    code, out, said = on_a_terminal(b"n\n", "state", "cleanup", "--days", "30")
    assert (code, out.strip()) == (0, "")
    assert "older" in said
    assert "audit of March" in said
    assert "nothing was deleted" in said
    assert len(listed()) == 6
    code, out, said = on_a_terminal(b"y\n", "state", "cleanup", "--days", "30", "--archive", "a.jsonl")
    assert (code, len(listed())) == (0, 4)
    assert "Delete 2 runs?" in said
    assert "older" in out
    code, out, said = on_a_terminal(b"", "state", "cleanup", "--keep-last", "0", "--yes")
    assert (code, len(listed())) == (0, 3)
    assert "[y/N]" not in said


def test_an_archive_holds_what_went_and_can_be_brought_into_an_empty_store(project, capsys) -> None:
    with open_state_backend() as store:
        before = held(store, "old", "older")
    arguments = ["state", "cleanup", "--days", "30", "--archive", "gone.jsonl.gz", "--output", "json", "--quiet"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["archive"] == "gone.jsonl.gz"
    assert listed() == ["best", "kept", "begun", "new"]
    assert (project / "gone.jsonl.gz").stat().st_mode & 0o777 == 0o600
    (project / "copy").mkdir()
    (project / "copy" / "seeknal_project.yml").write_text("name: copy\nstate_backend: database\n")
    assert main(["state", "import", "gone.jsonl.gz", "-p", "copy"]) == 0
    with open_state_backend("copy") as copy, open_state_backend() as store:
        assert {
            run_id: (copy.get_run(run_id), copy.get_all_node_states(run_id)) for run_id in copy.list_runs()
        } == before
        assert copy.read_store().store_id != store.read_store().store_id


def test_a_preview_makes_no_store(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    for backend in ("file", "database"):
        assert main(["state", "cleanup", "--days", "30", "--dry-run", "--backend", backend]) == 1
        assert "there is no state in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["seeknal_project.yml"]


def test_a_preview_does_not_bring_an_older_store_up_to_date(project, capsys) -> None:
    make_older(project)
    assert main(["state", "cleanup", "--days", "30", "--dry-run"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert "has schema 1" in error
    assert "`seeknal state list`" in hint
    assert set(schemas(project)) == {1}
    assert main(["state", "list", "--quiet"]) == 0
    assert main(["state", "cleanup", "--days", "30", "--dry-run"]) == 0


def test_an_archive_is_not_written_to_the_standard_stream(project, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30", "--archive", "-"]) == 2
    assert "standard stream" in capsys.readouterr().err
    assert not (project / "-").exists()
    assert "old" in listed()


def test_a_cleanup_whose_time_is_up_asks_for_another_archive(project, capsys) -> None:
    arguments = ["state", "cleanup", "--days", "30", "--archive", "a.jsonl", "--max-seconds", "0"]
    assert main(arguments) == 0
    assert "name another file for --archive then" in capsys.readouterr().err
    assert main([*arguments[:4], "--archive", "b.jsonl"]) == 0
    assert "another file" not in capsys.readouterr().err


def test_a_cleanup_that_fails_says_what_it_had_deleted(project, capsys, monkeypatch) -> None:
    delete, steps = RecordStateBackend._retire, []

    def retire(store, runs, **named):
        steps.append(1)
        if len(steps) == 2:
            raise BackendUnavailableError("the disk is gone", hint="Try again.")
        return delete(store, runs, **named)

    monkeypatch.setattr(FileStateBackend, "_retire", retire)
    monkeypatch.setattr(DatabaseStateBackend, "_retire", retire)
    monkeypatch.setattr(retention, "MOST_ROWS", 1)
    assert main(["state", "cleanup", "--days", "30", "--quiet"]) == 4
    assert capsys.readouterr().err.splitlines() == [
        "1 runs with 1 node states were deleted before",
        "the change log tells of them",
        "error: the disk is gone",
        "hint: Try again.",
    ]


def test_a_file_that_stands_is_never_replaced_by_an_archive(project, capsys) -> None:
    (project / "a.jsonl").write_text("mine")
    assert main(["state", "cleanup", "--days", "30", "--archive", "a.jsonl"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (project / "a.jsonl").read_text() == "mine"
    assert main(["state", "cleanup", "--days", "30", "--archive", "nowhere/a.jsonl"]) == 1
    assert len(listed()) == 6


def test_where_nothing_goes_no_archive_is_written(project, capsys) -> None:
    assert main(["state", "cleanup", "--days", "9999", "--archive", "a.jsonl"]) == 0
    assert not (project / "a.jsonl").exists()
    assert "archived" not in capsys.readouterr().err


def test_pins_are_listed_and_taken_away(project, capsys) -> None:
    assert main(["state", "pins", "--output", "json"]) == 0
    (pin,) = json.loads(capsys.readouterr().out)
    assert (pin["run_id"], pin["status"], pin["reason"]) == ("kept", "failed", "audit of March")
    assert datetime.fromisoformat(pin["pinned_at"]).utcoffset() == timedelta()
    assert main(["state", "unpin", "kept", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": "kept", "unpinned": True}
    assert main(["state", "unpin", "kept"]) == 0
    assert main(["state", "pins"]) == 0
    assert capsys.readouterr().out == ""
    for command in ("pin", "unpin"):
        assert main(["state", command, "missing"]) == 1
        assert "missing" in capsys.readouterr().err


def test_it_tells_of_its_progress_in_lines(project, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30"]) == 0
    assert "cleaning runs: 6 of 6" in capsys.readouterr().err


# ---- logs ----


@pytest.fixture
def logs(project):
    """Write a log for each of some runs, one of which the store does not know; return the folder of a run's."""

    def folder(run_id):
        return (project / log_file(run_id, "n")).parent

    for run_id in ("old", "older", "best", "of nobody"):
        folder(run_id).mkdir(parents=True)
        (project / log_file(run_id, "n")).write_text("said")
    return folder


def test_the_logs_of_a_run_go_with_it_and_no_others(project, logs, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30", "--output", "json"]) == 0
    out, err = capsys.readouterr()
    assert [project / each for each in json.loads(out)["logs"]] == [logs("old"), logs("older")]
    assert "deleted the logs of 2 of them in target/logs\n" in err
    assert sorted(path.name for path in logs("old").parent.iterdir()) == ["best", "of%20nobody"]


def test_a_preview_says_which_logs_would_go_and_deletes_none(project, logs, capsys) -> None:
    assert main(["state", "cleanup", "--days", "30", "--dry-run", "--output", "json"]) == 0
    out, err = capsys.readouterr()
    assert [project / each for each in json.loads(out)["logs"]] == [logs("old"), logs("older")]
    assert "would delete the logs of 2 of them" in err
    assert logs("old").is_dir()


def test_ids_that_look_like_paths_lead_nowhere_else(project, capsys) -> None:
    outside = project / "target" / "precious"
    outside.mkdir(parents=True)
    (project / "target" / "logs").mkdir()
    with open_state_backend() as store:
        for run_id in ("../precious", "..", "."):
            store.create_run(run_id)
            store.update_run(run_id, status="failed", finished_at=LONG_AGO)
    assert main(["state", "cleanup", "--days", "30", "--output", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"../precious", "..", "."} <= set(found["deleted"])
    assert found["logs"] == []
    assert outside.is_dir()
    assert (project / "target" / "logs").is_dir()


def test_a_link_in_the_place_of_logs_is_left_with_what_it_leads_to(project, logs, capsys) -> None:
    elsewhere = project / "elsewhere"
    logs("old").rename(elsewhere)
    logs("old").symlink_to(elsewhere)
    assert main(["state", "cleanup", "--days", "30"]) == 0
    assert (elsewhere / "n.log").exists()
    assert logs("old").is_symlink()
    assert not logs("older").exists()


def test_logs_that_cannot_be_deleted_are_told(project, logs, capsys, monkeypatch) -> None:
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("seeknal.cli.node_logs.shutil.rmtree", refuse)
    assert main(["state", "cleanup", "--days", "30"]) == 1
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: the runs were deleted, but not the logs of 2 of them: ")
    assert error.endswith("Permission denied")
    assert hint == "hint: Delete them by hand: no run names them any more."
    assert listed() == ["best", "kept", "begun", "new"]


def test_a_cleanup_that_is_cut_short_deletes_the_logs_of_what_it_has_deleted(
    project, logs, capsys, monkeypatch
) -> None:
    with open_state_backend() as store:
        kind = type(store)

    def cut_short(self, **rules):
        self.delete_run("old")
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "cleanup", cut_short)
    assert main(["state", "cleanup", "--days", "30"]) == 130
    assert not logs("old").exists()
    assert logs("older").is_dir()
