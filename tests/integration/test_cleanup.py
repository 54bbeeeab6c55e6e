"""What a cleanup does while others write: it judges, somebody comes in between, and nothing that is needed goes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import BackendUnavailableError, RunNotFoundError, SupersededError
from seeknal.state import pins
from seeknal.state.backend import create_state_backend
from seeknal.state.sql import retention

AGE = timedelta(days=30)
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
KINDS = ["sqlite", "postgresql", "mysql", "libsql"]


@pytest.fixture(params=KINDS)
def options(request, tmp_path, emptied_store):
    return {"db_path": tmp_path / "state.db"} if request.param == "sqlite" else emptied_store(request.param).options


@pytest.fixture
def pair(options):
    """Two instances on one store that holds four old runs, of which the last has every newest success."""
    clock = FakeClock()
    with (
        create_state_backend("database", clock=clock, **options) as ours,
        create_state_backend("database", clock=clock, **options) as theirs,
    ):
        for backend in (ours, theirs):
            backend.initialize()
        with ours.transaction():
            for number in range(4):
                ours.create_run(f"r{number}", status="success")
                for node in ("a", "b", "c"):
                    ours.set_node_state(f"r{number}", node, status="success")
        clock.advance(days=60)
        yield ours, theirs


def between(monkeypatch, action):
    """Let somebody do something once, after a cleanup has judged and before it deletes."""
    judge, done = retention._judged, []

    def judged(*arguments):
        found = judge(*arguments)
        if not done:
            done.append(action())
        return found

    monkeypatch.setattr(retention, "_judged", judged)
    return done


@pytest.fixture
def losing_server(pair, monkeypatch):
    """Let the store be lost once a cleanup in steps of one run has deleted one."""
    judge, steps = retention._judged, []

    def judged(*arguments):
        steps.append(1)
        if len(steps) == 2:
            raise BackendUnavailableError("the server went away", hint="Try again.")
        return judge(*arguments)

    monkeypatch.setattr(retention, "MOST_ROWS", 1)
    monkeypatch.setattr(retention, "_judged", judged)
    return pair[0]


def test_a_cleanup_that_loses_the_server_logs_and_tells_what_it_had_deleted(losing_server) -> None:
    with pytest.raises(BackendUnavailableError, match="went away") as raised:
        losing_server.cleanup(older_than=AGE)
    assert raised.value.__notes__ == [
        "1 runs with 3 node states were deleted before",
        "the change log tells of them",
    ]
    [entry] = [change for change in losing_server.list_changes() if change.action == "cleanup"]
    assert (entry.detail["runs"], entry.detail["node_states"]) == (1, 3)
    assert losing_server.list_runs() == ["r1", "r2", "r3"]


def test_what_cannot_be_logged_either_is_told_all_the_same(losing_server, monkeypatch) -> None:
    def fail(detail):
        raise BackendUnavailableError("it is still away", hint="Try again.")

    monkeypatch.setattr(losing_server, "_log_cleanup", fail)
    with pytest.raises(BackendUnavailableError, match="went away") as raised:
        losing_server.cleanup(older_than=AGE)
    assert raised.value.__notes__[1] == "the change log does not tell of what was deleted: it is still away"
    report = losing_server.cleanup(older_than=AGE)
    assert report.deleted == ["r1", "r2"]
    assert "it is still away" in report.hint


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (lambda theirs: theirs.set_node_state("r1", "b", status="success"), "newest success: b"),
        (lambda theirs: theirs.set_node_state("r1", "new", status="success"), "newest success: new"),
        (lambda theirs: theirs.acquire_lock("r1", "a", timeout_ms=0), "locked"),
        (lambda theirs: pins.pin_run(theirs, "r1", "look"), "written meanwhile"),
        (lambda theirs: theirs.update_run("r1", status="running"), "written meanwhile"),
        (lambda theirs: theirs.delete_run("r1"), None),
    ],
    ids=["succeeds", "gets-a-node", "is-locked", "is-pinned", "begins-again", "is-deleted"],
)
def test_a_run_that_changes_while_a_cleanup_looks_is_left_to_who_changed_it(pair, monkeypatch, action, why) -> None:
    ours, theirs = pair
    done = between(monkeypatch, lambda: action(theirs))
    report = ours.cleanup(older_than=AGE)
    assert len(done) == 1
    assert report.deleted == ["r0", "r2"]
    assert report.kept.get("r1") == why
    assert ours.list_runs() == (["r1", "r3"] if why else ["r3"])


@pytest.mark.parametrize(
    "action",
    [
        lambda theirs: theirs.set_node_state("r3", "b", status="failed"),
        lambda theirs: theirs.delete_node_state("r3", "b"),
    ],
    ids=["fails", "is-deleted"],
)
def test_a_success_that_becomes_the_newest_while_a_cleanup_looks_is_kept(pair, monkeypatch, action) -> None:
    ours, theirs = pair
    between(monkeypatch, lambda: action(theirs))
    report = ours.cleanup(older_than=AGE)
    assert report.deleted == ["r0", "r1"]
    assert report.kept["r2"] == "newest success: b"
    assert ours.get_latest_node_state("b", "success").run_id == "r2"


def between_each_time(monkeypatch, action):
    """Let somebody do something each time that a cleanup has judged."""
    judge = retention._judged

    def judged(*arguments):
        found = judge(*arguments)
        action()
        return found

    monkeypatch.setattr(retention, "_judged", judged)


def test_a_run_that_goes_on_beside_a_cleanup_does_not_stop_it(pair, monkeypatch) -> None:
    ours, theirs = pair
    theirs.create_run("live")
    theirs.set_node_state("live", "b", status="success")
    between_each_time(monkeypatch, lambda: theirs.set_node_state("live", "b", status="success"))
    assert ours.cleanup(older_than=AGE).deleted == ["r0", "r1", "r2"]


def test_a_run_whose_newer_successes_are_written_all_the_time_is_left_for_the_next_cleanup(pair, monkeypatch) -> None:
    ours, theirs = pair
    theirs.create_run("live")
    for node in ("a", "b", "c"):
        theirs.set_node_state("live", node, status="success")
    between_each_time(monkeypatch, lambda: theirs.set_node_state("live", "b", status="success"))
    report = ours.cleanup(older_than=AGE)
    assert report.deleted[:3] == ["r0", "r1", "r2"]
    # Where one transaction writes at a time, nothing comes in between what it demands and what it deletes.
    assert report.kept.get("r3", "gone") in ("written meanwhile", "gone")
    monkeypatch.undo()
    assert "r3" not in [*ours.cleanup(older_than=AGE).kept, *ours.list_runs()]


def test_a_preview_says_what_a_cleanup_does(pair) -> None:
    ours, theirs = pair
    preview = ours.cleanup(older_than=AGE, dry_run=True)
    assert theirs.list_runs() == ["r0", "r1", "r2", "r3"]
    assert preview == ours.cleanup(older_than=AGE)


def test_a_run_of_many_nodes_is_one_transaction_and_others_share_one(pair, monkeypatch) -> None:
    ours, _ = pair
    with ours.transaction():
        for number in range(3):
            ours.create_run(f"large {number}", status="failed")
            for node in range(50):
                ours.set_node_state(f"large {number}", f"n{node}", status="failed")
    ours.clock.advance(days=60)
    monkeypatch.setattr(retention, "MOST_ROWS", 60)
    taken = []
    judge = retention._judged
    monkeypatch.setattr(retention, "_judged", lambda *given: taken.append(judge(*given)) or taken[-1])
    assert len(ours.cleanup(older_than=AGE).deleted) == 6
    assert [found.judged for found, _ in taken] == [5, 2]


def test_writers_beside_a_cleanup_lose_nothing(options) -> None:
    def write(theirs) -> list[int]:
        done = []
        for number in range(20):
            try:
                theirs.set_node_state(f"old {number * 10}", "n", status="success", row_count=number)
                done.append(number)
            except RunNotFoundError:  # the cleanup was first
                pass
            theirs.create_run(f"new {number}")
            theirs.set_node_state(f"new {number}", "a", status="success")
        return done

    # In real time: who waits for the other one would make another clock run away.
    with create_state_backend("database", **options) as ours, create_state_backend("database", **options) as theirs:
        for backend in (ours, theirs):
            backend.initialize()
        with ours.transaction():
            for number in range(200):
                ours.create_run(f"old {number}")
                ours.set_node_state(f"old {number}", "n", status="failed")
                ours.update_run(f"old {number}", status="failed", finished_at=LONG_AGO)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write, theirs)
            ours.cleanup(older_than=AGE)
            done = writing.result(timeout=60)
        assert ours.list_runs()[-20:] == [f"new {number}" for number in range(20)]
        if done:
            assert ours.get_latest_node_state("n", "success").row_count == done[-1]


def test_a_store_that_moved_away_is_not_cleaned(pair) -> None:
    ours, theirs = pair
    theirs.write_successor(theirs.read_store().store_id, "elsewhere")
    with pytest.raises(SupersededError):
        ours.cleanup(older_than=AGE)
    assert len(ours.list_runs()) == 4
