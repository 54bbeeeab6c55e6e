"""``seeknal state schema``, on SQLite and on every server."""

from __future__ import annotations

import json

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import create_state_backend


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def write(url: str, schema: str) -> None:
        text = f"name: p\nstate_backend: database\ndatabase_url: {url}\nstate_options:\n  schema: {schema}\n"
        (tmp_path / "seeknal_project.yml").write_text(text)

    return write


def asked(capsys) -> dict:
    main(["state", "schema", "--output", "json"])
    return json.loads(capsys.readouterr().out)


def test_a_database_without_a_store_is_told_and_left_alone(project, server_store, capsys):
    project(server_store.url, server_store.schema)
    assert main(["state", "schema"]) == 1
    shown = capsys.readouterr()
    assert "no store" in shown.out
    assert "--sql" in shown.err
    assert server_store.tables() == []


def test_what_it_prints_makes_a_store_that_every_command_takes(project, server_store, capsys):
    project(server_store.url, server_store.schema)
    assert main(["state", "schema", "--sql"]) == 0
    printed = capsys.readouterr().out
    statements = [each.strip() for each in printed.split(";") if each.strip() not in ("", "BEGIN", "COMMIT")]
    server_store.run(*statements)
    found = asked(capsys)
    assert (found["found"], found["missing_rights"]) == (found["wanted"], [])
    assert main(["state", "schema", "--quiet"]) == 0
    with create_state_backend("database", **server_store.options) as backend:
        backend.initialize()
        backend.create_run("r")
    capsys.readouterr()
    assert main(["state", "list"]) == 0
    assert "r  " in capsys.readouterr().out


def test_a_store_in_a_file_has_a_schema_too(project, tmp_path, capsys):
    project("sqlite:///s.db", "mine")
    assert asked(capsys)["found"] == 0
    assert not (tmp_path / "s.db").exists()
    assert main(["state", "list"]) == 0
    capsys.readouterr()
    found = asked(capsys)
    assert found["found"] == found["wanted"]
    assert main(["state", "schema", "--sql"]) == 0
    assert "CREATE TABLE IF NOT EXISTS mine_runs" in capsys.readouterr().out


def test_a_file_store_has_none(project, capsys):
    assert main(["init"]) == 0
    assert main(["state", "schema"]) == 2
    assert "no schema" in capsys.readouterr().err
