"""Runs on a real Dask cluster of three worker processes, with their state on PostgreSQL.

Functions meet through named pipes, and note the process that they run in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.test_runner import Workshop
from tests.integration.test_shared_backfill import WITH_SHORT_LEASES, until

from seeknal.cli.app import main
from seeknal.runner.outputs import output_path, parts_folder
from seeknal.state.backend import StateBackend, open_state_backend

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

WORKERS = 3
DASK = [sys.executable, "-m", "dask"]

HEAD = """
    import os

    from seeknal.pipeline import command, transform

    def note(ctx, name):
        (ctx.project_path / name).write_text(str(os.getpid()))
    """


class Waiting:
    """A process as `until` takes it."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self.process = process


class Cluster:
    """A scheduler and its workers; a worker that is lost counts at once, and its task is not begun again by itself."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._file = folder / "scheduler.json"
        self._workers: list[subprocess.Popen[bytes]] = []
        local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self._file)]
        scheduler = Waiting(self._start("scheduler", *local, "--port", "0"))
        until(lambda: self._file.exists() and self._file.read_text().endswith("}"), scheduler)

    @property
    def address(self) -> str:
        return json.loads(self._file.read_text())["address"]

    def has_workers(self) -> None:
        """Let there be three workers, whatever has become of those of before."""
        alive = [each for each in self._workers if each.poll() is None]
        new = [
            self._start(
                "worker", "--scheduler-file", str(self._file), "--host", "127.0.0.1", "--nthreads", "1",
                "--no-nanny", "--no-dashboard", "--local-directory", str(self._folder),
            )
            for _ in range(WORKERS - len(alive))
        ]  # fmt: skip
        self._workers = alive + new

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "DASK_LOGGING__DISTRIBUTED": "error"}
        with (self._folder / f"{arguments[0]}.log").open("a") as log:
            process = subprocess.Popen([*DASK, *arguments], stdout=log, stderr=log, env=os.environ | settings)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture(scope="module")
def standing_cluster(tmp_path_factory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("dask"), stack)


@pytest.fixture
def cluster(standing_cluster) -> Cluster:
    standing_cluster.has_workers()
    return standing_cluster


class Plant:
    """A project with its state on PostgreSQL, and the command that runs it."""

    def __init__(self, path: Path, options: dict[str, str], stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        schema = f"state_options: {{schema: {options['schema']}}}\n"
        self.write({"seeknal_project.yml": f"name: plant\ndatabase_url: {options['url']}\n{schema}"})

    def write(self, files: dict[str, str]) -> None:
        Workshop("file", self.path).write(files)

    def pipe(self, name: str) -> None:
        os.mkfifo(self.path / name)

    def open(self) -> StateBackend:
        return open_state_backend(self.path)

    def start(self, *options: str) -> subprocess.Popen[str]:
        program = [sys.executable, "-c", WITH_SHORT_LEASES, "run", "--executor", "dask", *options]
        process = subprocess.Popen(program, cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        return process

    def state(self, node_id: str) -> Any:
        with self.open() as backend:
            return backend.get_latest_node_state(node_id)

    def pid(self, name: str) -> int:
        return int((self.path / name).read_text())

    def rows(self, node_id: str) -> list[tuple]:
        parts = parts_folder(self.path, node_id)
        path = parts / "*.parquet" if parts.exists() else output_path(self.path, node_id)
        with duckdb.connect() as connection:
            return connection.execute("FROM read_parquet(?) ORDER BY ALL", [str(path)]).fetchall()


@pytest.fixture
def plant(tmp_path, emptied_store) -> Iterator[Plant]:
    with ExitStack() as stack:
        yield Plant(tmp_path, emptied_store("postgresql").options, stack)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end of a run and return what it said on stderr."""
    _, said = process.communicate()
    assert process.returncode == code, said
    return said


def test_nodes_and_ranges_are_computed_by_several_workers_at_once(plant, cluster):
    plant.pipe("meeting")
    plant.write(
        {
            "seeknal/two.py": HEAD
            + """
    @transform
    def one(ctx):
        open(ctx.project_path / "meeting", "w").close()
        return [{"pid": os.getpid()}]

    @transform
    def other(ctx):
        open(ctx.project_path / "meeting").close()
        return [{"pid": os.getpid()}]

    @transform(schedule="@daily", start="2024-01-01", end="2024-01-07", batch_size=1, inputs=["transform.one"])
    def daily(ctx):
        return [{"day": ctx.interval.start.day, "pid": os.getpid()}]

    @command(inputs=["transform.daily", "transform.other"])
    def after(ctx):
        print(len(ctx.ref("transform.daily").fetchall()), "days")
    """,
            "seeknal/total.yml": "kind: transform\nname: total\n"
            "transform: SELECT count(*) AS days FROM ref('transform.daily')\n",
            "seeknal/shell.yml": "kind: command\nname: shell\ncommand: echo shell\ninputs: [{ref: transform.total}]\n",
        }
    )
    ended(plant.start("--dask-address", cluster.address, "--parallel", "3"))
    pids = {pid for (pid,) in plant.rows("transform.one") + plant.rows("transform.other")}
    assert len(pids) == 2
    assert [day for day, _ in plant.rows("transform.daily")] == [1, 2, 3, 4, 5, 6]
    assert plant.rows("transform.total") == [(6,)]
    assert (plant.path / plant.state("command.after").metadata["log"]).read_text() == "6 days\n"
    assert str(plant.state("command.shell").status) == "success"
    with plant.open() as backend:
        assert backend.list_locks() == []


def test_a_worker_that_is_killed_fails_the_attempt_that_it_had_and_another_one_makes_the_next(plant, cluster):
    plant.pipe("never")
    plant.write(
        {
            "seeknal/fragile.py": HEAD
            + """
    @transform(retries=1, retry_delay=0.01)
    def fragile(ctx):
        name = "second" if (ctx.project_path / "first").exists() else "first"
        note(ctx, name)
        if name == "first":
            open(ctx.project_path / "never").read()
        return [{"x": 1}]
    """
        }
    )
    run = plant.start("--dask-address", cluster.address)
    until(lambda: (plant.path / "first").exists() and (plant.path / "first").read_text() != "", Waiting(run))
    os.kill(plant.pid("first"), signal.SIGKILL)
    said = ended(run)
    assert "retrying transform.fragile" in said
    assert "KilledWorker" in said
    assert plant.pid("second") != plant.pid("first")
    assert (plant.state("transform.fragile").attempt, plant.rows("transform.fragile")) == (2, [(1,)])


@pytest.mark.nightly
def test_a_node_whose_workers_are_killed_too_often_fails(plant, cluster):
    plant.write(
        {
            "seeknal/deadly.py": HEAD
            + """
    @transform
    def deadly(ctx):
        os.kill(os.getpid(), 9)

    @transform
    def harmless(ctx):
        return [{"x": 1}]
    """
        }
    )
    said = ended(plant.start("--dask-address", cluster.address, "--continue-on-error"), 1)
    assert "the run failed: transform.deadly" in said
    assert plant.state("transform.deadly").error_message.startswith("its executor gave up: KilledWorker")
    assert str(plant.state("transform.harmless").status) == "success"


def test_another_coordinator_goes_on_with_what_one_that_was_killed_has_left(plant, cluster):
    plant.pipe("gate")
    plant.write(
        {
            "seeknal/daily.py": HEAD
            + """
    @transform
    def first(ctx):
        with open(ctx.project_path / "did", "a") as file:
            file.write("first\\n")
        return [{"x": 1}]

    @transform(schedule="@daily", start="2024-01-01", end="2024-01-07", batch_size=1, inputs=["transform.first"])
    def daily(ctx):
        if ctx.interval.start.day == 4 and not (ctx.project_path / "spare").exists():
            note(ctx, "began")
            open(ctx.project_path / "gate").read()
            (ctx.project_path / "late").touch()
            return [{"day": -4}]
        with open(ctx.project_path / "did", "a") as file:
            file.write(f"{ctx.interval.start.day}\\n")
        return [{"day": ctx.interval.start.day}]
    """
        }
    )
    run = plant.start("--dask-address", cluster.address, "--full")
    until(lambda: (plant.path / "began").exists(), Waiting(run))
    run.kill()
    run.communicate()
    assert (plant.path / "did").read_text().split() == ["first", "1", "2", "3"]
    (plant.path / "spare").touch()
    resumed = plant.start("--dask-address", cluster.address, "--resume", "--parallel", "2")
    (plant.path / "gate").write_text("what the killed one had begun goes on, and harms nobody")
    assert "on with run_" in ended(resumed)
    assert (plant.path / "late").exists()
    assert sorted((plant.path / "did").read_text().split()[4:]) == ["4", "5", "6"]
    assert plant.rows("transform.daily") == [(day,) for day in range(1, 7)]
    with plant.open() as backend:
        assert backend.list_locks() == []
        assert backend.list_claims("transform.daily") == []
        assert [str(backend.get_run(run_id).status) for run_id in backend.list_runs()] == ["failed", "success"]


@pytest.mark.nightly
def test_a_run_with_a_cluster_of_its_own_needs_no_scheduler(plant):
    plant.write({"seeknal/one.py": HEAD + "\n    @transform\n    def one(ctx):\n        return [{'x': 1}]\n"})
    ended(plant.start("--parallel", "2", "--quiet"))
    assert plant.rows("transform.one") == [(1,)]


IMPATIENT = """
import sys
from seeknal.runner import cluster

cluster.CONNECT_SECONDS = 1
from seeknal.cli.app import main

sys.exit(main(sys.argv[1:]))
"""


def test_a_scheduler_that_is_not_there_is_told_of_before_anything_is_recorded(plant):
    plant.write({"seeknal/one.yml": "kind: transform\nname: one\ntransform: SELECT 1 AS x\n"})
    program = [sys.executable, "-c", IMPATIENT, "run", "--executor", "dask", "--dask-address", "tcp://127.0.0.1:1"]
    done = subprocess.run(program, cwd=plant.path, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()
    assert first.startswith("error: the Dask scheduler at tcp://127.0.0.1:1 does not answer")
    assert second == "hint: Check --dask-address, or start it."
    with plant.open() as backend:
        assert backend.list_runs() == []


@pytest.mark.parametrize("module", ["dask", "distributed"])
def test_without_dask_the_error_says_what_to_install(plant, module, monkeypatch, capsys):
    plant.write({"seeknal/one.yml": "kind: transform\nname: one\ntransform: SELECT 1 AS x\n"})
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["run", "--executor", "dask", "--project-path", str(plant.path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: a Dask cluster needs {module}, which is not installed",
        "hint: pip install 'seeknal-state[dask]'.",
    ]
