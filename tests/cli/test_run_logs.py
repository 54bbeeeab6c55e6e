"""`seeknal state show RUN NODE --log`, as a shell and its user see it."""

from __future__ import annotations

import json

import pytest

from seeknal.cli.app import main
from seeknal.runner.capture import log_file
from seeknal.state.backend import open_state_backend

NODES = {
    "loud": "printf 'one\\ttwo\\033[2J\\n\\377\\n'",
    "silent": "true",
}


@pytest.fixture
def run_id(tmp_path, monkeypatch, capsys):
    """Run a node that says something and one that does not, and one that has no log; return the run."""
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal_project.yml").write_text("name: shop\n")
    for name, command in NODES.items():
        text = f"kind: command\nname: {name}\ncommand: {json.dumps(command)}\n"
        (tmp_path / "seeknal" / f"{name}.yml").write_text(text)
    (tmp_path / "seeknal" / "one.yml").write_text("kind: transform\nname: one\ntransform: SELECT 1 AS one\n")
    assert main(["run", "--quiet"]) == 0
    capsys.readouterr()
    with open_state_backend() as store:
        return store.list_runs()[0]


def test_what_a_node_said_is_printed_safely(run_id, capsys):
    assert main(["state", "show", run_id, "command.loud", "--log"]) == 0
    assert capsys.readouterr().out == "one     two\\x1b[2J\n\ufffd\n"
    assert main(["state", "show", run_id, "command.silent", "--log"]) == 0
    assert capsys.readouterr().out == ""


def test_json_has_the_text_as_it_is(run_id, capsys):
    assert main(["state", "show", run_id, "command.loud", "--log", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run_id": run_id,
        "node_id": "command.loud",
        "log": log_file(run_id, "command.loud"),
        "text": "one\ttwo\x1b[2J\n\ufffd\n",
    }


def test_a_log_that_is_not_there_is_told_from_one_that_never_was(run_id, tmp_path, capsys):
    (tmp_path / log_file(run_id, "command.loud")).unlink()
    assert main(["state", "show", run_id, "command.loud", "--log"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: the log {log_file(run_id, 'command.loud')} is not in the project"
    assert hint == "hint: It is on the machine of the run, or was deleted."
    assert main(["state", "show", run_id, "transform.one", "--log"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: transform.one has no log in run {run_id}"


def test_a_state_cannot_name_another_file_for_its_log(run_id, tmp_path, capsys):
    (tmp_path / "secret").write_text("secret")
    with open_state_backend() as store:
        store.set_node_state(run_id, "command.loud", metadata={"log": "secret"})
    assert main(["state", "show", run_id, "command.loud", "--log"]) == 0
    assert "secret" not in capsys.readouterr().out


def test_a_log_needs_a_node(run_id, capsys):
    assert main(["state", "show", run_id, "--log"]) == 2
    assert "seeknal state show RUN NODE --log" in capsys.readouterr().err
