"""What `seeknal run` refuses before anything runs, and what is said of nodes that failed, here and afterwards."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from seeknal.cli.app import main
from seeknal.state.backend import open_state_backend

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]

RAISES = """
    from seeknal.pipeline import command

    @command()
    def raises(ctx):
        raise ValueError("the first line\\nthe second\\n  the third")
    """

LOGS_AND_RAISES = """
    import logging
    from seeknal.pipeline import command

    @command()
    def raises(ctx):
        logging.getLogger("distributed.worker").error("as Dask says it, but surely before the run ends")
        raise ValueError("the first line")
    """


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal_project.yml").write_text("name: shop\n")
    return tmp_path


def add(project, name, command):
    text = f"kind: command\nname: {name}\ncommand: {json.dumps(command)}\n"
    (project / "seeknal" / f"{name}.yml").write_text(text)


def write(project, text):
    (project / "seeknal" / "nodes.py").write_text(textwrap.dedent(text))


def runs():
    with open_state_backend() as store:
        return store.list_runs(newest_first=True)


# ---- what does not go together ----


@pytest.mark.parametrize(
    ("options", "says", "hints"),
    [
        (["--full", "--restate", "--start", "2024-01-01"], "--full and --restate do not go together", "Leave --full"),
        (["--timezone", "Europe/Berlin"], "--timezone says nothing without --start or --end", "Give one of them"),
        (["--restate"], "--restate needs to know what", "Add --start and --end"),
        (["--wait", "soon"], "--wait 'soon' is not a length of time", "Write it like 45s, 90m, 6h"),
        (["--dask-address", "tcp://10.0.0.7:8786"], "--dask-address is given without", "Add --executor dask"),
        (["--executor", "dask", "--dask-address", "10.0.0.7:8786"], "is not SCHEME://HOST:PORT", "like tcp://10"),
        (["--executor", "dask", "--dask-address", "tcp://10.0.0.7"], "is not SCHEME://HOST:PORT", "like tcp://10"),
        (["--executor", "dask", "--dask-address", "tcp://:8786"], "is not SCHEME://HOST:PORT", "like tcp://10"),
        (["--executor", "dask", "--dask-address", "tcp://host:many"], "is not SCHEME://HOST:PORT", "like tcp://10"),
        (["--executor", "dask", "--dask-address", "tcp://host:99999"], "is not SCHEME://HOST:PORT", "like tcp://10"),
    ],
)
def test_options_that_say_nothing_together_are_refused_and_nothing_runs(project, capsys, options, says, hints):
    add(project, "a", "true")
    assert main(["run", *options]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert says in error
    assert hints in hint
    assert runs() == []


# ---- why a run failed ----


def test_a_message_of_several_lines_is_told_in_as_many(project, capsys):
    write(project, RAISES)
    assert main(["run"]) == 1
    said = capsys.readouterr().err
    assert "\\n" not in said
    _, _, failed, second, third, *_ = said.splitlines()
    assert re.fullmatch(r"failed   command\.raises in .+: ValueError: the first line", failed)
    assert (second, third) == ("  the second", "    the third")


def test_what_the_error_hints_at_can_be_pasted_and_shows_what_the_node_said(project, capsys, monkeypatch):
    add(project, "a", "echo it rains; exit 3")
    path = project / "else where"
    path.mkdir()
    monkeypatch.chdir(path)
    assert main(["run", "-p", "..", "--quiet"]) == 1
    command = re.search(r"`seeknal (.+)`;", capsys.readouterr().err)[1]
    assert command.endswith("command.a --log -p ..")
    assert main(shlex.split(command)) == 0
    assert "it rains" in capsys.readouterr().out


def test_of_a_node_without_a_log_the_hint_is_about_its_state(project, capsys):
    (project / "seeknal" / "q.yml").write_text("kind: transform\nname: q\ntransform: SELECT no_such_column\n")
    assert main(["run", "--quiet"]) == 1
    command = re.search(r"`seeknal (.+)`;", capsys.readouterr().err)[1]
    assert command == f"state show {runs()[0]} transform.q"
    assert main(shlex.split(command)) == 0
    assert "no_such_column" in capsys.readouterr().out


def test_a_run_shows_every_line_of_an_error_and_where_the_log_is(project, capsys):
    write(project, RAISES)
    main(["run", "--quiet"])
    capsys.readouterr()
    assert main(["state", "show"]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "command.raises failed: ValueError: the first line",
        "  the second",
        "    the third",
        f"  log: target/logs/{runs()[0]}/command%2eraises.log",
    ]
    assert (project / "target" / "logs" / runs()[0] / "command%2eraises.log").exists()


def test_a_node_shows_every_line_of_its_error(project, capsys):
    write(project, RAISES)
    main(["run", "--quiet"])
    capsys.readouterr()
    assert main(["state", "show", runs()[0], "command.raises"]) == 0
    out = capsys.readouterr().out
    assert "\\n" not in out
    error = out.index("ValueError: the first line")
    column = error - out.rindex("\n", 0, error) - 1
    assert f"ValueError: the first line\n{' ' * column}the second\n{' ' * column}  the third\n" in out


# ---- a cluster of one's own ----


def test_dask_logs_nothing_beside_what_the_run_tells_unless_it_is_debugged(project, monkeypatch):
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    monkeypatch.delenv("DASK_LOGGING__DISTRIBUTED", raising=False)  # a run in this process sets it for good
    write(project, LOGS_AND_RAISES)
    command = [*SEEKNAL, "run", "--executor", "dask"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "ValueError: the first line" in done.stderr
    assert "distributed." not in done.stderr
    assert "Traceback" not in done.stderr
    debugged = subprocess.run([*command, "--debug"], capture_output=True, text=True, timeout=100)
    assert "distributed.worker - ERROR - as Dask says it" in debugged.stderr
