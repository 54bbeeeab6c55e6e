"""`seeknal intervals`, as a shell and its user see it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from seeknal.cli import times
from seeknal.cli.app import main
from seeknal.clock import FakeClock
from seeknal.state.backend import StateBackendFactory, open_state_backend
from seeknal.state.capabilities import Capability
from seeknal.state.memory import MemoryStateBackend, MemoryStore

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
NOW = datetime(2024, 2, 1, 12, tzinfo=UTC)
MADE = "manual_20240201T120000_000000Z"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEEKNAL_ACTOR", "ada")
    monkeypatch.setattr(times, "CLOCK", FakeClock(NOW))


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A node with a gap of four days and a half."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        store.create_run("monday")
        store.create_run("tuesday")
        store.add_completed_interval("monday", "load", day(1), day(10))
        store.add_completed_interval("tuesday", "load", day(14) + timedelta(hours=12), day(20))
    return tmp_path


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


def completed(node="load"):
    with open_state_backend() as store:
        return [(each.start, each.end, each.run_id) for each in store.get_completed_intervals(node)]


def changes(action):
    with open_state_backend() as store:
        return store.list_changes(action=action)


def said(capsys, *arguments, code=0):
    """Run the command and return what it printed on stdout and stderr."""
    assert main(["intervals", *arguments]) == code
    return capsys.readouterr()


def parsed(capsys, *arguments):
    out, err = said(capsys, *arguments, "--output", "json", "--quiet")
    assert err == ""
    return json.loads(out)


def test_a_node_is_listed_with_its_gaps_at_a_glance(project, capsys) -> None:
    out, err = said(capsys, "list", "load")
    assert out.splitlines() == [
        "START                 END                   LENGTH  RUN_ID",
        "2024-01-01T00:00:00Z  2024-01-10T00:00:00Z  9d      monday",
        "2024-01-14T12:00:00Z  2024-01-20T00:00:00Z  5d 12h  tuesday",
        "",
        "#########....+#####",
        "2024-01",
        "one day a cell, UTC: # done, + partly, . not",
    ]
    assert err == "2 ranges, 1 gap\n"


def test_json_has_the_records_and_stands_alone(project, capsys) -> None:
    assert parsed(capsys, "list", "load") == [
        {
            "node_id": "load",
            "start": "2024-01-01T00:00:00Z",
            "end": "2024-01-10T00:00:00Z",
            "run_id": "monday",
            "runs": 1,
        },
        {
            "node_id": "load",
            "start": "2024-01-14T12:00:00Z",
            "end": "2024-01-20T00:00:00Z",
            "run_id": "tuesday",
            "runs": 1,
        },
    ]
    out, _ = said(capsys, "list", "load", "--output", "jsonl")
    assert [json.loads(line)["run_id"] for line in out.splitlines()] == ["monday", "tuesday"]
    assert parsed(capsys, "list", "nobody") == []


def test_a_range_of_several_runs_names_none_of_them_and_says_who_does(project, capsys) -> None:
    with open_state_backend() as store:
        store.create_run("wednesday")
        store.add_completed_interval("wednesday", "load", day(10), day(11))
        store.add_completed_interval("monday", "load", day(11), day(12))
        store.add_completed_interval("wednesday", "load", day(14), day(15))
    out, err = said(capsys, "list", "load")
    assert [line.split(maxsplit=3)[2:] for line in out.splitlines()[1:3]] == [["11d", "2 runs"], ["6d", "2 runs"]]
    assert err == "2 ranges, 1 gap; `seeknal intervals history load` tells which run completed what\n"
    assert [(each["run_id"], each["runs"]) for each in parsed(capsys, "list", "load")] == [
        ("monday", 2),
        ("wednesday", 2),
    ]
    (last,) = parsed(capsys, "list", "load", "--start", "2024-01-13")
    assert (last["start"], last["runs"]) == ("2024-01-14T00:00:00Z", 2)


def test_a_backend_that_does_not_keep_which_run_completed_what_names_the_last_one(project, capsys, monkeypatch) -> None:
    memory = MemoryStore()

    class Forgetful(MemoryStateBackend):
        capabilities = MemoryStateBackend.capabilities - {Capability.PROVENANCE}

        def __init__(self):
            super().__init__(store=memory)

    monkeypatch.setitem(StateBackendFactory._registered, "forgetful", Forgetful)
    (project / "seeknal_project.yml").write_text("name: p\nstate_backend: forgetful\n")
    with open_state_backend() as store:
        for number, run_id in enumerate(("monday", "tuesday"), start=1):
            store.create_run(run_id)
            store.add_completed_interval(run_id, "load", day(number), day(number + 1))
    out, err = said(capsys, "list", "load")
    assert out.splitlines()[1].split()[2:] == ["2d", "tuesday"]
    assert err == "1 range, 0 gaps\n"
    assert [(each["run_id"], each["runs"]) for each in parsed(capsys, "list", "load")] == [("tuesday", None)]


def test_a_span_chooses_the_ranges_that_reach_into_it(project, capsys) -> None:
    def runs(*bounds):
        return [each["run_id"] for each in parsed(capsys, "list", "load", *bounds)]

    assert runs("--start", "2024-01-09") == ["monday", "tuesday"]
    assert runs("--start", "2024-01-10") == ["tuesday"]
    assert runs("--end", "2024-01-14T12:00") == ["monday"]
    assert runs("--start", "2024-01-10", "--end", "2024-01-14") == []
    out, err = said(capsys, "list", "load", "--start", "2024-01-08", "--end", "2024-01-12")
    assert "2024-01-01T00:00:00Z" in out  # the range as it is
    assert "\n##..\n" in out  # and the bar of the span
    assert err == "1 range, 1 gap\n"
    out, err = said(capsys, "list", "load", "--start", "2024-01-10", "--end", "2024-01-14")
    assert (out, err) == ("", "load has completed no intervals there\n")


def test_all_nodes_have_a_line_each_and_bars_of_one_scale(project, capsys) -> None:
    with open_state_backend() as store:
        store.add_completed_interval("monday", "dim." + "x" * 180, day(5), day(15))
        store.add_completed_partition("monday", "by name only", "a")
    out, err = said(capsys, "list")
    lines = out.splitlines()
    assert lines[0].split() == ["NODE_ID", "FIRST", "LAST", "RANGES", "GAPS", "COVERAGE"]
    assert lines[1:] == [
        "dim.xxxxxxxxxxxxx...  2024-01-05  2024-01-15  1       0     ....##########.....",
        "load                  2024-01-01  2024-01-20  2       1     #########....+#####",
        f"{'2024-01':>67}",
        "one day a cell, UTC: # done, + partly, . not",
    ]
    assert max(map(len, lines)) <= 80
    assert err == ""
    assert parsed(capsys, "list")[1] == {
        "node_id": "load",
        "start": "2024-01-01T00:00:00Z",
        "end": "2024-01-20T00:00:00Z",
        "ranges": 2,
        "gaps": 1,
    }
    assert len(parsed(capsys, "list")) == 2


def test_the_table_of_nodes_fits_80_columns_also_with_times_of_day(project, capsys) -> None:
    with open_state_backend() as store:
        start = day(1) + timedelta(hours=1)
        store.add_completed_interval("monday", "x" * 190, start, start + timedelta(days=10))
    lines = said(capsys, "list", "--start", "2024-01-01", "--end", "2024-01-12").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["x" * 14 + "...", "2024-01-01", "01:00", "2024-01-11", "01:00", "1", "2", "+#########+"]


def test_an_empty_store_says_so(project, capsys) -> None:
    said(capsys, "restate", "load", "--start", "2024-01-01", "--end", "2024-02-01")
    assert said(capsys, "list") == ("", "no intervals are completed\n")
    assert said(capsys, "list", "load") == ("", "load has completed no intervals\n")
    assert parsed(capsys, "list") == []


def test_many_ranges_do_not_flood_a_terminal(project, capsys) -> None:
    with open_state_backend() as store, store.transaction():
        for number in range(3000):
            start = day(1) + timedelta(days=100, hours=2 * number)
            store.add_completed_interval("monday", "ticks", start, start + timedelta(hours=1))
    out, err = said(capsys, "list", "ticks")
    lines = out.splitlines()
    assert len(lines) == 1 + 10 + 1 + 10 + 4
    assert lines[11] == "... 2980 more ..."
    assert lines[1].startswith("2024-04-10T00:00:00Z")
    assert "--all shows every one" in err
    assert "3000 ranges, 2999 gaps" in err
    assert max(map(len, lines)) <= 80
    assert len(said(capsys, "list", "ticks", "--all").out.splitlines()) == 3000 + 5
    assert len(parsed(capsys, "list", "ticks")) == 3000
    out, err = said(capsys, "pending", "ticks", "--start", "2024-04-10", "--end", "2024-12-16")
    assert len(out.splitlines()) == 26
    assert "3000 gaps pending, 125d in all" in err


def test_what_is_pending_are_the_gaps_or_the_ticks_of_a_schedule(project, capsys) -> None:
    out, err = said(capsys, "pending", "load", "--start", "2024-01-01")
    assert out.splitlines()[1:3] == [
        "2024-01-10T00:00:00Z  2024-01-14T12:00:00Z  4d 12h",
        "2024-01-20T00:00:00Z  2024-02-01T12:00:00Z  12d 12h",
    ]
    assert err == "2 gaps pending, 17d in all\n"
    arguments = ("pending", "load", "--start", "2024-01-08", "--end", "2024-01-16", "--schedule", "@daily")
    assert [each["start"] for each in parsed(capsys, *arguments)] == [
        f"2024-01-{number}T00:00:00Z" for number in (10, 11, 12, 13, 14)
    ]
    out, err = said(capsys, *arguments, "--limit", "2")
    assert [line[:10] for line in out.splitlines()[1:3]] == ["2024-01-10", "2024-01-11"]
    assert err == "more ticks are pending than the 2 that --limit shows\n"
    assert said(capsys, *arguments, "--limit", "5").err == "5 ticks pending, 5d in all\n"
    assert "than the 1 that" in said(capsys, "pending", "load", "--start", "2024-01-01", "--limit", "1").err
    assert len(parsed(capsys, *arguments, "--limit", "2")) == 2
    out, err = said(capsys, "pending", "load", "--start", "2024-01-02", "--end", "2024-01-05")
    assert (out, err) == ("", "nothing is pending\n")


def test_the_last_ticks_are_pending_again_or_not_yet(project, capsys) -> None:
    arguments = ["pending", "load", "--start", "2024-01-08", "--end", "2024-01-18T12:00", "--schedule", "@daily"]

    def days(*more):
        return [int(each["start"][8:10]) for each in parsed(capsys, *arguments, *more)]

    assert days() == [10, 11, 12, 13, 14]
    assert days("--lookback", "2") == [10, 11, 12, 13, 14, 16, 17]
    assert days("--lateness", "5d") == [10, 11, 12]
    assert days("--newest-first", "--limit", "2") == [14, 13]


def test_a_few_of_very_many_ticks_are_found_without_making_all_of_them(project, capsys) -> None:
    found = parsed(capsys, "pending", "load", "--start", "1000-01-01", "--schedule", "* * * * *", "--limit", "2")
    assert [each["start"] for each in found] == ["1000-01-01T00:00:00Z", "1000-01-01T00:01:00Z"]


def test_ticks_and_bounds_are_those_of_the_time_zone(project, capsys) -> None:
    arguments = ["pending", "load", "--start", "2024-01-12", "--end", "2024-01-14", "--timezone", "Europe/Berlin"]
    assert [each["start"] for each in parsed(capsys, *arguments, "--schedule", "@daily")] == [
        "2024-01-11T23:00:00Z",
        "2024-01-12T23:00:00Z",
    ]
    out, _ = said(capsys, *arguments)
    assert "2024-01-12T00:00:00+01:00  2024-01-14T00:00:00+01:00  2d" in out
    assert "one hour a cell, Europe/Berlin" in out


def test_what_is_completed_by_hand_has_a_run_and_an_entry_in_the_log(project, capsys) -> None:
    found = parsed(capsys, "complete", "load", "--start", "2024-01-12", "--end", "2024-01-16", "--reason", "by mail")
    assert found == {
        "node_id": "load",
        "start": "2024-01-12T00:00:00Z",
        "end": "2024-01-16T00:00:00Z",
        "run_id": MADE,
        "added": [{"start": "2024-01-12T00:00:00Z", "end": "2024-01-14T12:00:00Z"}],
    }
    assert completed() == [(day(1), day(10), "monday"), (day(12), day(20), MADE)]
    with open_state_backend() as store:
        run = store.get_run(MADE)
    assert (run.status, run.started_at) == ("success", NOW)
    assert run.metadata == {"by_hand": {"actor": "ada", "command": "intervals complete", "reason": "by mail"}}
    (change,) = changes("complete")
    assert (change.run_id, change.node_id, change.reason, change.actor) == (run.run_id, "load", "by mail", "ada")
    assert change.detail == {
        "start": "2024-01-12T00:00:00+00:00",
        "end": "2024-01-16T00:00:00+00:00",
        "ranges": 1,
        "changed_seconds": 216000.0,
    }


def test_a_run_that_is_named_did_it(project, capsys) -> None:
    arguments = ("complete", "load", "--start", "2024-01-08", "--end", "2024-01-12", "--run", "tuesday")
    out, err = said(capsys, *arguments)
    assert out.splitlines()[-1] == "run_id   tuesday"
    assert err == "2d of 4d was missing; the rest was completed already\n"
    assert completed()[0] == (day(1), day(12), "tuesday")
    out, err = said(capsys, *arguments)
    assert err == "all of it was completed already\n"
    with open_state_backend() as store:
        assert store.list_runs() == ["monday", "tuesday"]


def test_a_run_that_does_not_exist_completes_nothing(project, capsys) -> None:
    before = completed()
    out, err = said(capsys, "complete", "load", "--start", "-1d", "--end", "now", "--run", "wednesday", code=1)
    assert out == ""
    assert "wednesday" in err
    assert "--run" in err.splitlines()[1]
    assert completed() == before
    assert changes("complete") == []


def test_a_restatement_is_previewed_done_and_logged(project, capsys) -> None:
    arguments = ("restate", "load", "--start", "2024-01-08", "--end", "2024-01-16", "--reason", "late data")
    before = completed()
    out, err = said(capsys, *arguments, "--dry-run")
    assert out.splitlines()[1:] == [
        "2024-01-08T00:00:00Z  2024-01-10T00:00:00Z  2d",
        "2024-01-14T12:00:00Z  2024-01-16T00:00:00Z  1d 12h",
    ]
    assert err == "would be restated: 3d 12h of 8d; the rest was not completed\n"
    assert completed() == before
    assert changes("restate") == []
    found = parsed(capsys, *arguments)
    assert (found["node_id"], found["dry_run"], len(found["restated"])) == ("load", False, 2)
    assert completed() == [(day(1), day(8), "monday"), (day(16), day(20), "tuesday")]
    (change,) = changes("restate")
    assert (change.node_id, change.reason, change.run_id) == ("load", "late data", None)
    assert (change.detail["ranges"], change.detail["changed_seconds"]) == (2, 302400.0)
    assert change.detail["runs"] == ["monday", "tuesday"]


def test_what_cannot_be_logged_is_not_done(project, capsys) -> None:
    before = completed()
    for command, *run in (("complete",), ("complete", "--run", "tuesday"), ("restate",)):
        span = ("--start", "2024-01-08", "--end", "2024-01-16")
        out, err = said(capsys, command, "load", *run, *span, "--reason", "no \udcff text", code=2)
        assert (out, len(err.splitlines())) == ("", 2)
    assert completed() == before
    with open_state_backend() as store:
        assert store.list_runs() == ["monday", "tuesday"]


def test_a_backend_without_a_log_says_that_it_keeps_no_reason(project, capsys, monkeypatch) -> None:
    class Keepless(MemoryStateBackend):
        capabilities = frozenset()

    monkeypatch.setitem(StateBackendFactory._registered, "keepless", Keepless)
    arguments = ("complete", "load", "--start", "-1d", "--end", "now", "--backend", "keepless")
    assert "keeps no log" in said(capsys, *arguments, "--reason", "by mail").err
    assert said(capsys, *arguments).err == ""


def test_servers_do_as_files_do(server_store, tmp_path, capsys) -> None:
    options = json.dumps(server_store.options)
    project = f"name: p\nstate_backend: database\nstate_options: {options}\n"
    (tmp_path / "seeknal_project.yml").write_text(project)
    at = ("-p", str(tmp_path))
    span = ("--start", "2024-01-10", "--end", "2024-01-14")
    assert parsed(capsys, "complete", "load", *span, *at)["run_id"] == MADE
    assert parsed(capsys, "restate", "load", "--start", "2024-01-11", "--end", "2024-01-12", *at)["restated"] == [
        {"start": "2024-01-11T00:00:00Z", "end": "2024-01-12T00:00:00Z"}
    ]
    assert [each["run_id"] for each in parsed(capsys, "list", "load", *at)] == [MADE, MADE]
    missing = parsed(capsys, "pending", "load", *span, "--schedule", "@daily", *at)
    assert missing == [{"node_id": "load", "start": "2024-01-11T00:00:00Z", "end": "2024-01-12T00:00:00Z"}]
    assert main(["partitions", "complete", "load", "a", "b", "--run", MADE, "--quiet", *at]) == 0
    assert main(["partitions", "restate", "load", "a", "--quiet", *at]) == 0
    with open_state_backend(tmp_path) as store:
        assert [each.partition for each in store.list_partitions("load")] == ["b"]
        assert [each.action for each in store.list_changes()] == ["complete", "restate", "complete", "restate"]


def test_those_who_complete_at_once_all_do(project) -> None:
    working = [
        subprocess.Popen(
            [*SEEKNAL, "intervals", "complete", "load", "--start", f"2024-03-{n}", "--end", f"2024-03-{n + 1}"]
        )
        for n in range(10, 14)
    ]
    assert [process.wait(timeout=50) for process in working] == [0, 0, 0, 0]
    assert [bounds[:2] for bounds in completed()[2:]] == [
        (datetime(2024, 3, 10, tzinfo=UTC), datetime(2024, 3, 14, tzinfo=UTC))
    ]
    assert len(changes("complete")) == 4


def test_a_restatement_of_what_was_not_completed_says_so_and_changes_nothing(project, capsys) -> None:
    out, err = said(capsys, "restate", "load", "--start", "2024-01-11", "--end", "2024-01-13")
    assert (out, err) == ("", "load had completed nothing of that; nothing was restated\n")
    assert parsed(capsys, "restate", "load", "--start", "2024-01-11", "--end", "2024-01-13")["restated"] == []
    assert changes("restate") == []


def test_through_a_pipe_no_id_of_a_run_is_cut(project) -> None:
    run_id = "a_run_" + "x" * 100
    with open_state_backend() as store:
        store.create_run(run_id)
        store.add_completed_interval(run_id, "orders", day(1), day(2))
    done = subprocess.run(
        [*SEEKNAL, "intervals", "list", "orders"], capture_output=True, text=True, timeout=50, check=True
    )
    assert run_id in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("pending", "load"), "--start"),
        (("pending", "load", "--start", "soon"), "--start 'soon'"),
        (("pending", "load", "--start", "now", "--end", "-1d"), "--end '-1d' is not after --start 'now'"),
        (("pending", "load", "--start", "-1d", "--schedule", "often"), "schedule 'often'"),
        (("pending", "load", "--start", "-1d", "--timezone", "Mars"), "--timezone 'Mars'"),
        (("pending", "load", "--start", "-1d", "--limit", "-1"), "--limit"),
        (("pending", "load", "--start", "-1d", "--lookback", "2"), "--lookback says nothing without --schedule"),
        (("pending", "load", "--start", "-1d", "--lateness", "6h"), "--lateness says nothing"),
        (("pending", "load", "--start", "-1d", "--newest-first"), "--newest-first says nothing"),
        (("pending", "load", "--start", "-1d", "--schedule", "@daily", "--lateness", "late"), "--lateness 'late'"),
        (("pending", "load", "--start", "-1d", "--schedule", "@daily", "--lateness", "999999999w"), "--lateness"),
        (("pending", "load", "--start", "-1d", "--schedule", "@daily", "--lookback", "-1"), "--lookback"),
        (("list", "load", "--end", "soon"), "--end 'soon'"),
        (("list", "--start", "now", "--end", "now"), "--end 'now'"),
        (("list", "--timezone", "Mars"), "--timezone 'Mars'"),
        (("list", "a\nb"), "control character"),
        (("complete", "load", "--start", "-1d"), "--end"),
        (("complete", "", "--start", "-1d", "--end", "now"), "node_id"),
        (("complete", "load", "--start", "-1d", "--end", "now", "--run", ""), "run_id"),
        (("restate", "load", "--start", "2024-01-10", "--end", "2024-01-10"), "--end"),
        (("restate", "x" * 191, "--start", "-1d", "--end", "now"), "node_id"),
    ],
)
def test_what_is_not_said_rightly_changes_nothing(project, capsys, arguments, named) -> None:
    before = completed()
    out, err = said(capsys, *arguments, code=2)
    assert (out, len(err.splitlines())) == ("", 2)
    assert named in err
    assert completed() == before
    with open_state_backend() as store:
        assert store.list_runs() == ["monday", "tuesday"]
        assert store.list_changes() == []


def on_a_terminal(answer, *arguments, columns=80, out=None):
    """Run the command on a terminal, answer its question; return its code, and all that the terminal shows."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [*SEEKNAL, *arguments], stdin=theirs, stdout=out or theirs, stderr=theirs, env=environment | {"PYTHONUTF8": "1"}
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
            if shown.rstrip().endswith(b"[y/N]:"):
                os.write(ours, answer)
    except OSError:  # the other end is closed
        pass
    process.wait(timeout=50)
    os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_a_restatement_shows_what_it_does_and_asks(project) -> None:
    arguments = ("intervals", "restate", "load", "--start", "2024-01-08", "--end", "2024-01-10")
    code, shown = on_a_terminal(b"n\n", *arguments)
    assert code == 0
    assert "2024-01-08T00:00:00Z  2024-01-10T00:00:00Z  2d\n" in shown
    assert "Do 2d of load again? [y/N]:" in shown
    assert "nothing was restated" in shown
    assert completed()[0] == (day(1), day(10), "monday")
    code, shown = on_a_terminal(b"y\n", *arguments)
    assert (code, completed()[0]) == (0, (day(1), day(8), "monday"))
    code, shown = on_a_terminal(b"", "intervals", "restate", "load", "--start", "2024-01-07", "--end", "now", "--yes")
    assert (code, completed()) == (0, [(day(1), day(7), "monday")])
    assert "[y/N]" not in shown
    code, shown = on_a_terminal(b"", *arguments)
    assert (code, shown) == (0, "load had completed nothing of that; nothing was restated\n")


def test_a_terminal_has_blocks_as_wide_as_it_is_and_a_pipe_has_ascii(project) -> None:
    arguments = ("intervals", "list", "load", "--start", "2024-01-01", "--end", "2024-04-10")
    code, shown = on_a_terminal(b"", *arguments)
    assert code == 0
    assert "\n█▄▄░░░░░░░░░░░░\n2024-01  2024-03\n" in shown
    assert "one week a cell, UTC: █ done, ▄ partly, ░ not" in shown
    code, shown = on_a_terminal(b"", *arguments, columns=120)
    assert f"\n{'█' * 9}{'░' * 4}▄{'█' * 5}{'░' * 81}\n" in shown
    assert "one day a cell" in shown
    code, shown = on_a_terminal(b"", *arguments, columns=30)
    assert "one week a cell" in shown
    piped = subprocess.run([*SEEKNAL, *arguments], capture_output=True, timeout=50, check=True, text=True)
    assert piped.stdout.isascii()
    assert "one week a cell, UTC: # done, + partly, . not" in piped.stdout


def test_no_help_is_wider_than_80_columns() -> None:
    for command in ([], ["list"], ["pending"], ["complete"], ["restate"], ["history"]):
        done = subprocess.run(
            [*SEEKNAL, "intervals", *command, "--help"],
            env={**os.environ, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert max(map(len, done.stdout.splitlines())) <= 80
