"""What goes into a server comes out of it, whatever characters it is made of and however the server is set."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.servers.stores import SERVERS, fresh_store

from seeknal.errors import InvalidFieldError
from seeknal.model.changes import MAX_TEXT_BYTES
from seeknal.state.backend import create_state_backend
from seeknal.state.testing.factories import GOOD_IDS

ODD_IDS = (
    "it's", 'a "quoted" one', "back\\slash", "back\\", "50%", "%s", "%(name)s", ":name", "?", "a ", "a", "A", " a",
    "a\u00a0", "-- no comment", "/* nor */ this", "'; DROP TABLE runs; --", "\\'; DROP TABLE runs; --", "$1", "{0}",
    "\u00e4", "\U0001f600",
)  # fmt: skip
ODD_TEXTS = (
    *ODD_IDS, "", "\x00", "a\x00b", "\x1bnul:", "\x1bnul:\x1b0", "\x1b\x00\x1b10", "\x1b[31mred",
    "\x1a", "line\nline\r\n\ttab", "\x7f\x80\uffff", "\\0",
)  # fmt: skip
MOST = 2**63 - 1
DAY = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def backend(emptied_server_store):
    with create_state_backend("database", **emptied_server_store.options) as opened:
        opened.initialize()
        opened.create_run("run")
        yield opened


def write_everywhere(backend, text: str) -> None:
    """Put a text wherever a text may be, and demand it back: by one statement, in a transaction, and in a lock."""
    metadata = {text: [text, {text: text}]}
    backend.update_run("run", metadata=metadata)
    backend.set_node_state("run", "node", error_message=text, fingerprint=text, metadata=metadata)
    with backend.transaction():
        for node_id in ("first", "second"):
            backend.set_node_state("run", node_id, error_message=text, fingerprint=text, metadata=metadata)
        backend.add_completed_partition("run", "node", "part", metadata=metadata)
    assert backend.get_run("run").metadata[text] == metadata[text]
    for state in backend.get_all_node_states("run").values():
        assert (state.error_message, state.fingerprint, state.metadata[text]) == (text, text, metadata[text])
    assert backend.list_partitions("node")[0].metadata == metadata
    assert backend.acquire_lock("run", "node")
    assert backend.break_lock("run", "node", reason=f"because {text}") is not None


def test_odd_texts_survive(backend) -> None:
    for text in ODD_TEXTS:
        write_everywhere(backend, text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings.default.max_examples // 5)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(backend, text: str) -> None:
    backend.set_node_state("run", "node", error_message=text, fingerprint=text, metadata={"text": text})
    state = backend.get_node_state("run", "node")
    assert (state.error_message, state.fingerprint, state.metadata["text"]) == (text, text, text)


def test_odd_ids_are_kept_apart(backend) -> None:
    ids = sorted({*ODD_IDS, *GOOD_IDS})
    with backend.transaction():
        for each in ids:
            backend.create_run(each)
            backend.set_node_state(each, each, fingerprint=each)
            backend.set_node_state("run", each, fingerprint=each)
            backend.add_completed_interval(each, each, DAY, DAY + timedelta(days=1))
            backend.add_completed_partition(each, each, each)
            backend.add_completed_partition(each, "node", each)
    assert backend.list_runs() == ["run", *ids]
    assert backend.list_nodes("run") == sorted(ids, key=str.encode)
    assert [state.partition for state in backend.list_partitions("node")] == sorted(ids, key=str.encode)
    for each in ids:
        assert backend.get_run(each).run_id == each
        assert backend.get_node_state(each, each).fingerprint == each
        assert backend.get_latest_node_state(each).run_id == "run"
        assert [span.run_id for span in backend.get_completed_intervals(each)] == [each]
        with backend.lock(each, each) as lease, backend.transaction(lease=lease):
            assert backend.set_node_state(each, each, row_count=1).version == 2
    for each in ids:
        assert backend.delete_run(each)
    assert backend.list_runs() == ["run"]


@pytest.mark.parametrize("character", ["x", '"', "'", "\\", "\U0001f600", "\x01"], ids=ascii)
def test_the_largest_metadata_survives(backend, character: str) -> None:
    one = len(character.encode()) if character not in '"\\\x01' else {'"': 2, "\\": 2, "\x01": 6}[character]
    metadata = {"m": character * ((MAX_TEXT_BYTES - 8) // one)}
    backend.set_node_state("run", "node", metadata=metadata)
    backend.set_node_state("run", "node", row_count=1)
    with backend.transaction():
        backend.set_node_state("run", "first", metadata=metadata)
        backend.update_run("run", metadata=metadata)
    assert backend.get_node_state("run", "node").metadata == metadata
    assert backend.get_node_state("run", "first").metadata == metadata
    assert backend.get_run("run").metadata == metadata


def test_the_largest_text_survives_or_is_refused_by_name(backend, emptied_server_store) -> None:
    backend.set_node_state("run", "node", error_message="x" * MAX_TEXT_BYTES)
    assert backend.get_node_state("run", "node").error_message == "x" * MAX_TEXT_BYTES
    with pytest.raises(InvalidFieldError, match="error_message"):
        backend.set_node_state("run", "node", error_message="x" * (MAX_TEXT_BYTES + 1))
    nothing = "\x00" * MAX_TEXT_BYTES  # twice as long as it is stored
    if emptied_server_store.kind == "libsql":  # which takes 5 MiB in one row
        with pytest.raises(InvalidFieldError, match="too big"):
            backend.set_node_state("run", "node", error_message=nothing)
        return
    backend.set_node_state("run", "node", error_message=nothing)
    assert backend.get_node_state("run", "node").error_message == nothing


def test_the_extremes_of_numbers_and_of_time_survive(backend) -> None:
    first = datetime.min.replace(tzinfo=UTC)
    last = datetime.max.replace(tzinfo=UTC)
    metadata = {"n": [MOST, -MOST - 1, 2**64 - 1, 1e308, -0.0, 5e-324, 0.1]}
    for node_id, count in (("least", 1), ("most", MOST)):
        backend.set_node_state(
            "run", node_id, row_count=count, duration_ms=count, attempt=count,
            started_at=first, finished_at=last, metadata=metadata,
        )  # fmt: skip
        state = backend.get_node_state("run", node_id)
        assert (state.row_count, state.duration_ms, state.attempt) == (count, count, count)
        assert (state.started_at, state.finished_at) == (first, last)
        assert repr(state.metadata) == repr(metadata)
    assert backend.add_completed_partition("run", "node", "part", row_count=MOST).row_count == MOST
    assert backend.list_partitions("node")[0].row_count == MOST
    assert backend.create_run("old", started_at=first).started_at == first
    assert backend.get_run("old").started_at == first


# ---- however MySQL is set ----


@contextmanager
def set_to(server, **settings: str):
    """Change what new sessions of a server of the test's own begin with."""
    before = {name: server.run(f"SELECT @@GLOBAL.{name}")[0][0] for name in settings}
    try:
        server.run(*(f"SET GLOBAL {name} = '{value}'" for name, value in settings.items()))
        yield
    finally:
        server.run(*(f"SET GLOBAL {name} = '{value}'" for name, value in before.items()))


@pytest.fixture
def private_mysql_store(private_mysql, places):
    return places.enter_context(fresh_store(SERVERS["mysql"](private_mysql.url)))


@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PIPES_AS_CONCAT,ANSI", ""])
def test_no_mode_of_the_server_changes_a_text(private_mysql_store, mode: str) -> None:
    backend = create_state_backend("database", **private_mysql_store.options)
    with set_to(private_mysql_store.server, sql_mode=mode), backend:
        backend.initialize()
        backend.create_run("run")
        for text in ODD_TEXTS:
            write_everywhere(backend, text)


@pytest.mark.parametrize("zone", ["+13:00", "-12:00", "Europe/Berlin"])
def test_no_time_zone_of_the_server_changes_a_lease(private_mysql_store, zone: str) -> None:
    server = private_mysql_store.server
    if "/" in zone:
        server.run(*BERLIN)
    backend = create_state_backend("database", **private_mysql_store.options)
    with set_to(server, time_zone=zone), backend:
        backend.initialize()
        assert server.run("SELECT @@SESSION.time_zone") == [(zone,)]
        assert backend.acquire_lock("run", ttl_ms=60_000)
        (lock,) = backend.list_locks()
        now = datetime.now(UTC)
        assert abs((lock.acquired_at - now).total_seconds()) < 5
        assert 50 < (lock.expires_at - now).total_seconds() <= 61
        private_mysql_store.age_leases(61)
        assert backend.list_locks() == []
        assert backend.acquire_lock("run", timeout_ms=0)


BERLIN = (
    "REPLACE INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (1, 'N')",
    "REPLACE INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Europe/Berlin', 1)",
    "REPLACE INTO mysql.time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation) "
    "VALUES (1, 0, 3600, 0, 'CET'), (1, 1, 7200, 1, 'CEST')",
    # In summer time since 2020: two hours from UTC, and an hour from what it is in winter.
    "REPLACE INTO mysql.time_zone_transition (Time_zone_id, Transition_time, Transition_type_id) "
    "VALUES (1, 1500000000, 0), (1, 1585443600, 1)",
)
