"""The guard: its counts are the same each time, and it fails where something has become dearer."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.guard.__main__ import compared, in_place
from benchmarks.guard.counters import SqliteCounter, counted
from benchmarks.places import places

from seeknal.state.backend import create_state_backend

COMMITTED = {
    "python": "3.11",
    "sqlite": "3.40",
    "counts": {"file": {"a transition": {"instructions": 100, "syncs": 1}}},
}


def counts(**changes: int) -> dict:
    return {**COMMITTED, "counts": {"file": {"a transition": {"instructions": 100, "syncs": 1, **changes}}}}


def work(times: int) -> int:
    return sum(len(str(number)) for number in range(times))


def test_what_is_counted_is_the_same_each_time_and_grows_with_the_work():
    few, again, many = (counted(lambda times=times: work(times)) for times in (10, 10, 20))
    assert few == again
    assert few["calls"] < many["calls"]
    assert few["instructions"] < many["instructions"]


def test_each_fsync_is_counted(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        assert counted(lambda: [os.fsync(file.fileno()) for _ in range(3)])["syncs"] == 3


def test_statements_of_sqlite_are_counted(tmp_path):
    with SqliteCounter().watching() as watched, create_state_backend("database", db_path=tmp_path / "s.db") as backend:
        backend.initialize()
        backend.create_run("run")
        found = counted(lambda: backend.get_run("run"), watched)
    assert found["statements"] == 1
    assert found["steps"] > 0


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_a_transition_costs_the_same_in_a_run_of_fifty_times_as_many_nodes(store, tmp_path):
    with SqliteCounter().watching() as watched, ExitStack() as stack:
        (place,) = places([store], Path(tmp_path), stack)
        found = in_place(place, watched if store == "sqlite" else None)
    small, large = found["a transition, 100 nodes in the run"], found["a transition, 5000 nodes in the run"]
    assert large["instructions"] <= small["instructions"] * 1.02
    assert large.get("steps", 0) <= small.get("steps", 0) * 1.02
    assert large["syncs"] == small["syncs"]


def test_what_is_as_it_was_committed_passes(capsys):
    assert compared(COMMITTED, counts(instructions=110)) == 0
    assert "2 counts compared, 0 of them" in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"instructions": 111}, {"syncs": 2}], ids=str)
def test_what_costs_more_than_a_tenth_more_fails_and_is_named(change, capsys):
    assert compared(COMMITTED, counts(**change)) == 1
    assert f"file: a transition: {next(iter(change))}" in capsys.readouterr().out


def test_what_is_not_counted_any_more_fails(capsys):
    assert compared(COMMITTED, {**COMMITTED, "counts": {"file": {}}}) == 1
    assert "now it is not counted" in capsys.readouterr().out


def test_what_is_counted_and_was_not_committed_fails(capsys):
    found = {**COMMITTED, "counts": {"file": {**COMMITTED["counts"]["file"], "a lease": {"syncs": 1}}}}
    assert compared(COMMITTED, found) == 1
    assert "--update" in capsys.readouterr().out


def test_a_store_that_is_not_at_hand_and_another_python_are_told_and_no_failure(capsys):
    assert compared(COMMITTED, {**COMMITTED, "python": "3.13", "counts": counts(instructions=999)["counts"]}) == 0
    assert "its counts are not compared" in capsys.readouterr().out
    assert compared(COMMITTED, {**COMMITTED, "counts": {}}) == 0
    assert "file: not at hand" in capsys.readouterr().out
