"""Nodes in processes of their own: what becomes of one that crashes, takes too long, or is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from tests.integration.test_attempts import ENDLESS, newest, said, when_written
from tests.integration.test_parallel_runs import add_command, pipe, states, works
from tests.integration.test_runner import Workshop, python_node
from tests.integration.test_stopping import run_of

from seeknal.clock import SystemClock
from seeknal.runner.control import Control
from seeknal.runner.executors import InProcesses
from seeknal.runner.stopping import KILL_SECONDS

__all__ = ["works"]

CRASHES = {
    "it is killed by a signal": ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "it leaves by itself": ("os._exit(7)", "exit code 7"),
    "it leaves as if it had succeeded": ("os._exit(0)", "exit code 0"),
}


def add(works: Workshop, name: str, body: str, options: str = "") -> None:
    text = python_node("import os, signal, time\n" + body).replace("def step", f"def {name}")
    works.write({f"seeknal/{name}.py": text.replace("@transform", f"@transform({options})")})


def ended(works: Workshop, name: str) -> bool:
    """Return whether the process is gone that has written its number to a file."""
    try:
        os.kill(int((works.path / name).read_text()), 0)
    except ProcessLookupError:
        return True
    return False


NOTE_PID = "(ctx.project_path / 'pid').write_text(str(os.getpid()))\n"


@pytest.mark.parametrize(("crash", "how"), CRASHES.values(), ids=CRASHES)
def test_a_node_whose_process_ends_fails_alone_and_says_how(works, crash, how):
    add(works, "bad", crash)
    add(works, "good", "return [{'x': 1}]")
    report = works.run(executor=InProcesses(), continue_on_error=True)
    assert report.nodes == {"transform.bad": "failed", "transform.good": "success"}
    assert newest(works, "transform.bad").error_message == f"its process ended without a result: {how}"
    assert {path.name for path in (works.path / "target/outputs").iterdir()} == {"transform.good.parquet"}


def test_a_node_that_crashed_is_tried_again(works):
    body = "tried = ctx.project_path / 'tried'\nif not tried.exists():\n    tried.touch()\n    os._exit(7)\n"
    add(works, "flaky", body + "return [{'x': 1}]", "retries=1")
    assert works.run(executor=InProcesses()).status == "success"
    assert (newest(works, "transform.flaky").attempt, works.rows("transform.flaky")) == (2, [(1,)])


def test_what_a_function_raises_and_says_is_kept_as_it_is_in_threads(works):
    add(works, "bad", "print('so far')\nclass OddError(Exception):\n    pass\nraise OddError('no')")
    works.run(executor=InProcesses())
    assert newest(works, "transform.bad").error_message == "OddError: no"
    assert said(works, "transform.bad") == "so far\n"


def test_nodes_and_ranges_run_at_once_each_in_a_process_of_its_own(works):
    meeting = pipe(works, "meeting")
    add(works, "one", f"open(ctx.project_path / {meeting!r}, 'w').close()\nreturn [{{'pid': os.getpid()}}]")
    add(works, "two", f"open(ctx.project_path / {meeting!r}).close()\nreturn [{{'pid': os.getpid()}}]")
    add(works, "daily", "return [{'pid': os.getpid()}]", "schedule='@daily', start='2024-01-07', batch_size=1")
    assert works.run(executor=InProcesses(), parallel=2).status == "success"
    pids = [pid for name in ("one", "two", "daily") for (pid,) in works.rows(f"transform.{name}")]
    assert len(set(pids)) == len(pids) == 5
    assert os.getpid() not in pids


def test_a_function_that_takes_too_long_is_ended_and_so_is_its_process(works):
    began = pipe(works, "began")
    add(works, "slow", NOTE_PID + f"(ctx.project_path / {began!r}).write_text('x')\ntime.sleep(50)", "timeout='10s'")
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))
    assert works.run(executor=InProcesses()).status == "failed"
    moving.join()
    assert newest(works, "transform.slow").error_message == "timed out after 10 s"
    assert ended(works, "pid")


def test_a_function_that_does_not_listen_is_killed(works):
    began = pipe(works, "began")
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + NOTE_PID
    add(works, "deaf", body + f"(ctx.project_path / {began!r}).write_text('x')\ntime.sleep(50)", "timeout='10s'")
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))

    def go_on(event) -> None:
        if event.status == "ending":
            works.clock.advance(seconds=KILL_SECONDS)

    assert works.run(executor=InProcesses(), on_event=go_on).status == "failed"
    moving.join()
    assert newest(works, "transform.deaf").error_message == "timed out after 10 s"
    assert ended(works, "pid")


def test_a_long_query_draws_nothing_on_stdout_where_the_json_of_a_run_is(works):
    works.write(
        {"seeknal/bar.yml": "kind: transform\nname: bar\ntransform: SELECT current_setting('enable_progress_bar') AS x"}
    )
    works.run(executor=InProcesses())
    assert works.rows("transform.bar") == [(False,)]


@pytest.mark.nightly  # a query is not always interrupted: then it is seen only after 5 s that it has to be killed
def test_a_query_that_takes_too_long_is_ended(works):
    works.clock = SystemClock()
    works.clock.advance = lambda **_: None
    works.write({"seeknal/step.yml": f"kind: transform\nname: step\ntimeout: 3s\ntransform: {ENDLESS}\n"})
    assert works.run(executor=InProcesses()).status == "failed"
    assert newest(works, "transform.step").error_message == "timed out after 3 s"
    assert list((works.path / "target/outputs").glob("*.parquet")) == []


def test_ctrl_c_reaches_the_runner_alone_and_the_function_has_its_chance(works):
    began, gate = pipe(works, "began"), pipe(works, "gate")
    body = (
        f"(ctx.project_path / {began!r}).write_text('x')\nreturn [{{'x': (ctx.project_path / {gate!r}).read_text()}}]"
    )
    add(works, "slow", body)
    add_command(works, "after", "true")
    works.edit("seeknal/after.yml", "inputs: []", "inputs: [{ref: transform.slow}]")
    place = [] if works.kind == "file" else ["--backend", works.kind]
    runner = subprocess.Popen(
        [sys.executable, "-m", "seeknal.cli.app", "run", "--executor", "processes", *place],
        cwd=works.path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    (works.path / began).read_text()
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    assert next(line for line in runner.stderr if line.startswith("stopping transform.slow: SIGINT"))
    (works.path / gate).write_text("on")
    assert runner.wait() == 130
    runner.stderr.close()
    assert states(works) == {"transform.slow": ("success", None), "after": ("skipped", "the run was cancelled")}
    assert works.rows("transform.slow") == [("on",)]
    assert run_of(works) == ("cancelled", [])


def test_at_the_second_signal_the_process_of_a_function_is_killed(works):
    began = pipe(works, "began")
    add(works, "slow", NOTE_PID + f"(ctx.project_path / {began!r}).write_text('x')\ntime.sleep(50)")
    place = [] if works.kind == "file" else ["--backend", works.kind]
    runner = subprocess.Popen(
        [sys.executable, "-m", "seeknal.cli.app", "run", "--executor", "processes", "--quiet", *place],
        cwd=works.path,
        stderr=subprocess.PIPE,
        text=True,
    )
    (works.path / began).read_text()
    runner.send_signal(signal.SIGINT)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait() == 130
    runner.stderr.close()
    assert states(works) == {"transform.slow": ("failed", "cancelled")}
    assert run_of(works) == ("cancelled", [])
    assert ended(works, "pid")


# ---- executors of somebody else ----


class Broken(Executor):
    """An executor that loses what it is given."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        future.set_exception(RuntimeError("no machine is left"))
        return future


class BrokenWorkers:
    """The same, of the kind that can end what it runs."""

    def begin(self, task):
        return Broken().submit(None, task), Control()


def test_what_runs_on_an_executor_is_given_up_after_its_timeout_and_what_it_leaves_is_not_taken(works):
    began, gate = pipe(works, "began"), pipe(works, "gate")
    body = (
        f"(ctx.project_path / {began!r}).write_text('x')\nreturn [{{'x': (ctx.project_path / {gate!r}).read_text()}}]"
    )
    add(works, "slow", body, "timeout='10s', retries=3")
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))

    def go_on(event) -> None:
        if event.status == "ending":
            works.clock.advance(seconds=KILL_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        assert works.run(executor=pool, on_event=go_on).status == "failed"
        state = newest(works, "transform.slow")
        (works.path / gate).write_text("late")
    moving.join()
    message = "timed out after 10 s; its executor cannot end it, so it was left going on"
    assert (state.error_message, state.attempt) == (message, 1)
    assert list((works.path / "target/outputs").glob("*.parquet")) == []


def test_an_executor_that_gives_up_fails_the_attempt_and_says_what_it_said(works):
    add(works, "one", "return [{'x': 1}]", "retries=1, retry_delay=0.01")
    assert works.run(executor=Broken()).status == "failed"
    state = newest(works, "transform.one")
    assert (state.attempt, state.error_message) == (2, "its executor gave up: RuntimeError: no machine is left")


def test_an_error_of_workers_that_is_no_node_s_ends_the_run_and_is_recorded(works):
    add(works, "one", "return [{'x': 1}]")
    with pytest.raises(RuntimeError, match="no machine is left"):
        works.run(executor=BrokenWorkers())
    assert newest(works, "transform.one").error_message == "no machine is left"
    assert run_of(works) == ("failed", [])
