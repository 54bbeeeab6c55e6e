"""`seeknal state backup`, `backups`, `backup verify` and `restore`, as a shell and its user see them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest

from seeknal.cli.app import main
from seeknal.errors import ConfigurationError, CorruptStateError, SchemaVersionError
from seeknal.state.backend import open_state_backend
from seeknal.state.backup.generations import MANIFEST, PAYLOAD, Manifest, Standing, generations, read_manifest
from seeknal.state.backup.making import back_up, remove_older
from seeknal.state.backup.restoring import restore
from seeknal.state.backup.verifying import verify
from seeknal.state.file.documents import write_document
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.transfer import digest_of

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        store.create_run("r \N{SNOWMAN}")
        store.set_node_state("r \N{SNOWMAN}", "n", status="success", row_count=1)
    return tmp_path


@pytest.fixture
def made(tmp_path):
    """Return a small backup."""
    with MemoryStateBackend() as store:
        store.create_run("r")
        store.set_node_state("r", "n", status="success")
        return back_up(store, tmp_path / "b", kind="memory")


def told(capsys, *arguments, code=0):
    """Run the command with JSON on stdout and return that."""
    assert main([*arguments, "--output", "json"]) == code
    return json.loads(capsys.readouterr().out)


def digest():
    with open_state_backend() as store:
        return digest_of(store)


# ---- the commands ----


def test_a_state_goes_into_a_backup_and_comes_back(project, capsys):
    before = digest()
    made = told(capsys, "state", "backup")
    assert (made["runs"], made["node_states"], made["standing"]) == (1, 1, "complete")
    with open_state_backend() as store:
        store.create_run("later")
    after = digest()
    plan = told(capsys, "state", "restore", "latest")
    assert (plan["dry_run"], plan["lost_runs"], plan["present"]["runs"], plan["counts"]["runs"]) == (True, 1, 2, 1)
    assert digest() == after
    done = told(capsys, "state", "restore", made["name"], "--no-dry-run")
    assert digest() == before == done["state_sha256"]
    assert told(capsys, "state", "list")[0]["run_id"] == "r \N{SNOWMAN}"
    assert [each["before_restore_of"] for each in told(capsys, "state", "backups")] == [made["name"], None]
    told(capsys, "state", "restore", done["undo"], "--no-dry-run", "--no-backup")
    assert digest() == after
    assert len(told(capsys, "state", "backups")) == 2
    assert [each["standing"] for each in told(capsys, "state", "backup", "verify")] == ["complete"] * 2
    assert [each["detail"]["backup"] for each in told(capsys, "state", "log")] == [done["undo"], made["name"]]


def test_run_state_json_shows_the_latest_run_of_the_restored_state(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\n")
    with open_state_backend() as store:
        store.create_run("then")
    told(capsys, "state", "backup")
    with open_state_backend() as store:
        store.create_run("now")
    told(capsys, "state", "restore", "latest", "--no-dry-run")
    assert json.loads((tmp_path / "target" / "run_state.json").read_text())["run_id"] == "then"


def test_json_stands_alone_on_stdout(project):
    ran = subprocess.run(
        [*SEEKNAL, "state", "backup", "--to", "elsewhere", "--keep", "1", "--output", "json"],
        capture_output=True,
        timeout=50,
        check=True,
    )
    assert os.listdir("elsewhere") == [json.loads(ran.stdout)["name"]]


def test_keep_removes_the_older_ones_and_says_so(project, capsys):
    names = [told(capsys, "state", "backup")["name"] for _ in range(4)]
    kept = told(capsys, "state", "backup", "--keep", "2")
    assert sorted(kept["removed"]) == sorted(names[:3])
    assert [each["name"] for each in told(capsys, "state", "backups")] == [kept["name"], names[3]]


def test_to_keep_none_is_refused_before_anything_is_written(project):
    assert main(["state", "backup", "--keep", "0"]) == 2
    assert not (project / "target" / "backups").exists()


def test_a_held_lock_exits_with_3_in_the_preview_and_in_earnest(project, capsys):
    told(capsys, "state", "backup")
    with open_state_backend() as store, store.lock("r \N{SNOWMAN}"):
        assert "lock" in told(capsys, "state", "restore", "latest", code=3)["refused"][0]
        assert main(["state", "restore", "latest", "--no-dry-run"]) == 3
    assert "is held by" in capsys.readouterr().err


def test_a_damaged_backup_exits_with_5_and_restores_nothing(project, capsys):
    name = told(capsys, "state", "backup")["name"]
    (project / "target" / "backups" / name / PAYLOAD).unlink()
    before = digest()
    [row] = told(capsys, "state", "backup", "verify", code=5)
    assert (row["standing"], "missing" in row["problem"]) == ("damaged", True)
    assert main(["state", "restore", "latest", "--no-dry-run"]) == 5
    (project / "target" / "backups" / name / MANIFEST).unlink()
    assert [each["standing"] for each in told(capsys, "state", "backups")] == ["damaged"]
    assert main(["state", "backup", "verify", name]) == 5
    assert digest() == before


def test_a_name_that_is_not_there_says_where_to_look(project, capsys):
    for command in (["restore", "latest"], ["restore", "nothing"], ["backup", "verify", "nothing"]):
        assert main(["state", *command]) == 1
        assert "seeknal state backups" in capsys.readouterr().err
    assert told(capsys, "state", "backups") == []
    assert main(["state", "backup", "verify"]) == 1, "nothing was verified"
    assert "there is no backup in" in capsys.readouterr().err
    (project / "file").write_text("")
    for command in ("restore latest", "backups", "backup verify"):
        for place in ("nonexistent", "file"):
            assert main(["state", *command.split(), "--from", place]) == 1
            assert f"{place} is no directory" in capsys.readouterr().err


def test_a_lost_state_comes_back_with_its_identity(project, capsys):
    before = digest()
    identity = told(capsys, "state", "backup")["store_id"]
    shutil.move("target/backups", "safe")
    shutil.rmtree("target")
    assert told(capsys, "state", "restore", "latest", "--from", "safe")["present"]["runs"] == 0
    assert not (project / "target").exists(), "a preview makes no store"
    assert told(capsys, "state", "restore", "latest", "--from", "safe", "--no-dry-run")["store_id"] == identity
    assert digest() == before
    assert not (project / "target" / "backups").exists(), "there was nothing to undo"


def test_a_backup_or_an_export_of_a_lost_store_is_refused_and_makes_none(project, capsys):
    shutil.rmtree(project / "target")
    for command in (["backup"], ["export", "all.jsonl"]):
        assert main(["state", *command]) == 1
        assert "there is no state in" in capsys.readouterr().err
    assert not (project / "target").exists()
    assert not (project / "all.jsonl").exists()


def test_latest_brings_the_newest_state_into_an_empty_store_and_not_the_newest_emptiness(project, capsys):
    name = told(capsys, "state", "backup", "--to", "safe")["name"]
    shutil.rmtree(project / "target")
    with open_state_backend():
        pass
    empty = told(capsys, "state", "backup", "--to", "safe")
    assert empty["runs"] == 0
    assert told(capsys, "state", "restore", "latest", "--from", "safe")["backup"] == name


def test_latest_does_not_pass_over_a_newer_backup_that_is_damaged(project, capsys):
    told(capsys, "state", "backup")
    newest = told(capsys, "state", "backup")["name"]
    (project / "target" / "backups" / newest / MANIFEST).write_text("{}")
    before = digest()
    for more in ([], ["--no-dry-run"]):
        assert main(["state", "restore", "latest", *more]) == 5
        assert newest in capsys.readouterr().err
    assert digest() == before


def test_backups_of_other_stores_are_not_passed_off_as_none(project, made, capsys):
    assert main(["state", "restore", "latest", "--from", "b"]) == 1
    told_off = capsys.readouterr().err
    assert f"1 of others, the newest {made.name}" in told_off
    assert "--force" in told_off
    own = told(capsys, "state", "backup")["name"]
    told(capsys, "state", "restore", own, "--no-dry-run")
    shutil.rmtree(project / "target" / "backups" / own)
    assert main(["state", "restore", "latest"]) == 1
    assert "but those that undo a restore" in capsys.readouterr().err


def test_keep_never_removes_the_backup_that_was_just_made_whatever_the_clock_says(project, capsys):
    directory = project / "target" / "backups"
    for number in range(2):
        name = told(capsys, "state", "backup")["name"]
        ahead = read_manifest(directory / name)
        ahead.created_at += timedelta(days=400 + number)
        write_document(directory / name / MANIFEST, ahead)
    kept = told(capsys, "state", "backup", "--keep", "2")
    assert kept["name"] not in kept["removed"]
    assert kept["name"] in [each["name"] for each in told(capsys, "state", "backups")]


def test_backups_that_are_made_at_once_and_remove_the_older_ones_all_succeed(project, capsys):
    for _ in range(8):
        told(capsys, "state", "backup")
    command = [*SEEKNAL, "state", "backup", "--keep", "1", "--output", "json"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    ended = [(*each.communicate(timeout=100), each.returncode) for each in started]
    assert [code for *_, code in ended] == [0] * 4, ended
    assert told(capsys, "state", "backup", "verify")


def test_options_before_a_subcommand_are_refused_since_it_would_not_see_them(project, capsys):
    told(capsys, "state", "backup")
    for options in (["--to", "elsewhere"], ["-p", "."], ["--output", "json"], ["--keep", "3"]):
        assert main(["state", "backup", *options, "verify"]) == 2
        assert "stands before verify" in capsys.readouterr().err


def test_one_backup_that_cannot_be_read_does_not_keep_the_others_from_being_verified(project, capsys):
    names = [told(capsys, "state", "backup")["name"] for _ in range(3)]
    path = project / "target" / "backups" / names[1]
    newer = read_manifest(path)
    newer.version = 9
    write_document(path / MANIFEST, newer)
    rows = told(capsys, "state", "backup", "verify", code=1)
    assert [row["name"] for row in rows if row["standing"] == "damaged"] == [names[1]]
    (project / "target" / "backups" / names[0] / PAYLOAD).unlink()
    rows = told(capsys, "state", "backup", "verify", code=5)
    assert {row["name"] for row in rows if row["standing"] == "damaged"} == set(names[:2])
    assert len(rows) == 3


def test_the_table_of_backups_fits_a_terminal_and_says_which_are_for_undoing(project, capsys):
    told(capsys, "state", "backup")
    told(capsys, "state", "restore", "latest", "--no-dry-run", "--quiet")
    undo = told(capsys, "state", "backups")[0]["name"]
    assert main(["state", "backups"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if "undo" in line] == [undo]


def test_a_quiet_restore_names_what_undoes_it(project, capsys):
    told(capsys, "state", "backup")
    assert main(["state", "restore", "latest", "--no-dry-run", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert dict(line.split(None, 1) for line in shown.out.splitlines())["undo"] in os.listdir("target/backups")
    assert shown.err == ""


def test_a_damaged_store_is_moved_aside_as_it_is_told_and_comes_back(project, capsys):
    before = digest()
    told(capsys, "state", "backup")
    is_file = "file" in (project / "seeknal_project.yml").read_text()
    target = project / "target"
    damaged = sorted((target / "run_state").glob("journal*"))[-1] if is_file else target / "state.db"
    content = damaged.read_bytes()
    damaged.write_bytes(bytes(byte ^ 0xFF for byte in content[:100]) + (content[100:] or b"\n"))
    plan = told(capsys, "state", "restore", "latest")
    assert (plan["present"], plan["lost_runs"], plan["counts"]["runs"]) == (None, None, 1)
    assert str(damaged) in plan["problem"]
    assert main(["state", "restore", "latest", "--no-dry-run"]) == 5
    told_off = capsys.readouterr().err
    assert "out of the way" in told_off
    for path in ("run_state", "run_state.json") if is_file else ("state.db", "state.db-wal", "state.db-shm"):
        assert str(project / "target" / path) in told_off
        if (project / "target" / path).exists():
            (project / "target" / path).rename(project / path)
    assert told(capsys, "state", "restore", "latest", "--no-dry-run")["undo"] is None
    assert digest() == before


def test_a_database_with_damaged_pages_is_restored_beside_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: database\n")
    with open_state_backend() as store:
        for number in range(20):
            store.create_run(f"r{number}")
            with store.transaction():
                for node in range(40):
                    store.set_node_state(f"r{number}", f"n{node}", metadata={"long": "x" * 50})
    before = digest()
    told(capsys, "state", "backup")
    path = tmp_path / "target" / "state.db"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] + b"\xa5" * 81920 + content[len(content) // 3 + 81920 :])
    assert told(capsys, "state", "restore", "latest")["present"] is None
    for more in ([], ["--no-backup"]):
        assert main(["state", "restore", "latest", "--no-dry-run", *more]) == 5
        assert f"{path}, {path}-wal and {path}-shm out of the way" in capsys.readouterr().err
    for left in (tmp_path / "target").glob("state.db*"):
        left.rename(tmp_path / left.name)
    told(capsys, "state", "restore", "latest", "--no-dry-run")
    assert digest() == before


def test_a_directory_that_cannot_be_made_is_told_in_two_lines(project, capsys):
    (project / "file").write_text("")
    assert main(["state", "backup", "--to", "file/b"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


# ---- what verifying finds ----


def test_verifying_finds_every_flipped_byte(made):
    for name in (MANIFEST, PAYLOAD):
        path = made.path / name
        content = path.read_bytes()
        for at in range(len(content)):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
            with pytest.raises((CorruptStateError, SchemaVersionError)):
                verify(made.path)
        path.write_bytes(content)
    verify(made.path)


@pytest.mark.parametrize("name", [MANIFEST, PAYLOAD])
def test_verifying_finds_a_file_that_was_cut_or_is_missing(made, name):
    path = made.path / name
    content = path.read_bytes()
    for size in {0, 1, len(content) // 2, len(content) - 1}:
        path.write_bytes(content[:size])
        with pytest.raises(CorruptStateError, match=name):
            verify(made.path)
    path.unlink()
    with pytest.raises(CorruptStateError, match=f"{name}.* missing") as raised:
        verify(made.path)
    assert raised.value.location == str(made.path)


def test_verifying_finds_a_payload_that_belongs_to_another_manifest(made, tmp_path):
    with MemoryStateBackend() as store:
        theirs = back_up(store, tmp_path / "other", kind="memory")
    payload = (theirs.path / PAYLOAD).read_bytes()
    (made.path / PAYLOAD).write_bytes(payload)
    changed = read_manifest(made.path)
    changed.size, changed.sha256 = theirs.manifest.size, theirs.manifest.sha256
    write_document(made.path / MANIFEST, changed)
    with pytest.raises(CorruptStateError, match="another export"):
        verify(made.path)


def test_verifying_finds_records_that_no_export_holds(made):
    content = gzip.compress(gzip.decompress((made.path / PAYLOAD).read_bytes()).replace(b'"success"', b'"succeed"'))
    (made.path / PAYLOAD).write_bytes(content)
    changed = read_manifest(made.path)
    import hashlib

    changed.size, changed.sha256 = len(content), hashlib.sha256(content).hexdigest()
    write_document(made.path / MANIFEST, changed)
    with pytest.raises(CorruptStateError, match="line 3"):
        verify(made.path)


def test_a_manifest_of_a_newer_version_is_refused(made):
    changed = read_manifest(made.path)
    changed.version = 2
    write_document(made.path / MANIFEST, changed)
    with pytest.raises(SchemaVersionError, match="version 2"):
        verify(made.path)
    assert generations(made.path.parent)[0].standing is Standing.DAMAGED


# ---- generations ----


def test_only_the_owner_may_read_a_backup(made):
    assert {oct(path.stat().st_mode)[-3:] for path in (made.path.parent, made.path)} == {"700"}
    assert {oct(path.stat().st_mode)[-3:] for path in made.path.iterdir()} == {"600"}


def test_what_is_not_a_backup_of_this_store_is_never_removed(made, tmp_path):
    directory = made.path.parent
    (directory / "notes").mkdir()
    with MemoryStateBackend() as other:
        newest = [back_up(other, directory, kind="memory").name for _ in range(3)][-1]
        damaged = next(each for each in generations(directory) if each.name not in (newest, made.name))
        (damaged.path / MANIFEST).write_text("{}")
        removed = remove_older(directory, other.read_store().store_id, 1)
    assert len(removed) == 1
    assert {each.name for each in generations(directory)} == {made.name, newest, damaged.name}
    assert (directory / "notes").exists()


def test_backups_for_undoing_do_not_count_as_those_that_are_kept(tmp_path):
    with MemoryStateBackend() as store:
        store.create_run("r")
        first = back_up(store, tmp_path, kind="memory")
        undo = restore(store, first, kind="memory", undo_in=tmp_path).undo
        assert remove_older(tmp_path, store.read_store().store_id, 1) == []
        second = back_up(store, tmp_path, kind="memory")
        assert set(remove_older(tmp_path, store.read_store().store_id, 1)) == {first.name, undo}
    assert [each.name for each in generations(tmp_path)] == [second.name]
    with pytest.raises(ConfigurationError):
        remove_older(tmp_path, "any", 0)


def test_a_manifest_says_what_it_is_of(made):
    manifest = read_manifest(made.path)
    assert manifest == made.manifest
    assert isinstance(manifest, Manifest)
    assert (manifest.kind, manifest.counts.total, manifest.program[:8]) == ("memory", 2, "seeknal ")
