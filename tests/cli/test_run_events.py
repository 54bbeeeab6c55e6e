"""What `seeknal run` tells while it goes on, as lines and as JSON, and how it ends, as a shell and a program see it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import typer

from seeknal.cli.output import Format, Printer
from seeknal.cli.run_events import JsonEvents, Lines, lines_of
from seeknal.cli.run_watch import Followed, watched
from seeknal.runner.attempt import NodeEvent
from seeknal.state.backend import open_state_backend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "run-events.md"


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # which would hide that a line was not written at once
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal_project.yml").write_text("name: shop\n")
    return tmp_path


def add(project, name, command, more="", needs=()):
    inputs = f"inputs: [{', '.join(f'{{ref: command.{each}}}' for each in needs)}]\n" if needs else ""
    (project / "seeknal" / f"{name}.yml").write_text(
        f"kind: command\nname: {name}\n{inputs}{more}command: {json.dumps(command)}\n"
    )


def pipe(project, name):
    os.mkfifo(project / name)
    return project / name


def run(*arguments, **options):
    options = {"capture_output": True, "text": True, "timeout": 50} | options
    return subprocess.run([*SEEKNAL, "run", *arguments], **options)


def started(*arguments):
    return subprocess.Popen(
        [*SEEKNAL, "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def status_of_the_run():
    with open_state_backend() as store:
        return str(store.get_run(store.list_runs(newest_first=True)[0]).status)


# ---- lines ----


def test_through_a_pipe_a_node_has_a_line_when_it_begins_and_one_when_it_ends(project):
    add(project, "a", "true")
    add(project, "b", "echo oops; exit 3", "retries: 1\nretry_delay: 1ms\n", needs=["a"])
    add(project, "c", "true", needs=["b"])
    done = run()
    logs = f"target/logs/{newest_run()}"
    lines = re.sub(r"\d\.\d s", "_ s", done.stderr).splitlines()
    assert lines == [
        f"run {newest_run()}: 3 nodes",
        "running  command.a: new",
        "success  command.a in _ s",
        "running  command.b: new",
        "retrying command.b: in _ s, 1 of 1: exit code 3: oops",
        f"  all of it: {logs}/command%2eb.log",
        "running  command.b, attempt 2: new",
        "failed   command.b in _ s: exit code 3: oops",
        f"  all of it: {logs}/command%2eb.log",
        "skipped  command.c: command.b failed",
        "error: the run failed: command.b",
        f"hint: See why with `seeknal state show {newest_run()} command.b --log`; what succeeded is not run again.",
    ]
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


def newest_run():
    with open_state_backend() as store:
        return store.list_runs(newest_first=True)[0]


def test_rows_batches_and_ids_are_told_in_one_line_each():
    def line(**fields):
        duration = fields.pop("duration", None)
        return lines_of(NodeEvent("transform.daily", **fields), duration)

    assert line(status="success", row_count=31, duration=1234) == ["success  transform.daily in 1.2 s, 31 rows"]
    assert line(status="success", row_count=1, duration=185_000) == ["success  transform.daily in 3 min 05 s, 1 row"]
    assert line(status="running", attempt=1, done=3, total=10) == ["running  transform.daily: 3 of 10 batches"]
    assert line(status="cached", detail="up to date") == ["cached   transform.daily: up to date"]
    assert line(status="failed", detail="a\nb\x1b[2J", duration=7_800_000) == [
        "failed   transform.daily in 2 h 10 min: a",
        "  b\\x1b[2J",
    ]


def test_an_error_names_the_first_nodes_that_failed(project):
    for name in "abcde":
        add(project, name, "exit 1")
    done = run("--continue-on-error", "--quiet")
    error, hint = done.stderr.splitlines()
    assert error == "error: the run failed: command.a, command.b, command.c and 2 more"
    assert hint.startswith(f"hint: See why with `seeknal state show {newest_run()} command.a --log`")
    assert done.returncode == 1


def test_a_run_that_somebody_deletes_meanwhile_is_no_success(project, capsys):
    with open_state_backend() as store, pytest.raises(typer.Exit) as ended, watched(store, {}, Printer()) as followed:
        followed.begin("gone")
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.startswith("run gone: 0 nodes\nerror: the run did not succeed\nhint: ")


# ---- JSON ----


def test_a_program_can_follow_a_run_line_by_line(project):
    release = pipe(project, "release")
    add(project, "a", "cat release")
    add(project, "b", "true", needs=["a"])
    runner = started("--output", "jsonl", "--quiet")
    began, first = (json.loads(runner.stdout.readline()) for _ in range(2))  # while the node waits
    release.write_text("go on")
    *others, ended = map(json.loads, runner.stdout)
    assert (runner.wait(timeout=50), runner.stderr.read()) == (0, "")
    runner.stdout.close()
    runner.stderr.close()
    assert (began["event"], began["status"], began["selected"]) == ("run", "running", ["command.a", "command.b"])
    assert [(each["event"], each["node_id"], each["status"]) for each in [first, *others]] == [
        ("node", "command.a", "running"),
        ("node", "command.a", "success"),
        ("node", "command.b", "running"),
        ("node", "command.b", "success"),
    ]
    assert (ended["event"], ended["status"]) == ("run", "success")
    assert {node_id: state["status"] for node_id, state in ended["nodes"].items()} == {
        "command.a": "success",
        "command.b": "success",
    }
    assert {each["run_id"] for each in [began, first, *others, ended]} == {newest_run()}
    instants = [datetime.fromisoformat(each["at"]) for each in [began, first, *others, ended]]
    assert instants == sorted(instants)
    assert all(each["at"].endswith("Z") for each in [began, first, ended])
    assert first["duration_ms"] is None
    assert others[0]["duration_ms"] >= 0


def test_json_has_the_events_in_one_object(project):
    add(project, "a", "true")
    found = json.loads(run("--output", "json").stdout)
    assert (found["status"], found["nodes"]["command.a"]["status"]) == ("success", "success")
    assert [(each["event"], each["status"]) for each in found["events"]] == [
        ("run", "running"),
        ("node", "running"),
        ("node", "success"),
    ]


def test_what_has_no_attempt_has_none_in_json(project):
    add(project, "a", "true")
    run("--quiet")
    [_, cached, _] = map(json.loads, run("--output", "jsonl").stdout.splitlines())
    assert (cached["status"], cached["detail"]) == ("cached", "up to date")
    empty = ("attempt", "done", "total", "duration_ms", "row_count", "log")
    assert [cached[name] for name in empty] == [None] * len(empty)


def test_the_page_of_events_names_every_field_and_no_other(project):
    add(project, "a", "true")
    began, node, _, ended = map(json.loads, run("--output", "jsonl", "--quiet").stdout.splitlines())
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]
    named = [re.findall(r"^\| `(\w+)` \|", section, re.M) for section in sections[:3]]
    assert named == [list(began), list(node), list(ended)]


@pytest.mark.parametrize(("command", "code"), [("true", 141), ("exit 1", 1)])
def test_a_reader_that_goes_away_ends_the_output_and_not_the_run(project, command, code):
    release = pipe(project, "release")
    add(project, "a", "cat release")
    add(project, "b", command, needs=["a"])
    runner = started("--output", "jsonl")
    assert json.loads(runner.stdout.readline())["event"] == "run"
    runner.stdout.close()
    release.write_text("go on")
    told = runner.stderr.read()
    runner.stderr.close()
    assert runner.wait(timeout=50) == code
    assert told.count("the events cannot be written any more; the run goes on") == 1
    assert "Traceback" not in told
    assert status_of_the_run() == ("success" if code == 141 else "failed")
    with open_state_backend() as store:
        assert store.get_latest_node_state("command.b").status in ("success", "failed")
        assert store.list_locks() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_output_and_not_the_run(project):
    add(project, "a", "true")
    with open("/dev/full", "w") as full:
        done = run("--output", "jsonl", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2] == "error: No space left on device"
    assert status_of_the_run() == "success"


def test_a_closed_output_is_one_that_nobody_reads(project):
    add(project, "a", "true")
    command = f"{sys.executable} -m seeknal.cli.app run --output jsonl --quiet >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (141, "")
    assert status_of_the_run() == "success"


def test_a_run_that_is_held_by_somebody_else_tells_of_no_event(project):
    add(project, "a", "true")
    with open_state_backend() as store, store.lock("pipeline:shop"):
        done = run("--output", "jsonl")
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize("style", ["table", "json", "jsonl"])
def test_a_run_that_is_stopped_says_so_in_two_lines_and_ends_as_what_it_is(project, style):
    began = pipe(project, "began")
    add(project, "a", "echo > began; sleep 50")
    runner = started("--output", style)
    began.read_text()
    runner.send_signal(signal.SIGINT)
    lines = iter(runner.stderr.readline, "")
    assert any(line.startswith("stopping command.a") for line in lines)
    runner.send_signal(signal.SIGINT)
    out, err = runner.communicate(timeout=50)
    assert err.splitlines()[-2:] == ["error: interrupted", "hint: Run it again: it goes on with what is not done."]
    assert runner.returncode == 130
    assert status_of_the_run() == "cancelled"
    if style == "table":
        assert out.splitlines()[1].split()[:2] == ["command.a", "failed"]
    else:
        ended = json.loads(out if style == "json" else out.splitlines()[-1])
        assert (ended["status"], ended["nodes"]["command.a"]["error_message"]) == ("cancelled", "cancelled")


# ---- how long attempts took ----


class Told:
    def __init__(self):
        self.heard = []

    def begin(self, run_id):
        self.heard.append(run_id)

    def tell(self, event, duration_ms):
        self.heard.append((event.status, event.attempt, duration_ms))


def heard(*events):
    """Return what is told of events that come a second after one another."""
    told, seconds = Told(), iter(range(1000))
    followed = Followed(lambda: [told], lambda: next(seconds))
    followed.begin("mine")
    for event in events:
        followed.tell(event)
        next(seconds)
    assert told.heard[0] == "mine"
    return told.heard[1:]


def test_each_attempt_is_measured_from_its_own_beginning():
    assert heard(
        NodeEvent("n", "running", attempt=1),
        NodeEvent("n", "stopping", attempt=1),
        NodeEvent("n", "retrying", attempt=1),
        NodeEvent("n", "running", attempt=2),
        NodeEvent("n", "success", attempt=2),
        NodeEvent("m", "cached"),
        NodeEvent("m", "failed", "not tried again"),
    ) == [
        ("running", 1, None),
        ("stopping", 1, None),
        ("retrying", 1, 3000),
        ("running", 2, None),
        ("success", 2, 2000),
        ("cached", 0, None),
        ("failed", 0, None),
    ]


def test_a_node_with_batches_is_measured_from_its_first_to_its_last():
    assert heard(
        NodeEvent("n", "running", attempt=1, done=0, total=2),
        NodeEvent("n", "retrying", attempt=1, done=0, total=2),
        NodeEvent("n", "running", attempt=2, done=0, total=2),
        NodeEvent("n", "running", attempt=1, done=1, total=2),
        NodeEvent("n", "success", attempt=1, done=2, total=2),
    )[-1] == ("success", 1, 5000)


def test_many_batches_have_a_line_for_each_tenth(capsys):
    lines = Lines(1, Printer())
    for done in range(1000):
        for detail in ("one", "another"):  # batches that run at once
            lines.tell(NodeEvent("n", "running", detail, attempt=1, done=done, total=1000), None)
    told = capsys.readouterr().err.splitlines()
    assert told == ["running  n: one", *(f"running  n: {tenth}00 of 1000 batches" for tenth in range(1, 10))]


def test_an_event_of_batches_says_how_many_are_done(project, capsys):
    with open_state_backend() as store:
        events = JsonEvents(store, ["n"], Printer(Format.JSONL))
        events.begin("r")
        events.tell(NodeEvent("n", "running", attempt=1, done=0, total=4), None)
        events.tell(NodeEvent("n", "running", attempt=1, done=3, total=4), None)
    _, none, three = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(each["done"], each["total"]) for each in (none, three)] == [(0, 4), (3, 4)]
