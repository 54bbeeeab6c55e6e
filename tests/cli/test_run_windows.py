"""Ranges that a run is asked for and that no selected node has: refused before anything runs, by the plan, too."""

from __future__ import annotations

import pytest

from seeknal.cli.app import main

NODES = {
    "whole": "command: 'true'\n",
    "daily": "schedule: '@daily'\nstart: 2024-01-01\nend: 2024-01-05\ntags: [days]\ncommand: 'true'\n",
    "late": "schedule: '@daily'\nstart: 2024-01-01\nlateness: 30d\ntags: [days]\ncommand: 'true'\n",
    "keys": "partitions: [ID, SG]\ncommand: 'true'\n",
    "asked": "partitions: expected\ncommand: 'true'\n",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: windows\n")
    (tmp_path / "seeknal").mkdir()
    for name, keys in NODES.items():
        (tmp_path / "seeknal" / f"{name}.yml").write_text(f"kind: command\nname: {name}\n{keys}")
    return tmp_path


def ran(capsys, *arguments: str, code: int = 0) -> str:
    assert main(["run", "--quiet", *arguments]) == code
    return capsys.readouterr().err


SPAN = ("--start", "2024-01-02", "--end", "2024-01-03")
REFUSED = {
    "a partition that no node has": (
        ["--partition", "SGP"],
        "no selected node has the partition 'SGP'",
        "Did you mean SG? Known: ID, SG.",
    ),
    "one of several partitions": (["--partition", "ID", "--partition", "MY"], "partition 'MY'", "Known: ID, SG."),
    "a partition of a node that is not selected": (
        ["--nodes", "daily", "--partition", "ID"],
        "no selected node has the partition 'ID'",
        "Known: none.",
    ),
    "a partition to do again": (["--restate", "--partition", "MY"], "no selected node has the partition 'MY'", "Known"),
    "bounds of what has no schedule": (
        ["--nodes", "keys", *SPAN],
        "no selected node has a schedule, which --start and --end would be about",
        "Leave them out",
    ),
    "a start of what has no schedule": (
        ["--nodes", "whole", "--start", "2024-01-02"],
        "no selected node has a schedule, which --start would be about",
        "select a node that has one",
    ),
    "a backfill of what has no ranges": (
        ["--nodes", "whole", "--backfill"],
        "no selected node has a schedule or partitions, which --backfill would share",
        "select a node that has",
    ),
    "doing again what lies before the start": (
        ["--tags", "days", "--restate", "--start", "2023-01-02", "--end", "2023-01-03"],
        "--restate would do nothing again: no tick of a selected node lies within --start and --end",
        "as a whole",
    ),
    "doing again what lies behind the end": (
        ["--nodes", "daily", "--restate", "--start", "2024-01-05"],
        "--restate would do nothing again: no tick of a selected node lies within --start",
        "as a whole",
    ),
    "doing again a part of a tick": (
        ["--tags", "days", "--restate", "--start", "2024-01-02T06:00", "--end", "2024-01-03T18:00"],
        "--restate would do nothing again",
        "bounds that have all of it",
    ),
    "doing again what lies ahead": (
        ["--nodes", "late", "--restate", "--start", "now+1d"],
        "--restate would do nothing again",
        "once it has ended",
    ),
    "doing again what is not due yet": (
        ["--nodes", "late", "--restate", "--start", "today-9d"],
        "--restate would do nothing again",
        "once it has ended",
    ),
}


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "plan"])
@pytest.mark.parametrize(("arguments", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_no_selected_node_has_is_refused_and_named(project, capsys, more, arguments, message, hint):
    error, remedy = ran(capsys, *arguments, *more, code=2).splitlines()
    assert message in error
    assert hint in remedy
    assert not list((project / "target").glob("logs/*"))


TAKEN = {
    "a partition": ["--partition", "SG"],
    "a partition to do again": ["--partition", "SG", "--restate"],
    "a span to do again": ["--restate", *SPAN],
    "a span and a partition": [*SPAN, "--partition", "ID"],
    "a span in which nothing is due": ["--nodes", "daily", "--start", "2030-01-01"],
    "a backfill of partitions": ["--nodes", "keys", "--backfill"],
}


@pytest.mark.parametrize("more", [["--dry-run"], []], ids=["plan", "run"])
@pytest.mark.parametrize("arguments", TAKEN.values(), ids=TAKEN)
def test_what_one_of_them_has_is_taken(project, capsys, more, arguments):
    ran(capsys, *arguments, *more)


def test_the_keys_of_a_node_of_expected_partitions_are_those_of_the_store(project, capsys):
    chosen = ("--nodes", "asked", "--partition", "TH")
    assert "no selected node has the partition 'TH'" in ran(capsys, *chosen, code=2)
    assert main(["partitions", "expect", "command.asked", "TH"]) == 0
    capsys.readouterr()
    ran(capsys, *chosen, "--dry-run")
    ran(capsys, *chosen)
    assert "Known: TH." in ran(capsys, "--nodes", "asked", "--partition", "MY", code=2)
