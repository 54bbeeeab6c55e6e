"""Completed intervals in SQL: the same as the pure functions, also when many change them at once."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import KINDS
from tests.processes import PROCESSES

from seeknal.model.instants import to_us
from seeknal.model.intervals import Interval, union
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import IntervalCompleted, IntervalRestated
from seeknal.state.sql.work import change_steps
from seeknal.state.work import change_intervals, change_provenance

ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
LAST = 24
RUNS = ("r", "s")

bounds = st.integers(0, LAST - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, LAST)))
changes = st.lists(st.tuples(st.booleans(), bounds, st.sampled_from(RUNS)), min_size=1, max_size=4)
commits = st.lists(changes, min_size=1, max_size=6)
numbers = count()

CHANGES_PER_COMMIT = 5
"""Enough that commits overlap."""


def at(hour):
    return ORIGIN + timedelta(hours=hour)


def change_of(node_id, completes, hours, run_id):
    start, end = map(at, hours)
    if completes:
        return IntervalCompleted(node_id, start, end, run_id)
    return IntervalRestated(node_id, start, end)


def apply(backend, change):
    if isinstance(change, IntervalCompleted):
        backend.add_completed_interval(change.run_id, change.node_id, change.start, change.end)
    else:
        backend.restate_intervals(change.node_id, change.start, change.end)


@pytest.fixture(params=("sqlite", *KINDS))
def options(request, tmp_path):
    """Return the options of a new database store of each kind."""
    if request.param == "sqlite":
        return {"db_path": tmp_path / "state.db"}
    return request.getfixturevalue("emptied_store")(request.param).options


@pytest.fixture
def backend(options):
    with create_state_backend("database", **options) as opened:
        opened.initialize()
        for run_id in RUNS:
            opened.create_run(run_id)
        yield opened


@settings(
    max_examples=max(20, settings.default.max_examples // 4),
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has a node of its own
)
@given(commits=commits)
def test_every_change_does_what_the_pure_function_does(backend, commits):
    node_id = f"node {next(numbers)}"
    done, parts = [], []
    for each in commits:
        wanted = [change_of(node_id, *change) for change in each]
        with backend.transaction():
            for change in wanted:
                apply(backend, change)
                change_intervals(done, change)
                change_provenance(parts, change)
        assert backend.get_completed_intervals(node_id) == done
        assert backend.get_interval_provenance(node_id) == parts


def rows_changed(backend, change):
    """Run a change statement by statement; return how many rows the database says it has changed."""

    def run(raw):
        cursor = raw.cursor()
        changed = 0
        for step in change_steps(change):
            command = step.command(backend._database.target)
            cursor.execute(command.sql, command.parameters)
            changed += max(0, cursor.rowcount)
        return changed

    return backend._database._once(run, False)


@pytest.mark.parametrize("completes", [True, False])
def test_a_change_touches_its_neighbours_and_no_other_rows(backend, completes):
    counts = []
    for node_id, amount in (("few", 4), ("many", 400)):
        with backend.transaction():
            for number in range(amount):
                backend.add_completed_interval("r", node_id, at(3 * number), at(3 * number + 2))
        # The gap between the second and the third one; or the end of the second and the beginning of the third.
        hours = (5, 6) if completes else (4, 7)
        change = change_of(node_id, completes, hours, "s")
        wanted = backend.get_completed_intervals(node_id)
        change_intervals(wanted, change)
        counts.append(rows_changed(backend, change))
        assert backend.get_completed_intervals(node_id) == wanted
    assert counts[0] == counts[1]
    assert 0 < counts[0] <= 8  # MariaDB counts a row that it overwrites twice


# ---- many at once ----


def work_in(first, seed, amount, restates):
    """Return random changes of the hundred hours from ``first``."""
    chance = random.Random(seed)
    for _ in range(amount):
        start = chance.randrange(first, first + 99)
        end = min(first + 100, start + chance.choice([1, 1, 2, 5, 20]))
        yield change_of("node", not (restates and chance.random() < 0.3), (start, end), "r")


def change_with_threads(options, parts):
    """Change intervals by several threads of one instance, each its part."""
    with create_state_backend("database", **options) as backend:
        backend.initialize()

        def change(part):
            todo = list(work_in(*part))
            while todo:
                with backend.transaction():
                    for each in todo[:CHANGES_PER_COMMIT]:
                        apply(backend, each)
                del todo[:CHANGES_PER_COMMIT]

        with ThreadPoolExecutor(len(parts)) as threads:
            list(threads.map(change, parts))


def together(options, parts, threads=2):
    workers = [
        PROCESSES.Process(target=change_with_threads, args=(options, parts[first : first + threads]))
        for first in range(0, len(parts), threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(50)
        assert worker.exitcode == 0, "a worker raised, or hangs"


def spans_of(changes):
    done = []
    for change in changes:
        change_intervals(done, change)
    return [Interval(each.start, each.end) for each in done]


def stored(backend):
    return [Interval(each.start, each.end) for each in backend.get_completed_intervals("node")]


def test_what_many_complete_at_once_is_the_union_of_all(backend, options):
    parts = [(0, random.getrandbits(32), 40, False) for _ in range(8)]
    together(options, parts)
    assert stored(backend) == union(*(spans_of(work_in(*part)) for part in parts))


def test_what_many_complete_and_restate_side_by_side_is_what_each_left(backend, options):
    """Their hours adjoin, so that the rows of one reach into the hours of another all the time."""
    parts = [(100 * number, random.getrandbits(32), 40, True) for number in range(8)]
    together(options, parts)
    assert stored(backend) == union(*(spans_of(work_in(*part)) for part in parts))


def test_the_end_of_data_time_is_as_far_as_intervals_reach(backend):
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert to_us(first) < 0
    backend.add_completed_interval("r", "node", first, last)
    backend.restate_intervals("node", at(0), at(1))
    assert stored(backend) == [Interval(first, at(0)), Interval(at(1), last)]
