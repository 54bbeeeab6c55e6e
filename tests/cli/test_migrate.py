"""``seeknal migrate-state`` and ``seeknal state rollback``, as they are used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from seeknal.cli.app import main
from seeknal.errors import MoveInProgressError, SupersededError
from seeknal.state.backend import create_state_backend, open_state_backend
from seeknal.state.migration.ends import KEY
from seeknal.state.store_info import filling_mark, moving_mark
from seeknal.state.transfer import digest_of

NOT_OURS = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN")


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p # mine\n")
    with open_state_backend() as store:
        store.create_run("r1", metadata={"ü": [1, None]})
        for node in ("a", "b", "c"):
            store.set_node_state("r1", node, status="success", row_count=5)
        store.update_run("r1", status="success")
    return tmp_path


def said(capsys):
    return json.loads(capsys.readouterr().out)


def tree(folder):
    """Return what is on the disk, byte for byte, with the times of the files."""
    return {
        path.relative_to(folder): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_preview_tells_the_size_and_the_time_and_touches_nothing(project, capsys):
    before = tree(project)
    assert main(["migrate-state", "--backend", "database", "--output", "json"]) == 0
    plan = said(capsys)
    assert tree(project) == before
    none = dict.fromkeys(("intervals", "partitions", "provenance", "expected"), 0)
    assert plan["counts"] == {"runs": 1, "node_states": 3, **none}
    assert plan["bytes"] > 500
    assert plan["estimated_seconds"] > 0
    assert plan["refused"] == []
    assert plan["dry_run"] is True
    assert main(["migrate-state", "--backend", "database"]) == 0
    printed = capsys.readouterr()
    assert "estimate     less than a second" in printed.out
    assert all(len(line) <= 80 for line in printed.out.splitlines())


def test_a_move_says_that_it_moved_and_how_to_undo_it_and_not_once_more_what_the_preview_said(project, capsys):
    assert main(["migrate-state", "--backend", "database", "-p", str(project), "--no-dry-run"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["from", "to", "sha256"]
    moved, undo = err.splitlines()[-2:]
    assert re.fullmatch(r"moved: 4 records \(.+\), copied and compared; the project names the new store", moved)
    command = re.fullmatch(r"to undo it: `seeknal (.+)` shows what that would do", undo)[1]
    assert main([*shlex.split(command), "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert type(store).__name__ == "FileStateBackend"


def test_a_preview_looks_into_a_target_that_is_there_and_touches_nothing(project, capsys):
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    assert main(["state", "rollback", "--no-dry-run"]) == 0
    before = tree(project)
    assert main(["migrate-state", "--backend", "database"]) == 0
    assert tree(project) == before
    with open_state_backend(backend="database") as store:
        store.write_successor("another", None)
    capsys.readouterr()
    assert main(["migrate-state", "--backend", "database", "--output", "json"]) == 1
    assert said(capsys)["refused"] == ["the target already holds another state"]


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "libsql"])
def test_a_preview_looks_into_a_server_and_the_move_goes_where_the_option_says(project, shared_store, kind, capsys):
    place = shared_store(kind)
    options = dict(place.options)
    url, schema = options.pop("url"), options.pop("schema")
    assert options == {}
    there = ["--backend", "database", "--database-url", url, "--option", f"schema={schema}"]
    assert main(["migrate-state", *there]) == 0
    assert place.server.tables(schema) == []
    assert main(["migrate-state", *there, "--no-dry-run"]) == 0
    assert (project / "seeknal_project.yml").read_text() == (
        f"name: p # mine\nstate_backend: database\ndatabase_url: {url}\nstate_options:\n  schema: {schema}\n"
    )
    with open_state_backend() as store:
        assert store.get_node_state("r1", "b").row_count == 5
        assert store.run_transaction(lambda: store.set_node_state("r1", "b", row_count=6)).row_count == 6
    capsys.readouterr()
    assert main(["state", "rollback", "--output", "json"]) == 0
    assert said(capsys)["discarded"] == ["r1"]
    assert main(["state", "rollback", "--no-dry-run", "--discard"]) == 0
    assert (project / "seeknal_project.yml").read_text() == "name: p # mine\n"


def test_options_of_the_old_store_are_not_taken_over(project):
    (project / "seeknal_project.yml").write_text("name: p\nstate_options:\n  busy_timeout_ms: 1000 # short\n")
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    assert "state_options" not in (project / "seeknal_project.yml").read_text()
    assert main(["state", "rollback", "--no-dry-run"]) == 0
    assert "busy_timeout_ms: 1000" in (project / "seeknal_project.yml").read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("schema", "is not KEY=VALUE"),
        ("=ops", "is not KEY=VALUE"),
        ("token=abc", "would show a secret"),
        ("shema=ops", "Did you mean schema?"),
    ],
)
def test_an_option_that_cannot_be_is_refused(project, capsys, given, told):
    before = tree(project)
    assert main(["migrate-state", "--backend", "database", "--option", given]) == 2
    assert told in capsys.readouterr().err
    assert tree(project) == before


def test_a_url_that_names_a_variable_is_read_from_it_and_written_by_its_name(project, monkeypatch, capsys):
    there = ["migrate-state", "--backend", "database", "--database-url", "${PLACE}", "--no-dry-run"]
    assert main(there) == 2
    assert "--database-url uses ${PLACE}, but PLACE is not set" in capsys.readouterr().err
    monkeypatch.setenv("PLACE", "sqlite:///ops.db")
    assert main(there) == 0
    assert (project / "ops.db").exists()
    assert "database_url: ${PLACE}\n" in (project / "seeknal_project.yml").read_text()
    with open_state_backend() as store:
        assert store.list_runs() == ["r1"]


def test_migrations_are_gone_back_from_one_by_one(project, capsys):
    texts = [(project / "seeknal_project.yml").read_text()]
    for where in ("sqlite:///one.db", "sqlite:///two.db"):
        assert main(["migrate-state", "--backend", "database", "--database-url", where, "--no-dry-run"]) == 0
        texts.append((project / "seeknal_project.yml").read_text())
    for text in reversed(texts[:-1]):
        assert main(["state", "rollback", "--no-dry-run"]) == 0
        assert (project / "seeknal_project.yml").read_text() == text
        with open_state_backend() as store:
            assert store.acquire_lock("it takes writes")
    capsys.readouterr()
    assert main(["state", "rollback"]) == 1
    assert "there is no migration to go back from" in capsys.readouterr().err


def kill_in_the_middle(source, target):
    """Leave two stores as a migration leaves them that was killed while it copied."""
    store_id = source.read_store().store_id
    source.write_successor(store_id, moving_mark("there", "since then, by process 1"))
    target.write_successor(store_id, filling_mark("here", "since then, by process 1"))


def test_after_a_kill_writers_are_told_and_the_same_command_or_a_rollback_ends_it(project, capsys):
    with open_state_backend() as ours, open_state_backend(backend="database") as theirs:
        kill_in_the_middle(ours, theirs)
    with open_state_backend() as store, pytest.raises(MoveInProgressError, match="being moved to there"):
        store.create_run("refused")
    capsys.readouterr()
    assert main(["state", "unlock", "r1"]) == 0
    assert main(["state", "doctor"]) == 1
    assert "migration-unfinished" in capsys.readouterr().out
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        store.create_run("goes on")
    with open_state_backend(backend="file") as store, pytest.raises(SupersededError):
        store.create_run("refused")


def test_a_killed_migration_is_undone_by_a_rollback(project, monkeypatch, capsys):
    with open_state_backend() as store:
        before = digest_of(store)
    monkeypatch.setattr("seeknal.state.migration.moving.put_back", lambda *_: None)
    monkeypatch.setattr("seeknal.state.migration.record.keep_record", lambda *_: None)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seeknal.state.migration.moving.Ledger.add_store", killed)
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(project)
    with open_state_backend() as store, pytest.raises(MoveInProgressError):
        store.create_run("refused")
    assert main(["state", "rollback"]) == 0
    with open_state_backend() as store, pytest.raises(MoveInProgressError):
        store.create_run("still refused")
    assert main(["state", "rollback", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert digest_of(store) == before
        store.create_run("goes on")
    assert not (project / "target" / "migration.json").exists()
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0


def test_a_move_that_goes_on_is_not_disturbed(project, capsys):
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from seeknal.state.backend import open_state_backend\n"
            "with open_state_backend() as store, store.lock(sys.argv[1]):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n",
            KEY,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert child.stdout.readline() == b"held\n"
    try:
        assert main(["migrate-state", "--backend", "database"]) == 3
        assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 3
        assert f"process {child.pid}" in capsys.readouterr().err
    finally:
        child.kill()
        child.communicate()
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0


def test_a_project_is_merged_into_another_store(project, tmp_path, capsys):
    with create_state_backend("database", db_path=tmp_path / "shared.db") as shared:
        shared.initialize()
        shared.create_run("theirs")
        shared.set_node_state("theirs", "x", status="success")
    there = ["--backend", "database", "--database-url", "sqlite:///shared.db"]
    assert main(["migrate-state", *there]) == 1
    assert "already holds another state" in capsys.readouterr().out
    assert main(["migrate-state", *there, "--no-dry-run"]) == 1
    assert main(["migrate-state", *there, "--merge"]) == 0
    assert main(["migrate-state", *there, "--merge", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert store.list_runs() == ["theirs", "r1"]
    assert main(["state", "rollback", "--no-dry-run"]) == 0
    assert "stay in database shared.db too" in capsys.readouterr().err
    with open_state_backend() as store:
        assert store.list_runs() == ["r1"]
        store.create_run("goes on")


def test_an_error_names_what_to_do_and_leaves_the_record_of_the_migration_before(project, capsys):
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    capsys.readouterr()
    kept = (project / "target" / "migration.json").read_bytes()
    (project / "taken").write_text("a file")
    assert main(["migrate-state", "--backend", "file", "--option", "base_path=taken", "--no-dry-run"]) == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
    assert (project / "target" / "migration.json").read_bytes() == kept
    with open_state_backend() as store:
        store.create_run("goes on")
