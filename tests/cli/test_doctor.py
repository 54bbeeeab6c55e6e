"""``seeknal state doctor``: what it prints, what it changes, and its exit codes."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import create_state_backend, open_state_backend


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend(tmp_path) as store:
        store.create_run("r", status="success")
    return tmp_path


@pytest.fixture
def lite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: database\n")
    with open_state_backend(tmp_path) as store:
        store.create_run("r", status="success")

    def run(*statements):
        with closing(sqlite3.connect(tmp_path / "target" / "state.db", isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        return rows

    return run


OVERLAP = (
    "INSERT INTO completed_intervals VALUES ('n', 0, 10, 'r')",
    "INSERT INTO completed_intervals VALUES ('n', 5, 20, 'r')",
)


def test_nothing_is_wrong(project, capsys):
    assert main(["state", "doctor"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nothing is wrong" in shown.err
    assert main(["state", "doctor", "--output", "json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_project_without_a_store_is_left_without_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    assert main(["state", "doctor"]) == 0
    assert "store-missing" in capsys.readouterr().out
    assert not (tmp_path / "target").exists()


def test_warnings_alone_are_no_failure(project, capsys):
    path = next(each for each in (project / "target").glob("*") if each.name in ("run_state.json", "state.db"))
    os.chmod(path, 0o644)
    assert main(["state", "doctor"]) == 0
    assert "warning  file-mode (can be mended)" in capsys.readouterr().out
    assert main(["state", "doctor", "--fix", "--no-dry-run"]) == 0
    assert path.stat().st_mode & 0o077 == 0


def test_errors_are_mended_after_they_were_listed(lite, capsys):
    lite(*OVERLAP)
    assert main(["state", "doctor"]) == 1
    shown = capsys.readouterr()
    assert all(len(line) <= 80 for line in shown.out.splitlines() if "/" not in line)
    assert "error    intervals-overlap (can be mended)" in shown.out
    assert "--fix" in shown.err
    assert main(["state", "doctor", "--fix"]) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert len(lite("SELECT * FROM completed_intervals")) == 2
    assert main(["state", "doctor", "--fix", "--no-dry-run", "--output", "jsonl"]) == 0
    shown = capsys.readouterr()
    (record,) = map(json.loads, shown.out.splitlines())
    assert (record["check"], record["is_fixable"], record["is_mended"]) == ("intervals-overlap", True, True)
    assert "mending intervals-overlap" in shown.err
    assert lite("SELECT start_us, end_us FROM completed_intervals") == [(0, 20)]
    assert main(["state", "doctor"]) == 0


def test_what_is_left_after_mending_is_told(lite, capsys):
    lite(*OVERLAP, "UPDATE runs SET version = 0")
    assert main(["state", "doctor", "--fix", "--no-dry-run"]) == 1
    out = capsys.readouterr().out
    assert "mended   intervals-overlap" in out
    assert "error    record-number\n" in out


def test_what_cannot_be_mended_is_told(project, capsys, monkeypatch):
    path = next(each for each in (project / "target").glob("*") if each.name in ("run_state.json", "state.db"))
    os.chmod(path, 0o644)
    monkeypatch.setattr("pathlib.Path.chmod", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not yours")))
    assert main(["state", "doctor", "--fix", "--no-dry-run"]) == 1
    assert "could not mend file-mode" in capsys.readouterr().err


def test_records_as_json(lite, capsys):
    lite("UPDATE runs SET version = 0")
    assert main(["state", "doctor", "--output", "json"]) == 1
    (record,) = json.loads(capsys.readouterr().out)
    assert list(record) == ["check", "severity", "what", "where", "fix", "is_fixable", "is_mended"]
    assert record["severity"] == "error"


def test_a_store_that_no_other_command_opens(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    with open_state_backend(tmp_path) as store:
        store.create_run("r", status="success")
    (journal,) = (tmp_path / "target" / "run_state").glob("journal-*")
    journal.write_bytes(journal.read_bytes().replace(b"success", b"failure"))
    os.chmod(journal, 0o644)
    assert main(["state", "list"]) == 5
    capsys.readouterr()
    assert main(["state", "doctor"]) == 5
    out = capsys.readouterr().out
    assert "store-damaged" in out
    assert "file-mode" in out


def test_a_damaged_document_is_damage_for_the_doctor_as_for_the_commands_that_read_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    with create_state_backend("file", base_path=tmp_path / "target", checkpoint_bytes=1) as store:
        store.initialize()
        store.create_run("r", status="success", metadata={"note": "long enough for a checkpoint" * 1000})
    path = tmp_path / "target" / "run_state" / "runs" / "r.json"
    path.write_bytes(path.read_bytes().replace(b"success", b"failure"))
    assert main(["state", "export", "a.jsonl"]) == 5
    assert main(["state", "doctor", "--output", "json"]) == 5
    assert '"document-damaged"' in capsys.readouterr().out


def test_a_server_that_is_not_there(lite, capsys):
    url = "postgresql://u:secret@127.0.0.1:1/x"
    assert main(["state", "doctor", "--backend", "database", "--database-url", url]) == 4
    shown = capsys.readouterr()
    assert "store-unreachable" in shown.out
    assert "secret" not in shown.out + shown.err


def test_a_newer_store(lite, capsys):
    lite("UPDATE store SET schema_version = 99")
    assert main(["state", "doctor"]) == 1
    assert "schema-newer" in capsys.readouterr().out


def test_a_superseded_store(project, capsys):
    with open_state_backend(project) as store:
        store.write_successor(store.read_store().store_id, "elsewhere")
    assert main(["state", "doctor"]) == 1
    assert "store-superseded" in capsys.readouterr().out


def test_no_dry_run_of_nothing_is_wrong_usage(project, capsys):
    assert main(["state", "doctor", "--no-dry-run"]) == 2
    assert "--fix" in capsys.readouterr().err


def test_names_that_would_play_with_a_terminal_are_shown_as_text(lite, capsys):
    lite("UPDATE runs SET version = 0, run_id = 'r' || char(27) || '[31m'")
    assert main(["state", "doctor"]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_registered_backend_of_somebody_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: memory\n")
    assert main(["state", "doctor"]) == 0
    assert create_state_backend("memory").peek_store() is None
