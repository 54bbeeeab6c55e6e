"""Names of nodes on the command line: bare ones, those of a project that did nothing yet, and those nobody knows."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend

SPAN = ["--start", "2024-01-01", "--end", "2024-01-03"]


@pytest.fixture(params=["file", "database"])
def program(request, tmp_path, monkeypatch):
    """The store of a program that has no project, which knows one node."""
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: shop\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        store.create_run("first")
        store.add_completed_interval(
            "first", "orders", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
        )
        store.add_completed_partition("first", "orders", "de")
    return tmp_path


@pytest.fixture
def project(program):
    """The same store with a project beside it, whose file in Python leaves a mark when it is read."""
    (program / "seeknal").mkdir()
    (program / "seeknal" / "nodes.py").write_text(
        "from pathlib import Path\n\nfrom seeknal.pipeline import command\n\nPath('read').touch()\n\n"
        "@command(schedule='@daily', start='2024-01-01')\ndef sales(ctx):\n    pass\n"
    )
    return program


def said(capsys, *arguments, code=0):
    assert main(list(arguments)) == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [
        ["intervals", "list", "sales"],
        ["intervals", "pending", "sales", *SPAN],
        ["intervals", "complete", "sales", *SPAN],
        ["intervals", "restate", "sales", *SPAN],
        ["intervals", "history", "sales"],
        ["intervals", "claims", "sales"],
        ["partitions", "list", "sales"],
        ["partitions", "complete", "sales", "de"],
        ["partitions", "expect", "sales", "de"],
        ["partitions", "restate", "sales", "de"],
        ["partitions", "pending", "sales", "--start", "2024-01-01", "--end", "2024-01-03"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_bare_name_is_the_node_of_the_project_that_has_it(project, capsys, arguments):
    err = said(capsys, *arguments).err
    assert "sales is command.sales" in err
    assert "new" not in err.replace("1 new", "")


def test_what_is_completed_under_a_bare_name_is_completed_of_the_node(project, capsys):
    out = said(capsys, "intervals", "complete", "sales", *SPAN, "--output", "json").out
    assert json.loads(out)["node_id"] == "command.sales"
    with open_state_backend() as store:
        assert store.list_worked_nodes() == ["command.sales", "orders"]


def test_a_project_is_not_read_for_what_the_store_knows(project):
    for node, is_read in (("orders", False), ("sales", True)):
        command = [sys.executable, "-m", "seeknal.cli.app", "intervals", "list", node]
        subprocess.run(command, check=True, capture_output=True, timeout=50)
        assert (project / "read").exists() is is_read


UNKNOWN = [
    ["intervals", "restate", "ordrs", *SPAN],
    ["intervals", "history", "ordrs"],
    ["intervals", "claims", "ordrs"],
    ["partitions", "restate", "ordrs", "de"],
]
PENDING = [["intervals", "pending", "ordrs", *SPAN], ["partitions", "pending", "ordrs", "--start", "2024-01-01"]]


@pytest.mark.parametrize("arguments", [*UNKNOWN, *PENDING], ids=lambda arguments: " ".join(arguments[:2]))
def test_a_node_that_nobody_knows_is_an_error_that_names_the_nearest(project, capsys, arguments):
    error, hint = said(capsys, *arguments, code=1).err.splitlines()[-2:]
    assert error == "error: neither the store nor the project knows a node 'ordrs'"
    assert hint.startswith("hint: Did you mean orders? ")


@pytest.mark.parametrize("arguments", UNKNOWN, ids=lambda arguments: " ".join(arguments[:2]))
def test_without_a_project_it_is_one_too(program, capsys, arguments):
    error, hint = said(capsys, *arguments, code=1).err.splitlines()
    assert error == "error: neither the store nor the project knows a node 'ordrs'"
    assert hint.startswith("hint: Did you mean orders? ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["intervals", "complete", "ordrs", *SPAN],
        ["partitions", "complete", "ordrs", "de"],
        ["partitions", "expect", "ordrs", "de"],
        *PENDING,
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_program_may_begin_a_node_and_is_told_that_it_is_new(program, capsys, arguments):
    said_first = said(capsys, *arguments).err.splitlines()[0]
    assert said_first == "ordrs is new: neither the store nor the project knows it. Did you mean orders?"


def test_a_project_that_cannot_be_read_is_no_error(project, capsys):
    (project / "seeknal" / "nodes.py").write_text("1 / 0\n")
    assert "ordrs is new" in said(capsys, "intervals", "complete", "ordrs", *SPAN).err


def test_a_name_that_several_nodes_have_is_to_be_told_with_its_kind(project, capsys):
    (project / "seeknal" / "sales.yml").write_text("kind: transform\nname: sales\ntransform: SELECT 1 AS one\n")
    error, _ = said(capsys, "intervals", "history", "sales", code=2).err.splitlines()[-2:]
    assert error == "error: 'sales' may be command.sales or transform.sales"


def test_a_node_of_a_run_is_suggested(program, capsys):
    with open_state_backend() as store:
        store.set_node_state("first", "transform.sales", status="success")
    error, hint = said(capsys, "state", "show", "first", "sales", code=1).err.splitlines()
    assert error == "error: run 'first' has no node 'sales'"
    assert hint == "hint: Did you mean transform.sales? List its nodes with `seeknal state show first`."
