"""What an interval costs to complete does not depend on how many there are, and those that touch are one row.

Counted, not timed: the statements that are sent and the rows that they change or return; what SQLite's machine and
MySQL's tables are asked for them; and the bytes of the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.conftest import KINDS

from seeknal.model.intervals import Interval
from seeknal.state.backend import StateBackend, create_state_backend
from seeknal.state.sql.dialects.base import Rows
from seeknal.state.sql.statements import Statement, Step

RUN = "run"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(minutes=5)
YEAR = 365 * 24 * 12
FIVE_YEARS = 5 * YEAR + 24 * 12  # with a leap year
FEW, MANY = 3, 1000
NODES = {"few-": FEW, "many": MANY}
"""Names of one length, which is counted in the journal."""

ROWS = Statement(lambda on: select(func.count()).select_from(on.tables.completed_intervals))


def tick(number: int) -> datetime:
    return BEGIN + number * TICK


def middle(count: int) -> int:
    """Return where the range in the middle begins."""
    return 4 * (count // 2)


CHANGES: dict[str, Callable[[StateBackend, str, int], None]] = {
    "joins two": lambda backend, node, at: backend.add_completed_interval(RUN, node, tick(at + 2), tick(at + 4)),
    "makes one longer": lambda backend, node, at: backend.add_completed_interval(RUN, node, tick(at + 2), tick(at + 3)),
    "overlaps two": lambda backend, node, at: backend.add_completed_interval(RUN, node, tick(at + 1), tick(at + 5)),
    "is covered": lambda backend, node, at: backend.add_completed_interval(RUN, node, tick(at + 1), tick(at + 2)),
    "splits one": lambda backend, node, at: backend.restate_intervals(node, tick(at) + TICK / 2, tick(at + 1)),
    "shortens two": lambda backend, node, at: backend.restate_intervals(node, tick(at + 1), tick(at + 5)),
}
"""Of two neighbours, which hold the ticks 0 and 1, 4 and 5 from ``at``."""


def fill(backend: StateBackend) -> None:
    """Give one node a few ranges and another one many."""
    backend.create_run(RUN)
    for node, count in NODES.items():
        with backend.transaction():
            for number in range(count):
                backend.add_completed_interval(RUN, node, tick(4 * number), tick(4 * number + 2))
        backend.add_completed_interval(RUN, node, tick(0), tick(2))  # by itself, as what is measured
        assert len(backend.get_completed_intervals(node)) == count


class Counted:
    """Stands before a database, and sends the steps of a commit one by one.

    Attributes:
        sent: The texts of the last commit, and how many rows each one changed or returned.
        looked_at: How much the store had to look at for it: instructions of SQLite's machine, or rows that MySQL read
            from an index; nothing elsewhere.
    """

    def __init__(self, database: Any) -> None:
        self._database = database
        self.sent: list[tuple[str, int]] = []
        self.looked_at = 0

    def run(self, raw: Any, steps: Sequence[Step]) -> list[Rows]:
        """Do what `Database.run` does, with a commit for each step."""
        self.sent, self.looked_at, asked = [], 0, []
        cursor = raw.cursor()
        for step in steps:
            command = step.command(self._database.target)
            assert not command.many, "it is counted as one"
            with self._looking(raw):
                cursor.execute(command.sql, command.parameters)
                rows = list(cursor.fetchall()) if cursor.description else []
            self.sent.append((command.sql, max(cursor.rowcount, len(rows))))
            if command.is_asked:
                asked.append(rows)
        return asked

    @contextmanager
    def _looking(self, raw: Any) -> Iterator[None]:
        kind = self._database.address.kind
        if kind == "sqlite":
            raw.set_progress_handler(self._count, 1)
            yield
            raw.set_progress_handler(None, 1)
        elif kind == "mysql":
            before = _read_from_indexes(raw)
            yield
            self.looked_at += _read_from_indexes(raw) - before
        else:
            yield

    def _count(self) -> None:
        self.looked_at += 1


def _read_from_indexes(raw: Any) -> int:
    """Return how many rows this session has read from indexes. To ask reads none: that is a table without any.

    Source: https://dev.mysql.com/doc/refman/8.4/en/server-status-variables.html#statvar_Handler_read_next
    """
    cursor = raw.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read_%'")
    return sum(int(value) for name, value in cursor.fetchall() if "_rnd" not in name)


def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    is_file = request.param == "sqlite"
    options = (
        {"db_path": tmp_path / "s.db"} if is_file else request.getfixturevalue("shared_store")(request.param).options
    )
    with create_state_backend("database", **options) as backend:
        backend.initialize()
        yield backend


@pytest.fixture(params=("sqlite", *KINDS))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Return a new database store of each kind."""
    yield from opened(request, tmp_path)


@pytest.fixture(params=("sqlite", "mysql"))
def looking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Return a new database store of each kind that tells what it looked at."""
    yield from opened(request, tmp_path)


def efforts(database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Counted]]]:
    """Yield what each change took of a node with few ranges and of one with many."""
    fill(database)
    for what, change in CHANGES.items():
        seen = []
        for node, count in NODES.items():
            at = middle(count)
            seen.append(Counted(database._database))
            with monkeypatch.context() as patched:
                patched.setattr(database._database, "run", seen[-1].run)
                change(database, node, at)
            assert sum(rows for _, rows in seen[-1].sent), "nothing was counted"
            database.restate_intervals(node, tick(at), tick(at + 6))
            for first in (at, at + 4):
                database.add_completed_interval(RUN, node, tick(first), tick(first + 2))
        yield what, seen
    assert [len(database.get_completed_intervals(node)) for node in NODES] == [FEW, MANY]


def test_a_change_sends_the_same_and_changes_as_many_rows_whether_there_are_three_ranges_or_many(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, (few, many) in efforts(database, monkeypatch):
        assert few.sent == many.sent, f"what {what} changes more"


def test_a_change_looks_at_as_much_whether_there_are_three_ranges_or_many(
    looking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, (few, many) in efforts(looking, monkeypatch):
        assert 0 < few.looked_at == many.looked_at, f"what {what} looks at more"


def test_a_change_appends_as_many_bytes_to_the_journal_whether_there_are_three_ranges_or_many(tmp_path: Path) -> None:
    def appended(work: Callable[[], object]) -> int:
        before = size()
        work()
        return size() - before

    def size() -> int:
        (journal,) = (tmp_path / "run_state").glob("journal-*.log")
        return journal.stat().st_size

    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        fill(backend)
        for what, change in CHANGES.items():
            few, many = (appended(partial(change, backend, node, middle(count))) for node, count in NODES.items())
            assert 0 < few == many, f"what {what} appends more"


def complete_in_order(backend: StateBackend, count: int, *, at_once: int = 5000) -> list[Interval]:
    """Complete so many ticks of a node one by one, many in each transaction; return what is completed."""
    backend.create_run(RUN)
    for first in range(0, count, at_once):
        with backend.transaction():
            for number in range(first, min(count, first + at_once)):
                backend.add_completed_interval(RUN, "load", tick(number), tick(number + 1))
    return [Interval(each.start, each.end) for each in backend.get_completed_intervals("load")]


@pytest.fixture(params=["memory", "file"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateBackend]:
    options = {"base_path": tmp_path} if request.param == "file" else {}
    with create_state_backend(request.param, **options) as backend:
        backend.initialize()
        yield backend


def assert_one_interval(backend: StateBackend, count: int) -> None:
    assert complete_in_order(backend, count) == [Interval(BEGIN, tick(count))]


def assert_one_row(database: Any, count: int) -> None:
    assert_one_interval(database, count)
    assert database._database.read(lambda session: session.one(ROWS)) == (1,)


def test_two_months_of_ticks_completed_in_order_are_one_interval(plain: StateBackend) -> None:
    assert_one_interval(plain, YEAR // 6)


def test_ticks_completed_in_order_are_one_row(database: Any) -> None:
    assert_one_row(database, 500)


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_five_years_of_ticks_completed_in_order_are_one_interval(plain: StateBackend) -> None:
    assert_one_interval(plain, FIVE_YEARS)


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_many_ticks_completed_in_order_are_one_row(database: Any) -> None:
    assert_one_row(database, FIVE_YEARS if database._database.address.kind == "sqlite" else 50_000)
