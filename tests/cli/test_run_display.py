"""What `seeknal run` draws on a terminal, on real pseudo-terminals of several sizes, and what it leaves there."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import sys
import textwrap

import pytest
from tests.cli.terminal import OnTerminal, Screen

from seeknal.cli.run_display import Display
from seeknal.cli.time_left import Left, TimeLeft, usual_durations
from seeknal.runner.attempt import NodeEvent
from seeknal.state.backend import open_state_backend


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal_project.yml").write_text("name: shop\n")
    return tmp_path


def add(project, name, command, more=""):
    text = f"kind: command\nname: {name}\n{more}command: {json.dumps(command)}\n"
    (project / "seeknal" / f"{name}.yml").write_text(text)


def hold(project, name):
    """Let a node wait until its file can be read."""
    os.mkfifo(project / name)
    add(project, name, f"cat {name}")


def let_go(project, name):
    (project / name).write_text("go on")


@pytest.fixture
def on_terminal():
    """Return what runs a command on a terminal of the size that is asked for."""
    made = []

    def run(*arguments, **options):
        made.append(OnTerminal(*arguments, **options))
        return made[-1]

    yield run
    for each in made:
        each.end()


def timeless(lines):
    return [re.sub(r"\d+\.\d s", "_ s", line).rstrip() for line in lines if line.strip()]


def has(text):
    return lambda screen: any(text in line for line in screen.lines)


def checked(terminal):
    """Return the lines that the terminal shows at the end, none of which was torn."""
    assert terminal.screen.wrapped == []
    assert terminal.screen.lost == 0
    assert b"\x1b[?25l" not in terminal.raw  # a cursor that is never hidden is not left so
    return timeless(terminal.screen.lines)


def test_a_terminal_shows_what_runs_and_keeps_what_has_ended(project, on_terminal):
    hold(project, "a")
    add(project, "b", "true")
    terminal = on_terminal("run", "--parallel", "2")
    assert terminal.read_until(has("1 of 2 done: 1 success; "))
    ended, running, whole = terminal.screen.lines
    assert ended.startswith("success  command.b in ")
    assert re.fullmatch(r"command\.a +\d\.\d s *", running)
    assert re.fullmatch(r"1 of 2 done: 1 success; \d\.\d s", whole)
    let_go(project, "a")
    code, out = terminal.finish()
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["command.a", "success"], ["command.b", "success"]]
    assert checked(terminal) == [
        "success  command.b in _ s",
        "success  command.a in _ s",
        "2 of 2 done: 2 success; _ s",
    ]


def test_how_long_a_node_took_before_gives_it_a_bar_and_the_run_a_time_left(project, on_terminal):
    add(project, "first", "true")
    add(project, "late", "cat late")
    os.mkfifo(project / "late")
    with open_state_backend() as store:
        store.create_run("before")
        store.set_node_state("before", "command.late", status="success", duration_ms=3_600_000)
        store.update_run("before", status="success")
    terminal = on_terminal("run", "--full")
    assert terminal.read_until(has(" of ~1 h 00 min"))
    assert terminal.read_until(has(" s, about "))
    running, whole = terminal.screen.lines[-2:]
    assert "━" in running
    assert re.fullmatch(r"1 of 2 done: 1 success; \d\.\d s, about (1 h 00 min|59 min \d\d s) left", whole)
    let_go(project, "late")
    assert terminal.finish()[0] == 0
    assert "left" not in checked(terminal)[-1]


@pytest.mark.parametrize("rows", [24, 6, 3, 2])
def test_no_more_is_drawn_than_the_terminal_has_lines(project, rows, on_terminal):
    names = [f"n{number:02}_{'x' * 150}" for number in range(12)]
    for name in names:
        add(project, name, f"cat {name[:3]}")
        os.mkfifo(project / name[:3])
    terminal = on_terminal("run", "--parallel", "12", rows=rows)
    room = rows - 2
    last = {24: "command.n11", 6: "and 9 more", 3: "and 12 more", 2: "0 of 12 done"}[rows]
    assert terminal.read_until(has(last))
    drawn = [line for line in terminal.screen.lines if line.strip()]
    assert len(drawn) == min(12, room) + 1
    assert max(map(len, drawn)) <= 77
    for name in names:
        let_go(project, name[:3])
    assert terminal.finish()[0] == 0
    lines = checked(terminal)
    assert len(lines) == 13
    assert lines[-1] == "12 of 12 done: 12 success; _ s"
    assert all(line.startswith("success  command.n") and line.endswith("...") for line in lines[:-1])


def test_what_says_why_a_node_failed_is_not_cut(project, on_terminal):
    add(project, "a", f"echo {'much to say ' * 12}; exit 3")
    terminal = on_terminal("run", columns=50)
    assert terminal.finish()[0] == 1
    lines = terminal.screen.lines
    end = next(number for number, line in enumerate(lines) if "all of it" in line)
    assert " ".join(" ".join(lines[:end]).split()).count("much to say") == 12
    assert any(line.startswith("error: the run failed: command.a") for line in lines)


def test_ctrl_c_leaves_nothing_half_drawn(project, on_terminal):
    add(project, "a", "trap '' INT TERM; echo > began; sleep 50")
    os.mkfifo(project / "began")
    terminal = on_terminal("run", columns=40)
    (project / "began").read_text()
    terminal.press(b"\x03")
    assert terminal.read_until(has("stopping command.a: SIGINT"))
    terminal.press(b"\x03")
    code, out = terminal.finish()
    assert code == 130
    assert out.splitlines()[1].split()[:2] == ["command.a", "failed"]
    assert b"\x1b[?25l" not in terminal.raw
    assert terminal.screen.lost == 0
    lines = timeless(terminal.screen.lines)
    assert "failed   command.a in _ s: cancelled" in lines
    at = lines.index("1 of 1 done: 1 failed; _ s")
    assert " ".join(lines[at + 1 :]).startswith("error: interrupted hint: Run it again")
    assert lines.count("1 of 1 done: 1 failed; _ s") == 1
    assert not any(line.startswith("0 of 1 done") for line in lines)


def test_an_error_that_ends_the_run_stands_alone(project, on_terminal):
    add(project, "a", "true")
    with open_state_backend() as store, store.lock("pipeline:shop"):
        terminal = on_terminal("run", columns=200)
        assert terminal.finish()[0] == 3
    assert [line.split(":")[0] for line in terminal.screen.lines if line.strip()] == ["error", "hint"]


def test_what_others_write_stands_above_what_is_drawn_and_what_nodes_say_in_their_logs(project, on_terminal):
    os.mkfifo(project / "release")
    (project / "seeknal" / "loud.py").write_text(
        textwrap.dedent("""
            import logging
            import sys
            import threading

            from seeknal.pipeline import transform

            logging.basicConfig(format="logged %(message)s")

            def say(word):
                sys.stderr.write(word)

            @transform
            def loud(ctx):
                logging.warning("in the log")
                for word in ("one", " two\\n", "three\\n"):
                    other = threading.Thread(target=say, args=(word,))
                    other.start()
                    other.join()
                (ctx.project_path / "release").read_text()
                return [{"x": 1}]
            """)
    )
    terminal = on_terminal("run")
    assert terminal.read_until(has("three"))
    let_go(project, "release")
    assert terminal.finish()[0] == 0
    assert checked(terminal) == [
        "one two",
        "three",
        "success  transform.loud in _ s, 1 row",
        "1 of 1 done: 1 success; _ s",
    ]
    [log] = project.glob("target/logs/*/*.log")
    assert log.read_text() == "logged in the log\n"


def test_a_terminal_that_goes_away_does_not_stop_the_run(project, on_terminal):
    hold(project, "a")
    terminal = on_terminal("run", ignored=[signal.SIGHUP])
    assert terminal.read_until(has("command.a"))
    terminal.hang_up()
    let_go(project, "a")
    terminal.process.communicate(timeout=50)
    assert terminal.process.returncode == 0
    with open_state_backend() as store:
        assert store.get_latest_node_state("command.a").status == "success"


def test_colours_are_left_out_where_nobody_wants_them(project, on_terminal):
    add(project, "a", "true")
    terminal = on_terminal("run", NO_COLOR="1")
    assert terminal.finish()[0] == 0
    assert not re.search(rb"\x1b\[[\d;]*m", terminal.raw)
    assert checked(terminal)[-1] == "1 of 1 done: 1 success; _ s"


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_can_draw_nothing_gets_lines(project, term, on_terminal):
    add(project, "a", "true")
    terminal = on_terminal("run", TERM=term)
    assert terminal.finish()[0] == 0
    assert b"\x1b" not in terminal.raw
    run, *lines = checked(terminal)
    assert re.fullmatch(r"run run_\w+: 1 node", run)
    assert lines == ["running  command.a: new", "success  command.a in _ s"]


def test_a_terminal_without_unicode_gets_signs_that_it_has(project, on_terminal):
    hold(project, "a")
    (project / "seeknal" / "a.yml").write_text("kind: command\nname: größe\ncommand: cat a\n", encoding="utf-8")
    with open_state_backend() as store:
        store.create_run("before", status="success")
        store.set_node_state("before", "command.größe", status="success", duration_ms=3_600_000)
    terminal = on_terminal("run", "--full", PYTHONIOENCODING="ascii")
    assert terminal.read_until(has("1 h 00 min"))
    let_go(project, "a")
    assert terminal.finish()[0] == 0
    assert terminal.raw.isascii()
    assert checked(terminal)[0] == "success  command.gr\\xf6\\xdfe in _ s"


@pytest.mark.parametrize("options", [["--quiet"], ["--output", "json"], ["--output", "jsonl"]])
def test_nothing_is_drawn_where_that_is_not_wanted(project, options, on_terminal):
    add(project, "a", "true")
    terminal = on_terminal("run", *options)
    assert terminal.finish()[0] == 0
    assert b"\x1b" not in terminal.raw
    assert checked(terminal) == ([] if options == ["--quiet"] else checked(terminal))


# ---- without a process ----


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def drawn(monkeypatch):
    """Return what a display has drawn after these events, which come a minute after one another."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def draw(total, left, *events, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        minutes = 0.0
        display = Display(total, left, lambda: 60 * minutes)
        with display:
            for event in events:
                display.tell(event, None)
                minutes += 1
            display._draw()
            screen = Screen(width, 24)
            screen.write(stream.getvalue().replace("\n", "\r\n"))  # as the driver of a terminal does
            now = [line.rstrip() for line in screen.lines]
        assert sys.stderr is stream
        return now

    return draw


def test_batches_attempts_and_stopping_are_told_beside_the_bar(drawn):
    lines = drawn(
        9,
        TimeLeft({}, {}, 1),
        NodeEvent("transform.daily", "running", attempt=1, done=0, total=4),
        NodeEvent("transform.daily", "retrying", "one of them", attempt=1, done=0, total=4),
        NodeEvent("transform.daily", "running", attempt=2, done=3, total=4),
        NodeEvent("command.fetch", "running", attempt=2, usual_ms=120_000),
        NodeEvent("command.fetch", "stopping", "SIGINT"),
    )
    assert lines[:2] == ["retrying transform.daily: one of them", "stopping command.fetch: SIGINT"]
    assert re.fullmatch(r"transform\.daily  ━{15}╺━{4}  3 of 4, 5 min 00 s", lines[2])
    assert re.fullmatch(r"command\.fetch    ━{20}  attempt 2, stopping, 2 min 00 s", lines[3])
    assert lines[4] == "0 of 9 done; 5 min 00 s"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "4 of 9 done: 1 success, 1 cached, 1 failed, 1 skipped; 4 min 00 s"),
        (50, "4 of 9 done, 1 failed; 4 min 00 s"),
        (30, "4 of 9 done, 1 failed; 4..."),
    ],
)
def test_the_line_of_the_whole_says_what_there_is_room_for(drawn, width, line):
    events = [NodeEvent(status, status) for status in ("success", "cached", "failed", "skipped")]
    assert drawn(9, TimeLeft({}, {}, 1), *events, width=width)[-1] == line


def test_time_that_is_not_wholly_known_is_the_least_that_it_can_be(drawn):
    left = TimeLeft({"a": (), "b": ("a",), "c": ()}, {"b": 600_000}, 1)
    lines = drawn(3, left, NodeEvent("a", "running", attempt=1, usual_ms=180_000))
    assert lines[-1] == "0 of 3 done; 1 min 00 s, at least 12 min 00 s left"


def test_batches_that_are_left_take_as_long_as_those_that_are_done(drawn):
    first = NodeEvent("a", "running", attempt=1, done=0, total=4, usual_ms=1000)
    lines = drawn(1, TimeLeft({"a": ()}, {}, 1), first, NodeEvent("a", "running", attempt=1, done=1, total=4))
    assert lines[-1] == "0 of 1 done; 2 min 00 s, about 6 min 00 s left"


def test_what_is_logged_while_it_is_open_goes_above_and_handlers_get_their_stream_back(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler(stream)
    logging.root.addHandler(handler)
    try:
        with Display(1, TimeLeft({}, {}, 1)):
            logging.getLogger("seeknal").warning("the lease\x1b[2J was lost")
            sys.stderr.write("no end of line")
        assert handler.stream is stream
    finally:
        logging.root.removeHandler(handler)
    assert "the lease\\x1b[2J was lost\n" in stream.getvalue()
    assert "no end of line\n" in stream.getvalue()


def test_who_kept_the_stream_of_a_display_writes_through_it_when_it_is_closed(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Display(1, TimeLeft({}, {}, 1)):
        kept = sys.stderr
    kept.write("later")
    assert stream.getvalue().endswith("later")


# ---- how much time is left ----


@pytest.mark.parametrize(
    ("parallel", "running", "left"),
    [
        (1, {}, Left(10.0, is_whole=True)),  # all of it
        (2, {}, Left(6.0, is_whole=True)),  # the chain
        (9, {"a": 1.0}, Left(5.0, is_whole=True)),
        (1, {"a": 1.0}, Left(9.0, is_whole=True)),
        (1, {"a": 3.0}, Left(8.0, is_whole=False)),  # longer than it took before
    ],
)
def test_time_left_is_the_longest_chain_or_the_work_that_is_shared(parallel, running, left):
    inputs = {"a": (), "b": ("a", "of no selection"), "c": (), "d": ()}
    usual = {"a": 2000, "b": 4000, "c": 2000, "d": 2000}
    assert TimeLeft(inputs, usual, parallel).judge(running) == left


def test_time_left_knows_what_it_does_not_know():
    left = TimeLeft({"a": (), "b": (), "c": ()}, {"a": 1000}, 1)
    assert left.judge({}) == Left(1.0, is_whole=False)
    left.learn("b", 2000)
    assert left.judge({}) == Left(3.0, is_whole=False)
    left.end("c")
    assert left.judge({}) == Left(3.0, is_whole=True)
    left.end("a")
    left.end("b")
    left.end("b")
    assert left.judge({}) is None
    assert TimeLeft({"a": ()}, {}, 1).judge({"a": 5.0}) is None


def test_usual_durations_are_those_of_the_newest_successes_in_a_few_reads(project):
    with open_state_backend() as store:
        for number, run_id in enumerate(["oldest", "1", "2", "3", "4", "5"]):
            store.create_run(run_id)
            store.set_node_state(run_id, "other", status="success", duration_ms=7)
            store.set_node_state(run_id, "always", status="success", duration_ms=number)
        store.set_node_state("5", "always", status="cached")
        store.set_node_state("4", "always", status="failed", duration_ms=99)
        store.set_node_state("3", "always", status="success", duration_ms=3)
        store.set_node_state("oldest", "long ago", status="success", duration_ms=1)
        assert usual_durations(store, ["always", "long ago", "never"]) == {"always": 3}
