"""The guide's migration, to a database and back, by the commands."""

from __future__ import annotations

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend

pytest.importorskip("seeknal.state.sql.backend")


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    return tmp_path


def test_there_and_back_and_there(project, capsys):
    with open_state_backend() as store:
        store.create_run("r")
        before = store.set_node_state("r", "n", status="success", fingerprint="f", metadata={"ü": [1, None]})
    assert main(["migrate-state", "--backend", "database"]) == 0
    assert not (project / "target" / "state.db").exists()
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert type(store).__name__ == "DatabaseStateBackend"
        assert store.get_node_state("r", "n") == before
    assert main(["state", "rollback", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        store.create_run("after")
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert store.list_runs() == ["r", "after"]


def test_garbage_is_not_a_store(project, capsys):
    (project / "g.db").write_bytes(b"garbage" * 1000)
    assert main(["state", "list", "--database-url", "sqlite:///g.db"]) == 5
    assert "g.db" in capsys.readouterr().err
