"""`seeknal intervals history`, as a shell and its user see it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import StateBackendFactory, open_state_backend
from seeknal.state.capabilities import Capability
from seeknal.state.lease import this_host
from seeknal.state.memory import MemoryStateBackend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
FINISHED = datetime(2024, 2, 1, 6, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEEKNAL_ACTOR", "ada")


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A node whose days three runs have completed, one of which is deleted, and one of which did some of them again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        completed_like_that(store)
    return tmp_path


def completed_like_that(store):
    for run_id in ("gone", "monday", "tuesday"):
        store.create_run(run_id)
    store.add_completed_interval("gone", "load", day(1), day(10))
    store.add_completed_interval("monday", "load", day(8), day(12))
    store.add_completed_interval("tuesday", "load", day(12), day(14))
    store.restate_intervals("load", day(5), day(9), reason="late\ndata")
    store.update_run("monday", status="success", finished_at=FINISHED)
    store.delete_run("gone")


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


def said(capsys, *arguments, code=0):
    """Run the command and return what it printed on stdout and stderr."""
    assert main(["intervals", "history", *arguments]) == code
    return capsys.readouterr()


def parsed(capsys, *arguments):
    out, err = said(capsys, *arguments, "--output", "json", "--quiet")
    assert err == ""
    return json.loads(out)


PARTS = [
    "START       END         FINISHED_AT       STATUS   RUN_ID",
    "2024-01-01  2024-01-05  -                 -        gone",
    "2024-01-09  2024-01-12  2024-02-01 06:30  success  monday",
    "2024-01-12  2024-01-14  -                 running  tuesday",
]


def test_each_part_names_its_run_and_below_stands_what_was_restated(project, capsys) -> None:
    out, err = said(capsys, "load")
    parts, restated = (part.splitlines() for part in out.split("\n\n"))
    assert parts == PARTS
    assert restated[0].endswith(f"  restated by ada@{this_host()}: late data")
    assert restated[1] == "  2024-01-05 to 2024-01-09, of which 4d was completed by gone, monday"
    assert err == "3 parts, 1 restatement; times of UTC\n"


def test_json_has_the_parts_with_their_runs_and_the_entries_of_the_log(project, capsys) -> None:
    found = parsed(capsys, "load")
    assert found["node_id"] == "load"
    assert found["parts"][:2] == [
        {
            "node_id": "load",
            "start": "2024-01-01T00:00:00Z",
            "end": "2024-01-05T00:00:00Z",
            "run_id": "gone",
            "run_status": None,
            "run_finished_at": None,
        },
        {
            "node_id": "load",
            "start": "2024-01-09T00:00:00Z",
            "end": "2024-01-12T00:00:00Z",
            "run_id": "monday",
            "run_status": "success",
            "run_finished_at": "2024-02-01T06:30:00Z",
        },
    ]
    (change,) = found["restatements"]
    assert (change["action"], change["actor"], change["reason"]) == ("restate", "ada", "late\ndata")
    assert change["detail"]["runs"] == ["gone", "monday"]
    piped = subprocess.run(
        [*SEEKNAL, "intervals", "history", "load", "--output", "jsonl"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    lines = [json.loads(line) for line in piped.stdout.splitlines()]
    assert lines[:3] == [{"kind": "part"} | each for each in found["parts"]]
    assert (lines[3:], piped.stderr) == ([{"kind": "restatement"} | change], "")
    with open_state_backend() as store:
        store.set_node_state("monday", "idle", status="success")
    assert parsed(capsys, "idle") == {"node_id": "idle", "parts": [], "restatements": []}


def test_a_span_chooses_what_reaches_into_it(project, capsys) -> None:
    def chosen(*bounds):
        found = parsed(capsys, "load", *bounds)
        return [each["run_id"] for each in found["parts"]], len(found["restatements"])

    assert chosen("--start", "2024-01-09") == (["monday", "tuesday"], 0)
    assert chosen("--start", "2024-01-08T23:59", "--end", "2024-01-12") == (["monday"], 1)
    assert chosen("--end", "2024-01-05") == (["gone"], 0)
    assert chosen("--start", "2024-01-05", "--end", "2024-01-06") == ([], 1)
    out, err = said(capsys, "load", "--start", "2024-02-01")
    assert (out, err) == ("", "load has completed nothing there\n")


def test_a_restatement_by_hand_is_in_it_and_one_of_partitions_is_not(project, capsys) -> None:
    span = ("--start", "2024-01-11", "--end", "2024-01-13")
    assert main(["intervals", "restate", "load", *span, "--reason", "wrong rates", "--quiet"]) == 0
    assert main(["partitions", "complete", "load", "a", "--quiet"]) == 0
    assert main(["partitions", "restate", "load", "a", "--quiet"]) == 0
    capsys.readouterr()
    found = parsed(capsys, "load")
    assert [each["reason"] for each in found["restatements"]] == ["late\ndata", "wrong rates"]
    assert "2024-01-11 to 2024-01-13, of which 2d was completed by monday, tuesday\n" in said(capsys, "load").out


def test_times_are_those_of_the_zone_and_as_exact_as_they_have_to_be(project, capsys) -> None:
    out, err = said(capsys, "load", "--timezone", "Europe/Berlin")
    assert "2024-01-09 01:00  2024-01-12 01:00  2024-02-01 07:30  success  monday" in out
    assert "times of Europe/Berlin" in err
    with open_state_backend() as store:
        store.add_completed_interval("monday", "ticks", day(1), day(1) + timedelta(seconds=30))
    assert "2024-01-01 00:00:00  2024-01-01 00:00:30" in said(capsys, "ticks").out
    assert "2024-01-01T00:00:00Z  2024-01-01T00:00:30Z" in said(capsys, "ticks", "--all").out


def test_a_table_fits_80_columns_and_a_few_lines_whatever_is_in_it(project, capsys) -> None:
    first = day(1) + timedelta(seconds=1)
    with open_state_backend() as store, store.transaction():
        for number in range(30):
            run_id = f"{number:02}{'r' * 188}"
            store.create_run(run_id, status="success")
            start = first + timedelta(minutes=number)
            store.add_completed_interval(run_id, "wide", start, start + timedelta(minutes=1))
        for number in range(25):
            start = first + timedelta(days=number)
            store.restate_intervals("wide", start + timedelta(hours=1), start + timedelta(hours=2), reason="why " * 40)
        store.restate_intervals("wide", first, first + timedelta(minutes=5), reason="\x1b[31m" * 30)
    out, err = said(capsys, "wide")
    parts, restated = (part.splitlines() for part in out.split("\n\n"))
    assert (len(parts), parts[11]) == (22, "... 5 more ...")
    assert (len(restated), restated[0]) == (41, "... 6 earlier restatements ...")
    assert max(map(len, [*parts, *restated])) <= 80
    assert "\x1b" not in out
    assert err.startswith("--all shows every one\n25 parts, 26 restatements")
    in_full = said(capsys, "wide", "--all").out
    assert "more" not in in_full
    assert all(f"{number:02}{'r' * 188}" in in_full for number in range(30))


def test_entries_that_others_wrote_into_the_log_are_shown_as_far_as_they_can_be_read(project, capsys) -> None:
    details = [{"days": ["2024-01-10"]}, {"start": "2024-01-10", "end": "soon"}, {"start": 1, "end": []}, {}]
    details += [{"start": "2024-01-02", "end": "2024-01-03", "changed_seconds": 1e300, "runs": "monday"}]
    details += [{"start": "0001-01-01", "end": "9999-12-31", "runs": ["a", "b", "c", "d"], "runs_in_all": 7}]
    with open_state_backend() as store:
        for detail in details:
            store.log_change("restate", node_id="load", detail=detail)
    lines = said(capsys, "load", "--timezone", "America/Lima").out.splitlines()[-12:][1::2]
    assert lines[0] == '  {"days":["2024-01-10"]}'
    assert lines[4] == "  2024-01-01 19:00 to 2024-01-02 19:00"
    assert lines[5].endswith("by a, b, c and 4 more")
    # whether they are about that span nobody can tell, so they are shown
    assert len(parsed(capsys, "load", "--start", "2024-01-20")["restatements"]) == 5


def test_a_backend_that_does_not_keep_who_completed_what_says_so(project, capsys, monkeypatch) -> None:
    class Keepless(MemoryStateBackend):
        capabilities = frozenset()

    class Logless(MemoryStateBackend):
        capabilities = frozenset({Capability.PROVENANCE})

    monkeypatch.setitem(StateBackendFactory._registered, "keepless", Keepless)
    monkeypatch.setitem(StateBackendFactory._registered, "logless", Logless)
    out, err = said(capsys, "load", "--backend", "keepless", code=1)
    assert (out, len(err.splitlines())) == ("", 2)
    assert "does not keep which run completed which part" in err
    out, err = said(capsys, "load", "--backend", "logless")
    assert out == ""
    assert "keeps no log" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "'node'"),
        (("",), "node_id"),
        (("a\nb",), "control character"),
        (("load", "--start", "soon"), "--start 'soon'"),
        (("load", "--start", "now", "--end", "-1d"), "--end '-1d' is not after"),
        (("load", "--timezone", "Mars"), "--timezone 'Mars'"),
    ],
)
def test_what_is_not_said_rightly_is_refused_in_two_lines(project, capsys, arguments, named) -> None:
    out, err = said(capsys, *arguments, code=2)
    assert (out, len(err.splitlines())) == ("", 2)
    assert named in err


def test_servers_do_as_files_do(server_store, tmp_path, capsys) -> None:
    project = f"name: p\nstate_backend: database\nstate_options: {json.dumps(server_store.options)}\n"
    (tmp_path / "seeknal_project.yml").write_text(project)
    with open_state_backend(tmp_path) as store:
        completed_like_that(store)
    out, _ = said(capsys, "load", "-p", str(tmp_path))
    assert out.splitlines()[:4] == PARTS
    assert "of which 4d was completed by gone, monday" in out
