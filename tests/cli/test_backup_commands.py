"""`seeknal state backup`, `backups`, `backup verify` and `restore`, as a shell and its user see them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys

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
    assert told(capsys, "state", "backup", "verify") == []


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
