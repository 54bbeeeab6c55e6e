"""Attempts at a node: tried again, ended when they take too long, and what they said."""

from __future__ import annotations

import logging
import os
import sys
import threading

import pytest
from tests.integration.test_parallel_runs import add_command, pipe, states, works
from tests.integration.test_runner import Workshop, python_node

from seeknal.clock import SystemClock
from seeknal.runner.capture import LOG_KEY
from seeknal.runner.retries import retry_delay
from seeknal.runner.stopping import KILL_SECONDS

__all__ = ["works"]

FAIL_TWICE = "echo x >> tries; test $(wc -l < tries) -ge 3"
RETRIES = "retries: 3\nretry_delay: 4s\n"
TEN_SECONDS = "timeout: 10s\n"
ENDLESS = "SELECT count(*) AS n FROM range(1000000000) a, range(1000000) b WHERE a.range % 7 = b.range % 5"


def newest(works: Workshop, node_id: str):
    with works.open() as backend:
        return backend.get_latest_node_state(node_id)


def said(works: Workshop, node_id: str) -> str:
    return (works.path / newest(works, node_id).metadata[LOG_KEY]).read_text()


def when_written(works: Workshop, name: str, then) -> threading.Thread:
    """Call ``then`` once somebody writes to a pipe; opening it waits for that."""

    def wait() -> None:
        (works.path / name).read_text()
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


# ---- tried again ----


def test_a_node_that_fails_is_tried_again_after_delays_that_grow(works):
    add_command(works, "flaky", FAIL_TWICE, more=RETRIES)
    begin = works.clock.now()
    events = []
    report = works.run(on_event=events.append)
    assert [event.status for event in events] == ["retrying", "retrying", "success"]
    state = newest(works, "command.flaky")
    assert (state.status, state.attempt, state.error_message) == ("success", 3, None)
    delays = [retry_delay(4, number, f"{report.run_id} command.flaky") for number in (1, 2)]
    passed = (works.clock.now() - begin).total_seconds() - 1  # a run begins a second later than the one before
    assert passed == pytest.approx(sum(delays), abs=1e-4)


def test_a_node_that_fails_too_often_is_failed_and_what_needs_it_is_skipped(works):
    add_command(works, "flaky", FAIL_TWICE, more="retries: 1\n")
    add_command(works, "after", "true", "flaky")
    assert works.run().status == "failed"
    assert newest(works, "command.flaky").attempt == 2
    assert states(works) == {"flaky": ("failed", "exit code 1"), "after": ("skipped", "command.flaky failed")}


def test_while_a_node_waits_its_failure_stands_recorded_and_another_one_runs(works):
    add_command(works, "flaky", FAIL_TWICE, more=RETRIES)
    add_command(works, "other", "true")
    seen = []

    def look(event) -> None:
        state = newest(works, "command.flaky")
        seen.append((event.node_id, event.status, state.status, state.attempt))

    works.run(on_event=look)
    assert seen == [
        ("command.flaky", "retrying", "failed", 1),
        ("command.other", "success", "failed", 1),
        ("command.flaky", "retrying", "failed", 2),
        ("command.flaky", "success", "success", 3),
    ]


def test_a_file_that_comes_late_is_waited_for(works):
    works.write({"seeknal/late.yml": f"kind: source\nname: late\nsource: csv\ntable: late.csv\n{RETRIES}"})
    report = works.run(on_event=lambda event: works.write({"late.csv": "x\n1\n"}))
    assert report.status == "success"
    state = newest(works, "source.late")
    assert (state.attempt, works.rows("source.late")) == (2, [(1,)])


def test_a_function_is_tried_again_as_its_decorator_says(works):
    body = "tries = ctx.project_path / 'tries'\nif not tries.exists():\n    tries.touch()\n    1 / 0\nreturn [{'x': 1}]"
    works.write({"seeknal/step.py": python_node(body).replace("@transform", "@transform(retries=1, retry_delay=2)")})
    assert works.run().status == "success"
    assert newest(works, "transform.step").attempt == 2


def test_after_a_failure_nothing_is_tried_again_either(works):
    add_command(works, "flaky", FAIL_TWICE, more=RETRIES)
    add_command(works, "other", "exit 3")
    report = works.run()
    assert report.nodes == {"command.flaky": "failed", "command.other": "failed"}
    assert newest(works, "command.flaky").attempt == 1


# ---- ended ----


def test_a_command_that_takes_too_long_is_asked_to_end_with_all_it_has_begun(works):
    began, alive = pipe(works, "began"), pipe(works, "alive")
    script = f"trap 'echo asked > asked; exit 0' TERM; (trap '' TERM; exec sleep 50) > {alive} & echo > {began}; wait"
    add_command(works, "slow", script, more=TEN_SECONDS)
    add_command(works, "after", "true", "slow")
    child = when_written(works, alive, lambda: None)  # ends when nobody holds the pipe open any more
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))
    assert works.run().status == "failed"
    moving.join()
    child.join()
    assert states(works) == {"slow": ("failed", "timed out after 10 s"), "after": ("skipped", "command.slow failed")}
    assert (works.path / "asked").exists()


def test_a_command_that_does_not_listen_is_killed(works):
    began = pipe(works, "began")
    script = f"trap '' TERM; echo > {began}; sleep 50; echo survived > survived"
    add_command(works, "deaf", script, more=TEN_SECONDS)
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))
    events = []

    def go_on(event) -> None:
        events.append(event.status)
        if event.status == "ending":
            works.clock.advance(seconds=KILL_SECONDS)

    assert works.run(on_event=go_on).status == "failed"
    moving.join()
    assert events == ["ending", "failed"]
    assert states(works) == {"deaf": ("failed", "timed out after 10 s")}
    assert not (works.path / "survived").exists()


def test_a_command_that_took_too_long_is_tried_again(works):
    began = pipe(works, "began")
    script = f"test -e second || (touch second; echo > {began}; sleep 50)"
    add_command(works, "slow", script, more=TEN_SECONDS + RETRIES)
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))
    assert works.run().status == "success"
    moving.join()
    assert newest(works, "command.slow").attempt == 2


@pytest.mark.parametrize(
    "files",
    [
        {"seeknal/slow.yml": f"kind: transform\nname: step\ntimeout: 100ms\ntransform: {ENDLESS}\n"},
        {
            "seeknal/slow.py": python_node(f"return ctx.duckdb.sql('{ENDLESS}').fetchall()").replace(
                "@transform", "@transform(timeout=0.1)"
            )
        },
    ],
    ids=["SQL", "a query of a function"],
)
def test_a_query_that_takes_too_long_is_interrupted(works, files):
    works.clock = SystemClock()
    works.clock.advance = lambda **_: None
    works.write(files)
    assert works.run().status == "failed"
    state = newest(works, "transform.step")
    assert (state.status, state.error_message) == ("failed", "timed out after 0.1 s")
    assert list((works.path / "target/outputs").glob("*")) == []


def test_a_function_that_cannot_be_interrupted_is_left_going_on_and_changes_nothing(works):
    began, release = pipe(works, "began"), pipe(works, "release")
    body = f"""
        open(ctx.project_path / {began!r}, "w").close()
        return [{{"x": (ctx.project_path / {release!r}).read_text()}}]
        """
    decorated = python_node(body).replace("@transform", "@transform(timeout='10s', retries=3)")
    works.write({"seeknal/step.py": decorated})
    moving = when_written(works, began, lambda: works.clock.advance(seconds=10))

    def go_on(event) -> None:
        if event.status == "ending":
            works.clock.advance(seconds=KILL_SECONDS)

    before = set(threading.enumerate())
    assert works.run(on_event=go_on).status == "failed"
    state = newest(works, "transform.step")
    assert state.attempt == 1, "it is not begun a second time beside itself"
    assert state.error_message == ("timed out after 10 s; its function cannot be interrupted, so it was left going on")
    (works.path / release).write_text("late")
    for thread in set(threading.enumerate()) - before | {moving}:
        thread.join()
    assert list((works.path / "target/outputs").glob("*")) == []


# ---- what they said ----


def test_what_a_command_says_is_kept_in_order_and_linked(works):
    add_command(works, "talks", "echo one; echo two >&2; echo three")
    report = works.run()
    link = newest(works, "command.talks").metadata[LOG_KEY]
    assert link == f"target/logs/{report.run_id}/command%2etalks.log"
    assert said(works, "command.talks") == "one\ntwo\nthree\n"


def test_what_a_function_prints_and_logs_is_kept_and_nothing_of_it_reaches_stdout(works, capfd):
    body = """
        import logging, sys
        print("printed")
        print("complained", file=sys.stderr)
        logging.getLogger("shop").warning("warned")
        return [{"x": 1}]
        """
    works.write({"seeknal/step.py": python_node(body)})
    streams = (sys.stdout, sys.stderr)
    handler = logging.StreamHandler(sys.stderr)
    logging.root.addHandler(handler)
    try:
        assert works.run().status == "success"
        assert handler.stream is sys.stderr
    finally:
        logging.root.removeHandler(handler)
    assert said(works, "transform.step") == "printed\ncomplained\nwarned\n"
    assert (sys.stdout, sys.stderr) == streams
    assert capfd.readouterr() == ("", "")


def test_nodes_that_run_at_once_each_have_their_own_file(works):
    meet = "threading.current_thread()\nmeet = __import__('builtins').meeting\n"
    for name in ("one", "two"):
        body = f"import threading\n{meet}print('begin {name}')\nmeet.wait(30)\nprint('end {name}')\nreturn [{{'x': 1}}]"
        works.write({f"seeknal/{name}.py": python_node(body).replace("def step", f"def {name}")})
    import builtins

    builtins.meeting = threading.Barrier(2)
    try:
        assert works.run(parallel=2).status == "success"
    finally:
        del builtins.meeting
    for name in ("one", "two"):
        assert said(works, f"transform.{name}") == f"begin {name}\nend {name}\n"


def test_each_attempt_is_kept_and_the_last_lines_are_told_of(works):
    body = "print('here')\nraise ValueError('no')"
    works.write({"seeknal/step.py": python_node(body).replace("@transform", "@transform(retries=1)")})
    events = []
    works.run(on_event=events.append)
    assert said(works, "transform.step") == "here\n-- attempt 2\nhere\n"
    assert (events[-1].detail, events[-1].said) == ("ValueError: no", "here\n-- attempt 2\nhere")
    assert events[-1].log == newest(works, "transform.step").metadata[LOG_KEY]


def test_a_failed_command_is_told_of_with_the_last_lines_of_its_last_attempt(works):
    add_command(works, "talks", "echo said $$; seq 100; exit 3", more="retries: 1\n")
    works.run()
    state = newest(works, "command.talks")
    assert state.error_message == "exit code 3: " + "\n".join(map(str, range(91, 101)))


def test_a_log_stays_in_the_project_whatever_a_node_is_called(works):
    name = '../../../it\'s "odd"'
    works.write({"seeknal/odd.yml": f"kind: command\nname: {name}\ncommand: echo odd\n"})
    report = works.run()
    assert said(works, f"command.{name}") == "odd\n"
    assert len(os.listdir(works.path / "target/logs" / report.run_id)) == 1


def test_what_only_queries_has_no_log(works):
    works.write({"seeknal/plain.yml": "kind: transform\nname: plain\ntransform: SELECT 1 AS x\n"})
    works.run()
    assert LOG_KEY not in newest(works, "transform.plain").metadata
    assert not (works.path / "target/logs").exists()
