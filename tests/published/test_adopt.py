"""The commands on a project of the published platform: what the guide writes, and ``seeknal state adopt``."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.published.build import HERE, database, document, folder, write

from seeknal.cli.app import main
from seeknal.state.backend import create_state_backend, open_state_backend

FIRST, SECOND = "20260301_060005", "20260302_060005"
PROJECT = "name: ecommerce-pipeline\nversion: 1.0.0\nprofile: default\nconfig-version: 1\nstate_backend: file\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project as the platform makes and leaves it."""
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(PROJECT)
    shutil.copytree(HERE / "schema_2", tmp_path / "target")
    return tmp_path


def files(project):
    return {path.relative_to(project): path.read_bytes() for path in sorted(project.rglob("*")) if path.is_file()}


def second():
    return document("schema_2/run_state.json")


def first():
    return document("schema_2/run_state.json.bak.20260302_060005")


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_the_blocks_of_the_guide_work_word_for_word(project):
    guide = """
    cp target/run_state.json target/run_state.json.pre-migration.bak
    seeknal migrate-state --backend database
    seeknal migrate-state --backend database --no-dry-run
    ls -la target/*.bak
    seeknal state list
    """
    before = files(project)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TZ": "UTC", "LANG": "C.UTF-8"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", guide], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "run_state.json.bak" in done.stdout
    assert "this is the state of the published platform" in done.stderr
    with open_state_backend() as store:
        assert type(store).__name__ == "DatabaseStateBackend"
        assert store.list_runs() == [FIRST, SECOND]
        assert store.get_node_state(SECOND, "transform.订单_按日").row_count == 5000
    assert (
        "profile: default\nconfig-version: 1\nstate_backend: database\n"
        in (project / "seeknal_project.yml").read_text()
    )
    after = files(project)
    assert after[Path("target/run_state.json.published")] == before[Path("target/run_state.json")]
    assert after[Path(f"target/run_state.json.bak.{SECOND}")] == before[Path(f"target/run_state.json.bak.{SECOND}")]

    shutil.copy("target/run_state.json.bak", "target/run_state.json")
    with open_state_backend(backend="file") as store:
        assert store.list_runs() == [FIRST, SECOND]
        store.create_run("writable again")


def test_a_preview_of_a_migration_says_what_it_is_and_changes_nothing(project, capsys):
    before = files(project)
    assert main(["migrate-state", "--backend", "database", "--output", "json"]) == 0
    shown = told(capsys)
    assert files(project) == before
    assert [form["what"] for form in shown["found"]] == ["the latest run, schema 2.0", "a backup, schema 2.0"]
    counts = {"runs": 2, "node_states": 20, "intervals": 3, "partitions": 2}
    assert shown["counts"] == {**counts, "provenance": 0, "expected": 0}
    assert main(["migrate-state", "--backend", "database", "--no-dry-run", "--output", "json"]) == 0
    assert told(capsys)["counts"] == shown["counts"]


def test_a_migration_looks_at_its_target_before_it_takes_the_state_of_the_platform_in(project, capsys):
    with create_state_backend("database", db_path=project / "there.db") as store:
        store.initialize()
        store.create_run("theirs")
    there = ["migrate-state", "--backend", "database", "--database-url", "sqlite:///there.db"]
    before = files(project)
    assert main([*there, "--output", "json"]) == 1
    shown = told(capsys)
    assert shown["refused"] == ["the target already holds another state"]
    assert shown["bytes"] > 1000
    assert main([*there, "--no-dry-run"]) == 1
    assert "already holds another state" in capsys.readouterr().err
    away = ["migrate-state", "--backend", "database", "--database-url", "libsql://127.0.0.1:9?tls=0"]
    for told_to in ([], ["--no-dry-run"]):
        assert main([*away, *told_to]) == 4
    assert files(project) == before


def test_a_database_in_the_way_is_taken_in_and_set_aside(project, capsys):
    path = database(project / "target" / "state.db", first(), second())
    original, before = path.read_bytes(), files(project)
    assert main(["migrate-state", "--backend", "database"]) == 0
    assert "state.db as state.db.published" in capsys.readouterr().out
    assert files(project) == before
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 0
    assert (project / "target" / "state.db.published").read_bytes() == original
    with open_state_backend() as store:
        assert store.list_runs() == [FIRST, SECOND]


def test_a_database_with_other_runs_is_not_set_aside(project, capsys):
    with open_state_backend() as store:
        store.create_run("ours")
    path = database(project / "target" / "state.db", second() | {"run_id": "elsewhere"})
    before = path.read_bytes()
    for told_to in ([], ["--no-dry-run"]):
        assert main(["migrate-state", "--backend", "database", *told_to]) == 1
        assert "state adopt" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_migration_that_fails_puts_the_database_back(project, monkeypatch):
    path = database(project / "target" / "state.db", first(), second())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("seeknal.cli.migrate._point_project_at", fail)
    assert main(["migrate-state", "--backend", "database", "--no-dry-run"]) == 1
    assert path.read_bytes() == before
    assert not list(path.parent.glob("state.db?*"))
    with open_state_backend() as store:
        assert store.list_runs() == [FIRST, SECOND]
        store.create_run("still writable")


def test_opening_the_database_of_the_platform_names_it_and_changes_nothing(project, capsys):
    path = database(project / "target" / "state.db", second())
    before = path.read_bytes()
    assert main(["state", "list", "--backend", "database"]) == 5
    message = capsys.readouterr().err
    assert "published Seeknal platform" in message
    assert "seeknal state adopt" in message
    assert path.read_bytes() == before
    assert not list(path.parent.glob("state.db-*"))


@pytest.mark.parametrize("backend", ["file", "database"])
def test_adopt_previews_and_takes_everything_in(project, capsys, backend):
    folder(project / "target", first())
    path = database(project / "target" / "state.db", second())
    original, before = path.read_bytes(), files(project)
    assert main(["state", "adopt", "--backend", backend, "--output", "json"]) == 0
    shown = told(capsys)
    assert files(project) == before
    assert [form["path"] for form in shown["found"]] == [
        "run_state.json",
        f"run_state.json.bak.{SECOND}",
        FIRST,
        "state.db",
    ]
    assert main(["state", "adopt", "--backend", backend, "--no-dry-run", "--output", "json"]) == 0
    done = told(capsys)
    assert (done["counts"], done["added"]) == (shown["counts"], [FIRST, SECOND])
    with open_state_backend(backend=backend) as store:
        assert store.list_runs() == [FIRST, SECOND]
        assert len(store.get_all_node_states(SECOND)) == 10
        assert [each.run_id for each in store.list_partitions("source.orders")] == [SECOND, SECOND]
        assert [(change.action, change.detail["runs"]) for change in store.list_changes()] == [("adopt", 2)]
    kept = path if backend == "file" else path.with_name("state.db.published")
    assert kept.read_bytes() == original
    assert main(["state", "show", SECOND, "source.orders", "--backend", backend]) == 0
    assert "atlas.ecommerce.orders" in capsys.readouterr().out


def test_adopting_again_adds_what_is_new_and_leaves_the_rest(project, capsys):
    assert main(["state", "adopt", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        from datetime import UTC, datetime

        store.restate_intervals("source.orders", datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    third = second() | {"run_id": "20260303_060005", "last_run": "2026-03-03T06:00:05"}
    for node in third["nodes"].values():
        node["completed_intervals"] = []
    folder(project / "target" / "envs" / "dev", third)
    capsys.readouterr()
    assert main(["state", "adopt", "target/envs/dev", "--no-dry-run", "--output", "json"]) == 0
    assert told(capsys)["added"] == ["20260303_060005"]
    assert main(["state", "adopt", "target/envs/dev", "--no-dry-run", "--output", "json"]) == 0
    assert told(capsys)["added"] == []
    with open_state_backend() as store:
        assert store.list_runs() == [FIRST, SECOND, "20260303_060005"]
        assert store.get_completed_intervals("source.orders") == []


def test_old_runs_are_not_put_behind_newer_ones(project, capsys):
    with create_state_backend("database", db_path="other.db") as store:
        store.initialize()
        store.create_run("today")
    given = ["--database-url", "sqlite:///other.db", "--no-dry-run"]
    assert main(["state", "adopt", *given]) == 1
    assert "an empty store" in capsys.readouterr().err
    with open_state_backend(database_url="sqlite:///other.db") as store:
        assert store.list_runs() == ["today"]


def test_a_database_of_another_name_is_found_where_the_project_says(project, capsys):
    database(project / "runs.db", first())
    shutil.rmtree(project / "target")
    assert main(["state", "adopt", "--database-url", "sqlite:///runs.db", "--no-dry-run"]) == 0
    with open_state_backend(database_url="sqlite:///runs.db") as store:
        assert store.list_runs() == [FIRST]
    assert (project / "runs.db.published").exists()


def test_import_takes_a_directory_of_the_platform_in(project, capsys):
    (project / "target").rename(project / "platform")
    before = files(project)
    assert main(["state", "import", "platform", "--dry-run", "--backend", "database"]) == 0
    assert files(project) == before
    assert main(["state", "import", "platform", "--backend", "database"]) == 0
    assert main(["state", "list", "--backend", "database", "--output", "json"]) == 0
    assert "20260302_060005" in capsys.readouterr().out
    assert {path: held for path, held in files(project).items() if path in before} == before


def test_a_file_store_of_ours_is_not_taken_for_the_platforms(project, capsys):
    (project / "ours").mkdir()
    (project / "ours" / "seeknal_project.yml").write_text("name: ours\n")
    for run in ("first", "second"):
        with open_state_backend("ours") as store:
            store.create_run(run)
    assert main(["state", "import", "ours/target", "--backend", "database"]) == 1
    assert "only the latest run" in capsys.readouterr().err
    assert not (project / "target" / "state.db").exists()


def test_adopt_says_where_it_found_nothing(project, capsys):
    (project / "empty").mkdir()
    assert main(["state", "adopt", "empty"]) == 1
    assert "holds no state of the published platform" in capsys.readouterr().err
    assert main(["state", "adopt", "nowhere"]) == 2


def test_a_damaged_file_stops_both_commands_before_anything_is_made(project, capsys):
    path = project / "target" / "run_state.json"
    path.write_bytes(path.read_bytes()[:-100])
    before = files(project)
    for command in (["state", "adopt", "--no-dry-run"], ["migrate-state", "--backend", "database", "--no-dry-run"]):
        assert main(command) == 5
        assert "run_state.json" in capsys.readouterr().err
    made = {path for path in files(project) if path not in before and path.parts[1] != "run_state"}
    assert made == set()
    assert files(project)[Path("target/run_state.json")] == before[Path("target/run_state.json")]


def test_a_database_that_is_written_to_keeps_its_log(project):
    """SQLite may hold commits in a log beside; it goes along under the new name."""
    path = database(project / "target" / "state.db", first())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(path)) as reader, closing(sqlite3.connect(path)) as writer:
        reader.execute("SELECT count(*) FROM run_state").fetchone()
        writer.execute("UPDATE run_state SET seeknal_version = 'in the log'")
        writer.commit()
        (project / "seeknal_project.yml").write_text(PROJECT.replace("backend: file", "backend: database"))
        write(project / "target" / "run_state.json", first())
        assert main(["state", "adopt", "--no-dry-run"]) == 0
    with open_state_backend() as store:
        assert store.get_run(FIRST) is not None
    with closing(sqlite3.connect(project / "target" / "state.db.published")) as kept:
        assert kept.execute("SELECT seeknal_version FROM run_state").fetchone() == ("in the log",)
