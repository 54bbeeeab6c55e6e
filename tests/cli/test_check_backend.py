"""`seeknal state check-backend`: our own backends, other people's, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import StateBackendFactory
from seeknal.state.memory import MemoryStateBackend

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_backend.py"

BROKEN = '''
import os
import time
from pathlib import Path
from seeknal.state.memory import MemoryStateBackend, MemoryStore

STORES = {}


class Forgetful(MemoryStateBackend):
    """Keeps a store for each path, and forgets completed work with its run."""

    def __init__(self, base_path, *, flavour="sweet", clock=None, busy_timeout_ms=1000):
        assert flavour == 7
        super().__init__(STORES.setdefault(str(base_path), MemoryStore()), clock=clock, busy_timeout_ms=busy_timeout_ms)
        self.base_path = Path(base_path)

    def initialize(self):
        super().initialize()
        self.base_path.mkdir(exist_ok=True)

    def delete_run(self, run_id):
        self.store.image.work.clear()
        return super().delete_run(run_id)


class Relative(MemoryStateBackend):
    """Takes no option at all, and no clock."""

    def __init__(self):
        super().__init__(STORES.setdefault(os.getcwd(), MemoryStore()))


class Deadly(Relative):
    """Ends the process, in one case that is not the first."""

    def cleanup(self, *args, **options):
        os._exit(3)


class Hanging(Relative):
    """Never comes back from one verb."""

    def cleanup(self, *args, **options):
        time.sleep(1000)
'''


@pytest.fixture
def installed(tmp_path):
    """A directory on the path that holds a package with backends and their entry points."""
    site = tmp_path / "site"
    info = site / "other_backends-1.dist-info"
    info.mkdir(parents=True)
    (site / "other_backends.py").write_text(BROKEN)
    shutil.copy(EXAMPLE, site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-backends\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[seeknal.state_backends]\n"
        "custom = custom_backend:CustomBackend\n"
        "forgetful = other_backends:Forgetful\n"
        "relative = other_backends:Relative\n"
        "deadly = other_backends:Deadly\n"
        "hanging = other_backends:Hanging\n"
        "absent = other_backends_driver:Backend\n"
    )
    return site


def check(*arguments, cwd, site=None, **environment):
    place = {} if site is None else {"PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "seeknal.cli.app", "state", "check-backend", *arguments],
        cwd=cwd,
        env={**os.environ, **place, **environment},
        capture_output=True,
        text=True,
        timeout=55,
    )


def contents(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def test_the_reference_backend_as_a_table(tmp_path):
    done = check("memory", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["CLAUSES"] == ["PASSED", "FAILED", "NOT_DECLARED"]
    assert int(rows["TX"][0]) > 20
    assert rows["all"][1:] == ["0", "5"], "the cases of persistence and of processes are not declared"
    assert contents(tmp_path) == []


def test_the_projects_backend_is_checked_beside_its_store(tmp_path):
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: file\n")
    before = contents(tmp_path)
    done = check("--output", "json", "--case", "INT-", cwd=tmp_path, SEEKNAL_STATE_BACKEND="file")
    report = json.loads(done.stdout)
    assert (done.returncode, report["backend"], report["failed"], report["not_declared"]) == (0, "file", 0, 0)
    assert report["capabilities"] == ["claims", "expected", "log", "persistent", "processes", "provenance"]
    assert sum(group["passed"] for group in report["groups"]) == report["passed"] > 30
    assert contents(tmp_path) == before, "the project was touched"


def test_the_database_backend_in_one_line(tmp_path):
    done = check(
        *("database", "--output", "jsonl", "--quiet", "--option", "synchronous=NORMAL", "--case", "process"),
        cwd=tmp_path,
    )
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert (report["failed"], report["passed"], report["not_declared"]) == (0, 3, 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path) == []


def test_a_broken_backend_of_an_installed_package(installed, tmp_path):
    options = ("--option", "base_path={scratch}/x", "--option", "flavour=7", "--case", "INT-")
    done = check("forgetful", *options, cwd=tmp_path, site=installed)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert "Traceback" not in done.stderr
    assert any(line.startswith("FAILED test_completed_work_survives_its_run (INT-2, PART-1): ") for line in failed)
    assert done.stderr.splitlines()[-2].startswith(f"error: forgetful failed {len(failed)} of ")


def test_failures_as_json_and_with_their_tracebacks(installed, tmp_path):
    options = ("--option", "base_path={scratch}/x", "--option", "flavour=7", "--case", "completed_work_survives")
    done = check("forgetful", *options, "--output", "json", "--debug", cwd=tmp_path, site=installed)
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"], report["failed"]) == (1, 0, 1)
    (found,) = report["failures"]
    assert (found["case"], found["clauses"]) == ("test_completed_work_survives_its_run", ["INT-2", "PART-1"])
    assert found["message"]
    assert "cases_intervals.py" in done.stderr


def test_backends_that_take_a_store_or_nothing_at_all(installed, tmp_path):
    for name, cases in (("custom", ()), ("relative", ("--case", "INT-"))):
        done = check(name, *cases, "--output", "json", cwd=tmp_path, site=installed)
        report = json.loads(done.stdout)
        assert (report["failures"], done.returncode) == ([], 0)
        assert report["passed"] > 30


@pytest.mark.parametrize(("name", "message"), [("deadly", "died in it (exit code 3)"), ("hanging", "no end after 1 s")])
def test_a_backend_that_dies_or_hangs_is_reported(installed, tmp_path, name, message):
    done = check(name, "--timeout", "1", "--case", "newest_success_of_a_node", cwd=tmp_path, site=installed)
    assert done.returncode == 1
    assert any(line.startswith("FAILED") and message in line for line in done.stdout.splitlines()), done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fille"], "Did you mean file?"),
        (["file", "--option", "base_path=target"], "every case needs a new one"),
        (["database", "--option", "db_path=target/state.db"], "every case needs a new one"),
        (["database", "--option", "url=sqlite:///target/state.db"], "every case needs a new one"),
        (["file", "--option", "colour=red"], "colour"),
        (["file", "--option", "red"], "KEY=VALUE"),
        (["file", "--case", "nonsense", "--quiet"], "no case"),
        (["absent"], "other_backends_driver"),
        ([], "not a Seeknal project"),
    ],
    ids=str,
)
def test_wrong_usage(installed, tmp_path, monkeypatch, arguments, told):
    done = check(*arguments, cwd=tmp_path, site=installed)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2
    assert told in done.stderr


def test_the_projects_own_url_is_refused(installed, tmp_path):
    (tmp_path / "seeknal_project.yml").write_text(
        "name: p\nstate_backend: custom\ndatabase_url: other://server/state\n"
    )
    done = check("custom", "--option", "option=other://server/state", cwd=tmp_path, site=installed)
    assert done.returncode == 2
    assert "the project's own" in done.stderr


def test_without_pytest(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pytest", None)
    assert main(["state", "check-backend", "memory"]) == 2
    told = capsys.readouterr().err
    assert "pytest" in told
    assert "pip install 'seeknal-state[testing]'" in told


def test_a_backend_that_a_program_registered(tmp_path, monkeypatch, capsys):
    class Local(MemoryStateBackend):
        pass

    monkeypatch.setattr(StateBackendFactory, "_registered", {"mine": MemoryStateBackend, "local": Local})
    assert main(["state", "check-backend", "mine", "--output", "jsonl", "--case", "RUN-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["backend"] == "mine"
    assert report["passed"] > 10
    assert main(["state", "check-backend", "local"]) == 2
    assert "imported by another process" in capsys.readouterr().err
