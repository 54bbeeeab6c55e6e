"""``seeknal state rollback`` where it is needed: after kills, with a store gone, and with settings that changed."""

from __future__ import annotations

import json
import shutil
import socket

import pytest

from seeknal.cli.app import main
from seeknal.errors import SupersededError, TransferError
from seeknal.state.backend import create_state_backend, open_state_backend
from seeknal.state.doctor import examine_project
from seeknal.state.migration.record import begun, find_record, finish, put_project_back, record_of
from seeknal.state.settings import load_settings, read_project
from seeknal.state.store_info import filling_mark

NOT_OURS = ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN")
BACK = ["state", "rollback", "--no-dry-run"]
TO_DATABASE = ["migrate-state", "--backend", "database", "--no-dry-run"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "name: p\n")
    with open_state_backend() as store:
        put(store, "r1")
    return tmp_path


def write(project, text):
    (project / "seeknal_project.yml").write_text(text)


def text_of(project):
    return (project / "seeknal_project.yml").read_text()


def put(store, run_id):
    store.create_run(run_id)
    store.set_node_state(run_id, f"{run_id}.n", status="success")
    store.update_run(run_id, status="success")


def findings(project):
    settings = load_settings(project)
    with create_state_backend(settings.backend, **settings.options) as store:
        return [finding.check for finding in examine_project(settings, store)]


def test_an_environment_that_names_the_old_store_is_refused_and_named(project, monkeypatch, capsys):
    monkeypatch.setenv("SEEKNAL_STATE_BACKEND", "file")
    assert main(TO_DATABASE) == 0
    before, record = text_of(project), find_record(project)
    assert main(BACK) == 2
    assert "Unset SEEKNAL_STATE_BACKEND for this command" in capsys.readouterr().err
    assert (text_of(project), find_record(project)) == (before, record)
    with open_state_backend(backend="file") as store, pytest.raises(SupersededError):
        store.create_run("refused")
    monkeypatch.delenv("SEEKNAL_STATE_BACKEND")
    assert main(BACK) == 0
    with open_state_backend(backend="database") as store, pytest.raises(SupersededError):
        store.create_run("refused")


def kill(monkeypatch, project, at, arguments):
    """Run a command until it comes to ``at``, and let nothing of it be put back, as after a kill."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seeknal.state.migration.moving.put_back", lambda *_: None)
        patch.setattr("seeknal.state.migration.record.keep_record", lambda *_: None)
        patch.setattr(at, stop)
        assert main(arguments) == 130


def on_server(place):
    url, schema = place.options["url"], place.options["schema"]
    return ["--backend", "database", "--database-url", url, "--option", f"schema={schema}", "--no-dry-run"]


@pytest.mark.parametrize("more", [[], ["--merge"]])
@pytest.mark.parametrize("options", ["", "state_options:\n  db_path: mine.db\n"])
def test_a_rollback_from_a_server_finds_the_file_of_the_old_database(project, postgres_store, options, more):
    before = f"name: p\nstate_backend: database\n{options}"
    write(project, before)
    with open_state_backend() as store:
        put(store, "r1")
    assert main(["migrate-state", *on_server(postgres_store), *more]) == 0
    assert findings(project) == []
    assert main(BACK) == 0
    assert text_of(project) == before
    with open_state_backend() as store:
        store.create_run("goes on")


@pytest.fixture
def killed_merge(project, monkeypatch):
    with create_state_backend("database", db_path=project / "shared.db") as shared:
        shared.initialize()
        put(shared, "theirs")
    there = [*TO_DATABASE, "--database-url", "sqlite:///shared.db", "--merge"]
    kill(monkeypatch, project, "seeknal.state.migration.merging.Merge.verify", there)
    return project


def shared_runs(project):
    with create_state_backend("database", db_path=project / "shared.db") as shared:
        shared.initialize()
        shared.create_run("takes writes")
        return shared.list_runs()


def test_the_rollback_of_a_killed_merge_opens_the_shared_store_again(killed_merge, capsys):
    assert main(BACK) == 0
    assert "taken out of database shared.db" in capsys.readouterr().err
    assert shared_runs(killed_merge) == ["theirs", "takes writes"]
    assert find_record(killed_merge) is None
    with open_state_backend() as store:
        store.create_run("takes writes, too")


def test_a_shared_store_that_cannot_be_opened_is_mended_once_it_can(killed_merge, capsys):
    shared = killed_merge / "shared.db"
    whole = shared.read_bytes()
    shared.write_bytes(b"garbage" * 1000)
    assert main(BACK) == 0
    assert "run this again once it can be reached" in capsys.readouterr().err
    with open_state_backend() as store:
        store.create_run("takes writes")
    shared.write_bytes(whole)
    assert main(BACK) == 0
    assert shared_runs(killed_merge) == ["theirs", "takes writes"]


def test_the_doctor_says_where_a_shared_store_can_be_mended(killed_merge, capsys):
    assert main(["state", "doctor", "--database-url", "sqlite:///shared.db"]) == 1
    assert "in the project that it is being filled from" in " ".join(capsys.readouterr().out.split())


def test_a_migration_killed_before_the_project_changed_leaves_one_store_that_takes_writes(project, monkeypatch):
    before = text_of(project)
    kill(monkeypatch, project, "seeknal.cli.migrate._point_project_at", TO_DATABASE)
    assert text_of(project) == before
    assert main(BACK) == 0
    with open_state_backend() as store:
        store.create_run("goes on")
    with open_state_backend(backend="database") as store, pytest.raises(SupersededError):
        store.create_run("refused")
    assert find_record(project) is None


def test_a_copy_that_cannot_be_opened_is_ended_once_it_can(project, monkeypatch, capsys):
    kill(monkeypatch, project, "seeknal.cli.migrate._point_project_at", TO_DATABASE)
    copy = project / "target" / "state.db"
    whole = copy.read_bytes()
    copy.write_bytes(b"garbage" * 1000)
    assert main(BACK) == 0
    assert "may still take writes, too: run this again" in capsys.readouterr().err
    copy.write_bytes(whole)
    assert main(BACK) == 0
    with open_state_backend(backend="database") as store, pytest.raises(SupersededError):
        store.create_run("refused")
    with open_state_backend() as store:
        store.create_run("goes on")


def test_an_old_store_that_is_half_a_copy_is_not_gone_back_to(project, capsys):
    assert main(TO_DATABASE) == 0
    with open_state_backend(backend="file") as store:
        store.write_successor(store.read_store().store_id, filling_mark("database target/state.db", "since then"))
    assert main([*BACK, "--discard"]) == 1
    assert "holds a part of a copy" in capsys.readouterr().err
    with open_state_backend() as store:
        store.create_run("goes on")


def test_a_new_store_that_is_gone_is_given_up_with_discard_alone(project, capsys):
    before = text_of(project)
    assert main(TO_DATABASE) == 0
    (project / "target" / "state.db").unlink()
    assert main(["state", "rollback"]) == 1
    assert main(BACK) == 1
    assert "state.db is not there" in capsys.readouterr().err
    assert not (project / "target" / "state.db").exists()
    assert main([*BACK, "--discard"]) == 0
    assert "stop its writers" in capsys.readouterr().err
    assert not (project / "target" / "state.db").exists()
    assert text_of(project) == before
    with open_state_backend() as store:
        store.create_run("goes on")


def test_a_new_store_that_cannot_be_reached_is_given_up_with_discard(project, postgres_store, capsys):
    assert main(["migrate-state", *on_server(postgres_store)]) == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        dead = f"postgresql://nobody@127.0.0.1:{closed.getsockname()[1]}/gone"
        write(project, text_of(project).replace(postgres_store.options["url"], dead))
        path = project / "target" / "migration.json"
        record = json.loads(path.read_text())
        record["to"] = load_settings(project).where
        path.write_text(json.dumps(record))
        assert main(BACK) == 4
        assert main([*BACK, "--discard"]) == 0
    assert "stop its writers" in capsys.readouterr().err
    with open_state_backend() as store:
        store.create_run("goes on")


def test_an_old_store_that_is_gone_is_named_and_not_made(project, capsys):
    assert main(TO_DATABASE) == 0
    shutil.rmtree(project / "target" / "run_state")
    (project / "target" / "run_state.json").unlink()
    for path in (project / "target").glob("run_state.json*"):
        path.unlink()
    assert main(["state", "rollback"]) == 1
    assert main([*BACK, "--discard"]) == 1
    assert "file target is not there" in capsys.readouterr().err
    assert not (project / "target" / "run_state").exists()


def test_stores_of_one_server_are_told_apart_by_their_schemas(project):
    write(project, "name: p\nstate_backend: database\ndatabase_url: postgresql://h/db\nstate_options: {schema: ops}\n")
    assert load_settings(project).where == "database postgresql://h/db, schema ops"


def test_a_password_is_kept_nowhere_and_the_project_file_names_the_variable(project):
    write(project, "name: p\ndatabase_url: postgresql://u:geheim@h/db\n")
    record = record_of(read_project(project), load_settings(project), load_settings(project, backend="file"))
    with begun(project, record):
        assert b"geheim" not in (project / "target" / "migration.json").read_bytes()
    write(project, "name: p\nstate_backend: file\n")
    put_project_back(project, record)
    assert text_of(project) == "name: p\ndatabase_url: ${SEEKNAL_DATABASE_URL}\n"


def test_a_half_hidden_secret_is_one(project, monkeypatch):
    monkeypatch.setenv("HOST", "h")
    write(project, "name: p\ndatabase_url: postgresql://u:geheim@${HOST}/db\n")
    record = record_of(read_project(project), load_settings(project), load_settings(project, backend="file"))
    with begun(project, record):
        assert b"geheim" not in (project / "target" / "migration.json").read_bytes()


def test_the_doctor_tells_of_the_two_stores_of_a_backup_that_was_put_back(project):
    assert main(TO_DATABASE) == 0
    with open_state_backend() as store:
        put(store, "new")
    shutil.copy(project / "target" / "run_state.json.bak", project / "target" / "run_state.json")
    with open_state_backend(backend="file") as store:
        put(store, "old")
    assert findings(project) == ["identity-shared"]


def test_a_migration_that_wakes_up_late_leaves_the_record_of_another_one_alone(project):
    before = read_project(project)
    ours, theirs = (
        record_of(before, load_settings(project), load_settings(project, backend="database")) for _ in range(2)
    )
    with pytest.raises(TransferError, match="took this one's place"), begun(project, ours):
        with begun(project, theirs):
            finish(project, theirs.attempt, "d" * 64)
        finish(project, ours.attempt, "e" * 64)
    kept = find_record(project)
    assert (kept.attempt, kept.digest) == (theirs.attempt, "d" * 64)


def test_a_rollback_that_was_killed_before_it_dropped_its_record_is_ended_by_the_next(project, monkeypatch):
    assert main([*TO_DATABASE, "--database-url", "sqlite:///one.db"]) == 0
    first = text_of(project)
    assert main([*TO_DATABASE, "--database-url", "sqlite:///two.db"]) == 0
    kill(monkeypatch, project, "seeknal.state.migration.record.keep_record", BACK)
    assert (text_of(project), find_record(project).to) == (first, "database two.db")
    assert main(BACK) == 0
    assert (text_of(project), find_record(project).to) == (first, "database one.db")
    assert main(BACK) == 0
    assert (text_of(project), find_record(project)) == ("name: p\n", None)


COMMENTED = "state_options:\n  base_path: here # not there\nname: p # mine\n"


def test_the_project_file_is_what_it_was_with_its_comments_and_its_order(project):
    write(project, COMMENTED)
    with open_state_backend() as store:
        put(store, "r1")
    assert main(TO_DATABASE) == 0
    assert main(BACK) == 0
    assert text_of(project) == COMMENTED


def test_what_was_edited_meanwhile_stays_edited(project):
    write(project, COMMENTED)
    with open_state_backend() as store:
        put(store, "r1")
    assert main(TO_DATABASE) == 0
    write(project, text_of(project).replace("name: p", "name: q"))
    assert main(BACK) == 0
    assert "name: q # mine" in text_of(project)
    assert load_settings(project).where == "file here"
