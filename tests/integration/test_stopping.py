"""Runs that are asked to stop: what runs has a chance, and is then recorded as what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from tests.integration.test_parallel_runs import add_command, pipe, states, works
from tests.integration.test_runner import Workshop

from seeknal.runner.control import Control
from seeknal.runner.stopping import GRACE_SECONDS

__all__ = ["works"]

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def started(works: Workshop) -> subprocess.Popen[str]:
    place = [] if works.kind == "file" else ["--backend", works.kind]
    return subprocess.Popen(
        [sys.executable, "-m", "seeknal.cli.app", "run", *place], cwd=works.path, stderr=subprocess.PIPE, text=True
    )


def told_to_stop(runner: subprocess.Popen[str]) -> str:
    """Return what is said when the runner takes a signal, after the lines of the run and of what has begun."""
    return next((line for line in iter(runner.stderr.readline, "") if not line.startswith(("running", "run "))), "")


def run_of(works: Workshop) -> tuple[str, list]:
    with works.open() as backend:
        (run_id,) = backend.list_runs()
        return str(backend.get_run(run_id).status), backend.list_locks()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_at_the_first_signal_what_runs_may_finish_and_nothing_else_begins(works, number):
    began, release = pipe(works, "began"), pipe(works, "release")
    add_command(works, "a", f"echo > {began}; cat {release}")
    add_command(works, "b", "true", "a")
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored, as under nohup, and stays so in what is started here")
    runner = started(works)
    (works.path / began).read_text()
    runner.send_signal(number)
    told = told_to_stop(runner)
    assert told.startswith(f"stopping command.a: {number.name}: it has 10 s to finish")
    (works.path / release).write_text("go on")
    assert runner.wait() == 130
    runner.stderr.close()
    assert states(works) == {"a": ("success", None), "b": ("skipped", "the run was cancelled")}
    assert run_of(works) == ("cancelled", [])


def test_at_the_second_signal_what_runs_is_ended_at_once(works):
    began = pipe(works, "began")
    add_command(works, "a", f"trap '' TERM INT; echo > {began}; sleep 50; echo survived > survived")
    runner = started(works)
    (works.path / began).read_text()
    runner.send_signal(signal.SIGINT)
    assert told_to_stop(runner).startswith("stopping command.a")
    runner.send_signal(signal.SIGINT)
    assert runner.wait() == 130
    runner.stderr.close()
    assert states(works) == {"a": ("failed", "cancelled")}
    assert run_of(works) == ("cancelled", [])
    assert not (works.path / "survived").exists()


def test_a_function_that_cannot_be_interrupted_does_not_keep_the_program_alive(works):
    began, never = pipe(works, "began"), pipe(works, "never")
    body = f"(ctx.project_path / '{began}').write_text('x'); (ctx.project_path / '{never}').read_text()"
    text = f"from seeknal.pipeline import transform\n\n@transform\ndef stuck(ctx):\n    {body}\n"
    works.write({"seeknal/stuck.py": text})
    runner = started(works)
    (works.path / began).read_text()
    runner.send_signal(signal.SIGTERM)
    assert told_to_stop(runner).startswith("stopping transform.stuck")
    runner.send_signal(signal.SIGTERM)
    assert runner.wait() == 130
    runner.stderr.close()
    message = "cancelled; its function cannot be interrupted, so it was left going on"
    assert states(works) == {"transform.stuck": ("failed", message)}
    assert run_of(works) == ("cancelled", [])


def test_when_its_chance_is_over_what_runs_is_ended(works):
    began = pipe(works, "began")
    # A shell looks at its signals between two commands: a long one may begin just behind the signal.
    waiting = "while :; do sleep 0.1; done"
    add_command(works, "a", f"trap 'echo asked > asked; exit 0' TERM; echo > {began}; {waiting}")
    add_command(works, "b", "true")

    def interrupt() -> None:
        (works.path / began).read_text()
        os.kill(os.getpid(), signal.SIGINT)

    def go_on(event) -> None:
        if event.status == "stopping":
            works.clock.advance(seconds=GRACE_SECONDS)

    before = signal.getsignal(signal.SIGINT)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        works.run(on_event=go_on)
    interrupting.join()
    assert states(works) == {"a": ("failed", "cancelled"), "b": ("skipped", "the run was cancelled")}
    assert run_of(works) == ("cancelled", [])
    assert (works.path / "asked").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_that_is_asked_to_end_as_it_begins_has_its_chance_too():
    control = Control()
    text = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline()
    control.end()
    assert control.wait_for(process) == 7
    process.stdout.close()
