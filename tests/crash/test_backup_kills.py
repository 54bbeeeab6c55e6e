"""A backup and a restore that are killed: nothing that only looks like a backup, and the old content or the new one."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from sqlalchemy import inspect
from tests.conftest import KINDS
from tests.processes import PROCESSES

from seeknal.errors import LockHeldError, MoveInProgressError
from seeknal.state.backend import create_state_backend
from seeknal.state.backup import restoring
from seeknal.state.backup.generations import Standing, find, generations
from seeknal.state.backup.making import back_up
from seeknal.state.backup.restoring import plan_restore, restore
from seeknal.state.backup.verifying import verify
from seeknal.state.doctor import examine_project
from seeknal.state.file.backend import FileStateBackend
from seeknal.state.migration.ends import KEY
from seeknal.state.settings import load_settings
from seeknal.state.testing.crashes import commit_number, kill_at
from seeknal.state.transfer import digest_of

POINTS = [("write", 1), ("write", 2), ("fsync", 1), ("fsync", 2), ("fsync-directory", 1), ("fsync-directory", 2)]
POINTS += [("replace", number) for number in range(1, 4)]


@pytest.fixture(params=["file", "sqlite", *KINDS])
def place(request, tmp_path, shared_store):
    """Return the kind and the options of a new store."""
    if request.param == "file":
        return "file", {"base_path": tmp_path / "target"}
    if request.param == "sqlite":
        return "database", {"db_path": tmp_path / "state.db"}
    return "database", dict(shared_store(request.param).options)


def opened(place):
    kind, options = place
    store = create_state_backend(kind, **options)
    store.initialize()
    return store


def filled(place, directory):
    """Return a backup of a store that has gone on since, and the digests of both."""
    with opened(place) as store:
        for number in range(1, 15):
            commit_number(store, number)
        made, old = back_up(store, directory, kind="any"), digest_of(store)
        for number in range(15, 45):
            commit_number(store, number)
        return made, old, digest_of(store)


def back_up_until_killed(place, directory, point, occurrence):
    with opened(place) as store:
        kill_at(point, occurrence)
        back_up(store, directory, kind="any")
    os._exit(0)


def restore_until_killed(place, directory, name, point, occurrence, begun):
    with opened(place) as store:
        if point:
            kill_at(point, occurrence)
        begun.set()
        restore(store, find(directory, name), kind="any")
    os._exit(0)


def ended(target, *args):
    """Run a function in a process; return whether it was killed."""
    child = PROCESSES.Process(target=target, args=args)
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


@pytest.mark.parametrize(("point", "occurrence"), POINTS)
def test_a_killed_backup_leaves_no_generation_behind_and_the_next_one_removes_its_rest(point, occurrence, tmp_path):
    place, directory = ("database", {"db_path": tmp_path / "state.db"}), tmp_path / "b"
    with opened(place) as store:
        commit_number(store, 1)
    killed = ended(back_up_until_killed, place, directory, point, occurrence)
    left = generations(directory)
    assert killed or len(left) == 1
    for each in left:
        if each.standing is Standing.COMPLETE:
            verify(each.path)
        else:
            assert (each.standing, killed) == (Standing.UNFINISHED, True)
    with opened(place) as store:
        made = back_up(store, directory, kind="any")
    assert {each.standing for each in generations(directory)} == {Standing.COMPLETE}
    verify(made.path)
    assert sorted(os.listdir(directory)) == sorted(each.name for each in generations(directory))


def test_a_backup_that_is_being_made_is_not_taken_for_a_rest(tmp_path):
    def another(stage, done, total):
        if stage == "checking" and not seen:
            seen.append(back_up(store, tmp_path / "b", kind="any", on_progress=lambda *_: None))

    seen = []
    with opened(("file", {"base_path": tmp_path / "t"})) as store:
        store.create_run("r")
        with store.transaction():
            for number in range(1100):
                store.set_node_state("r", f"n{number}")
        outer = back_up(store, tmp_path / "b", kind="any", on_progress=another)
    [inner] = seen
    for each in (inner, outer):
        verify(each.path)
    assert len(generations(tmp_path / "b")) == 2


@pytest.mark.parametrize(
    ("point", "occurrence"),
    [(point, number) for point in ("write", "fsync", "replace", "fsync-directory", "unlink") for number in (1, 2, 4)],
)
def test_a_restore_of_a_file_store_that_is_killed_at_a_system_call_leaves_one_of_two_contents(
    point, occurrence, tmp_path
):
    place, directory = ("file", {"base_path": tmp_path / "target"}), tmp_path / "b"
    made, old, new = filled(place, directory)
    killed = ended(restore_until_killed, place, directory, made.name, point, occurrence, PROCESSES.Event())
    assert killed
    with opened(place) as store:
        assert digest_of(store) in (old, new)
        if store.read_store().superseded_by is None:
            commit_number(store, 100)
        else:
            with pytest.raises(MoveInProgressError):
                commit_number(store, 100)
        restore(store, made, kind="any")
        assert digest_of(store) == old
        assert not list((tmp_path / "target" / "run_state").glob("*.tmp"))


def restore_until_put(place, directory, name):
    def kill(stage, done, total):
        if stage == "comparing" or (stage, done) == ("restoring", total):
            os.kill(os.getpid(), signal.SIGKILL)

    with opened(place) as store:
        restore(store, find(directory, name), kind="any", on_progress=kill)


def test_what_a_killed_restore_left_beside_the_store_disturbs_nobody_and_is_removed(place, tmp_path):
    made, old, new = filled(place, tmp_path / "b")
    assert ended(restore_until_put, place, tmp_path / "b", made.name)
    was_begun = list((tmp_path / "target" / "run_state").glob("*.tmp"))
    with opened(place) as store:
        assert digest_of(store) == new
        assert [each for each in store.examine() if each.severity == "error"] == []
        assert was_begun or sides_of(store, tmp_path), "it was killed too early"
        if place[0] == "file":
            assert sides_of(store, tmp_path) == []  # who opens it tidies up
        else:
            assert "restore-leftover" not in {each.check for each in store.examine()}, "its lease has not run out yet"
            store.break_lock(KEY, reason="its process is gone")
            [finding] = [each for each in store.examine() if each.check == "restore-leftover"]
            finding.mend()
            assert sides_of(store, tmp_path) == []
            assert ended(restore_until_put, place, tmp_path / "b", made.name)
        restore(store, made, kind="any")
        assert digest_of(store) == old
        assert sides_of(store, tmp_path) == []


def settings_of(place, folder):
    kind, options = place
    (folder / "seeknal_project.yml").write_text("name: p\n")
    given = {"url": "database_url", "base_path": None, "db_path": None}
    rest = {name: value for name, value in options.items() if name not in given}
    url = options.get("url") or (f"sqlite:///{options['db_path']}" if "db_path" in options else None)
    return load_settings(folder, backend=kind, database_url=url, options=rest)


def restore_until_marked(place, directory, name):
    def kill(source, *_, **__):
        assert source.read_store().superseded_by
        os.kill(os.getpid(), signal.SIGKILL)

    restoring.back_up = kill
    with opened(place) as store:
        restore(store, find(directory, name), kind="any", undo_in=directory)


def test_a_restore_that_was_killed_keeps_writers_away_until_any_other_one_takes_over(place, tmp_path):
    made, old, new = filled(place, tmp_path / "b")
    assert ended(restore_until_marked, place, tmp_path / "b", made.name)
    with opened(place) as store:
        assert digest_of(store) == new
        with pytest.raises(MoveInProgressError, match=f"being restored from backup {made.name}"):
            commit_number(store, 100)
        [finding] = [each for each in examine_project(settings_of(place, tmp_path), store) if each.mend]
        assert finding.check == "restore-unfinished"
        with pytest.raises(LockHeldError):
            finding.mend()
        store.break_lock(KEY, reason="its process is gone")
        finding.mend()
        commit_number(store, 100)
    assert ended(restore_until_marked, place, tmp_path / "b", made.name)
    with opened(place) as store:
        new = digest_of(store)
        assert "moved" not in "".join(plan_restore(store, made).refused)
        report = restore(store, made, kind="any", undo_in=tmp_path / "b")
        assert digest_of(store) == old
        commit_number(store, 101)
        restore(store, find(tmp_path / "b", report.undo), kind="any")
        assert digest_of(store) == new


def restore_until_swapped(place, directory, name):
    with opened(place) as store:
        store.add_to_log = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # the first thing after the swap
        restore(store, find(directory, name), kind="any", undo_in=directory)


def test_a_restore_that_was_killed_right_after_the_swap_is_in_the_log_and_lets_everybody_write(place, tmp_path):
    made, old, _ = filled(place, tmp_path / "b")
    assert ended(restore_until_swapped, place, tmp_path / "b", made.name)
    [undo] = [each.name for each in generations(tmp_path / "b") if each.name != made.name]
    with opened(place) as store:
        assert digest_of(store) == old
        [entry] = [each for each in store.list_changes() if each.action == "restore"]
        assert entry.detail == {"backup": made.name, "undo": undo}
        commit_number(store, 100)


def sides_of(store, folder):
    """Return what stands beside the content of a store, as long as a restore goes on."""
    if isinstance(store, FileStateBackend):
        return list((folder / "target" / "run_state").glob("restored*"))
    found, database = [], store._database
    database.change_schema(lambda connection: found.extend(_tables(connection, database.target.tables)))
    return found


def _tables(connection, tables):
    names = inspect(connection).get_table_names(schema=tables.metadata.schema)
    return [name for name in names if name.startswith(f"{tables.prefix}restored_")]


def _kill_at_random(place, directory, rounds):
    """Kill restores at any time until a little after their end; return how many were killed before that."""
    made, old, new = filled(place, directory)
    waiting, kills, window = threading.Event(), 0, 0.5
    for number in range(rounds):
        begun = PROCESSES.Event()
        child = PROCESSES.Process(target=restore_until_killed, args=(place, directory, made.name, "", 0, begun))
        child.start()
        assert begun.wait(60)
        waiting.wait(random.uniform(0.0, window))
        child.kill()
        child.join()
        kills += child.exitcode != 0
        with opened(place) as store:
            found = digest_of(store)
            assert found in (old, new), f"round {number} left a mixture"
            started = time.monotonic()
            restore(store, made, kind="any")
            window = 0.2 + 1.3 * (time.monotonic() - started)  # a new process compiles what this one has
            assert digest_of(store) == old
            for more in range(15, 25):
                commit_number(store, more)
            new = digest_of(store)
    return kills


def test_a_restore_that_is_killed_at_random_leaves_one_of_two_contents_and_is_done_by_the_next(place, tmp_path):
    _kill_at_random(place, tmp_path / "b", 2)


@pytest.mark.nightly
def test_restores_that_are_killed_at_random_many_times_leave_one_of_two_contents(place, tmp_path):
    assert _kill_at_random(place, tmp_path / "b", 30)


def test_a_snapshot_that_a_killed_backup_left_is_removed_by_the_next_one(tmp_path):
    place, directory = ("file", {"base_path": tmp_path / "target"}), tmp_path / "b"
    with opened(place) as store:
        commit_number(store, 1)
        with store.snapshot():
            assert ended(back_up_until_killed, place, directory, "replace", 1)
            assert len(list((tmp_path / "target" / "run_state").glob("snapshot-*.tmp"))) == 2
            back_up(store, directory, kind="any")
            assert len(list((tmp_path / "target" / "run_state").glob("snapshot-*.tmp"))) == 1, "ours is in use"
        assert not list((tmp_path / "target" / "run_state").glob("snapshot-*.tmp"))
