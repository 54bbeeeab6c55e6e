"""What people on call do to the command: pipes, signals, exits, prints, and moves back and forth."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from seeknal.state.backend import open_state_backend

SEEKNAL = str(Path(sys.executable).with_name("seeknal"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one Python node and the code of that node to be written."""
    run(tmp_path, "init", "--quiet")
    return tmp_path


def run(project: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SEEKNAL, *arguments], cwd=project, capture_output=True, text=True, check=False, **options)


def python_node(project: Path, body: str) -> None:
    (project / "seeknal" / "node.py").write_text(
        f"from seeknal.pipeline import transform\n\n\n@transform\ndef node(ctx):\n    {body}\n"
    )


def test_what_a_node_prints_does_not_spoil_the_json(project: Path) -> None:
    python_node(project, 'print("HELLO")\n    return [{"x": 1}]')
    done = run(project, "run", "--output", "json")
    state = json.loads(done.stdout)["nodes"]["transform.node"]
    assert state["status"] == "success"
    assert (project / state["metadata"]["log"]).read_text() == "HELLO\n"


def test_a_node_that_exits_is_a_node_that_failed(project: Path) -> None:
    python_node(project, "import sys; sys.exit(3)")
    done = run(project, "run")
    assert done.returncode == 1
    assert "SystemExit" in done.stderr
    assert "failed" in run(project, "state", "show").stdout


def test_a_reader_that_goes_away_does_not_stop_the_run(project: Path) -> None:
    python_node(project, 'return [{"x": 1}]')
    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run([SEEKNAL, "run"], cwd=project, stderr=writing, stdout=subprocess.DEVNULL, check=False)
    os.close(writing)
    assert json.loads(run(project, "state", "show", "--output", "json").stdout)["status"] == "success"


def test_a_run_that_is_terminated_ends_as_cancelled_and_holds_no_lock(project: Path) -> None:
    python_node(project, 'open("ready", "w").close()\n    import time\n    time.sleep(60)')
    os.mkfifo(project / "ready")
    child = subprocess.Popen([SEEKNAL, "run"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (project / "ready").open().close()  # the node has begun
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGINT)  # the second one ends it at once
    assert child.wait(20) == 130
    assert json.loads(run(project, "state", "show", "--output", "json").stdout)["status"] == "cancelled"
    assert run(project, "state", "locks", "--output", "json").stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [[], ["state"]])
def test_a_command_that_is_left_out_shows_the_help_as_it_is(project: Path, arguments: list[str]) -> None:
    done = run(project, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")
    assert "error:" not in done.stderr
    assert len(done.stderr.splitlines()) > 5


def test_the_state_moves_there_and_back_after_more_work(project: Path) -> None:
    with open_state_backend(project) as backend:
        backend.create_run("first", status="success")
        backend.add_completed_interval("first", "node", datetime(2024, 1, 1), datetime(2024, 1, 2))
    assert run(project, "migrate-state", "--backend", "database", "--no-dry-run").returncode == 0
    with open_state_backend(project) as backend:
        backend.create_run("second", status="success")
        backend.add_completed_interval("second", "node", datetime(2024, 1, 2), datetime(2024, 1, 3))
        backend.delete_run("first")
    back = run(project, "migrate-state", "--backend", "file", "--no-dry-run")
    assert back.returncode == 0, back.stderr
    with open_state_backend(project) as backend:
        assert backend.list_runs() == ["second"]
        [span] = backend.get_completed_intervals("node")
        assert (span.start.day, span.end.day) == (1, 3)


def test_after_the_backup_was_put_back_a_rollback_still_ends_the_other_store(project: Path) -> None:
    with open_state_backend(project) as backend:
        backend.create_run("run", status="success")
    assert run(project, "migrate-state", "--backend", "database", "--no-dry-run").returncode == 0
    shutil.copy(project / "target/run_state.json.bak", project / "target/run_state.json")
    with open_state_backend(project, backend="file") as backend:
        backend.set_metadata("run", {"written": "after the backup was put back"})
    done = run(project, "state", "rollback", "--no-dry-run")
    assert done.returncode == 0, done.stderr
    assert "file" in (project / "seeknal_project.yml").read_text()
    late = run(project, "state", "unlock", "run", "--backend", "database")
    assert late.returncode == 0
    with open_state_backend(project) as backend:
        assert backend.get_metadata("run") == {"written": "after the backup was put back"}


def test_a_refused_move_creates_nothing_and_says_so_in_its_preview(project: Path) -> None:
    with open_state_backend(project) as backend:
        backend.create_run("run")
        with backend.lock("run"):
            preview = run(project, "migrate-state", "--backend", "database")
            move = run(project, "migrate-state", "--backend", "database", "--no-dry-run")
    assert (preview.returncode, move.returncode) == (3, 3)
    assert "refused" in preview.stdout
    assert not (project / "target/state.db").exists()


def test_another_programs_database_is_refused_and_left_alone(project: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(project / "app.db")) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.commit()
    done = run(project, "state", "list", "--database-url", "sqlite:///app.db")
    assert done.returncode == 5
    assert "users" in done.stderr
    with closing(sqlite3.connect(project / "app.db")) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["users"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["state", "list", "--limit", "9" * 25],
        ["state", "cleanup", "--days", "9" * 11],
        ["state", "list", "--database-url", "sqlite:///:memory:"],
        ["state", "list", "--database-url", "postgresql://u:s3k/ret@h/db"],
    ],
)
def test_odd_values_are_wrong_usage_and_show_no_secret(project: Path, arguments: list[str]) -> None:
    done = run(project, *arguments)
    assert done.returncode == 2, done.stderr
    assert "bug" not in done.stderr
    assert "s3k" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--backend", "bogus"], ["--backend", "file", "--database-url", "sqlite:///x.db"]]
)
def test_a_project_is_not_begun_with_what_no_command_would_take(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, "init", *arguments)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_option_of_a_backend_names_the_nearest(project: Path) -> None:
    with (project / "seeknal_project.yml").open("a") as file:
        file.write("state_options: {bse_path: elsewhere}\n")
    done = run(project, "state", "list")
    assert done.returncode == 2
    assert "base_path" in done.stderr
