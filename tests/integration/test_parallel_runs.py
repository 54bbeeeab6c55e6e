"""Nodes at the same time: what begins when, what a failure stops, and what a kill leaves behind.

Commands wait for each other through named pipes, so a test that needs two at once ends only if there are two at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from tests.integration.test_runner import Workshop

from seeknal.errors import ConfigurationError

RUN_TWO_AT_ONCE = """
import sys
from pathlib import Path
from tests.integration.test_runner import Workshop
Workshop(sys.argv[1], Path(sys.argv[2])).run(parallel=2)
"""


class Counting(Executor):
    """Threads that know what was begun, and how many were busy at most."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most = 0
        self.is_crowded = threading.Event()
        self._busy = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(8)

    def submit(self, fn, /, task) -> Future:
        with self._lock:
            self.begun.append(task.node.name)
            self._busy += 1
            self.most = max(self.most, self._busy)
            if self._busy > 2:
                self.is_crowded.set()
        future = self._pool.submit(fn, task)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future) -> None:
        with self._lock:
            self._busy -= 1


@pytest.fixture(params=["file", "database"])
def works(request, tmp_path):
    workshop = Workshop(request.param, tmp_path)
    workshop.write({"seeknal_project.yml": "name: works\n"})
    return workshop


def add_command(works: Workshop, name: str, command: str, *inputs: str, more: str = "") -> None:
    refs = ", ".join(f"{{ref: command.{each}}}" for each in inputs)
    text = f"kind: command\nname: {name}\ninputs: [{refs}]\ncommand: |\n  {command}\n{more}"
    works.write({f"seeknal/{name}.yml": text})


def pipe(works: Workshop, name: str) -> str:
    os.mkfifo(works.path / name)
    return name


def states(works: Workshop) -> dict[str, tuple[str, str | None]]:
    """Return the status and the message or reason of each node in the newest run."""
    with works.open() as backend:
        found = backend.get_all_node_states(backend.list_runs(newest_first=True)[0])
    return {
        node_id.removeprefix("command."): (
            str(state.status),
            state.metadata.get("reason") if state.status == "skipped" else state.error_message,
        )
        for node_id, state in found.items()
    }


def test_as_many_nodes_as_asked_for_run_at_once_and_no_more(works):
    meeting, release = pipe(works, "meeting"), pipe(works, "release")
    add_command(works, "a", f"timeout 30 sh -c 'cat {release}; echo > {meeting}'")
    add_command(works, "b", f"timeout 30 cat {meeting}")
    add_command(works, "c", "true")
    add_command(works, "d", "true")
    executor = Counting()

    def let_go() -> None:
        executor.is_crowded.wait(0.5)  # a third one would be begun by then
        (works.path / release).write_text("go on")

    letting = threading.Thread(target=let_go)
    letting.start()
    assert works.run(parallel=2, executor=executor).status == "success"
    letting.join()
    assert executor.most == 2
    assert executor.begun[:2] == ["a", "b"]
    assert sorted(executor.begun) == ["a", "b", "c", "d"]


def test_one_at_a_time_is_the_order_of_the_project(works):
    for name, inputs in (("d", ()), ("a", ("d",)), ("c", ()), ("b", ("a",))):
        add_command(works, name, "true", *inputs)
    executor = Counting()
    report = works.run(executor=executor)
    assert [f"command.{name}" for name in executor.begun] == list(report.nodes)
    assert executor.most == 1


def test_a_node_begins_when_its_own_inputs_are_done_whatever_else_runs(works):
    meeting = pipe(works, "meeting")
    add_command(works, "quick", "true")
    add_command(works, "after_quick", f"timeout 30 sh -c 'echo > {meeting}'", "quick")
    add_command(works, "slow", f"timeout 30 cat {meeting}")
    assert works.run(parallel=2).status == "success"


def failing_beside_another(works: Workshop):
    """Let ``a`` fail while ``b`` runs; ``b`` ends only when the failure has been told of."""
    began, release = pipe(works, "began"), pipe(works, "release")
    add_command(works, "a", f"timeout 30 cat {began}; exit 3")
    add_command(works, "b", f"timeout 30 sh -c 'echo > {began}; cat {release}'")
    add_command(works, "c", "echo > c")
    add_command(works, "d", "true", "a")
    add_command(works, "e", "true", "d")

    def let_go(event) -> None:
        if event.status == "failed":
            (works.path / release).write_text("go on")

    return let_go


def test_after_a_failure_nothing_is_begun_and_what_runs_goes_on_to_its_end(works):
    report = works.run(parallel=2, on_event=failing_beside_another(works))
    assert report.status == "failed"
    assert states(works) == {
        "a": ("failed", "exit code 3"),
        "b": ("success", None),
        "c": ("skipped", "not begun, since command.a failed"),
        "d": ("skipped", "command.a failed"),
        "e": ("skipped", "command.d skipped"),
    }
    assert not (works.path / "c").exists()
    assert report.nodes == {f"command.{name}": status for name, (status, _) in sorted(states(works).items())}


def test_asked_to_continue_a_run_does_all_that_does_not_need_what_failed(works):
    report = works.run(parallel=2, continue_on_error=True, on_event=failing_beside_another(works))
    assert report.status == "failed"
    assert {name: status for name, (status, _) in states(works).items()} == {
        "a": "failed",
        "b": "success",
        "c": "success",
        "d": "skipped",
        "e": "skipped",
    }


def test_what_a_killed_run_recorded_is_true_and_the_next_one_goes_on(works):
    began = pipe(works, "began")
    add_command(works, "a", "echo > a")
    add_command(works, "b", f"test -e spare || timeout 30 sh -c 'echo > {began}'")
    add_command(works, "c", f"test -e spare || (timeout 30 cat {began} && kill -9 $PPID)", "a")
    add_command(works, "d", "true", "c")
    killed = subprocess.run([sys.executable, "-c", RUN_TWO_AT_ONCE, works.kind, works.path], check=False)
    assert killed.returncode == -signal.SIGKILL
    with works.open() as backend:
        (run_id,) = backend.list_runs(status="running")
        found = {node_id: str(state.status) for node_id, state in backend.get_all_node_states(run_id).items()}
    assert found.pop("command.b") in ("running", "success")
    assert found == {"command.a": "success", "command.c": "running"}
    works.write({"spare": ""})
    works.clock.advance(minutes=2)
    report = works.run(parallel=2)
    assert (report.status, report.recovered) == ("success", [run_id])
    assert (report.nodes["command.a"], report.nodes["command.c"]) == ("cached", "success")


def test_less_than_one_at_a_time_is_refused_before_anything_is_recorded(works):
    add_command(works, "a", "true")
    with pytest.raises(ConfigurationError, match="parallel is 0"):
        works.run(parallel=0)
    with works.open() as backend:
        assert backend.list_runs() == []
