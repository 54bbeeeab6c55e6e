"""``seeknal migrate-state`` is killed with SIGKILL at any moment; the same command, run again, ends what it began."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seeknal.errors import SupersededError
from seeknal.model.records import NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus
from seeknal.state.backend import create_state_backend, open_state_backend
from seeknal.state.batch import Batch
from seeknal.state.transfer import digest_of

RUNS, NODES = 40, 50
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NOT_OURS = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN")


def fill(store):
    for nth in range(RUNS):
        run = RunState(run_id=f"run {nth} é", status=RunStatus.SUCCESS, version=1, sequence=1 + nth * 1000)
        nodes = [
            NodeState(
                run_id=run.run_id,
                node_id=f"node {node}",
                status=NodeStatus.SUCCESS,
                metadata={"größe": node},
                version=2,
                sequence=run.sequence + 1 + node,
            )
            for node in range(NODES)
        ]
        store.commit(Batch(runs=[run], nodes=nodes))
    for nth in range(30):
        start = BEGIN + timedelta(days=2 * nth)
        store.add_completed_interval("run 1 é", "node 1", start, start + timedelta(days=1))
        store.add_completed_partition("run 2 é", "node 2", f"p{nth}")


class Project:
    """A project in a directory, and the command run in it."""

    def __init__(self, path: Path, first: dict, second: dict) -> None:
        self.path = path
        self.first, self.second = first, second
        self.env = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        (path / "seeknal_project.yml").write_text(f"name: p # ours\n{yaml_of(first)}")

    def command(self, *arguments):
        return [sys.executable, "-m", "seeknal.cli.app", *arguments, "--project-path", str(self.path)]

    def migrate(self):
        named = ["--backend", self.second["backend"]]
        named += ["--database-url", self.second["url"]] if "url" in self.second else []
        for key, value in self.second.get("options", {}).items():
            named += ["--option", f"{key}={value}"]
        return self.command("migrate-state", *named, "--no-dry-run")

    def run(self, *command):
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=100, check=False)

    def kill_after(self, seconds, command):
        """Run a command and kill it; return whether it was still there."""
        child = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        return child.wait() == -signal.SIGKILL


def yaml_of(named):
    text = f"state_backend: {named['backend']}\n"
    if "url" in named:
        text += f"database_url: {named['url']}\n"
    if named.get("options"):
        text += "state_options:\n" + "".join(f"  {key}: {value}\n" for key, value in named["options"].items())
    return text


def opened(project, named):
    options = dict(named.get("options", {}))
    if named["backend"] == "file":
        options["base_path"] = project / "target"
    elif named["url"].startswith("sqlite"):
        options["db_path"] = project / "target" / "state.db"
    else:
        options["url"] = named["url"]
    store = create_state_backend(named["backend"], **options)
    store.initialize()
    return store


def named_store(kind, shared_store):
    if kind == "file":
        return {"backend": kind}
    if kind == "database":
        return {"backend": kind, "url": "sqlite:///target/state.db"}
    options = dict(shared_store(kind).options)
    return {"backend": "database", "url": options.pop("url"), "options": options}


def check_once(project: Project, digest: str, delay: float) -> bool:
    """Kill a migration, run it again, and hold everything against what there was; return whether it was killed."""
    was_killed = project.kill_after(delay, project.migrate())
    text = (project.path / "seeknal_project.yml").read_text()
    is_switched = text == f"name: p # ours\n{yaml_of(project.second)}"
    assert is_switched or text == f"name: p # ours\n{yaml_of(project.first)}"
    with opened(project.path, project.first) as source:
        assert digest_of(source) == digest
    if not is_switched:
        done = project.run(*project.migrate())
        assert done.returncode == 0, done.stderr
        text = (project.path / "seeknal_project.yml").read_text()
    assert text == f"name: p # ours\n{yaml_of(project.second)}"
    with opened(project.path, project.first) as source, pytest.raises(SupersededError, match="moved to"):
        source.create_run("written into the void")
    with open_state_backend(project.path) as target:
        assert digest_of(target) == digest
        target.create_run("goes on")
        target.delete_run("goes on")
    back = project.run(*project.command("state", "rollback", "--no-dry-run", "--discard"))
    assert back.returncode == 0, back.stderr
    assert (project.path / "seeknal_project.yml").read_text() == f"name: p # ours\n{yaml_of(project.first)}"
    with open_state_backend(project.path) as source:
        assert digest_of(source) == digest
        source.create_run("goes on")
        source.delete_run("goes on")
    return was_killed


def kill_at_random(project, kills):
    with opened(project.path, project.first) as source:
        fill(source)
        digest = digest_of(source)
    began = time.monotonic()
    check_once(project, digest, 60)  # a whole one, to know how long it takes
    whole = (time.monotonic() - began) / 2
    killed = sum(check_once(project, digest, random.uniform(0.15, whole)) for _ in range(kills))
    assert killed >= kills // 4, f"only {killed} of {kills} came before the end"


PAIRS = [
    ("file", "database", 4),
    ("database", "file", 4),
    ("file", "postgresql", 2),
    ("mysql", "database", 2),
    ("postgresql", "libsql", 2),
]


@pytest.mark.parametrize(("first", "second", "kills"), PAIRS, ids=lambda each: str(each))
def test_a_migration_killed_at_random_moments_is_ended_by_the_same_command(
    first, second, kills, tmp_path, shared_store
):
    project = Project(tmp_path, named_store(first, shared_store), named_store(second, shared_store))
    kill_at_random(project, kills)


@pytest.mark.nightly
@pytest.mark.parametrize("first", ["file", "database", "postgresql", "mysql", "libsql"])
@pytest.mark.parametrize("second", ["file", "database", "postgresql", "mysql", "libsql"])
def test_a_migration_killed_twenty_times_between_every_two_stores(first, second, tmp_path, shared_store):
    if first != second:
        kill_at_random(Project(tmp_path, named_store(first, shared_store), named_store(second, shared_store)), 20)
