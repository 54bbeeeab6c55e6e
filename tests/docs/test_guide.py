"""The State Backends Guide, run as it stands: every block of code and every command, in its order, on every backend.

The blocks below are the guide's own text. What a reader would fill in (an import, the two bounds of an interval,
``backend`` as one of the two that were created) is filled in by the test, and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from seeknal.errors import ConfigurationError, RunNotFoundError, SupersededError
from seeknal.state.backend import StateBackend, StateBackendFactory, create_state_backend

ROOT = Path(__file__).resolve().parents[2]

PROJECT_FILE = """\
name: my_project
version: 1.0.0
state_backend: file  # Options: file, database
"""
ENVIRONMENT = "export SEEKNAL_STATE_BACKEND=database"
SQLITE = "state_backend: database\n"
TURSO = """\
state_backend: database
database_url: "libsql://token@database-name.turso.io"
"""
DATABASE_FOR_PRODUCTION = "state_backend: database\n"
FILE_FOR_DEVELOPMENT = "state_backend: file\n"

RUN_STATE = """\
{
  "run_id": "run_20240110_120000",
  "started_at": "2024-01-10T12:00:00Z",
  "nodes": {
    "my_node": {
      "run_id": "run_20240110_120000",
      "node_id": "my_node",
      "status": "success",
      "duration_ms": 1500,
      "row_count": 1000,
      "fingerprint": "abc123..."
    }
  }
}
"""

MIGRATE = """\
# Preview migration
seeknal migrate-state --backend database

# Execute migration
seeknal migrate-state --backend database --no-dry-run
"""
ROLLBACK = "cp target/run_state.json.bak target/run_state.json"

CREATE = """\
from seeknal.state.backend import create_state_backend

# Create file backend
file_backend = create_state_backend("file", base_path="target")
file_backend.initialize()

# Create database backend
db_backend = create_state_backend("database", db_path="target/state.db")
db_backend.initialize()
"""
USE = """\
# Use unified interface
backend.create_run("run_1", status="running", started_at=datetime.now())
backend.set_node_state("run_1", "node1", status="success")
backend.add_completed_interval("run_1", "node1", start, end)
"""
TRANSACTION = """\
# Atomic state updates
with backend.transaction() as tx:
    backend.set_node_state("run_1", "node1", status="success")
    backend.set_node_state("run_1", "node2", status="success")
    # Both succeed or both fail
"""
LOCK = """\
# Acquire lock for concurrent execution
acquired = backend.acquire_lock("run_1", timeout_ms=5000)
if acquired:
    try:
        # Execute with lock held
        backend.set_node_state("run_1", "node1", status="running")
    finally:
        # Lock released automatically
        pass
"""

BACKUP_FIRST = """\
# Always backup first
cp target/run_state.json target/run_state.json.pre-migration.bak

# Then migrate
seeknal migrate-state --backend database
"""
DRY_RUN_FIRST = """\
# Preview first
seeknal migrate-state --backend database

# Check output, then execute
seeknal migrate-state --backend database --no-dry-run
"""
MIGRATION_FAILED = """\
# Check backup
ls -la target/*.bak

# Restore backup
cp target/run_state.json.bak target/run_state.json

# Investigate error
seeknal migrate-state --backend database --dry-run
"""
DATABASE_LOCKED = """\
# SQLite: Check for locks
sqlite3 target/state.db "PRAGMA lock_status"

# Close other processes using the database
"""
CLEAN = "seeknal state cleanup --days 30"

CUSTOM = """\
from seeknal.state.backend import StateBackend

class CustomBackend(StateBackend):
    def initialize(self):
        # Setup
        pass

    def create_run(self, run_id, **kwargs):
        # Create run
        pass

    # Implement all abstract methods...
"""
REGISTER = """\
from seeknal.state.backend import StateBackendFactory

StateBackendFactory.register("custom", CustomBackend)
backend = create_state_backend("custom", option="value")
"""

METHODS = (
    "initialize",
    "create_run",
    "update_run",
    "get_run",
    "set_node_state",
    "get_node_state",
    "add_completed_interval",
    "transaction",
    "acquire_lock",
)

START = datetime(2024, 1, 10, tzinfo=UTC)
END = START + timedelta(days=1)

BACKENDS = ("file", "database")


class Project:
    """A scratch project, and a shell in it."""

    def __init__(self, path: Path, programs: Path) -> None:
        self.path = path
        self._programs = programs

    def configure(self, text: str) -> None:
        head = "" if "name:" in text else "name: my_project\nversion: 1.0.0\n"
        (self.path / "seeknal_project.yml").write_text(head + text)

    def attempt(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SEEKNAL_", "TURSO_"))}
        search = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"], str(self._programs)])
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.path,
            env=kept | variables | {"PATH": search, "NO_COLOR": "1", "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=50,
            stdin=subprocess.DEVNULL,
        )

    def shell(self, script: str, **variables: str) -> str:
        done = self.attempt(script, **variables)
        assert done.returncode == 0, f"{script}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def runs(self, *options: str) -> list[str]:
        listed = json.loads(self.shell(f"seeknal state list --output json {' '.join(options)}"))
        return [run["run_id"] for run in reversed(listed)]  # the newest comes first


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    programs = tmp_path / "programs"
    programs.mkdir()
    if shutil.which("sqlite3") is None:
        shim = programs / "sqlite3"
        shim.write_text(
            textwrap.dedent(f"""\
                #!{sys.executable}
                import sqlite3, sys
                with sqlite3.connect(sys.argv[1]) as connection:
                    for row in connection.execute(sys.argv[2]):
                        print("|".join(map(str, row)))
                """)
        )
        shim.chmod(0o755)
    path = tmp_path / "my_project"
    (path / "target").mkdir(parents=True)
    monkeypatch.chdir(path)
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    made = Project(path, programs)
    made.configure(PROJECT_FILE)
    return made


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the reader's script has by then; its backends are closed at the end."""
    namespace: dict[str, Any] = {"datetime": datetime, "start": START, "end": END}
    yield namespace
    for value in list(namespace.values()):
        if isinstance(value, StateBackend):
            value.close()
    StateBackendFactory._registered.pop("custom", None)


def follow(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, "guide", "exec", dont_inherit=True), names)


def complete_custom_backend() -> type[StateBackend]:
    path = ROOT / "examples" / "custom_backend.py"
    module = type(sys)("custom_backend")
    sys.modules["custom_backend"] = module  # dataclasses look their module up by name
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), module.__dict__)
    found: type[StateBackend] = module.__dict__["CustomBackend"]
    return found


def use_the_api(names: dict[str, Any]) -> None:
    """Follow the chapters API Usage, Transactions and Locking on ``backend``."""
    backend: StateBackend = names["backend"]
    before = datetime.now(UTC)
    follow(USE, names)
    run = backend.get_run("run_1")
    assert run is not None
    assert run.status == "running"
    assert run.started_at is not None
    assert abs(run.started_at - before) < timedelta(minutes=1)
    node = backend.get_node_state("run_1", "node1")
    assert node is not None
    assert node.status == "success"
    done = backend.get_completed_intervals("node1")
    assert [(each.start, each.end, each.run_id) for each in done] == [(START, END, "run_1")]

    follow(TRANSACTION, names)
    assert {key: state.status for key, state in backend.get_all_node_states("run_1").items()} == {
        "node1": "success",
        "node2": "success",
    }
    with pytest.raises(RunNotFoundError):
        _fail_half_way(backend)
    assert {state.status for state in backend.get_all_node_states("run_1").values()} == {"success"}

    follow(LOCK, names)
    assert names["acquired"] is True
    assert [(lock.run_id, lock.node_id) for lock in backend.list_locks()] == [("run_1", None)]
    backend.update_run("run_1", status="success")
    assert backend.list_locks() == [], "the lock is released by itself when the run ends"


def _fail_half_way(backend: StateBackend) -> None:
    with backend.transaction():
        backend.set_node_state("run_1", "node1", status="failed")
        backend.set_node_state("no such run", "node2", status="failed")


@pytest.mark.parametrize("kind", BACKENDS)
def test_api_chapters(kind: str, project: Project, names: dict[str, Any]) -> None:
    follow(CREATE, names)
    assert (project.path / "target" / "run_state.json").exists()
    assert (project.path / "target" / "state.db").exists()
    names["backend"] = names["file_backend" if kind == "file" else "db_backend"]
    use_the_api(names)
    for method in METHODS:
        assert callable(getattr(names["backend"], method))
    names["backend"].close()
    assert project.runs("--backend", kind) == ["run_1"]


@pytest.mark.parametrize("kind", BACKENDS)
def test_closing_releases_the_lock(kind: str, project: Project, names: dict[str, Any]) -> None:
    follow(CREATE, names)
    names["backend"] = names["file_backend" if kind == "file" else "db_backend"]
    follow(USE, names)
    follow(LOCK, names)
    names["file_backend"].close()
    names["db_backend"].close()
    follow(CREATE, names)
    names["backend"] = names["file_backend" if kind == "file" else "db_backend"]
    assert names["backend"].list_locks() == []


def test_custom_backend_chapter(project: Project, names: dict[str, Any]) -> None:
    names["create_state_backend"] = create_state_backend
    follow(CUSTOM, names)
    with pytest.raises(ConfigurationError):
        follow(REGISTER, names)
    with pytest.raises(ConfigurationError, match="restate_intervals"):
        create_state_backend("custom")
    names["CustomBackend"] = complete_custom_backend()
    follow(REGISTER, names)
    assert names["backend"].option == "value"
    assert "custom" in StateBackendFactory.list_backends()
    names["backend"].initialize()
    use_the_api(names)


def test_run_state_has_the_shape_of_the_guide(project: Project) -> None:
    with create_state_backend("file", base_path="target") as backend:
        backend.initialize()
        backend.create_run("run_20240110_120000", started_at=datetime(2024, 1, 10, 12, tzinfo=UTC))
        backend.set_node_state(
            "run_20240110_120000",
            "my_node",
            status="success",
            duration_ms=1500,
            row_count=1000,
            fingerprint="abc123...",
        )
    written = json.loads((project.path / "target" / "run_state.json").read_text())
    expected = json.loads(RUN_STATE)
    assert written["run_id"] == expected["run_id"]
    assert written["started_at"] == expected["started_at"]
    assert written["nodes"].keys() == expected["nodes"].keys()
    assert expected["nodes"]["my_node"].items() <= written["nodes"]["my_node"].items()


def test_run_state_of_the_guide_is_read(project: Project) -> None:
    (project.path / "target" / "run_state.json").write_text(RUN_STATE)
    with create_state_backend("file", base_path="target") as backend:
        backend.initialize()
        node = backend.get_node_state("run_20240110_120000", "my_node")
        assert node is not None
        assert (node.status, node.duration_ms, node.row_count) == ("success", 1500, 1000)
        assert node.fingerprint == "abc123..."


def test_database_has_the_tables_of_the_guide(project: Project, names: dict[str, Any]) -> None:
    follow(CREATE, names)
    names["db_backend"].close()
    listed = project.shell("""sqlite3 target/state.db "SELECT name FROM sqlite_master WHERE type = 'table'" """)
    assert {"runs", "node_states", "completed_intervals", "partitions"} <= set(listed.split())


def test_configuration_chapter(project: Project) -> None:
    for text, store in ((PROJECT_FILE, "run_state.json"), (SQLITE, "state.db")):
        shutil.rmtree(project.path / "target", ignore_errors=True)
        project.configure(text)
        assert project.runs() == []
        _create_one_run(project)
        assert (project.path / "target" / store).exists()
        assert project.runs() == ["run_1"]


def _create_one_run(project: Project) -> None:
    script = textwrap.dedent("""\
        from seeknal.state.backend import open_state_backend
        with open_state_backend(".") as backend:
            backend.create_run("run_1")
        """)
    (project.path / "one_run.py").write_text(script)
    project.shell("python one_run.py")


def test_environment_variable(project: Project, names: dict[str, Any]) -> None:
    follow(CREATE, names)
    names["db_backend"].create_run("in_the_database")
    names["db_backend"].close()
    names["file_backend"].close()
    listed = json.loads(project.shell(f"{ENVIRONMENT}\nseeknal state list --output json"))
    assert [run["run_id"] for run in listed] == ["in_the_database"]
    assert project.runs() == []


@pytest.mark.parametrize("token", ["token", "eyJhbGciOi.c2VjcmV0.c2ln"])
def test_turso_url_is_accepted_and_its_token_never_shown(project: Project, token: str) -> None:
    project.configure(TURSO.replace("token@", f"{token}@"))
    done = project.attempt("seeknal state list --debug; exit $?")
    said = done.stdout + done.stderr
    assert done.returncode in (2, 4), said
    assert f"{token}@" not in said
    assert token == "token" or token not in said
    assert "database-name.turso.io" in said


@pytest.mark.parametrize("text", [DATABASE_FOR_PRODUCTION, FILE_FOR_DEVELOPMENT])
def test_best_practices_settings(project: Project, text: str) -> None:
    project.configure(text)
    assert project.runs() == []


def _fill(project: Project) -> dict[str, Any]:
    """Put what the guide's Migration chapter promises to preserve into the file store, and return it."""
    with create_state_backend("file", base_path="target") as backend:
        backend.initialize()
        for number in (1, 2):
            backend.create_run(f"run_{number}")
            backend.set_node_state(f"run_{number}", "node1", status="success", row_count=number, fingerprint="abc123")
            backend.add_completed_interval(
                f"run_{number}", "node1", START + number * (END - START), END + number * (END - START)
            )
            backend.update_run(f"run_{number}", status="success")
    return _content("file", base_path="target")


def _content(kind: str, **options: str) -> dict[str, Any]:
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        return {
            "runs": [backend.get_run(run_id) for run_id in backend.list_runs()],
            "nodes": [backend.get_all_node_states(run_id) for run_id in backend.list_runs()],
            "intervals": backend.get_completed_intervals("node1"),
        }


def test_migration_rollback_and_troubleshooting_chapters(project: Project) -> None:
    before = _fill(project)
    database = project.path / "target" / "state.db"
    preview, execute = MIGRATE.split("\n\n")

    # Migration
    project.shell(preview)
    assert not database.exists() or _content("database", db_path="target/state.db")["runs"] == []
    assert _content("file", base_path="target") == before
    project.shell(execute)
    assert repr(_content("database", db_path="target/state.db")) == repr(before)
    assert (project.path / "target" / "run_state.json.bak").exists()
    with create_state_backend("file", base_path="target") as old:
        old.initialize()
        with pytest.raises(SupersededError):
            old.create_run("written to the store that was left")
    assert project.runs("--backend", "database") == ["run_1", "run_2"]

    # Rollback
    project.shell(ROLLBACK)
    project.configure(PROJECT_FILE)
    assert _content("file", base_path="target") == before
    with create_state_backend("file", base_path="target") as again:
        again.initialize()
        again.create_run("run_3")
    assert project.runs() == ["run_1", "run_2", "run_3"]

    # Troubleshooting: Database Locked, on the store that is there by now
    project.shell(DATABASE_LOCKED)


def test_best_practices_and_migration_failed_chapters(project: Project) -> None:
    before = _fill(project)
    kept = (project.path / "target" / "run_state.json").read_bytes()
    project.shell(BACKUP_FIRST)
    assert (project.path / "target" / "run_state.json.pre-migration.bak").read_bytes() == kept
    assert _content("file", base_path="target") == before
    project.shell(DRY_RUN_FIRST)
    assert repr(_content("database", db_path="target/state.db")) == repr(before)

    # Migration Failed: what an attempt left is put out of the way first, as after a failure
    (project.path / "target" / "state.db").unlink()
    project.configure(PROJECT_FILE)
    listed, restored, investigated = MIGRATION_FAILED.split("\n\n")
    assert "run_state.json.bak" in project.shell(listed)
    project.shell(restored)
    project.shell(investigated)
    assert _content("file", base_path="target") == before


@pytest.mark.parametrize("kind", BACKENDS)
def test_performance_chapter(kind: str, project: Project) -> None:
    options = {"base_path": "target"} if kind == "file" else {"db_path": "target/state.db"}
    project.configure(f"state_backend: {kind}\n")
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        for run_id, age in (("old", 60), ("middle", 40), ("new", 1)):
            finished = datetime.now(UTC) - timedelta(days=age)
            backend.create_run(run_id, started_at=finished)
            backend.set_node_state(run_id, "node1", status="success")
            backend.add_completed_interval(run_id, "node1", START, END)
            backend.update_run(run_id, status="success", finished_at=finished)
            backend.add_completed_partition(run_id, "node1", f"partition of {run_id}")
    project.shell(CLEAN)
    assert project.runs() == ["new"]
    with create_state_backend(kind, **options) as backend:
        backend.initialize()
        assert [(each.start, each.end) for each in backend.get_completed_intervals("node1")] == [(START, END)]
        assert len(backend.list_partitions("node1")) == 3
