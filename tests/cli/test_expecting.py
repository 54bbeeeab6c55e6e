"""`seeknal partitions expect`, and `pending` of what the store expects, as a shell and its user see it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from seeknal.cli import times
from seeknal.cli.app import main
from seeknal.clock import FakeClock
from seeknal.state.backend import StateBackendFactory, open_state_backend
from seeknal.state.memory import MemoryStateBackend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
NOW = datetime(2024, 2, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(times, "CLOCK", FakeClock(NOW))


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A node that has completed one partition."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        store.create_run("monday")
        store.add_completed_partition("monday", "orders", "ID")
    return tmp_path


def said(capsys, *arguments, code=0):
    """Run the command and return what it printed on stdout and stderr."""
    assert main(["partitions", *arguments]) == code
    return capsys.readouterr()


def parsed(capsys, *arguments):
    out, err = said(capsys, *arguments, "--output", "json", "--quiet")
    assert err == ""
    return json.loads(out)


def expected(node="orders"):
    with open_state_backend() as store:
        return store.list_expected_partitions(node)


def test_what_the_store_is_told_to_expect_is_pending_until_it_is_completed(project, capsys) -> None:
    out, err = said(capsys, "expect", "orders", "SG", "ID", "VN", "SG")
    assert (out.splitlines(), err) == (["PARTITION", "SG", "ID", "VN"], "3 new\n")
    out, err = said(capsys, "pending", "orders")
    assert (out.splitlines(), err) == (["PARTITION", "SG", "VN"], "2 of 3 expected partitions pending\n")
    assert parsed(capsys, "pending", "orders") == [
        {"node_id": "orders", "partition": "SG"},
        {"node_id": "orders", "partition": "VN"},
    ]
    said(capsys, "complete", "orders", "SG", "VN")
    assert said(capsys, "pending", "orders") == ("", "nothing is pending\n")
    said(capsys, "restate", "orders", "VN")
    assert [each["partition"] for each in parsed(capsys, "pending", "orders")] == ["VN"]


def test_only_what_is_new_is_listed_and_the_rest_is_counted(project, capsys) -> None:
    said(capsys, "expect", "orders", "ID", "SG")
    out, err = said(capsys, "expect", "orders", "VN", "SG", "ID")
    assert (out.splitlines(), err) == (["PARTITION", "VN"], "1 new, 2 expected already\n")
    assert said(capsys, "expect", "orders", "VN") == ("", "nothing was changed: 1 expected already\n")
    assert parsed(capsys, "expect", "orders", "TH", "VN") == {
        "node_id": "orders",
        "new": ["TH"],
        "expected_already": ["VN"],
    }
    assert expected() == ["ID", "SG", "TH", "VN"]


def test_what_is_expected_no_longer_is_dropped_and_stays_completed(project, capsys) -> None:
    said(capsys, "expect", "orders", "ID", "SG", "VN")
    out, err = said(capsys, "expect", "orders", "ID", "SG", "XX", "--drop")
    assert (out.splitlines(), err) == (["PARTITION", "ID", "SG"], "2 expected no longer, 1 not expected before\n")
    assert expected() == ["VN"]
    with open_state_backend() as store:
        assert store.get_partition("orders", "ID") is not None
    assert parsed(capsys, "expect", "orders", "VN", "XX", "--drop") == {
        "node_id": "orders",
        "dropped": ["VN"],
        "not_expected": ["XX"],
    }
    assert said(capsys, "expect", "orders", "VN", "--drop") == ("", "nothing was changed: 1 not expected before\n")


def test_keys_come_from_arguments_files_pipes_and_schedules_alike(project, capsys) -> None:
    (project / "keys.txt").write_text("SG\nVN\n")
    arguments = ("expect", "orders", "ID", "--expected", "keys.txt", "--start", "2024-01-30")
    assert parsed(capsys, *arguments)["new"] == ["ID", "SG", "VN", "2024-01-30", "2024-01-31"]
    done = subprocess.run(
        [*SEEKNAL, "partitions", "expect", "piped", "--expected", "-", "--output", "jsonl", "--quiet"],
        input="b\na\n",
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert (done.stdout, done.stderr) == ('{"node_id":"piped","new":["b","a"],"expected_already":[]}\n', "")
    assert expected("piped") == ["a", "b"]
    (project / "keys.txt").write_text("\n")
    _, err = said(capsys, "expect", "orders", "--expected", "keys.txt", code=2)
    assert "keys.txt has no keys" in err


def test_a_grid_has_each_key_by_time_with_each_of_the_others(project, capsys) -> None:
    grid = ("--start", "2024-01-30", "--by-keys", "SG,I|D")
    wanted = ["2024-01-30|SG", r"2024-01-30|I\|D", "2024-01-31|SG", r"2024-01-31|I\|D"]
    assert [each["partition"] for each in parsed(capsys, "pending", "orders", *grid)] == wanted
    assert parsed(capsys, "expect", "orders", *grid)["new"] == wanted
    said(capsys, "complete", "orders", *wanted[:3])
    assert [each["partition"] for each in parsed(capsys, "pending", "orders")] == wanted[3:]


def test_what_is_given_is_asked_about_and_not_what_the_store_expects(project, capsys) -> None:
    said(capsys, "expect", "orders", "SG")
    (project / "keys.txt").write_text("VN\n")
    assert [each["partition"] for each in parsed(capsys, "pending", "orders", "--expected", "keys.txt")] == ["VN"]
    (project / "keys.txt").write_text("")
    out, err = said(capsys, "pending", "orders", "--expected", "keys.txt", code=2)
    assert out == "", "what made the file may have failed, so it does not mean that nothing is missing"
    assert "keys.txt has no keys" in err


def test_that_nothing_is_expected_is_an_error_and_not_that_nothing_is_missing(project, capsys) -> None:
    said(capsys, "expect", "other", "a")
    out, err = said(capsys, "pending", "orders", code=2)
    assert (out, len(err.splitlines())) == ("", 2)
    assert "expected of orders" in err
    assert "seeknal partitions expect orders KEY" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("orders",), "--expected FILE"),
        (("orders", "--drop"), "--expected FILE"),
        (("orders", "a", "x" * 191), "partition"),
        (("orders", "a", "x" * 191, "--drop"), "partition"),
        (("", "a"), "node_id"),
        (("orders", "a", "--end", "now"), "--end says nothing without --start"),
        (("orders", "a", "--by-keys", "ID"), "--by-keys says nothing without --start"),
        (("orders", "a", "--expected", "missing.txt"), "missing.txt"),
        (("orders", "a", "--start", "-9d", "--by-keys", ""), "--by-keys"),
    ],
)
def test_what_is_not_said_rightly_changes_nothing(project, capsys, arguments, named) -> None:
    out, err = said(capsys, "expect", *arguments, code=2)
    assert (out, len(err.splitlines())) == ("", 2)
    assert named in err
    assert expected() == []


def test_long_lists_are_told_in_a_few_lines_of_80_columns(project, capsys) -> None:
    keys = [f"{number:03}" for number in range(300)]
    out, err = said(capsys, "expect", "orders", *keys, "k" * 190)
    assert (len(out.splitlines()), err) == (22, "--output json has every one\n301 new\n")
    assert max(map(len, out.splitlines())) <= 80
    assert expected() == [*keys, "k" * 190]


def test_a_backend_that_keeps_nothing_expected_says_so(project, capsys, monkeypatch) -> None:
    class Keepless(MemoryStateBackend):
        capabilities = frozenset()

    monkeypatch.setitem(StateBackendFactory._registered, "keepless", Keepless)
    out, err = said(capsys, "expect", "orders", "a", "--backend", "keepless", code=1)
    assert (out, len(err.splitlines())) == ("", 2)
    assert "does not keep which partitions are expected" in err
    out, err = said(capsys, "pending", "orders", "--backend", "keepless", code=2)
    assert err.splitlines()[1].startswith("hint: Give --expected FILE")
    assert parsed(capsys, "pending", "orders", "--start", "2024-01-31", "--backend", "keepless") == [
        {"node_id": "orders", "partition": "2024-01-31"}
    ]


def test_servers_do_as_files_do(server_store, tmp_path, capsys) -> None:
    project = f"name: p\nstate_backend: database\nstate_options: {json.dumps(server_store.options)}\n"
    (tmp_path / "seeknal_project.yml").write_text(project)
    at = ("-p", str(tmp_path))
    assert parsed(capsys, "expect", "orders", "b", "a", *at)["new"] == ["b", "a"]
    said(capsys, "complete", "orders", "a", *at)
    assert parsed(capsys, "pending", "orders", *at) == [{"node_id": "orders", "partition": "b"}]
    assert parsed(capsys, "expect", "orders", "b", "--drop", *at)["dropped"] == ["b"]
