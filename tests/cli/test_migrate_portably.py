"""``seeknal migrate-state`` and ``seeknal state rollback`` with a backend of a third party, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.plain_backends import JsonBackend
from tests.unit.test_portable import content, fill

from seeknal.errors import SupersededError
from seeknal.state.backend import create_state_backend, open_state_backend

NOT_OURS = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN")
BACKENDS = Path(__file__).resolve().parents[1] / "unit" / "plain_backends.py"
DYING = f"""
import importlib.util, os, signal, sys

spec = importlib.util.spec_from_file_location("plain_backends", {str(BACKENDS)!r})
plain_backends = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain_backends)
JsonBackend = plain_backends.JsonBackend
_put = plain_backends.JsonStore.put


def put(store, records):
    _put(store, records)
    if len(records.nodes) >= int(os.environ.get("DIES_AT", 10**9)):
        os.kill(os.getpid(), signal.SIGKILL)


plain_backends.JsonStore.put = put

if "DIES_AFTER_A_COMMIT" in os.environ:
    from seeknal.state.sql.backend import DatabaseStateBackend

    _commit = DatabaseStateBackend.commit

    def commit(store, batch):
        _commit(store, batch)
        os.kill(os.getpid(), signal.SIGKILL)

    DatabaseStateBackend.commit = commit
"""


class Project:
    """A project in a directory, a site directory with a package that brings the backend ``json``, and the command."""

    def __init__(self, path, site):
        self.path, self.site = path, site
        self.file = path / "target" / "plain.json"

    def run(self, *command, **environment):
        env = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        return subprocess.run(
            [sys.executable, "-m", "seeknal.cli.app", *command],
            cwd=self.path,
            env=env | {"PYTHONPATH": str(self.site)} | environment,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )

    def migrate(self, *named, **environment):
        return self.run("migrate-state", *named, "--output", "json", **environment)

    @property
    def names(self):
        return (self.path / "seeknal_project.yml").read_text()

    def file_store(self):
        store = create_state_backend("file", base_path=self.path / "target")
        store.initialize()
        return store


JSON = ("--backend", "json", "--option", "base_path=target/plain.json")


@pytest.fixture
def project(tmp_path):
    site = tmp_path / "site"
    info = site / "plain-1.dist-info"
    info.mkdir(parents=True)
    (site / "plain.py").write_text(DYING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[seeknal.state_backends]\njson = plain:JsonBackend\n")
    path = tmp_path / "project"
    path.mkdir()
    (path / "seeknal_project.yml").write_text("name: p # mine\n")
    made = Project(path, site)
    with made.file_store() as store:
        fill(store)
    return made


def test_a_state_goes_over_and_back_by_the_command(project):
    with project.file_store() as store:
        before = content(store)
    preview = project.migrate(*JSON)
    assert preview.returncode == 0, preview.stderr
    plan = json.loads(preview.stdout)
    assert (plan["counts"]["node_states"], plan["refused"]) == (16, [])
    assert "json target/plain.json counts for itself: versions, lock tokens, the change log and which" in preview.stderr
    assert not project.file.exists()
    done = project.migrate(*JSON, "--no-dry-run")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["counts"] == plan["counts"]
    assert report["bytes"] == plan["bytes"]
    assert (len(report["digest"]), report["store_id"]) == (64, None)
    assert project.names == ("name: p # mine\nstate_backend: json\nstate_options:\n  base_path: target/plain.json\n")
    with JsonBackend(project.file) as there:
        assert content(there) == before
    with project.file_store() as store, pytest.raises(SupersededError, match=r"json target/plain\.json"):
        store.create_run("late")
    done = project.migrate("--backend", "file", "--no-dry-run")
    assert done.returncode == 0, done.stderr
    assert "json target/plain.json cannot refuse writes: stop its writers" in done.stderr
    with project.file_store() as store:
        assert content(store) == before
        store.create_run("goes on")


def test_a_rollback_from_plain_verbs_refuses_what_would_be_lost_and_says_what_to_stop(project):
    with project.file_store() as store:
        before = content(store)
    assert project.migrate(*JSON, "--no-dry-run").returncode == 0
    preview = project.run("state", "rollback", "--output", "json")
    assert (preview.returncode, json.loads(preview.stdout)["discarded"]) == (0, [])
    with JsonBackend(project.file) as there:
        there.create_run("written since")
    refused = project.run("state", "rollback", "--no-dry-run")
    assert refused.returncode == 1
    assert "was written since the migration: written since" in refused.stderr
    done = project.run("state", "rollback", "--no-dry-run", "--discard")
    assert done.returncode == 0, done.stderr
    assert "json target/plain.json cannot refuse writes: stop its writers" in done.stderr
    assert project.names == "name: p # mine\n"
    with project.file_store() as store:
        assert content(store) == before
        store.create_run("goes on")


def test_a_rollback_to_plain_verbs(project):
    assert project.migrate(*JSON, "--no-dry-run").returncode == 0
    assert project.migrate("--backend", "database", "--no-dry-run").returncode == 0
    done = project.run("state", "rollback", "--no-dry-run")
    assert done.returncode == 0, done.stderr
    assert "state_backend: json\n" in project.names
    database = create_state_backend("database", db_path=project.path / "target" / "state.db")
    database.initialize()
    with database, pytest.raises(SupersededError, match="json target"):
        database.create_run("late")
    assert project.run("state", "rollback", "--no-dry-run").returncode == 0
    assert project.names == "name: p # mine\n"


def test_a_state_that_went_on_elsewhere_comes_back_to_plain_verbs(project):
    assert project.migrate(*JSON, "--no-dry-run").returncode == 0
    assert project.migrate("--backend", "database", "--no-dry-run").returncode == 0
    with open_state_backend(project.path) as store:
        store.update_run("b", status="failed")
        store.set_node_state("pending", "load", status="failed")
        before = content(store)
    done = project.migrate(*JSON, "--no-dry-run")
    assert done.returncode == 0, done.stderr
    with JsonBackend(project.file) as there:
        assert content(there) == before


def test_a_rollback_to_plain_verbs_that_were_written_since_says_so(project):
    assert project.migrate(*JSON, "--no-dry-run").returncode == 0
    assert project.migrate("--backend", "database", "--no-dry-run").returncode == 0
    with JsonBackend(project.file) as there:
        there.create_run("late")
    said = "json target/plain.json was written since its state moved away, and could not refuse that"
    preview = project.run("state", "rollback")
    assert (preview.returncode, said in preview.stderr) == (0, True)
    refused = project.run("state", "rollback", "--no-dry-run")
    assert (refused.returncode, f"error: {said}" in refused.stderr) == (1, True)
    assert "state_backend: database\n" in project.names
    assert project.run("state", "rollback", "--no-dry-run", "--discard").returncode == 0
    assert "state_backend: json\n" in project.names


@pytest.mark.parametrize("nodes", [1, 16])
def test_a_migration_killed_with_sigkill_is_begun_again_by_the_same_command(project, nodes):
    with project.file_store() as store:
        before = content(store)
    killed = project.migrate(*JSON, "--no-dry-run", DIES_AT=str(nodes))
    assert killed.returncode == -signal.SIGKILL
    assert project.names == "name: p # mine\n"
    with JsonBackend(project.file) as there:
        assert there.list_runs() == ["b", "a", "é/../x", "pending"]
        assert there.get_run("b").status == "pending"
    done = project.migrate(*JSON, "--no-dry-run")
    assert done.returncode == 0, done.stderr
    with JsonBackend(project.file) as there:
        assert content(there) == before


@pytest.mark.parametrize("then", ["the same command", "a rollback"])
def test_a_migration_from_plain_verbs_killed_with_sigkill_goes_on_or_is_undone(project, then):
    assert project.migrate(*JSON, "--no-dry-run").returncode == 0
    killed = project.migrate("--backend", "database", "--no-dry-run", DIES_AFTER_A_COMMIT="1")
    assert killed.returncode == -signal.SIGKILL
    assert "state_backend: json\n" in project.names
    with JsonBackend(project.file) as there:
        before = content(there)
    if then == "a rollback":
        assert project.run("state", "rollback", "--no-dry-run").returncode == 0
        assert "state_backend: json\n" in project.names
    done = project.migrate("--backend", "database", "--no-dry-run")
    assert done.returncode == 0, done.stderr
    with open_state_backend(project.path) as store:
        assert content(store) == before
        store.create_run("goes on")


def test_a_killed_migration_is_undone_by_a_rollback(project):
    assert project.migrate(*JSON, "--no-dry-run", DIES_AT="1").returncode == -signal.SIGKILL
    assert project.run("state", "rollback", "--no-dry-run").returncode == 0
    with project.file_store() as store:
        store.create_run("goes on")
    assert project.migrate(*JSON, "--no-dry-run").returncode == 0


def test_a_merge_with_plain_verbs_is_refused(project):
    refused = project.migrate(*JSON, "--merge", "--no-dry-run")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "error: file target cannot be merged into json target/plain.json: one of them counts its records by itself",
        "hint: Move it into an empty store, without --merge.",
    ]
    assert not project.file.exists()


def test_a_target_with_another_state_is_refused_and_kept(project):
    with JsonBackend(project.file) as there:
        there.create_run("mine")
    refused = project.migrate(*JSON, "--no-dry-run")
    assert refused.returncode == 1
    assert "the target already holds another state: run 'mine'" in refused.stderr
    with JsonBackend(project.file) as there:
        assert there.list_runs() == ["mine"]
    with project.file_store() as store:
        store.create_run("goes on")
