"""Instants that callers pass: every kind of datetime becomes a plain one, or is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from seeknal.errors import InvalidFieldError
from seeknal.model.instants import data_instant, wall_instant
from seeknal.state.backend import create_state_backend


class Moment(datetime):
    """A datetime of a library's own, as pendulum and pandas have them."""


class NotATime(datetime):
    """As ``pandas.NaT``, which says that it is a datetime."""

    @property
    def year(self):
        return float("nan")


BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize("read", [data_instant, wall_instant])
def test_a_datetime_of_another_class_becomes_a_plain_one_of_the_same_instant(read):
    found = read(Moment(2024, 1, 1, 12, 30, 15, 7, tzinfo=BERLIN), "start")
    assert (type(found), found) == (datetime, datetime(2024, 1, 1, 11, 30, 15, 7, tzinfo=UTC))


@pytest.mark.parametrize("read", [data_instant, wall_instant])
@pytest.mark.parametrize("value", [NotATime(2024, 1, 1), date(2024, 1, 1), "2024-01-01", None])
def test_what_is_no_datetime_is_refused_by_the_name_of_its_field(read, value):
    with pytest.raises(InvalidFieldError, match="start must be a datetime, not") as caught:
        read(value, "start")
    assert caught.value.field == "start"


@pytest.mark.parametrize("kind", ["memory", "file", "database"])
def test_every_store_takes_datetimes_of_another_class(kind, tmp_path):
    place = {"memory": {}, "file": {"base_path": tmp_path}, "database": {"db_path": tmp_path / "state.db"}}[kind]
    first, last = Moment(2024, 1, 1, tzinfo=UTC), Moment(2024, 1, 2, tzinfo=UTC)
    with create_state_backend(kind, **place) as backend:
        backend.initialize()
        backend.create_run("r", started_at=first)
        backend.set_node_state("r", "n", status="success", started_at=first, finished_at=last)
        backend.add_completed_interval("r", "n", first, last)
        [done] = backend.get_completed_intervals("n")
        assert (done.start, done.end, type(done.start)) == (first, last, datetime)
        assert type(backend.get_run("r").started_at) is type(backend.get_node_state("r", "n").finished_at) is datetime
