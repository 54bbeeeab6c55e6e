"""``seeknal run`` is killed with SIGKILL at random moments; what follows does the rest, and nothing again.

The lock of a runner that was killed frees itself after 30 seconds. Most of these tests do not wait for that: they break
it, as somebody does with ``seeknal state unlock`` who knows that the process is gone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
from tests.crash.many_nodes import BEGIN, HOUR, HOURS, KEYS, NODES, Trace, traces_of, write_project
from tests.servers.stores import ServerStore

from seeknal.model.intervals import Interval
from seeknal.pipeline.load import load_project
from seeknal.pipeline.nodes import Node, Project
from seeknal.runner.execute import LEFT_BEHIND_SECONDS, run_project
from seeknal.runner.outputs import output_path, parts_folder
from seeknal.state import doctor
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.memory import MemoryStateBackend, MemoryStore

WHOLE = Interval(BEGIN, BEGIN + HOURS * HOUR)
SEED = 20240101
"""Of the project of the shorter tests."""

MOST_BEGINNINGS = 100
"""After so many a run that is killed again and again has to have come to its end."""

Outputs = dict[str, list[tuple[str, int]]]
"""The rows of each node that has an output, sorted."""


class Kill(NamedTuple):
    """When and how a runner is killed.

    Attributes:
        after: After how many events of nodes that are not up to date.
        in_a_range: Whether at the next one that is about a range of a node.
        with_group: With all of its process group.
    """

    after: int
    in_a_range: bool
    with_group: bool


class Recorded(NamedTuple):
    """What a store says is done.

    Attributes:
        succeeded: The nodes that have succeeded, with the run that did it and the version of that state.
        hours: By node the hours that are completed, with the run that completed each.
        keys: By node the partitions that are completed, with the run that completed each.
    """

    succeeded: dict[str, tuple[str, int]]
    hours: dict[str, dict[int, str]]
    keys: dict[str, dict[str, str]]


class Runs:
    """A project that is run by the command, and killed.

    Args:
        path: Where it is.
        store: Opens its store.
        options: What the command is told of the store.
        seed: Of the project.
        settings: More lines of the project file.
    """

    def __init__(
        self, path: Path, store: Callable[[], StateBackend], options: Collection[str], seed: int, settings: str = ""
    ) -> None:
        write_project(path, seed, settings)
        self.path = path
        self.project = load_project(path)
        self._store = store
        self._options = options

    def open(self) -> StateBackend:
        backend = self._store()
        backend.initialize()
        return backend

    def run(self, *how: str, kill: Kill | None = None) -> bool:
        """Run the command; return whether it came to its end, which is then a success."""
        command = [sys.executable, "-m", "seeknal.cli.app", "run", "--parallel", "4", "--output", "jsonl", *how]
        with (
            (self.path / "stderr.txt").open("w+") as said,
            subprocess.Popen(
                [*command, *self._options],
                cwd=self.path,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            ) as runner,
        ):
            assert runner.stdout is not None
            left = kill.after if kill is not None else 0
            for event in map(json.loads, runner.stdout):
                left -= event["event"] == "node" and event["status"] != "cached"
                if kill is not None and left <= 0 and (event.get("total") or not kill.in_a_range):
                    (os.killpg if kill.with_group else os.kill)(runner.pid, signal.SIGKILL)
                    break
            code = runner.wait()
            said.seek(0)
            assert code in (0, -signal.SIGKILL), said.read()
        return code == 0

    def look(self) -> Recorded:
        """Return what is done."""
        with self.open() as backend:
            newest = {each: backend.get_latest_node_state(each, "success") for each in self.project.nodes}
            return Recorded(
                {each: (state.run_id, state.version) for each, state in newest.items() if state is not None},
                {each.node_id: _hours(backend, each.node_id) for each in self._ranged() if each.schedule},
                {each.node_id: _keys(backend, each.node_id) for each in self._ranged() if each.partitions},
            )

    def unlock(self) -> None:
        """Free what the runner that was killed has held."""
        with self.open() as backend:
            for lock in backend.list_locks():
                backend.break_lock(lock.run_id, lock.node_id, reason="its process was killed")

    def _ranged(self) -> Iterator[Node]:
        return (node for node in self.project.nodes.values() if node.is_ranged)


def _hours(backend: StateBackend, node_id: str) -> dict[int, str]:
    found = {}
    for each in backend.get_interval_provenance(node_id):
        for hour in range((each.start - BEGIN) // HOUR, (each.end - BEGIN) // HOUR):
            found[hour] = each.run_id
    return found


def _keys(backend: StateBackend, node_id: str) -> dict[str, str]:
    return {each.partition: each.run_id for each in backend.list_partitions(node_id)}


def rows_of(project: Project) -> Outputs:
    """Return the rows of all files that stand where outputs are read from."""
    found = {}
    for node in project.nodes.values():
        if node.has_output:
            path = output_path(project.path, node.node_id)
            files = parts_folder(project.path, node.node_id) / "*.parquet" if node.is_ranged else path
            with duckdb.connect() as connection:
                rows = connection.execute(f"SELECT place, value FROM '{files}' ORDER BY ALL").fetchall()
            found[node.node_id] = rows
    return found


def what_a_run_without_kills_gives(path: Path, seed: int) -> Outputs:
    write_project(path, seed)
    project = load_project(path)
    with MemoryStateBackend(MemoryStore()) as backend:
        backend.initialize()
        assert run_project(project, backend, parallel=4).status == "success"
    check_done_once(project, traces_of(path))
    return rows_of(project)


def check_done_once(project: Project, traces: dict[str, list[Trace]]) -> None:
    """Check that all was done, and nothing twice, when nothing was killed."""
    for node in acting(project):
        units = sorted(trace.unit for trace in traces[node.name])
        if node.schedule is not None:
            assert sorted(hour for trace in traces[node.name] for hour in trace.hours) == list(range(HOURS))
        else:
            assert units == (sorted(KEYS) if node.partitions is not None else ["all"])


def acting(project: Project) -> list[Node]:
    """Return the nodes that leave traces."""
    return [node for node in project.nodes.values() if node.name.startswith(("act", "shell", "function"))]


def check_nothing_was_done_again(before: Recorded, then: dict[str, list[Trace]], runs: Runs) -> None:
    """Check what was done when the runner was killed against what is done now.

    Args:
        before: What the store said right after the kill.
        then: What had been done by then.
        runs: The project.
    """
    after, now = runs.look(), traces_of(runs.path)
    lost = before.succeeded.items() - after.succeeded.items()
    assert not lost, "a node that had succeeded was run again, or its success was forgotten"
    for node in acting(runs.project):
        added = now.get(node.name, [])[len(then.get(node.name, [])) :]
        if node.node_id in before.succeeded:
            assert added == [], f"{node.node_id} had succeeded, and did something again"
        hours = before.hours.get(node.node_id, {}).keys()
        keys = before.keys.get(node.node_id, {}).keys()
        again = [trace for trace in added if node.schedule is not None and hours & set(trace.hours)]
        again += [trace for trace in added if trace.unit in keys]
        assert again == [], f"{node.node_id}: what was completed was done again"
    for node_id, hours in before.hours.items():
        assert hours.items() <= after.hours[node_id].items(), f"{node_id}: hours were completed again"
    for node_id, keys in before.keys.items():
        assert keys.items() <= after.keys[node_id].items(), f"{node_id}: partitions were completed again"


def check_end(runs: Runs, expected: Outputs) -> None:
    """Check that all is as it would be if nothing had been killed, and that nothing is left of the kills."""
    traces = traces_of(runs.path)
    assert rows_of(runs.project) == expected
    for node in acting(runs.project):
        done = Counter(
            unit for trace in traces[node.name] for unit in (trace.hours if node.schedule is not None else [trace.unit])
        )
        wanted = range(HOURS) if node.schedule is not None else KEYS if node.partitions is not None else ["all"]
        assert done.keys() == set(wanted), f"{node.node_id} was not done"
    with runs.open() as backend:
        states = [backend.get_latest_node_state(node_id) for node_id in runs.project.nodes]
        assert {str(state.status) for state in states if state is not None} <= {"success", "cached"}
        assert None not in states
        for node in runs.project.nodes.values():
            if node.schedule is not None:
                done = [Interval(each.start, each.end) for each in backend.get_completed_intervals(node.node_id)]
                assert done == [WHOLE]
            if node.partitions is not None:
                assert {each.partition for each in backend.list_partitions(node.node_id)} == set(KEYS)
        assert backend.list_runs(status="running") == []
        assert backend.list_locks() == []
        assert backend.list_claimed_nodes() == []
        assert list(doctor.examine(backend)) == []
    check_that_the_next_run_does_nothing(runs, traces)


def check_that_the_next_run_does_nothing(runs: Runs, traces: dict[str, list[Trace]]) -> None:
    """Check that, and that it clears away the files that killed runs have left once they are old enough."""
    outputs = runs.path / "target" / "outputs"
    (outputs / ".transform%2erows.1.left.tmp").touch()  # few kills come while one is written
    for left in outputs.glob(".*.tmp"):
        old = left.stat().st_mtime - LEFT_BEHIND_SECONDS - 60
        os.utime(left, (old, old))
    assert runs.run("--quiet")
    with runs.open() as backend:
        (newest,) = backend.list_runs(newest_first=True, limit=1)
        states = backend.get_all_node_states(newest)
    assert Counter(str(state.status) for state in states.values()) == {"cached": NODES}
    assert traces_of(runs.path) == traces
    assert [path.name for path in outputs.iterdir() if path.name.startswith(".")] == []


def kill_again_and_again(runs: Runs, rng: random.Random, kills: int, *, most_events: int) -> int:
    """Run until it succeeds, killed at random moments so often at most; return how often it was.

    After each kill the runner is asked to resume, or is just run. Each is checked against all kills before it.
    """
    killed: list[tuple[Recorded, dict[str, list[Trace]]]] = []
    for number in range(MOST_BEGINNINGS):
        kill = None
        if len(killed) < kills:  # in the second half there may be no ranges left
            kill = Kill(rng.randint(1, most_events), len(killed) < kills / 2, rng.random() < 0.5)
        how = ["--resume"] if number % 2 else ["--wait", "60s"]
        executor = "processes" if number % 3 == 2 else "threads"
        is_over = runs.run(*how, "--quiet", "--executor", executor, kill=kill)
        for before, then in killed:
            check_nothing_was_done_again(before, then, runs)
        if is_over:
            return len(killed)
        killed.append((runs.look(), traces_of(runs.path)))
        runs.unlock()
    raise AssertionError(f"after {len(killed)} kills the project has not come to its end")


def killed_once(runs: Runs) -> tuple[Recorded, dict[str, list[Trace]]]:
    """Kill a runner in the midst of its work; return what is recorded, and what was done."""
    assert not runs.run("--quiet", kill=Kill(after=100, in_a_range=True, with_group=True))
    return runs.look(), traces_of(runs.path)


def local_runs(kind: str, path: Path, seed: int) -> Runs:
    target = path / "target"
    place = {"base_path": target} if kind == "file" else {"db_path": target / "state.db"}
    return Runs(path, lambda: create_state_backend(kind, **place), ["--backend", kind], seed)


def server_runs(store: ServerStore, path: Path, seed: int) -> Runs:
    settings = f"state_backend: database\nstate_options: {json.dumps(store.options)}\n"
    return Runs(path, lambda: create_state_backend("database", **store.options), [], seed, settings)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Return what a run of the project without kills gives."""
    return what_a_run_without_kills_gives(tmp_path_factory.mktemp("whole") / "project", SEED)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "kills"), [("file", 3), ("database", 2)])
def test_a_runner_that_is_killed_and_run_again_does_all_and_nothing_of_it_again(
    kind: str, kills: int, expected: Outputs, tmp_path: Path
) -> None:
    runs = local_runs(kind, tmp_path / "project", SEED)
    assert kill_again_and_again(runs, random.Random(), kills, most_events=150) == kills
    check_end(runs, expected)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["file", "database", "postgresql"])
def test_a_runner_that_is_killed_ten_times_does_all_and_nothing_of_it_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(1_000_000)
    print(f"the project of seed {seed}")
    expected = what_a_run_without_kills_gives(tmp_path / "whole", seed)
    if kind == "postgresql":
        runs = server_runs(request.getfixturevalue("postgres_store"), tmp_path / "killed", seed)
    else:
        runs = local_runs(kind, tmp_path / "killed", seed)
    assert kill_again_and_again(runs, random.Random(), 10, most_events=70) == 10
    check_end(runs, expected)
    with capsys.disabled():
        print(f"\n{kind}: 10 kills at random moments; {NODES} nodes were done, and nothing that was done again")


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_run_that_resumes_waits_until_the_lock_of_the_dead_has_ended(
    kind: str, expected: Outputs, tmp_path: Path
) -> None:
    runs = local_runs(kind, tmp_path / "project", SEED)
    before, then = killed_once(runs)
    assert runs.run("--resume", "--quiet")
    check_nothing_was_done_again(before, then, runs)
    check_end(runs, expected)
