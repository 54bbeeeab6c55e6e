"""`seeknal run --resume`, and two runs at once, as a shell and its user see them.

A run is killed by one of its nodes. Its leases live a second, so that the next one need not wait long for their end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
from tests.cli.terminal import OnTerminal
from tests.processes import PROCESSES

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend
from seeknal.state.locking import LockVerbs

TTL_MS = 1000
DIES = "test -e spare || { kill -9 $PPID; exit 9; }"

DAILY = """
from seeknal.pipeline import command


@command(schedule="@daily", start="2024-01-01", end="2024-01-09", batch_size=1)
def daily(ctx):
    import os, signal

    day = ctx.interval.start.day
    if (ctx.project_path / f"dies-{day}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    with open(ctx.project_path / "did", "a") as file:
        file.write(f"{day}\\n")
"""


def run_in_a_child(path: str, options: Sequence[str], *, killed_at: str = "") -> None:
    """Run with leases that end soon, until a node kills the process, or it kills itself at a function's call."""
    os.chdir(path)
    LockVerbs.lock.__wrapped__.__kwdefaults__["ttl_ms"] = TTL_MS
    if killed_at:
        from seeknal.runner import executing

        setattr(executing, killed_at, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    sys.exit(main(["run", "--quiet", *options]))


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal_project.yml").write_text(f"name: shop\nstate_backend: {request.param}\n")
    return tmp_path


def add(project, name, *needs, command="true", more=""):
    inputs = f"inputs: [{', '.join(f'{{ref: command.{each}}}' for each in needs)}]\n"
    text = f"kind: command\nname: {name}\n{inputs}{more}command: {json.dumps(f'{command}; echo {name} >> did')}\n"
    (project / "seeknal" / f"{name}.yml").write_text(text)


def add_chain(project):
    """Add a -> b -> c, of which b kills the runner unless it is spared, and d, which needs none."""
    add(project, "a", more="tags: [nightly]\n")
    add(project, "b", "a", command=DIES, more="tags: [nightly]\n")
    add(project, "c", "b", more="tags: [nightly]\n")
    add(project, "d")


def did(project):
    """Return what was done since it was asked last, sorted."""
    path = project / "did"
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


def killed(project, *options, at=""):
    child = PROCESSES.Process(target=run_in_a_child, args=(str(project), options), kwargs={"killed_at": at})
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child.close()
    with open_state_backend() as store:
        return store.list_runs(newest_first=True)[0]


def said(capsys, *options, code=0):
    assert main(["run", *options]) == code
    return capsys.readouterr().err


def newest():
    with open_state_backend() as store:
        return store.get_run(store.list_runs(newest_first=True)[0])


def spare(project):
    (project / "spare").touch()


# ---- what is taken over ----


def test_what_succeeded_in_a_forced_run_that_was_killed_is_not_done_again_and_the_rest_is(project, capsys):
    add_chain(project)
    spare(project)
    said(capsys)
    assert did(project) == ["a", "b", "c", "d"]
    (project / "spare").unlink()
    dead = killed(project, "--full", "--nodes", "+c")
    assert did(project) == ["a"]
    spare(project)
    assert f"going on with {dead}" in said(capsys, "--resume")
    assert did(project) == ["b", "c"]
    run = newest()
    assert run.config == {"project": "shop", "full": True, "selected": ["command.a", "command.b", "command.c"]}
    assert run.metadata["resumes"] == dead
    assert "there was nothing to resume" in said(capsys, "--resume")
    assert did(project) == []


def test_the_selection_of_the_run_is_taken_over(project, capsys):
    add_chain(project)
    killed(project, "--tags", "nightly")
    assert did(project) == ["a"]
    spare(project)
    said(capsys, "--resume")
    assert did(project) == ["b", "c"]
    assert newest().config["selected"] == ["command.a", "command.b", "command.c"]
    assert newest().config["full"] is False


@pytest.mark.parametrize(
    "options",
    [
        ["--nodes", "d"],
        ["--tags", "nightly"],
        ["--exclude", "d"],
        ["--full"],
        ["--start", "2024-01-01"],
        ["--end", "2024-01-01"],
        ["--timezone", "Europe/Berlin"],
        ["--partition", "de"],
        ["--restate"],
        ["--backfill"],
    ],
    ids=lambda options: options[0],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "plan"])
def test_what_would_not_be_used_beside_resume_is_refused(project, capsys, options, more):
    add_chain(project)
    spare(project)
    error, hint = said(capsys, "--resume", *options, *more, code=2).splitlines()
    assert error.startswith("error: --resume takes what the last run was asked for")
    assert error.endswith(options[0])
    assert hint.startswith("hint: Leave it out")
    assert did(project) == []


def test_what_is_resumed_is_told_before_anything_of_it_runs(project, capsys):
    add_chain(project)
    dead = killed(project, "--nodes", "+c")
    spare(project)
    waits, begins, resumes, first, *_ = said(capsys, "--resume").splitlines()
    assert re.fullmatch(r"waiting for .+, process \d+, since [\dT:-]+Z; nothing runs yet", waits)
    assert begins == f"run {newest().run_id}: 3 nodes"
    assert resumes == f"going on with {dead}"
    assert first.startswith(("cached ", "running "))


def test_that_there_is_nothing_to_resume_is_told_first(project, capsys):
    add_chain(project)
    spare(project)
    begins, resumes, *_ = said(capsys, "--resume").splitlines()
    assert begins == f"run {newest().run_id}: 4 nodes"
    assert resumes == "there was nothing to resume"


def test_a_run_that_is_killed_again_and_again_goes_on_from_where_the_last_one_was(project, capsys):
    add_chain(project)
    spare(project)
    said(capsys)
    did(project)
    (project / "spare").unlink()
    add(project, "c", "b", command=DIES.replace("spare", "spare-2"), more="tags: [nightly]\n")
    first = killed(project, "--full")
    spare(project)
    assert did(project) == ["a", "d"]
    second = killed(project, "--resume")
    assert did(project) == ["b"]
    with open_state_backend() as store:
        assert store.get_run(second).metadata["resumes"] == first
    (project / "spare-2").touch()
    assert f"going on with {second}" in said(capsys, "--resume")
    assert did(project) == ["c"]


def test_a_run_that_failed_is_resumed_too(project, capsys):
    add(project, "a")
    add(project, "b", "a", command="test -e spare || exit 3")
    add(project, "c")
    said(capsys, "--full", "--nodes", "+b", code=1)
    assert did(project) == ["a"]
    spare(project)
    said(capsys, "--resume")
    assert did(project) == ["b"]
    assert str(newest().status) == "success"


def test_nodes_that_are_gone_are_left_out(project, capsys):
    add_chain(project)
    killed(project, "--full", "--nodes", "+c")
    (project / "seeknal" / "c.yml").unlink()
    spare(project)
    said(capsys, "--resume")
    assert did(project) == ["a", "b"]
    assert newest().config["selected"] == ["command.a", "command.b"]


def test_where_there_is_nothing_to_resume_it_is_a_run_like_any_other(project, capsys):
    add_chain(project)
    spare(project)
    assert "there was nothing to resume" in said(capsys, "--resume")
    assert did(project) == ["a", "b", "c", "d"]
    assert "resumes" not in newest().metadata


def test_runs_of_another_project_in_the_store_are_not_resumed(project, capsys):
    add_chain(project)
    killed(project, "--full", "--nodes", "+b")
    did(project)
    spare(project)
    settings = project / "seeknal_project.yml"
    settings.write_text(settings.read_text().replace("name: shop", "name: other"))
    assert "there was nothing to resume" in said(capsys, "--resume")
    assert did(project) == ["b", "c", "d"]


def test_a_plan_of_what_would_be_resumed_is_shown_and_nothing_is_run(project, capsys):
    add_chain(project)
    spare(project)
    said(capsys)
    (project / "spare").unlink()
    did(project)
    killed(project, "--full", "--nodes", "+c")
    did(project)
    assert main(["run", "--resume", "--dry-run", "--output", "json"]) == 0
    plan = {each["node_id"]: each["action"] for each in json.loads(capsys.readouterr().out)}
    assert plan == {"command.a": "cached", "command.b": "run", "command.c": "run", "command.d": "left"}
    assert did(project) == []


# ---- ranges ----


def test_the_window_of_a_run_is_taken_over_and_what_it_restated_is_not_done_twice(project, capsys):
    (project / "seeknal" / "daily.py").write_text(DAILY)
    said(capsys)
    assert did(project) == [str(day) for day in range(1, 9)]
    (project / "dies-5").touch()
    killed(project, "--restate", "--start", "2024-01-03", "--end", "2024-01-07")
    assert did(project) == ["3", "4"]
    (project / "dies-5").unlink()
    said(capsys, "--resume")
    assert did(project) == ["5", "6"]
    assert newest().config == {
        "project": "shop",
        "full": False,
        "start": "2024-01-03T00:00:00+00:00",
        "end": "2024-01-07T00:00:00+00:00",
        "restate": True,
    }
    said(capsys)
    assert did(project) == []


def test_ranges_of_a_forced_run_are_done_once(project, capsys):
    (project / "seeknal" / "daily.py").write_text(DAILY)
    said(capsys)
    did(project)
    (project / "dies-5").touch()
    killed(project, "--full")
    assert did(project) == ["1", "2", "3", "4"]
    (project / "dies-5").unlink()
    said(capsys, "--resume")
    assert did(project) == ["5", "6", "7", "8"]


def test_a_forced_node_of_which_nothing_was_taken_back_before_the_kill_is_done_again_as_a_whole(project, capsys):
    (project / "seeknal" / "daily.py").write_text(DAILY)
    said(capsys)
    did(project)
    killed(project, "--full", at="restate")
    assert did(project) == []
    said(capsys, "--resume")
    assert did(project) == [str(day) for day in range(1, 9)]


def test_a_backfill_is_resumed_as_one(project, capsys):
    (project / "seeknal" / "daily.py").write_text(DAILY)
    (project / "dies-3").touch()
    killed(project, "--backfill", "--start", "2024-01-02")
    (project / "dies-3").unlink()
    said(capsys, "--resume")
    assert did(project) == [str(day) for day in range(2, 9)]
    assert newest().config["backfill"] is True


# ---- two at once ----


@pytest.fixture
def running(project):
    """A run that goes on until its gate is opened."""
    os.mkfifo(project / "began")
    os.mkfifo(project / "gate")
    add(project, "slow", command="echo > began; cat gate")
    runner = subprocess.Popen(
        [sys.executable, "-m", "seeknal.cli.app", "run", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    (project / "began").read_text()
    yield runner
    assert runner.wait() == 0
    runner.stdout.close()
    runner.stderr.close()


def test_a_second_run_is_refused_and_told_who_is_running_and_how_to_go_on(project, running, capsys):
    refused = said(capsys, "-p", str(project), code=3)
    (project / "gate").write_text("go on")
    first, second = refused.splitlines()
    assert f"process {running.pid}" in first
    assert second == (
        f"hint: Wait for it with --wait 1m; if process {running.pid} is gone for good, "
        f"free it with `seeknal state unlock pipeline:shop -p {project}`."
    )


def test_the_command_that_frees_the_lock_is_one_that_does(project, running, capsys):
    command = re.search(r"`seeknal (.+)`", said(capsys, code=3))[1]
    assert main(command.split()) == 0
    with open_state_backend() as store:
        assert [each.run_id for each in store.list_locks() if each.run_id.startswith("pipeline:")] == []
    (project / "gate").write_text("go on")


def test_a_second_run_can_wait_for_the_first_and_says_so(project, running):
    command = [sys.executable, "-m", "seeknal.cli.app", "run", "--wait", "1m"]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = waiting.stderr.readline()  # while it waits
    assert line.startswith("waiting for ")
    assert f", process {running.pid}, since " in line
    (project / "gate").write_text("go on")
    _, said_later = waiting.communicate()
    assert waiting.returncode == 0
    assert said_later.startswith("run run_")
    running.wait()
    assert did(project) == ["slow"], "the second finds it done"
    with open_state_backend() as store:
        assert len(store.list_runs(status="success")) == 2


def test_a_run_that_waits_on_a_terminal_does_not_look_as_if_nodes_ran(project, running):
    terminal = OnTerminal("run", "--wait", "1m", columns=160)
    assert terminal.read_until(lambda screen: any("nothing runs yet" in line for line in screen.lines))
    waits, *others = terminal.screen.lines
    assert f", process {running.pid}, since " in waits
    assert "".join(others) == ""
    (project / "gate").write_text("go on")
    assert terminal.finish()[0] == 0
    assert any(line.startswith("1 of 1 done: 1 cached") for line in terminal.screen.lines)
