"""`seeknal run --dry-run` and its selection, and `seeknal state why`, as a shell and its user see them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.cli.older import make_older, schemas

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
FILES = {
    "data/sales.csv": "shop,amount\nnorth,1\nsouth,4\n",
    "seeknal/sales.yml": "kind: source\nname: sales\nsource: csv\ntable: data/sales.csv\ntags: [raw]\n",
    "seeknal/totals.yml": """
        kind: transform
        name: totals
        tags: [daily]
        transform: SELECT shop, sum(amount) AS amount FROM ref('source.sales') GROUP BY shop
        """,
    "seeknal/best.yml": """
        kind: transform
        name: best
        transform: SELECT shop FROM ref('transform.totals') ORDER BY amount DESC LIMIT 1
        """,
    "seeknal/publish.yml": "kind: command\nname: publish\ninputs: [{ref: transform.best}]\ncommand: 'true'\n",
}
ALL = ["source.sales", "transform.totals", "transform.best", "command.publish"]


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, FILES | {"seeknal_project.yml": f"name: shop\nstate_backend: {request.param}\n"})
    return tmp_path


@pytest.fixture
def done(project, capsys):
    assert main(["run", "--quiet"]) == 0
    capsys.readouterr()
    return project


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def planned(capsys, *arguments: str) -> dict[str, str]:
    """Return what a dry run says of each node."""
    assert main(["run", "--dry-run", "--output", "json", *arguments]) == 0
    return {each["node_id"]: f"{each['action']}: {each['why']}" for each in json.loads(capsys.readouterr().out)}


def told(capsys, node: str) -> dict:
    assert main(["state", "why", node, "--output", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def runs() -> list[str]:
    with open_state_backend() as store:
        return store.list_runs()


# ---- seeknal run --dry-run ----


@pytest.mark.parametrize("option", ["--dry-run", "--show-plan"])
def test_a_dry_run_of_a_new_project_makes_nothing(project, capsys, option):
    assert main(["run", option]) == 0
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()] == [
        ["NODE_ID", "ACTION", "WHY"],
        *([node_id, "run", "new"] for node_id in ALL),
    ]
    assert shown.err == "4 of 4 nodes would run; nothing was run\n"
    assert not (project / "target").exists()
    assert not list(project.rglob("__pycache__"))


def test_a_dry_run_says_of_each_node_what_would_be_done_and_why(done, capsys):
    assert set(planned(capsys).values()) == {"cached: up to date"}
    edit(done / "seeknal/totals.yml", "sum(amount)", "max(amount)")
    assert planned(capsys) == {
        "source.sales": "cached: up to date",
        "transform.totals": "run: SQL changed",
        "transform.best": "run: parent changed: transform.totals",
        "command.publish": "run: parent changed: transform.best",
    }
    assert set(planned(capsys, "--full").values()) == {"run: forced"}
    assert len(runs()) == 1
    assert main(["run", "--quiet"]) == 0
    capsys.readouterr()
    assert set(planned(capsys).values()) == {"cached: up to date"}


def test_json_has_reasons_that_programs_can_rely_on(done, capsys):
    edit(done / "seeknal/totals.yml", "sum(amount)", "max(amount)")
    edit(done / "data/sales.csv", "south,4", "south,5")
    assert main(["run", "--dry-run", "--output", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["node_id"] for line in lines] == ALL
    assert lines[1]["reasons"] == [
        {"reason": "sql_changed", "detail": ""},
        {"reason": "parent_changed", "detail": "source.sales"},
    ]
    assert lines[1]["why"] == "SQL changed; parent changed: source.sales"
    assert lines[1]["fingerprint"].startswith("v2:")
    assert (lines[1]["is_anew"], lines[1]["intervals"]) == (True, [])


def test_json_has_the_intervals_that_are_missing(project, capsys):
    write(
        project,
        {
            "seeknal/daily.yml": "kind: transform\nname: daily\nschedule: '@daily'\nstart: 2024-01-01\n"
            "end: 2024-01-03\ntransform: SELECT '{{ start }}' AS x\n"
        },
    )
    assert main(["run", "--dry-run", "--nodes", "daily", "--output", "json"]) == 0
    [daily] = [each for each in json.loads(capsys.readouterr().out) if each["action"] == "run"]
    assert daily["intervals"] == [{"start": "2024-01-01T00:00:00Z", "end": "2024-01-03T00:00:00Z"}]


LONG = {f"seeknal/{name}.yml": f"kind: command\nname: {name}\ncommand: 'true'\n" for name in ("x" * 40, "y" * 40)}


def with_long_reasons(project: Path) -> None:
    inputs = "".join(f"\n  - ref: command.{name * 40}" for name in "xy")
    write(project, LONG | {"seeknal/last.yml": f"kind: command\nname: last\ncommand: 'true'\ninputs:{inputs}\n"})
    assert main(["run", "--quiet"]) == 0
    for name in LONG:
        edit(project / name, "'true'", "'true' ")
        edit(project / name, "true", "echo")


def test_through_a_pipe_each_line_is_whole(project, capsys):
    with_long_reasons(project)
    done = subprocess.run([*SEEKNAL, "run", "--dry-run"], capture_output=True, text=True, check=True)
    assert f"parent changed: command.{'x' * 40}, command.{'y' * 40}\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_on_a_terminal_no_line_is_wider_than_it(project):
    with_long_reasons(project)
    reader, writer = pty.openpty()
    environment = os.environ | {"COLUMNS": "90", "LINES": "24"}
    process = subprocess.Popen([*SEEKNAL, "run", "--dry-run", "--quiet"], stdout=writer, env=environment)
    os.close(writer)
    text = b""
    try:
        while chunk := os.read(reader, 4096):
            text += chunk
    except OSError:  # Linux tells the end of a terminal so
        pass
    os.close(reader)
    assert process.wait(timeout=50) == 0
    lines = text.decode().replace("\r\n", "\n").splitlines()
    assert max(map(len, lines)) == 90
    assert any(line.endswith("...") for line in lines)


def test_a_dry_run_and_a_question_change_nothing_in_the_store(done, capsys):
    edit(done / "seeknal/totals.yml", "sum(amount)", "max(amount)")
    with open_state_backend() as store:  # another one, so that closing ours writes no checkpoint
        before = [(run_id, store.get_all_node_states(run_id)) for run_id in store.list_runs()]
        for arguments in (["run", "--dry-run"], ["run", "--dry-run", "--full"], ["state", "why", "totals"]):
            assert main([*arguments, "--quiet"]) == 0
        assert [(run_id, store.get_all_node_states(run_id)) for run_id in store.list_runs()] == before
        assert store.list_locks() == []


def test_looking_does_not_bring_a_store_up_to_date(done, capsys):
    make_older(done)
    for arguments in (["run", "--dry-run"], ["state", "why", "totals"]):
        assert main(arguments) == 1
        assert "nothing was changed" in capsys.readouterr().err
    assert set(schemas(done)) == {1}


# ---- selection ----


def test_what_is_not_selected_is_left(done, capsys):
    edit(done / "seeknal/totals.yml", "sum(amount)", "max(amount)")
    assert planned(capsys, "--nodes", "best") == {
        "source.sales": "left: not selected",
        "transform.totals": "left: not selected: it would run: SQL changed",
        "transform.best": "cached: up to date",
        "command.publish": "left: not selected",
    }
    assert main(["run", "--nodes", "totals+", "--exclude", "command.*", "--quiet", "--output", "json"]) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert {node_id: state["status"] for node_id, state in nodes.items()} == {
        "transform.totals": "success",
        "transform.best": "success",
    }
    assert planned(capsys)["command.publish"] == "run: parent changed: transform.best"


def test_options_can_be_given_several_times_and_tags_narrow_them(done, capsys):
    plan = planned(capsys, "--nodes", "sales", "--nodes", "+totals", "--tags", "daily", "--full")
    assert [node_id for node_id, said in plan.items() if said.startswith("run")] == ["transform.totals"]


REFUSED = {
    "an unknown node": (["--nodes", "+totalz+"], "there is no node 'totalz'", "Did you mean totals?"),
    "an unknown tag": (["--tags", "dayly"], "no node has the tag 'dayly'", "Did you mean daily?"),
    "an unknown node to exclude": (
        ["--exclude", "command.publis"],
        "'command.publis'",
        "Did you mean command.publish?",
    ),
    "nothing": (["--nodes", "best", "--exclude", "best"], "--exclude leaves nothing", "Exclude less"),
    "a parent that was never computed": (
        ["--nodes", "best"],
        "transform.best needs transform.totals, which was never computed and is not selected",
        "--nodes '+transform.best'",
    ),
}


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"]], ids=" ".join)
@pytest.mark.parametrize(("arguments", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_selection_that_cannot_run_is_refused_in_two_lines(project, capsys, command, arguments, message, hint):
    assert main([*command, *arguments]) == 2
    shown = capsys.readouterr()
    error, remedy = shown.err.splitlines()
    assert (shown.out, error.startswith("error: "), remedy.startswith("hint: ")) == ("", True, True)
    assert message in error
    assert hint in remedy
    assert not list((project / "target").glob("outputs/*"))


# ---- seeknal state why ----


def test_why_names_the_part_that_differs_and_the_parent_that_changed(done, capsys):
    edit(done / "seeknal/best.yml", "LIMIT 1", "LIMIT 2")
    edit(done / "seeknal/totals.yml", "sum(amount)", "max(amount)")
    found = told(capsys, "best")
    assert [each["part"] for each in found["parts"] if each["differs"]] == ["sql", "input:transform.totals"]
    assert [each["part"] for each in found["parts"] if not each["differs"]] == ["config"]
    assert found["why"] == "SQL changed; parent changed: transform.totals"
    assert found["parents_that_run"] == [{"node_id": "transform.totals", "why": "SQL changed"}]
    [run_id] = runs()
    with open_state_backend() as store:
        state = store.get_node_state(run_id, "transform.best")
    assert (found["last_success"]["run_id"], found["last_success"]["fingerprint"]) == (run_id, state.fingerprint)
    assert found["output"]["is_there"]


def test_why_is_a_page_for_people(done, capsys):
    edit(done / "seeknal/totals.yml", "sum(amount)", "max(amount)")
    (done / "target/outputs/transform.totals.parquet").unlink()
    assert main(["state", "why", "transform.totals"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in lines[: lines.index("")]}
    assert words["node"] == "transform.totals"
    assert words["would run"] == "yes"
    assert words["why"] == "SQL changed"
    assert words["last success"].startswith(f"{runs()[0]}, 2")
    assert words["output"].endswith("transform.totals.parquet is missing")
    assert [line.split()[0] for line in lines if line.endswith("  differs")] == ["sql"]


def test_why_of_what_was_never_run_and_of_what_is_up_to_date(project, capsys):
    found = told(capsys, "sales")
    assert (found["why"], found["last_success"], found["output"]["is_there"]) == ("new", None, False)
    assert {each["differs"] for each in found["parts"]} == {None}
    assert main(["run", "--quiet"]) == 0
    capsys.readouterr()
    found = told(capsys, "publish")
    assert (found["action"], found["why"], found["output"]) == ("cached", "up to date", None)


def test_why_says_that_a_fingerprint_is_of_an_older_version(done, capsys):
    with open_state_backend() as store:
        store.set_node_state(runs()[0], "transform.totals", fingerprint="s1:00", metadata={"made_of": None})
    found = told(capsys, "totals")
    assert found["why"] == "fingerprint of an older version"
    assert {each["differs"] for each in found["parts"]} == {None}


def test_why_says_that_a_query_cannot_be_parsed(project, capsys):
    edit(project / "seeknal/best.yml", "SELECT shop FROM", "SELECT shop shop shop FROM")
    assert told(capsys, "best")["note"] == "its SQL cannot be parsed, so the case of its keywords counts"
    assert main(["state", "why", "best"]) == 0
    assert "cannot be parsed" in capsys.readouterr().out


def test_why_says_that_a_data_file_is_missing(done, capsys):
    (done / "data/sales.csv").unlink()
    found = told(capsys, "sales")
    assert found["reasons"][0]["reason"] == "data_unreadable"
    assert "data/sales.csv cannot be read" in found["note"]
    assert found["fingerprint"] is None


def test_why_of_an_unknown_node_names_the_nearest(done, capsys):
    assert main(["state", "why", "transform.totalz"]) == 2
    assert "Did you mean transform.totals?" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["duckdb", "sqlglot"])
@pytest.mark.parametrize("arguments", [["run"], ["run", "--dry-run"], ["state", "why", "best"]], ids=" ".join)
def test_without_the_extra_it_is_said_which_one_to_install(project, package, arguments):
    code = f"import sys; sys.modules[{package!r}] = None; from seeknal.cli.app import main; sys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"needs {package}, which is not installed" in done.stderr
    assert "seeknal-state[run]" in done.stderr
