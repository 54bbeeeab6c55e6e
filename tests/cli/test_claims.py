"""`seeknal intervals claims`, as a shell and its user see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from seeknal.cli.app import main
from seeknal.model.intervals import Interval
from seeknal.state.backend import open_state_backend
from seeknal.state.lease import this_host

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEEKNAL_ACTOR", "ada")


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A node of which a day and a partition are parked, a day failed once, and this process has claimed another day."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    first = datetime(2024, 1, 1, tzinfo=UTC)
    wanted = [Interval(first + timedelta(days=n), first + timedelta(days=n + 1)) for n in range(3)]
    with open_state_backend() as store:
        store.create_run("backfill")
        with store.lock("backfill", "worker-1") as lease:
            (parked,) = store.claim_intervals("backfill", "orders", wanted, lease=lease, max_attempts=1)
            store.fail_claim(parked, "the source\nhas no such day, and will not have it before the year 2025 either")
            failed, _ = store.claim_intervals("backfill", "orders", wanted, lease=lease, limit=2)
            store.fail_claim(failed, "timeout")
            (part,) = store.claim_partitions("backfill", "orders", ["c" * 60], lease=lease, max_attempts=1)
            store.fail_claim(part, "\x1b[31mred")
            yield tmp_path


def said(capsys, *arguments, code=0):
    """Run the command and return what it printed on stdout and stderr."""
    assert main(["intervals", "claims", *arguments]) == code
    return capsys.readouterr()


def test_a_table_tells_what_stands_how_and_who_holds_it(project, capsys):
    out, err = said(capsys, "orders")
    head, *lines = out.splitlines()
    assert head.split() == ["RANGE", "STATUS", "ATTEMPT", "HELD_BY", "ERROR_MESSAGE"]
    assert [line.split()[:2] for line in lines[:3]] == [
        ["2024-01-01/2024-01-02", "parked"],
        ["2024-01-02/2024-01-03", "open"],
        ["2024-01-03/2024-01-04", "claimed"],
    ]
    assert "1 of 1" in lines[0]
    assert f"{this_host()}:{os.getpid()}"[:13] in lines[2]
    assert lines[3].startswith("ccc")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "\x1b" not in out
    assert err == ""


def test_json_has_the_fields_of_a_claim_and_where_its_worker_is(project, capsys):
    out, err = said(capsys, "orders", "--status", "claimed", "--output", "json")
    (found,) = json.loads(out)
    assert (found["start"], found["end"], found["partition"]) == ("2024-01-03T00:00:00Z", "2024-01-04T00:00:00Z", None)
    assert (found["status"], found["attempt"], found["max_attempts"]) == ("claimed", 1, 3)
    assert (found["lease_run_id"], found["lease_node_id"]) == ("backfill", "worker-1")
    assert (found["host"], found["pid"]) == (this_host(), os.getpid())
    assert err == ""


def test_parked_ranges_are_opened_again_and_it_is_logged(project, capsys):
    out, err = said(capsys, "orders", "--retry-parked", "--reason", "the source is back", "--output", "json")
    assert [each["status"] for each in json.loads(out)] == ["open", "open", "claimed", "open"]
    assert err == "2 parked ranges are open again\n"
    with open_state_backend() as store:
        (logged,) = store.list_changes(action="retry")
    assert (logged.node_id, logged.actor, logged.reason) == ("orders", "ada", "the source is back")
    assert said(capsys, "orders", "--status", "parked") == ("", "nothing of orders is parked\n")
    assert said(capsys, "orders", "--retry-parked").err == "nothing was parked\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("orders", "--retry-parked", "--status", "parked"), "--status and --retry-parked do not go together"),
        (("orders", "--reason", "the source is back"), "--reason says nothing without --retry-parked"),
        (("--retry-parked",), "--retry-parked says nothing without a node"),
        (("--status", "park"), "parked"),
    ],
)
def test_options_that_say_nothing_together_are_refused_and_nothing_is_opened(project, capsys, arguments, named) -> None:
    out, err = said(capsys, *arguments, code=2)
    assert named in err
    assert (out, len(err.splitlines())) == ("", 2)
    with open_state_backend() as store:
        assert len(store.list_claims("orders", status="parked")) == 2


def test_without_a_node_the_claims_of_all_are_listed(project, capsys) -> None:
    with open_state_backend() as store, store.lock("backfill", "worker-2") as lease:
        day = Interval(datetime(2024, 1, 1, 6, tzinfo=UTC), datetime(2024, 1, 1, 7, tzinfo=UTC))
        for node in ("dim." + "x" * 180, "done"):
            store.claim_intervals("backfill", node, [day], lease=lease)
        store.complete_claim(store.list_claims("done")[0])
        out, err = said(capsys)
        lines = [line.split() for line in out.splitlines()]
        assert lines[0] == ["NODE_ID", "RANGE", "STATUS", "ATTEMPT", "ERROR_MESSAGE"]
        assert lines[1][1:3] == ["2024-01-01T06:00/2024-01-01T07:00", "claimed"]
        assert lines[1][0].startswith("dim.xx")
        assert [line[0] for line in lines[2:]] == ["orders"] * 4
        assert max(map(len, out.splitlines())) <= 80
        assert err == ""
        found = json.loads(said(capsys, "--status", "claimed", "--output", "json").out)
        assert [each["node_id"] for each in found] == ["dim." + "x" * 180, "orders"]
        assert "x" * 180 in said(capsys, "--all").out
        assert f"{this_host()}:{os.getpid()}" in said(capsys, "--all").out


def test_a_store_without_claims_says_so_for_all_nodes(tmp_path, capsys) -> None:
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: file\n")
    at = ("-p", str(tmp_path))
    assert said(capsys, *at) == ("", "nothing is claimed\n")
    assert said(capsys, "--status", "parked", *at) == ("", "nothing is parked\n")
    said(capsys, "--status", "park", *at, code=2)


def test_what_is_corrected_by_hand_while_somebody_works_on_it_is_told_and_done(project, capsys) -> None:
    span = ("orders", "--start", "2024-01-03T12:00", "--end", "2024-01-09")
    told = (
        "at work on it right now: run backfill on 2024-01-03/2024-01-04; "
        "`seeknal intervals claims orders --status claimed` tells who holds what"
    )
    for command in ("complete", "restate"):
        assert main(["intervals", command, *span]) == 0
        assert capsys.readouterr().err.splitlines()[0] == told
        beside = ("orders", "--start", "2024-01-04", "--end", "2024-01-09")
        assert main(["intervals", command, *beside]) == 0
        assert "at work" not in capsys.readouterr().err
    with open_state_backend() as store:
        assert store.get_completed_intervals("orders") == []
        with store.lock("backfill", "worker-2") as lease:
            store.claim_partitions("backfill", "orders", ["c=1"], lease=lease)
            for command in ("complete", "restate"):
                assert main(["partitions", command, "orders", "c=1", "c=2"]) == 0
                assert "at work on it right now: run backfill on c=1; " in capsys.readouterr().err
                assert main(["partitions", command, "orders", "c=2", "c" * 60]) == 0
                assert "at work" not in capsys.readouterr().err


def test_a_node_without_claims_and_a_status_that_there_is_not(project, capsys):
    with open_state_backend() as store:
        store.create_run("idle")
        store.set_node_state("idle", "idle", status="success")
    assert said(capsys, "idle") == ("", "nothing of idle is claimed\n")
    assert said(capsys, "idle", "--output", "json") == ("[]\n", "")
    _, err = said(capsys, "orders", "--status", "park", code=2)
    assert "parked" in err
    assert len(err.splitlines()) == 2


def test_a_shell_has_json_on_standard_output_alone(project):
    done = subprocess.run(
        [*SEEKNAL, "intervals", "claims", "orders", "--retry-parked", "--output", "jsonl"],
        capture_output=True,
        text=True,
        cwd=project,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "2 parked ranges are open again\n")
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4


def test_the_help_fits_on_a_terminal(project, capsys):
    out, _ = said(capsys, "--help")
    assert all(len(line) <= 80 for line in out.splitlines())
