"""`seeknal partitions`, as a shell and its user see it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from seeknal.cli import times
from seeknal.cli.app import main
from seeknal.clock import FakeClock
from seeknal.state.backend import open_state_backend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
NOW = datetime(2024, 2, 1, 12, tzinfo=UTC)
DONE_AT = datetime(2024, 1, 10, 6, tzinfo=UTC)
MADE = "manual_20240201T120000_000000Z"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEEKNAL_ACTOR", "ada")
    monkeypatch.setattr(times, "CLOCK", FakeClock(NOW))


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A node with three partitions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        store.create_run("monday")
        for key, rows in (("2024-01-30", 7), ("country=ID", 120), ("country=SG", None)):
            store.add_completed_partition("monday", "orders", key, row_count=rows, completed_at=DONE_AT)
    return tmp_path


def completed(node="orders"):
    with open_state_backend() as store:
        return {each.partition: (each.run_id, each.row_count) for each in store.list_partitions(node)}


BEFORE = {"2024-01-30": ("monday", 7), "country=ID": ("monday", 120), "country=SG": ("monday", None)}


def changes(action):
    with open_state_backend() as store:
        return store.list_changes(action=action)


def said(capsys, *arguments, code=0):
    """Run the command and return what it printed on stdout and stderr."""
    assert main(["partitions", *arguments]) == code
    return capsys.readouterr()


def parsed(capsys, *arguments):
    out, err = said(capsys, *arguments, "--output", "json", "--quiet")
    assert err == ""
    return json.loads(out)


def test_a_node_is_listed(project, capsys) -> None:
    out, err = said(capsys, "list", "orders")
    assert [line.split() for line in out.splitlines()] == [
        ["PARTITION", "STATUS", "ROW_COUNT", "AT", "RUN_ID"],
        ["2024-01-30", "completed", "7", "2024-01-10T06:00:00Z", "monday"],
        ["country=ID", "completed", "120", "2024-01-10T06:00:00Z", "monday"],
        ["country=SG", "completed", "-", "2024-01-10T06:00:00Z", "monday"],
    ]
    assert err == ""
    assert parsed(capsys, "list", "orders")[1] == {
        "node_id": "orders",
        "partition": "country=ID",
        "status": "completed",
        "run_id": "monday",
        "row_count": 120,
        "at": "2024-01-10T06:00:00Z",
        "attempt": None,
        "is_parked": False,
        "error_message": None,
    }
    assert said(capsys, "list", "nobody") == ("", "nobody has no partitions\n")


def test_all_nodes_have_a_line_each(project, capsys) -> None:
    with open_state_backend() as store:
        store.add_completed_interval("monday", "by time only", DONE_AT, NOW)
        store.add_completed_partition("monday", "n" * 190, "k" * 190)
    out, _ = said(capsys, "list")
    assert max(map(len, out.splitlines())) <= 80
    assert [line.split()[1] for line in out.splitlines()] == ["COMPLETED", "1", "3"]
    assert parsed(capsys, "list")[1] == {
        "node_id": "orders",
        "completed": 3,
        "running": 0,
        "failed": 0,
        "missing": 0,
        "first": "2024-01-30",
        "last": "country=SG",
    }


def test_many_partitions_do_not_flood_a_terminal(project, capsys) -> None:
    with open_state_backend() as store, store.transaction():
        for number in range(500):
            store.add_completed_partition("monday", "many", f"{number:03}")
    out, err = said(capsys, "list", "many")
    lines = out.splitlines()
    assert (len(lines), lines[-1]) == (1 + 20 + 1, "... 480 more ...")
    assert err == "500 completed; --all shows every one, --after 019 --limit 20 the next page\n"
    assert len(said(capsys, "list", "many", "--all").out.splitlines()) == 501
    assert len(parsed(capsys, "list", "many")) == 500


def test_a_table_fits_80_columns_whatever_is_in_it(project, capsys) -> None:
    with open_state_backend() as store:
        store.create_run("r" * 190)
        store.add_completed_partition("r" * 190, "orders", "é" * 95, row_count=10**12)
    wide = [
        *said(capsys, "list", "orders").out.splitlines(),
        *said(capsys, "restate", "orders", "é" * 95, "--dry-run").out.splitlines(),
    ]
    assert max(map(len, wide)) <= 80
    assert "é" * 95 in said(capsys, "list", "orders", "--all").out


def test_what_is_pending_is_what_a_file_expects_and_is_not_completed(project, capsys) -> None:
    (project / "keys.txt").write_bytes("\ufeffcountry=ID\r\ncountry=VN\n\n  x \ncountry=VN\ncountry=SG".encode())
    out, err = said(capsys, "pending", "orders", "--expected", "keys.txt")
    assert out.splitlines() == ["PARTITION", "country=VN", "  x"]
    assert err == "2 of 4 expected partitions pending\n"
    assert parsed(capsys, "pending", "orders", "--expected", "keys.txt") == [
        {"node_id": "orders", "partition": "country=VN"},
        {"node_id": "orders", "partition": "  x "},
    ]
    (project / "keys.txt").write_text("country=SG\n")
    out, err = said(capsys, "pending", "orders", "--expected", "keys.txt")
    assert (out, err) == ("", "nothing is pending\n")


def test_expected_keys_come_through_a_pipe(project) -> None:
    done = subprocess.run(
        [*SEEKNAL, "partitions", "pending", "orders", "--expected", "-", "--output", "jsonl", "--quiet"],
        input="country=ID\ncountry=VN\n",
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert (done.stdout, done.stderr) == ('{"node_id":"orders","partition":"country=VN"}\n', "")


def test_expected_keys_are_the_ticks_of_a_schedule_in_words(project, capsys) -> None:
    def pending(*arguments):
        return [each["partition"] for each in parsed(capsys, "pending", "orders", *arguments)]

    assert pending("--start", "2024-01-29") == ["2024-01-29", "2024-01-31"]
    assert pending("--start", "2024-01-29", "--end", "2024-01-31") == ["2024-01-29"]
    monthly = ("--start", "2023-11-01", "--schedule", "@monthly", "--format", "month=%Y%m")
    assert pending(*monthly) == ["month=202311", "month=202312", "month=202401"]
    hours = ("--start", "2024-03-31", "--end", "2024-03-31T04:00", "--schedule", "@hourly", "--format", "%dT%H%z")
    assert pending(*hours, "--timezone", "Europe/Berlin") == ["31T00+0100", "31T01+0100", "31T03+0200"]
    (project / "keys.txt").write_text("country=VN\n2024-01-31\n")
    assert pending("--expected", "keys.txt", "--start", "2024-01-29") == ["country=VN", "2024-01-31", "2024-01-29"]


def test_what_is_completed_by_hand_has_a_run_and_an_entry_in_the_log(project, capsys) -> None:
    arguments = ("complete", "orders", "a", "b", "a", "country=ID", "--row-count", "5", "--reason", "by mail")
    out, err = said(capsys, *arguments)
    assert [line.split()[0] for line in out.splitlines()] == ["PARTITION", "a", "b", "country=ID"]
    assert err == "completed already, and now once more: country=ID\n"
    assert completed() == BEFORE | {"a": (MADE, 5), "b": (MADE, 5), "country=ID": (MADE, 5)}
    with open_state_backend() as store:
        run = store.get_run(MADE)
    assert run.status == "success"
    assert run.metadata == {"by_hand": {"actor": "ada", "command": "partitions complete", "reason": "by mail"}}
    (change,) = changes("complete")
    assert (change.run_id, change.node_id, change.reason, change.actor) == (MADE, "orders", "by mail", "ada")
    assert change.detail == {"partitions": ["a", "b", "country=ID"]}


def test_a_run_that_is_named_did_it_and_one_that_is_missing_nothing(project, capsys) -> None:
    assert parsed(capsys, "complete", "orders", "a", "--run", "monday")[0]["run_id"] == "monday"
    out, err = said(capsys, "complete", "orders", "b", "--run", "tuesday", code=1)
    assert out == ""
    assert "tuesday" in err
    assert completed() == BEFORE | {"a": ("monday", None)}
    with open_state_backend() as store:
        assert store.list_runs() == ["monday"]


def test_all_keys_are_completed_or_none(project, capsys) -> None:
    for command in ("complete", "restate"):
        out, err = said(capsys, command, "orders", "country=ID", "x" * 191, code=2)
        assert (out, len(err.splitlines())) == ("", 2)
        assert "partition" in err
    assert completed() == BEFORE
    assert changes("complete") == changes("restate") == []
    with open_state_backend() as store:
        assert store.list_runs() == ["monday"]


def test_a_restatement_is_previewed_done_and_logged(project, capsys) -> None:
    arguments = ("restate", "orders", "country=ID", "country=XX", "--reason", "late data")
    out, err = said(capsys, *arguments, "--dry-run")
    assert [line.split()[0] for line in out.splitlines()] == ["PARTITION", "country=ID"]
    assert err.splitlines() == [
        "would be restated: country=ID",
        "not expected: `seeknal partitions expect orders country=ID` has it listed as missing",
        "not completed before, and left so: country=XX",
    ]
    assert completed() == BEFORE
    assert parsed(capsys, *arguments) == {
        "node_id": "orders",
        "dry_run": False,
        "restated": ["country=ID"],
        "not_completed": ["country=XX"],
    }
    assert set(completed()) == {"2024-01-30", "country=SG"}
    (change,) = changes("restate")
    assert (change.node_id, change.reason, change.detail) == ("orders", "late data", {"partitions": ["country=ID"]})


def test_a_restated_partition_that_nothing_expects_is_told_how_to_be_listed(project, capsys) -> None:
    with open_state_backend() as store:
        store.add_completed_partition("monday", "orders", "-x 'y'")
        store.expect_partitions("orders", ["country=SG"])
    assert said(capsys, "restate", "orders", "country=SG").err == "restated: country=SG\n"
    err = said(capsys, "restate", "orders", "country=ID", "--", "-x 'y'").err
    command = err.split("`")[1]
    assert "has them listed as missing" in err
    subprocess.run(["sh", "-c", command.replace("seeknal", shlex.join(SEEKNAL), 1)], timeout=50, check=True)
    found = [each["partition"] for each in parsed(capsys, "list", "orders", "--status", "missing")]
    assert found == ["-x 'y'", "country=ID", "country=SG"]


def test_what_cannot_be_logged_is_not_done(project, capsys) -> None:
    for command, *run in (("complete",), ("complete", "--run", "monday"), ("restate",)):
        said(capsys, command, "orders", "country=ID", *run, "--reason", "no \udcff text", code=2)
    assert completed() == BEFORE


def test_a_restatement_of_what_was_not_completed_says_so_and_changes_nothing(project, capsys) -> None:
    out, err = said(capsys, "restate", "orders", "country=XX")
    assert (out, err) == ("", "orders had completed none of them; nothing was restated\n")
    assert completed() == BEFORE
    assert changes("restate") == []


def test_the_log_holds_every_key_of_a_long_list(project, capsys) -> None:
    keys = [f"k{number:03}" for number in range(250)]
    out, err = said(capsys, "complete", "orders", *keys)
    assert (len(out.splitlines()), err) == (22, "--output json has every one\n")
    found = changes("complete")
    assert [len(change.detail["partitions"]) for change in found] == [100, 100, 50]
    assert [key for change in found for key in change.detail["partitions"]] == keys


BERLIN_HOURS = ("--timezone", "Europe/Berlin", "--schedule", "@hourly")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--expected"),
        (("--format", "%Y"), "--format"),
        (("--end", "now"), "--end"),
        (("--expected", "keys.txt", "--schedule", "@daily"), "--schedule"),
        (("--by-keys", "ID,SG"), "--by-keys"),
        (("--start", "-9d", "--by-keys", "ID,ID"), "'ID' twice"),
        (("--start", "-9d", "--by-keys", "ID,"), "--by-keys 'ID,'"),
        (("--start", "-9d", "--by-keys", "x" * 185), "196 bytes"),
        (("--expected", "missing.txt"), "missing.txt"),
        (("--expected", "."), "--expected"),
        (("--expected", "bytes"), "byte 1"),
        (("--expected", "long"), "line 2 of long"),
        (("--start", "soon"), "--start 'soon'"),
        (("--start", "now"), "--start 'now'"),
        (("--start", "-9d", "--format", ""), "--format"),
        (("--start", "-9d", "--format", "%n"), "--format"),
        (("--start", "2024-01-01", "--end", "2024-01-03", "--format", "%Y-%m"), "gives one key, '2024-01'"),
        (
            ("--start", "2024-10-27", "--end", "2024-10-28", *BERLIN_HOURS, "--format", "%Y-%m-%dT%H"),
            "gives one key, '2024-10-27T02'",
        ),
        (("--expected", "/dev/null"), "has no keys"),
        (("--start", "-9d", "--format", "%Y %Z"), "--format '%Y %Z' has '%Z'"),
        (("--start", "-9d", "--schedule", "often"), "often"),
        (("--start", "-9d", "--timezone", "Mars"), "--timezone"),
    ],
)
def test_what_is_not_said_rightly_is_refused(project, capsys, arguments, named) -> None:
    (project / "keys.txt").write_text("a\n")
    (project / "bytes").write_bytes(b"a\xff\n")
    (project / "long").write_text(f"a\n{'x' * 191}\n")

    out, err = said(capsys, "pending", "orders", *arguments, code=2)
    assert (out, len(err.splitlines())) == ("", 2)
    assert named in err


def test_no_help_is_wider_than_80_columns() -> None:
    commands = ["", "list", "pending", "expect", "complete", "restate"]
    code = (
        "import sys\nfrom seeknal.cli.app import main\n"
        "sys.exit(max(main(['partitions', *command.split(), '--help']) for command in sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *commands],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.count("Usage: ") == len(commands)
    assert max(map(len, done.stdout.splitlines())) <= 80
