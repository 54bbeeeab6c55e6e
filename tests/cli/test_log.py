"""`seeknal state log`, and the commands that write into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from seeknal.state.backend import StateBackendFactory, open_state_backend
from seeknal.state.memory import MemoryStateBackend

NAMES = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN", "SEEKNAL_ACTOR")


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: file\n")
    return tmp_path


def seeknal(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "seeknal.cli.app", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def logged(project, *arguments):
    done = seeknal("state", "log", "--output", "json", *arguments, cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_an_empty_log(project):
    done = seeknal("state", "log", cwd=project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing is in the log\n")
    assert logged(project) == []


def test_a_lock_that_was_broken_is_in_the_log_with_who_did_it(project):
    with open_state_backend(project) as store:
        assert store.acquire_lock("run_1", "load")
        done = seeknal("state", "unlock", "run_1", "load", "--reason", "it hangs", cwd=project, SEEKNAL_ACTOR="ada")
        assert done.returncode == 0
    (found,) = logged(project)
    assert list(found) == [
        *("change_id", "at", "action", "run_id", "node_id", "reason", "detail", "actor", "host", "pid")
    ]
    assert (found["action"], found["run_id"], found["node_id"]) == ("unlock", "run_1", "load")
    assert (found["reason"], found["actor"]) == ("it hangs", "ada")
    assert found["detail"]["pid"] == os.getpid()
    assert found["pid"] != os.getpid()


def test_the_newest_come_first_and_can_be_chosen(project):
    with open_state_backend(project) as store:
        for number in range(25):
            store.log_change("odd" if number % 2 else "even", run_id=f"r{number}", node_id="n" if number < 5 else None)
    assert [change["run_id"] for change in logged(project)] == [f"r{number}" for number in range(24, 4, -1)]
    assert [change["run_id"] for change in logged(project, "--limit", "2")] == ["r24", "r23"]
    assert [change["run_id"] for change in logged(project, "--run", "r7")] == ["r7"]
    assert [change["run_id"] for change in logged(project, "--node", "n", "--action", "odd")] == ["r3", "r1"]
    lines = seeknal("state", "log", "--output", "jsonl", "--limit", "3", cwd=project).stdout.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["r24", "r23", "r22"]


def test_a_table_fits_80_columns_whatever_is_in_it(project):
    with open_state_backend(project) as store:
        store.log_change("a", reason="short")
        store.log_change("b" * 40, run_id="r" * 190, node_id="n" * 190, reason="line\none \x1b[31m" + "x" * 500)
    done = seeknal("state", "log", cwd=project, SEEKNAL_ACTOR="somebody" * 9)
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["AT", "WHO", "ACTION", "SUBJECT", "REASON"]
    assert all(len(line) <= 80 for line in (head, first, second))
    assert "\x1b" not in done.stdout
    assert second.endswith("short")


def wide(line):
    """Return how many cells of a terminal a line of Latin and Japanese takes."""
    return sum(2 if "\u3000" <= char <= "\u9fff" else 1 for char in line)


def test_a_table_counts_the_cells_of_wide_characters(project):
    with open_state_backend(project) as store:
        store.log_change("a", run_id="日次売上集計" * 5, node_id="読み込み" * 5, reason="手動で再実行した" * 10)
        store.log_change("a", run_id="r", reason="short")
    lines = seeknal("state", "log", cwd=project).stdout.splitlines()
    assert all(wide(line) <= 80 for line in lines)
    reasons = ("REASON", "short", "手動")
    places = {wide(line[: line.index(reason)]) for line, reason in zip(lines, reasons, strict=True)}
    assert len(places) == 1  # the reasons stand below each other


def test_a_bad_id_is_wrong_usage(project):
    done = seeknal("state", "log", "--run", "", cwd=project)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)


def test_a_repair_is_in_the_log(project):
    with open_state_backend(project) as store:
        store.create_run("r", status="success")
    (project / "target" / "run_state.json").write_text("{}")
    os.utime(project / "target" / "run_state" / "store.json", (1, 1))
    for journal in (project / "target" / "run_state").glob("journal-*.log"):
        os.utime(journal, (1, 1))
    os.utime(project / "target" / "run_state.json", (1000, 1000))
    done = seeknal("state", "doctor", "--fix", "--no-dry-run", cwd=project)
    assert done.returncode == 0, done.stderr
    (found,) = logged(project)
    assert found["action"] == "repair"
    assert [each["check"] for each in found["detail"]["mended"]] == ["view-foreign"]


def test_an_import_is_in_the_log_and_brings_the_log_along(project, tmp_path):
    with open_state_backend(project) as store:
        store.create_run("r")
        store.log_change("pin", run_id="r", reason="audit")
    assert seeknal("state", "export", "x.jsonl", cwd=project).returncode == 0
    (tmp_path / "copy").mkdir()
    assert seeknal("init", cwd=tmp_path / "copy").returncode == 0
    assert seeknal("state", "import", "../x.jsonl", cwd=tmp_path / "copy").returncode == 0
    newest, oldest = logged(tmp_path / "copy")
    assert (newest["action"], newest["detail"]["from"], newest["detail"]["records"]) == ("import", "../x.jsonl", 1)
    assert [oldest] == logged(project)


def test_a_store_without_a_log_says_so(project, monkeypatch, capsys):
    from seeknal.cli.app import main

    class Keepless(MemoryStateBackend):
        capabilities = frozenset()

    monkeypatch.setitem(StateBackendFactory._registered, "keepless", Keepless)
    assert main(["state", "log", "--backend", "keepless", "-p", str(project)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "error: a Keepless keeps no log of changes"
    assert "Capability.LOG" in err.splitlines()[1]
