"""``seeknal state diff``: what its two names may mean, what it prints, and its exit codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.older import make_older, schemas

from seeknal.cli.app import main
from seeknal.state.backend import create_state_backend, open_state_backend
from seeknal.state.backup.making import back_up


@pytest.fixture(autouse=True)
def _place(monkeypatch, tmp_path):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def fill(backend, **fields):
    backend.initialize()
    backend.create_run("r", started_at=datetime(2024, 1, 1, tzinfo=UTC), metadata={"who": "me"})
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    backend.set_node_state("r", "n", **{"row_count": 1, "started_at": moment, **fields})
    backend.add_completed_interval("r", "n", datetime(2024, 1, 1), datetime(2024, 1, 2))


@pytest.fixture
def two(tmp_path):
    """A project with a file store and, beside it, a database that holds the same."""
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: file\n")
    with open_state_backend(tmp_path) as store:
        fill(store)
    with create_state_backend("database", db_path=tmp_path / "s.db") as store:
        fill(store)
    return tmp_path


def change(**fields):
    with create_state_backend("database", db_path="s.db") as store:
        store.initialize()
        store.set_node_state("r", "n", **fields)


@pytest.mark.parametrize("a", [".", "target", "s.db", "sqlite:///s.db"])
@pytest.mark.parametrize("b", [".", "target", "s.db", "sqlite:///s.db"])
def test_every_name_of_a_store(two, a, b, capsys):
    assert main(["state", "diff", a, b]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "they hold the same\n")


@pytest.mark.parametrize("name", ["target", "s.db", "."])
def test_a_store_of_an_older_program_is_refused_and_not_brought_up_to_date(two, name, capsys):
    make_older(two)
    assert main(["state", "diff", name, name]) == 1
    assert "has schema 1" in capsys.readouterr().err
    assert schemas(two) == [1, 1]


def test_a_server(two, server_store, capsys):
    with create_state_backend("database", **server_store.options) as store:
        fill(store, row_count=2)
    (two / "there").mkdir()
    (two / "there" / "seeknal_project.yml").write_text(
        f"name: q\ndatabase_url: {server_store.url}\nstate_options:\n  schema: {server_store.schema}\n"
        "state_backend: database\n"
    )
    assert main(["state", "diff", ".", "there", "--output", "json"]) == 1
    (each,) = json.loads(capsys.readouterr().out)
    assert each["fields"] == {"row_count": {"a": 1, "b": 2}}


def test_fields_that_differ(two, capsys):
    change(row_count=2, error_message="a\x1b[31m", metadata={"x": 1})
    assert main(["state", "diff", ".", "s.db"]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "differs  node r, n",
        "  A row_count: 1",
        "  B row_count: 2",
        "  A error_message: -",
        "  B error_message: a\\x1b[31m",
        "  A metadata.x: not there",
        "  B metadata.x: 1",
    ]
    assert shown.err == "differs: 1 node\n"


def test_what_only_one_has(two, capsys):
    with open_state_backend(two) as store:
        store.create_run("a", started_at=datetime(2024, 1, 1))
        store.restate_intervals("n", datetime(2024, 1, 1), datetime(2024, 1, 2))
    assert main(["state", "diff", ".", "s.db"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == ["only in A  run a", "only in B  interval n, 2024-01-01T00:00:00+00:00"]


def test_exact(two, capsys):
    change(row_count=1)
    assert main(["state", "diff", "target", "s.db"]) == 0
    assert main(["state", "diff", "target", "s.db", "--exact"]) == 1
    assert "B version: 2" in capsys.readouterr().out


def test_limit_and_lists(two, capsys):
    with open_state_backend(two) as store:
        for number in range(5):
            store.create_run(f"only {number}")
    for style in ("json", "jsonl"):
        assert main(["state", "diff", ".", "s.db", "--limit", "2", "--output", style]) == 1
        shown = capsys.readouterr()
        records = json.loads(shown.out) if style == "json" else [json.loads(line) for line in shown.out.splitlines()]
        assert [each["key"] for each in records] == [{"run_id": "only 0"}, {"run_id": "only 1"}]
        assert "only in A: 5 runs" in shown.err
        assert "3 differences are not shown" in shown.err
    assert main(["state", "diff", ".", "target", "--output", "json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out), shown.err) == ([], "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "neither a project nor a store"),
        ("sqlite:///nowhere.db", "there is no store at"),
        ("empty", "neither a project nor a store"),
        ("new", "there is no store at new"),
        ("text.txt", "neither a project nor a store"),
        ("redis://u:secret@h/x", "names no database"),
    ],
)
def test_what_is_no_store_is_told_and_none_is_made(two, name, said, capsys):
    (two / "empty").mkdir()
    (two / "new").mkdir()
    (two / "new" / "seeknal_project.yml").write_text("name: n\n")
    (two / "text.txt").write_text("x")
    assert main(["state", "diff", ".", name]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "secret" not in shown.err
    assert not (two / "nowhere.db").exists()
    assert not (two / "new" / "target").exists()


def test_a_server_without_a_store_is_left_without_one(two, postgres_store, capsys):
    (two / "there").mkdir()
    (two / "there" / "seeknal_project.yml").write_text(
        f"name: q\ndatabase_url: {postgres_store.url}\nstate_options:\n  schema: {postgres_store.schema}\n"
    )
    assert main(["state", "diff", ".", "there"]) == 2
    assert postgres_store.tables() == []


def test_a_damaged_store_is_not_a_difference(two):
    (journal,) = (two / "target" / "run_state").glob("journal-*")
    journal.write_bytes(b"x" + journal.read_bytes())
    assert main(["state", "diff", ".", "s.db"]) == 5


def test_a_backend_that_cannot_tell_whether_it_is_there(two, capsys):
    (two / "m").mkdir()
    (two / "m" / "seeknal_project.yml").write_text("name: m\nstate_backend: memory\n")
    assert main(["state", "diff", "m", "s.db"]) == 1
    assert "only in B  run r" in capsys.readouterr().out


def test_options_are_for_one_side(two, capsys, monkeypatch):
    monkeypatch.setenv("HOW", "FULL")
    assert main(["state", "diff", "sqlite:///s.db", "s.db", "--option-a", "synchronous=${HOW}"]) == 0
    assert main(["state", "diff", ".", "s.db", "--option-b", "no_such=1"]) == 2
    assert "no_such" in capsys.readouterr().err
    assert main(["state", "diff", ".", "s.db", "--option-a", "synchronous=FULL"]) == 2
    assert ". takes no options" in capsys.readouterr().err
    assert main(["state", "diff", ".", "s.db", "--option-b", "x=${UNSET}"]) == 2
    assert "UNSET is not set" in capsys.readouterr().err


def test_two_schemas_of_one_server(shared_store, capsys):
    one, other = shared_store("postgresql"), shared_store("postgresql")
    for place, rows in ((one, 1), (other, 2)):
        with create_state_backend("database", **place.options) as store:
            fill(store, row_count=rows)
    sides = ["--option-a", f"schema={one.schema}", "--option-b", f"schema={other.schema}"]
    assert main(["state", "diff", one.url, other.url, *sides]) == 1
    assert "B row_count: 2" in capsys.readouterr().out


# ---- exports and backups ----


@pytest.fixture(params=["e.jsonl", "e.jsonl.gz", "any name"])
def export(request, two):
    """An export of the project, by its name."""
    assert main(["state", "export", request.param, "--quiet"]) == 0
    return request.param


def test_an_export_holds_what_its_store_holds(export, capsys):
    for a, b in ((export, "s.db"), (".", export), (export, export)):
        assert main(["state", "diff", a, b]) == 0
    change(row_count=7)
    assert main(["state", "diff", export, "s.db"]) == 1
    assert capsys.readouterr().out.splitlines() == ["differs  node r, n", "  A row_count: 1", "  B row_count: 7"]


def test_an_export_whose_runs_were_not_made_in_the_order_of_their_ids(two):
    with open_state_backend(two) as store:
        for run_id in ("z", "b", "y", "a"):
            store.create_run(run_id, started_at=datetime(2024, 1, 1, tzinfo=UTC))
            for node_id in ("n2", "n1"):
                store.set_node_state(run_id, node_id, row_count=1)
        store.add_completed_partition("z", "m", "p")
    assert main(["state", "export", "e.gz", "--quiet"]) == 0
    assert main(["state", "diff", "e.gz", ".", "--exact"]) == 0


def test_an_export_of_an_empty_store(two):
    with create_state_backend("database", db_path="empty.db") as store:
        store.initialize()
    assert main(["state", "export", "e", "--backend", "database", "--database-url", "sqlite:///empty.db"]) == 0
    assert main(["state", "diff", "e", "empty.db"]) == 0


def test_a_damaged_export_is_not_a_difference(export, capsys):
    path = Path(export)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    assert main(["state", "diff", export, "s.db"]) == 5
    assert f"{export} is damaged" in capsys.readouterr().err
    path.write_bytes(content[: len(content) // 2] + b"x" + content[len(content) // 2 + 1 :])
    assert main(["state", "diff", "s.db", export]) == 5


def test_a_file_that_only_begins_like_an_export(two, capsys):
    Path("settings.json").write_text("{}\n")
    assert main(["state", "diff", "settings.json", "s.db"]) == 1
    assert "settings.json is not an export" in capsys.readouterr().err


@pytest.fixture
def backup(two):
    """The directory of a backup of the project."""
    with open_state_backend(two) as store:
        return back_up(store, two / "backups", kind="file").path


def test_a_backup_holds_what_its_store_held(two, backup, capsys):
    assert main(["state", "export", "e", "--quiet"]) == 0
    for a, b in ((str(backup), "."), ("e", str(backup)), ("s.db", str(backup))):
        assert main(["state", "diff", a, b]) == 0
    change(row_count=7)
    assert main(["state", "diff", str(backup), "s.db"]) == 1
    assert "B row_count: 7" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["manifest.json", "state.jsonl.gz"])
def test_a_damaged_backup_is_not_a_difference(two, backup, name, capsys):
    content = (backup / name).read_bytes()
    (backup / name).write_bytes(content[:40] + b"x" + content[41:])
    assert main(["state", "diff", ".", str(backup)]) == 5
    assert f"backup {backup.name} is damaged" in capsys.readouterr().err


def test_another_export_in_the_place_of_a_payload_is_found(two, backup):
    assert main(["state", "export", "e.gz", "--quiet"]) == 0
    (backup / "state.jsonl.gz").write_bytes(Path("e.gz").read_bytes())
    assert main(["state", "diff", ".", str(backup)]) == 5
