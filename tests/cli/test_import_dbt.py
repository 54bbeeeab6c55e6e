"""``seeknal state import-dbt``: what it prints, its exit codes, and that a preview makes no store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integrations.dbt_files import DAILY, daily, result, write_dbt

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend


@pytest.fixture(autouse=True)
def _place(monkeypatch, tmp_path):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path):
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    return tmp_path


@pytest.fixture
def files(tmp_path):
    """An invocation that completed a batch, and ran one that was not over."""
    return write_dbt(tmp_path / "dbt", result(), daily([("2024-01-09", "2024-01-10"), ("2024-01-10", "2024-01-11")]))


def test_an_import_says_what_was_recorded(project, files, capsys):
    assert main(["state", "import-dbt", "dbt"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "run        dbt_a1",
        "status     success",
        "started    2024-01-10T12:00:00Z",
        "finished   2024-01-10T12:00:05Z",
        "nodes      2 success",
        "completed  model.shop.daily 2024-01-09T00:00:00Z 2024-01-10T00:00:00Z",
        "open       model.shop.daily 2024-01-10T00:00:00Z 2024-01-11T00:00:00Z",
    ]
    assert "not over when dbt ran them" in shown.err
    with open_state_backend(project) as store:
        assert store.get_node_state("dbt_a1", DAILY).status == "success"


def test_json_stands_alone_on_standard_output(project, files, capsys):
    assert main(["state", "import-dbt", "dbt", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run_id": "dbt_a1",
        "status": "success",
        "is_new": True,
        "started_at": "2024-01-10T12:00:00Z",
        "finished_at": "2024-01-10T12:00:05Z",
        "nodes": {"success": 2},
        "completed": [{"node_id": DAILY, "start": "2024-01-09T00:00:00Z", "end": "2024-01-10T00:00:00Z"}],
        "restated": [],
        "open": [{"node_id": DAILY, "start": "2024-01-10T00:00:00Z", "end": "2024-01-11T00:00:00Z"}],
        "dry_run": False,
    }


def test_the_same_invocation_again_changes_nothing_and_says_so(project, files, capsys):
    main(["state", "import-dbt", "dbt"])
    capsys.readouterr()
    assert main(["state", "import-dbt", "dbt"]) == 0
    assert "dbt_a1 was imported before; nothing was changed" in capsys.readouterr().err
    with open_state_backend(project) as store:
        assert (store.list_runs(), store.get_run("dbt_a1").version) == (["dbt_a1"], 2)


def test_other_results_of_the_same_invocation_end_with_one(project, files, capsys):
    main(["state", "import-dbt", "dbt"])
    write_dbt(project / "dbt", result(status="error"))
    assert main(["state", "import-dbt", "dbt"]) == 1
    assert "not of these results" in capsys.readouterr().err


def test_a_preview_makes_no_store(project, files, capsys):
    before = sorted(project.rglob("*"))
    assert main(["state", "import-dbt", "dbt", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "completed  model.shop.daily" in shown.out
    assert "nothing was changed; run it again without --dry-run" in shown.err
    assert sorted(project.rglob("*")) == before


def test_a_preview_looks_into_the_store_that_is_there(project, files, capsys):
    main(["state", "import-dbt", "dbt"])
    capsys.readouterr()
    assert main(["state", "import-dbt", "dbt", "--dry-run", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_new"] is False


def test_a_failed_invocation_is_imported_as_that(project, capsys):
    write_dbt(project / "dbt", result(status="error", message="no such column"))
    assert main(["state", "import-dbt", "dbt", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert ("status    failed" in shown.out, shown.err) == (True, "")


def test_results_alone_are_imported_on_demand(project, files, capsys):
    (files / "manifest.json").unlink()
    assert main(["state", "import-dbt", "dbt"]) == 1
    assert "--without-manifest" in capsys.readouterr().err
    assert main(["state", "import-dbt", "dbt", "--without-manifest"]) == 0
    with open_state_backend(project) as store:
        assert store.get_completed_intervals(DAILY) == []


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (lambda files: (files / "run_results.json").unlink(), 1, "holds no run_results.json"),
        (lambda files: (files / "run_results.json").write_text("{"), 1, "is no JSON"),
        (lambda files: write_dbt(files, result(), run_results_version=7), 1, "reads 4 to 6"),
        (lambda files: files.rename(files.with_name("elsewhere")), 2, "is not a directory"),
    ],
)
def test_files_that_cannot_be_taken_make_no_store(project, files, capsys, damage, code, said):
    damage(files)
    before = sorted(project.rglob("*"))
    assert main(["state", "import-dbt", "dbt"]) == code
    error, hint = capsys.readouterr().err.splitlines()
    assert said in error
    assert hint.startswith("hint: ")
    assert sorted(project.rglob("*")) == before


def test_the_command_itself_does_it(project, files):
    program = Path(sys.executable).with_name("seeknal")
    done = subprocess.run([program, "state", "import-dbt", "dbt"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("run        dbt_a1\n")
    ended = subprocess.run([program, "intervals", "list", DAILY, "--output", "json"], capture_output=True, check=True)
    assert [each["start"] for each in json.loads(ended.stdout)] == ["2024-01-09T00:00:00Z"]
