"""Processes that run one project at once: real ones, which share 60 hours of a node, and of which some are killed.

The function of that node waits at a gate, a named pipe of its process, so a test knows where each process is. Leases
live three seconds, for the sake of those that wait for the end of one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest
from tests.integration.test_runner import Workshop

from seeknal.clock import SystemClock
from seeknal.pipeline.load import load_project
from seeknal.runner.outputs import list_parts, output_path, parts_folder
from seeknal.state.backend import StateBackend, open_state_backend
from seeknal.tracking import recover_dead_runs

HOURS = 60
TTL_MS = 3000
PATIENCE_S = 50

PROJECT = {
    "seeknal/before.yml": "kind: command\nname: before\ncommand: echo before >> whole\n",
    "seeknal/hourly.py": """
        import os

        from seeknal.pipeline import transform

        @transform(schedule="@hourly", start="2024-01-01", end="2024-01-03T12:00", inputs=["command.before"])
        def hourly(ctx):
            calls = os.environ["CALLS"] = str(int(os.environ.get("CALLS", "0")) + 1)
            if calls == os.environ.get("GATE_AT"):
                open(os.environ["GATE"]).read()
            first, last = (int(each.timestamp()) // 3600 for each in (ctx.interval.start, ctx.interval.end))
            with open(ctx.project_path / "computed", "a") as file:
                file.writelines(f"{hour} {os.getpid()}\\n" for hour in range(first, last))
            return [{"hour": hour} for hour in range(first, last)]
        """,
    "seeknal/second.yml": """
        kind: transform
        name: second
        schedule: "@hourly"
        start: 2024-01-01
        end: 2024-01-03T12:00
        batch_size: 15
        transform: SELECT hour FROM ref('transform.hourly')
          WHERE hour >= epoch(TIMESTAMP '{{ start }}') / 3600 AND hour < epoch(TIMESTAMP '{{ end }}') / 3600
        """,
    "seeknal/total.yml": """
        kind: transform
        name: total
        transform: |
          SELECT count(*) AS n, count(DISTINCT hour) AS hours, (SELECT count(*) FROM ref('transform.second')) AS second
          FROM ref('transform.hourly')
        """,
    "seeknal/after.yml": """
        kind: command
        name: after
        inputs: [{ref: transform.total}]
        command: echo after >> whole
        """,
}
WITH_SHORT_LEASES = f"""
import sys
from seeknal.state.locking import LockVerbs

LockVerbs.lock.__wrapped__.__kwdefaults__["ttl_ms"] = {TTL_MS}
from seeknal.cli.app import main

sys.exit(main(sys.argv[1:]))
"""


class Factory:
    """A project and processes that run it."""

    def __init__(self, path: Path, settings: str, stack: ExitStack) -> None:
        self.path = path
        Workshop("file", path).write({"seeknal_project.yml": settings, **PROJECT})
        self._stack = stack
        with self.open():
            pass

    def open(self) -> StateBackend:
        return open_state_backend(self.path)

    def start(self, *options: str, gate_at: int = 0) -> Runner:
        return self._stack.enter_context(Runner(self.path, options, gate_at))

    def computed(self) -> Counter[int]:
        """Return how often each hour was computed, counted from the first."""
        first = 1704067200 // 3600  # 2024-01-01
        return Counter(int(line.split()[0]) - first for line in (self.path / "computed").read_text().splitlines())

    def begin_anew(self, name: str, old: str, new: str) -> None:
        """Edit a file, and forget what was computed."""
        Workshop("file", self.path).edit(name, old, new)
        (self.path / "computed").unlink()

    def workers(self) -> set[str]:
        return {line.split()[1] for line in (self.path / "computed").read_text().splitlines()}

    def check_is_done(self, whole: Sequence[str] = ("before", "after")) -> None:
        """Every row is there once, whole nodes were run once, and nothing is left."""
        with duckdb.connect() as connection:
            path = str(output_path(self.path, "transform.total"))
            (total,) = connection.execute("FROM read_parquet(?)", [path]).fetchall()
        assert total == (HOURS, HOURS, HOURS)
        assert (self.path / "whole").read_text().split() == list(whole)
        for node_id in ("transform.hourly", "transform.second"):
            folder = parts_folder(self.path, node_id)
            assert sum(part.rows for part in list_parts(folder)) == HOURS
            assert len(list(folder.iterdir())) == len(list_parts(folder)), "something else is in the folder"
        with self.open() as backend:
            assert [claim for node_id in load_project(self.path).nodes for claim in backend.list_claims(node_id)] == []
            assert backend.list_locks() == []
        assert not list((self.path / "target").rglob(".*.tmp"))


class Runner:
    """A process of ``seeknal run`` that waits at its gate when it has begun so many ranges."""

    def __init__(self, path: Path, options: tuple[str, ...], gate_at: int) -> None:
        gate = path / f"gate-{os.urandom(4).hex()}"
        os.mkfifo(gate)
        self._gate = gate
        self._said = gate.with_suffix(".log")
        self._writer: int | None = None
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WITH_SHORT_LEASES, "run", *options],
                cwd=path,
                stdout=said,
                stderr=said,
                env=os.environ | {"GATE": str(gate), "GATE_AT": str(gate_at)},
            )

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.open_gate()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait_at_gate(self) -> None:
        """Wait until it stands at its gate."""
        deadline = SystemClock().ticks_us() + PATIENCE_S * 1_000_000
        while self._writer is None:
            try:
                self._writer = os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                assert self.process.poll() is None, self._said.read_text()
                assert SystemClock().ticks_us() < deadline, self._said.read_text()
                _let_pass(self.process)

    def open_gate(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def succeeds(self) -> None:
        assert self.process.wait(PATIENCE_S) == 0, self._said.read_text()


def _let_pass(process: subprocess.Popen) -> None:
    """Wait for a moment, or until a process has ended."""
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return


def until(true: Callable[[], bool], runner: Runner) -> None:
    deadline = SystemClock().ticks_us() + PATIENCE_S * 1_000_000
    while not true():
        assert SystemClock().ticks_us() < deadline
        _let_pass(runner.process)


KINDS = ["file", "database", "postgresql"]
everywhere = pytest.mark.parametrize("factory", KINDS, indirect=True)
in_one_place = pytest.mark.parametrize(
    "factory",
    ["database", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in KINDS if kind != "database")],
    indirect=True,
)
"""The others are the same code on another store; what differs between stores is tried everywhere."""


@pytest.fixture
def factory(request, tmp_path, emptied_store) -> Iterator[Factory]:
    settings = f"name: factory\nstate_backend: {request.param}\n"
    if request.param == "postgresql":
        options = emptied_store("postgresql").options
        settings = f"name: factory\ndatabase_url: {options['url']}\nstate_options: {{schema: {options['schema']}}}\n"
    with ExitStack() as stack:
        yield Factory(tmp_path, settings, stack)


@in_one_place
def test_three_processes_share_a_backfill_and_do_each_range_once(factory):
    runners = [factory.start("--backfill", gate_at=1) for _ in range(3)]
    for runner in runners:
        runner.wait_at_gate()
    for runner in runners:
        runner.open_gate()
    for runner in runners:
        runner.succeeds()
    assert factory.computed() == dict.fromkeys(range(HOURS), 1)
    assert len(factory.workers()) == 3
    factory.check_is_done()


@everywhere
def test_the_ranges_of_a_process_that_was_killed_are_done_by_the_others_when_its_lease_has_ended(factory):
    victim = factory.start("--backfill", gate_at=5)
    victim.wait_at_gate()
    others = [factory.start("--backfill", gate_at=1) for _ in range(2)]
    for runner in others:
        runner.wait_at_gate()
    victim.kill()
    assert sorted(factory.computed()) == list(range(4)), "the fifth range was begun by the victim alone"
    for runner in others:
        runner.open_gate()
    for runner in others:
        runner.succeeds()
    assert factory.computed() == dict.fromkeys(range(HOURS), 1)
    factory.check_is_done()
    with factory.open() as backend:
        (dead,) = backend.list_runs(status="running")
        assert len(backend.list_runs(status="success")) == 2
        assert recover_dead_runs(backend) == [dead]


@in_one_place
def test_a_plain_run_beside_a_backfill_waits_for_what_that_has_begun_and_does_the_rest(factory):
    backfill = factory.start("--backfill", gate_at=5)
    backfill.wait_at_gate()
    plain = factory.start("--parallel", "2")
    with factory.open() as backend:
        until(lambda: len(_running(backend, "transform.hourly")) == 2, plain)
    backfill.open_gate()
    backfill.succeeds()
    plain.succeeds()
    assert factory.computed().keys() == set(range(HOURS))
    factory.check_is_done()


@in_one_place
def test_a_node_that_has_changed_is_rebuilt_by_processes_that_share_it_each_range_once(factory):
    factory.start().succeeds()
    factory.begin_anew("seeknal/hourly.py", 'return [{"hour"', 'return [{"version": 2, "hour"')
    runners = [factory.start("--backfill", gate_at=1), factory.start("--backfill", gate_at=3)]
    for runner in runners:
        runner.wait_at_gate()
    for runner in runners:
        runner.open_gate()
    for runner in runners:
        runner.succeeds()
    assert factory.computed() == dict.fromkeys(range(HOURS), 1)
    assert len(factory.workers()) == 2
    factory.check_is_done(whole=["before", "after", "after"])


def _running(backend: StateBackend, node_id: str) -> list[str]:
    found = backend.list_runs(status="running")
    states = [backend.get_node_state(run_id, node_id) for run_id in found]
    return [state.run_id for state in states if state is not None and state.status == "running"]


@in_one_place
def test_a_backfill_beside_a_plain_run_does_what_that_has_not_begun(factory):
    plain = factory.start(gate_at=1)  # all 60 hours in one batch
    plain.wait_at_gate()
    refused = subprocess.run(
        [sys.executable, "-m", "seeknal.cli.app", "run"], cwd=factory.path, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (3, "")
    backfill = factory.start("--backfill")
    plain.open_gate()
    plain.succeeds()
    backfill.succeeds()
    assert factory.computed() == dict.fromkeys(range(HOURS), 1)
    factory.check_is_done()
