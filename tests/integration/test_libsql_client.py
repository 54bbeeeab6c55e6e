"""The libSQL client on a real server: values, transactions, batches, lost locks, forks, threads and processes."""

from __future__ import annotations

import enum
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from tests.servers.sqld import Sqld

from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.connection import Connection
from seeknal.state.sql.libsql.endpoint import endpoint
from seeknal.state.sql.libsql.hrana import Statement

SPAWN = multiprocessing.get_context("spawn")
WRITERS = 8
INCREMENTS = 15

Open = Callable[..., Connection]


@pytest.fixture
def connect(private_sqld: Sqld) -> Iterator[Open]:
    """Return new connections to a server that holds the table ``t``, with the row ``a``, and nothing else."""
    made: list[Connection] = []

    def get(url: str = private_sqld.url, **options: float) -> Connection:
        made.append(dbapi.connect(endpoint(url), **options))
        return made[-1]

    connection = get()
    connection.run("PRAGMA foreign_keys = OFF")
    ours = "type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    for kind, name in connection.run(f"SELECT type, name FROM sqlite_schema WHERE {ours}").rows:
        connection.run(f'DROP {kind} "{name}"')
    connection.close()
    prepare(get())
    yield get
    for each in made:
        each.close()


def prepare(connection: Connection) -> None:
    connection.run("CREATE TABLE t (k TEXT PRIMARY KEY, v)")
    connection.run("INSERT INTO t VALUES ('a', 1)")


@pytest.fixture
def connection(connect: Open) -> Connection:
    return connect()


def value(connection: Connection, key: str = "a") -> object:
    rows = connection.run("SELECT v FROM t WHERE k = ?", (key,)).rows
    return rows[0][0] if rows else None


def keys(connection: Connection) -> list[str]:
    return [key for (key,) in connection.run("SELECT k FROM t ORDER BY k").rows]


# ---- PEP 249 ----


def test_a_cursor_tells_what_a_statement_returned(connection: Connection) -> None:
    cursor = connection.cursor()
    assert (cursor.rowcount, cursor.description, cursor.lastrowid) == (-1, None, None)
    assert cursor.execute("INSERT INTO t VALUES (?, ?), (?, ?)", ("b", 2, "c", 3)) is cursor
    assert (cursor.rowcount, cursor.description, cursor.lastrowid, cursor.fetchone()) == (2, None, 3, None)
    cursor.execute("SELECT k AS name, v FROM t ORDER BY k")
    assert [column[0] for column in cursor.description] == ["name", "v"]
    assert {len(column) for column in cursor.description} == {7}
    assert cursor.fetchone() == ("a", 1)
    assert cursor.fetchmany() == [("b", 2)]
    assert cursor.fetchmany(5) == [("c", 3)]
    assert (cursor.fetchall(), cursor.fetchone()) == ([], None)
    assert list(cursor.execute("SELECT v FROM t WHERE v > 1 ORDER BY v")) == [(2,), (3,)]
    assert cursor.execute("SELECT v FROM t WHERE 0").description is not None


@pytest.mark.parametrize(
    ("sql", "rowcount"),
    [
        ("UPDATE t SET v = 2 WHERE k = 'a'", 1),
        ("UPDATE t SET v = 2 WHERE k = 'x'", 0),
        ("UPDATE t SET v = 2 WHERE k = 'a' RETURNING v", 1),
        ("UPDATE t SET v = 2 WHERE k = 'x' RETURNING v", 0),
        ("WITH c AS (SELECT 'a' AS k) UPDATE t SET v = 2 WHERE k IN (SELECT k FROM c)", 1),
        ("INSERT INTO t VALUES ('a', 2) ON CONFLICT (k) DO UPDATE SET v = 2", 1),
        ("INSERT INTO t VALUES ('a', 2) ON CONFLICT (k) DO UPDATE SET v = 2 WHERE v = 7", 0),
        ("INSERT OR IGNORE INTO t VALUES ('a', 2)", 0),
        ("REPLACE INTO t VALUES ('a', 2)", 1),
        ("DELETE FROM t", 1),
        ("SELECT * FROM t", 1),
        ("CREATE TABLE u (x)", 0),
    ],
)
def test_rowcount_is_right_for_compare_and_set(connection: Connection, sql: str, rowcount: int) -> None:
    assert connection.cursor().execute(sql).rowcount == rowcount


def test_what_is_closed_is_refused(connection: Connection) -> None:
    cursor, other = connection.cursor(), connection.cursor()
    cursor.close()
    with pytest.raises(dbapi.ProgrammingError, match="cursor is closed"):
        cursor.execute("SELECT 1")
    connection.close()
    connection.close()
    for use in (connection.cursor, connection.commit, lambda: connection.batch([]), other.fetchall):
        with pytest.raises(dbapi.ProgrammingError, match="connection is closed"):
            use()


def test_nothing_is_sent_before_the_first_statement() -> None:
    with closing(dbapi.connect(endpoint("http://127.0.0.1:1"))) as connection:
        connection.cursor()
        connection.commit()
        connection.rollback()


def test_executemany_changes_all_or_nothing(connection: Connection) -> None:
    cursor = connection.cursor()
    assert cursor.executemany("INSERT INTO t VALUES (?, ?)", [(f"n{n}", n) for n in range(1200)]).rowcount == 1200
    for count in (3, 1500):
        rows = [(f"m{n}", n) for n in range(count)]
        with pytest.raises(dbapi.IntegrityError) as caught:
            cursor.executemany("INSERT INTO t VALUES (?, ?)", [*rows, ("a", 0), ("z", 0)])
        assert caught.value.step == count
        assert not connection.in_transaction
        assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(1201,)]
    assert cursor.executemany("DELETE FROM t WHERE k = ?", []).rowcount == 0
    with pytest.raises(dbapi.ProgrammingError):
        cursor.executemany("SELECT ?", [(1,)])


def test_executemany_joins_an_open_transaction(connection: Connection, connect: Open) -> None:
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    cursor.executemany("INSERT INTO t VALUES (?, ?)", [(f"n{n}", n) for n in range(1200)])
    assert keys(connect()) == ["a"]
    cursor.execute("ROLLBACK")
    assert keys(connection) == ["a"]


# ---- values ----


class Word(enum.StrEnum):
    YES = "yes"


@pytest.mark.parametrize(
    "sent",
    [
        *(0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)),
        *(0.0, 1.0, -2.5, 0.1, 1e-320, 1.7976931348623157e308, 5e-324),
        *("", "text", "quo'te", 'dou"ble', "a\0b\0", "é\u2028\U0001f600", "\x7f\x1f\n\t\\"),
        *(b"", b"\0", b"\xff\xfe", b"abc", bytes(range(256))),
        None,
    ],
)
def test_a_value_comes_back_as_it_was(connection: Connection, sent: object) -> None:
    connection.run("UPDATE t SET v = ?", (sent,))
    found = value(connection)
    assert found == sent
    assert type(found) is type(sent)


def test_relatives_of_the_plain_types_are_kept_as_those(connection: Connection) -> None:
    sent = (True, False, bytearray(b"ab"), memoryview(b"cd"), Word.YES, signal.SIGTERM)
    found = connection.run("SELECT ?, ?, ?, ?, ?, ?", sent).rows
    assert found == [(1, 0, b"ab", b"cd", "yes", 15)]


def test_a_computed_infinity_is_one(connection: Connection) -> None:
    assert connection.run("SELECT 9e999").rows == [(math.inf,)]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (2**63, dbapi.DataError),
        (-(2**63) - 1, dbapi.DataError),
        (math.nan, dbapi.DataError),
        (math.inf, dbapi.DataError),
        ("\ud800", dbapi.DataError),
        (object(), dbapi.ProgrammingError),
        ([1], dbapi.ProgrammingError),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused_before_it_is_sent(
    connection: Connection, sent: object, error: type[Exception]
) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")
    with pytest.raises(error):
        connection.run("UPDATE t SET v = ?", (sent,))
    connection.commit()
    assert value(connection) == 2


def test_parameters_go_with_question_marks(connection: Connection) -> None:
    for parameters in ({"v": 1}, "1"):
        with pytest.raises(dbapi.ProgrammingError):
            connection.run("SELECT :v", parameters)  # type: ignore[arg-type]


def test_a_big_value_is_kept_and_a_bigger_one_refused(connection: Connection) -> None:
    for big in ("x" * 4_000_000, b"\xff" * 4_000_000):
        connection.run("UPDATE t SET v = ?", (big,))
        assert value(connection) == big
    for length, code in ((5_000_000, "SQLITE_TOOBIG"), (5_100_000, "ARGS_INVALID")):
        with pytest.raises(dbapi.DataError, match="too big") as caught:
            connection.run("UPDATE t SET v = ?", ("x" * length,))
        assert caught.value.code == code


def test_an_answer_that_is_too_big_is_a_data_error(connection: Connection) -> None:
    with pytest.raises(dbapi.DataError) as caught:
        connection.batch([("SELECT zeroblob(4000000)", ())] * 4, read_only=True)
    assert caught.value.code == "RESPONSE_TOO_LARGE"
    connection.run("INSERT INTO t VALUES ('b', 0), ('c', 0), ('d', 0)")
    update = "UPDATE t SET v = v + 1 RETURNING zeroblob(4000000)"
    with pytest.raises(dbapi.DataError):
        connection.batch([(update, ())])
    connection.run("BEGIN")
    with pytest.raises(dbapi.DataError):
        connection.run(update)
    connection.rollback()
    assert value(connection) == 1
    with pytest.raises(dbapi.OutcomeUnknownError):  # it is done by the time that its answer grows too large
        connection.run(update)
    assert value(connection) == 2


# ---- errors of statements ----


@pytest.mark.parametrize(
    ("sql", "parameters", "error", "code"),
    [
        ("INSERT INTO t VALUES ('a', 2)", (), dbapi.IntegrityError, "SQLITE_CONSTRAINT"),
        ("SELEC 1", (), dbapi.ProgrammingError, "SQL_PARSE_ERROR"),
        ("ATTACH 'x' AS y", (), dbapi.ProgrammingError, "SQL_PARSE_ERROR"),
        ("SELECT 1; SELECT 2", (), dbapi.ProgrammingError, "SQL_MANY_STATEMENTS"),
        ("", (), dbapi.ProgrammingError, "SQL_NO_STATEMENT"),
        ("-- nothing", (), dbapi.ProgrammingError, "SQL_NO_STATEMENT"),
        ("SELECT absent FROM t", (), dbapi.ProgrammingError, "SQL_INPUT_ERROR"),
        ("SELECT * FROM absent", (), dbapi.ProgrammingError, "SQLITE_UNKNOWN"),
        ("INSERT INTO t (absent) VALUES (1)", (), dbapi.ProgrammingError, "SQLITE_UNKNOWN"),
        ("INSERT INTO t VALUES (1)", (), dbapi.ProgrammingError, "SQLITE_UNKNOWN"),
        ("SELECT ?", (1, 2), dbapi.ProgrammingError, "ARGS_INVALID"),
        ("SELECT ?, ?", (1,), dbapi.ProgrammingError, "ARGS_INVALID"),
        ("SELECT abs(-9223372036854775808)", (), dbapi.OperationalError, "SQLITE_UNKNOWN"),
        ("COMMIT", (), dbapi.TransactionLostError, "SQLITE_UNKNOWN"),
        ("SAVEPOINT s", (), dbapi.NotSupportedError, ""),
        ("SELECT '\ud800'", (), dbapi.DataError, ""),
    ],
)
def test_a_refused_statement_has_a_typed_error(
    connection: Connection, sql: str, parameters: tuple[object, ...], error: type[Exception], code: str
) -> None:
    with pytest.raises(dbapi.Error) as caught:
        connection.run(sql, parameters)
    assert type(caught.value) is error
    assert caught.value.code == code
    assert value(connection) == 1


# ---- transactions ----


@pytest.mark.parametrize("begin", ["BEGIN", "begin immediate", " /* why */ BEGIN EXCLUSIVE -- so"])
@pytest.mark.parametrize("commit", ["COMMIT", "end transaction", "/* done */ commit;"])
def test_a_transaction_is_seen_when_it_is_committed(
    connection: Connection, connect: Open, begin: str, commit: str
) -> None:
    connection.run(begin)
    assert connection.in_transaction
    connection.run("UPDATE t SET v = 2")
    assert (value(connection), value(connect())) == (2, 1)
    connection.run(commit)
    assert not connection.in_transaction
    assert (value(connection), value(connect())) == (2, 2)


@pytest.mark.parametrize("end", ["ROLLBACK", "rollback transaction", "method", "close"])
def test_a_transaction_that_is_rolled_back_frees_the_lock_at_once(
    connection: Connection, connect: Open, end: str
) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")
    {"method": connection.rollback, "close": connection.close}.get(end, lambda: connection.run(end))()
    begun = time.monotonic()
    other = connect()
    other.run("UPDATE t SET v = v + 10")
    assert time.monotonic() - begun < 3  # a lock that was left would be taken away after 5 s
    assert value(other) == 11


def test_savepoints_nest_in_a_transaction(connection: Connection) -> None:
    connection.run("BEGIN")
    connection.run("INSERT INTO t VALUES ('b', 2)")
    connection.run("SAVEPOINT s")
    connection.run("INSERT INTO t VALUES ('c', 3)")
    connection.run("ROLLBACK TO SAVEPOINT s")
    connection.run("INSERT INTO t VALUES ('d', 4)")
    connection.run("RELEASE s")
    connection.run("COMMIT")
    assert keys(connection) == ["a", "b", "d"]


def test_begin_and_commit_cost_no_request_of_their_own(
    connection: Connection, connect: Open, private_sqld: Sqld, through_proxy
) -> None:
    url, proxy = through_proxy(private_sqld.url)
    through = connect(url)
    with proxy.counting() as count:
        through.run("BEGIN IMMEDIATE")
        through.run("COMMIT")
        through.run("BEGIN IMMEDIATE")
        through.run("ROLLBACK")
    assert count.round_trips == 0
    with proxy.counting() as count:
        through.run("BEGIN IMMEDIATE")
        through.run("SELECT v FROM t")
        through.run("UPDATE t SET v = 2")
        through.run("COMMIT")
    assert (count.round_trips, count.connections) == (3, 1)
    with proxy.counting() as count:
        through.run("UPDATE t SET v = 3")
        through.batch([("UPDATE t SET v = ?", (n,)) for n in range(5)], demands=range(5))
        through.cursor().executemany("UPDATE t SET v = ?", [(n,) for n in range(1000)])
    assert (count.round_trips, count.connections) == (3, 0)


def test_an_error_ends_the_transaction_and_its_lock(connection: Connection, connect: Open) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")
    with pytest.raises(dbapi.IntegrityError):
        connection.run("INSERT INTO t VALUES ('a', 0)")
    assert connection.in_transaction
    other = connect()
    other.run("UPDATE t SET v = v + 10")
    for use in (lambda: connection.run("UPDATE t SET v = 99"), connection.commit, lambda: connection.run("COMMIT")):
        with pytest.raises(dbapi.TransactionLostError):
            use()
    connection.run("ROLLBACK")
    assert value(connection) == 11


def test_nothing_runs_behind_a_transaction_that_the_server_has_ended(connection: Connection) -> None:
    connection.run("BEGIN IMMEDIATE")
    with pytest.raises(dbapi.IntegrityError):
        connection.cursor().executemany("INSERT OR ROLLBACK INTO t VALUES (?, 0)", [("b",), ("a",), ("c",)])
    connection.rollback()
    assert keys(connection) == ["a"]


def test_what_the_server_ended_by_itself_is_lost(connection: Connection) -> None:
    # As after a lock that was taken away: the condition of the next statement does not hold, and it does not run.
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")
    connection._send(connection._transaction, [Statement("ROLLBACK")], dbapi.TransactionLostError)
    with pytest.raises(dbapi.TransactionLostError, match="did not run"):
        connection.run("UPDATE t SET v = 3")
    connection.rollback()
    assert value(connection) == 1


def test_transactions_do_not_nest(connection: Connection) -> None:
    connection.run("BEGIN")
    with pytest.raises(dbapi.OperationalError, match="within a transaction"):
        connection.run("BEGIN")
    with pytest.raises(dbapi.ProgrammingError, match="another one is open"):
        connection.batch([("SELECT 1", ())])


def test_a_read_that_became_old_cannot_be_written_upon(connection: Connection, connect: Open) -> None:
    connection.run("BEGIN")
    value(connection)
    value(connection)
    other = connect()
    other.run("UPDATE t SET v = 5")
    with pytest.raises(dbapi.BusyError) as caught:
        connection.run("UPDATE t SET v = 2")
    assert caught.value.code == "SQLITE_BUSY"
    connection.rollback()
    assert value(connection) == 5


def test_foreign_keys_stay_off_once_they_are_turned_off(connection: Connection) -> None:
    connection.run("CREATE TABLE child (k REFERENCES t (k) ON DELETE CASCADE)")
    connection.run("INSERT INTO child VALUES ('a')")
    assert connection.run("PRAGMA foreign_keys").rows == [(1,)]
    connection.run("PRAGMA foreign_keys = OFF")
    assert connection.run("PRAGMA foreign_keys").rows == [(0,)]
    connection.run("BEGIN IMMEDIATE")
    connection.run("DELETE FROM t")
    connection.run("COMMIT")
    assert connection.batch([("SELECT count(*) FROM child", ())])[0].rows == [(1,)]
    connection.run("PRAGMA foreign_keys = ON")
    with pytest.raises(dbapi.IntegrityError, match="FOREIGN KEY"):
        connection.batch([("INSERT INTO child VALUES ('nobody')", ())])


def test_a_deferred_constraint_fails_the_commit(connection: Connection) -> None:
    connection.run("CREATE TABLE child (k REFERENCES t (k) DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(dbapi.IntegrityError) as caught:
        connection.batch([("INSERT INTO child VALUES ('nobody')", ())])
    assert caught.value.step is None
    connection.run("BEGIN")
    connection.run("INSERT INTO child VALUES ('nobody')")
    with pytest.raises(dbapi.IntegrityError):
        connection.commit()
    connection.rollback()
    assert connection.run("SELECT * FROM child").rows == []


# ---- batches ----


def test_a_batch_gives_the_result_of_each_statement(connection: Connection) -> None:
    results = connection.batch(
        [
            ("INSERT INTO t VALUES (?, ?)", ("b", 2)),
            ("SELECT k, v FROM t ORDER BY k", ()),
            ("UPDATE t SET v = v + 1 WHERE k = ? RETURNING v", ("b",)),
            ("UPDATE t SET v = 0 WHERE k = 'x'", ()),
        ]
    )
    assert [result.rows for result in results] == [[], [("a", 1), ("b", 2)], [(3,)], []]
    assert [result.rowcount for result in results] == [1, 2, 1, 0]
    assert results[0].lastrowid == 2
    assert results[1].columns == ("k", "v")
    assert connection.batch([]) == []


def test_a_batch_is_one_transaction_and_names_the_statement_that_failed(connection: Connection) -> None:
    insert = "INSERT INTO t VALUES (?, 0)"
    with pytest.raises(dbapi.IntegrityError, match="UNIQUE") as caught:
        connection.batch([(insert, ("b",)), (insert, ("c",)), (insert, ("a",)), (insert, ("d",))], demands=[0, 1])
    assert (caught.value.step, caught.value.code) == (2, "SQLITE_CONSTRAINT")
    assert keys(connection) == ["a"]


DEMANDED = [
    ("UPDATE t SET v = 7 WHERE k = ?", "a", "x"),
    ("UPDATE t SET v = 7 WHERE k = ? RETURNING v", "a", "x"),
    ("WITH c AS (SELECT ? AS k) UPDATE t SET v = 7 WHERE k IN (SELECT k FROM c)", "a", "x"),
    ("DELETE FROM t WHERE k = ?", "a", "x"),
    ("INSERT OR IGNORE INTO t VALUES (?, 7)", "new", "a"),
    ("INSERT INTO t VALUES (?, 7) ON CONFLICT (k) DO UPDATE SET v = 7 WHERE v = 99", "new", "a"),
    ("SELECT v FROM t WHERE k = ?", "a", "x"),
    ("SELECT v FROM t WHERE k = ? ORDER BY v LIMIT 1; ", "a", "x"),
    ("SELECT v FROM t WHERE k = ? -- by its key", "a", "x"),
    ("WITH c(k) AS (VALUES (?)) SELECT v FROM t WHERE k IN (SELECT k FROM c)", "a", "x"),
    ("SELECT NULL FROM t WHERE k = ? UNION SELECT 1 FROM t WHERE k = 'y'", "a", "x"),
]


@pytest.mark.parametrize(("sql", "met", "unmet"), DEMANDED)
def test_a_demand_that_is_not_met_rolls_the_batch_back(connection: Connection, sql: str, met: str, unmet: str) -> None:
    def run(key: str) -> list[dbapi.Result]:
        first, last = ("INSERT INTO t VALUES ('first', 0)", ()), ("INSERT INTO t VALUES ('last', 0)", ())
        return connection.batch([first, (sql, (key,)), last], demands={1, 2})

    with pytest.raises(dbapi.UnmetDemandError) as caught:
        run(unmet)
    assert caught.value.step == 1
    assert (keys(connection), value(connection)) == (["a"], 1)
    assert run(met)[1].rowcount == 1
    assert {"first", "last"} <= set(keys(connection))


def test_an_error_of_a_demanded_statement_is_its_own(connection: Connection) -> None:
    with pytest.raises(dbapi.OperationalError, match="integer overflow") as caught:
        connection.batch([("UPDATE t SET v = abs(-9223372036854775808)", ())], demands=[0])
    assert caught.value.step == 0


def test_a_batch_that_only_reads_takes_no_lock_and_keeps_nothing(connection: Connection, connect: Open) -> None:
    holder = connect()
    holder.run("BEGIN IMMEDIATE")
    holder.run("UPDATE t SET v = 2")
    begun = time.monotonic()
    select = ("SELECT v FROM t WHERE k = ?", ("a",))
    assert [result.rows for result in connection.batch([select, select], read_only=True)] == [[(1,)], [(1,)]]
    assert connection.batch([select], demands=[0])[0].rows == [(1,)]
    with pytest.raises(dbapi.UnmetDemandError):
        connection.batch([select, ("SELECT 1 WHERE 0", ())], demands=[0, 1], read_only=True)
    assert time.monotonic() - begun < 3
    with pytest.raises(dbapi.ProgrammingError, match="would write"):
        connection.batch([select, ("DELETE FROM t", ())], read_only=True)
    holder.run("COMMIT")


# ---- what the server takes away ----


def test_a_lock_that_is_held_too_long_is_taken_away_and_nothing_strays(connection: Connection, connect: Open) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 100")
    waiter = connect()
    begun = time.monotonic()
    waiter.batch([("UPDATE t SET v = v + 1", ())], demands=[0])
    assert 3 < time.monotonic() - begun < 9  # the server's patience is 5 s
    with pytest.raises(dbapi.TransactionLostError) as caught:
        connection.run("INSERT INTO t VALUES ('stray', 0)")
    assert caught.value.code == "TRANSACTION_TIMEOUT"
    for use in (lambda: connection.run("INSERT INTO t VALUES ('stray', 0)"), connection.commit):
        with pytest.raises(dbapi.TransactionLostError):
            use()
    connection.rollback()
    assert (keys(connection), value(connection)) == (["a"], 2)


def test_an_idle_transaction_expires_and_the_connection_goes_on(connection: Connection, connect: Open) -> None:
    committing = connect()
    for each in (connection, committing):
        each.run("BEGIN")
        value(each)
    time.sleep(11.5)  # the server's patience is 10 s, in steps of 1 s
    with pytest.raises(dbapi.TransactionLostError) as caught:
        connection.run("UPDATE t SET v = 2")
    assert caught.value.code == "STREAM_EXPIRED"
    with pytest.raises(dbapi.TransactionLostError):
        committing.commit()
    for each in (connection, committing):
        each.rollback()
        assert value(each) == 1


def test_streams_do_not_pile_up_on_the_server(start_sqld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLD_MAX_CONCURRENT_CONNECTIONS", "3")
    with closing(dbapi.connect(endpoint(start_sqld().url))) as connection:
        prepare(connection)
        for _ in range(10):
            value(connection)
            connection.batch([("SELECT 1", ())], read_only=True)
            for sql in ("INSERT INTO t VALUES ('a', 0)", "SELEC"):
                with pytest.raises(dbapi.DatabaseError):
                    connection.run(sql)
                connection.run("BEGIN IMMEDIATE")
                with pytest.raises(dbapi.DatabaseError):
                    connection.run(sql)
                connection.rollback()
            connection.run("BEGIN IMMEDIATE")
            value(connection)
            connection.rollback()


def test_a_server_without_room_is_unavailable(start_sqld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLD_MAX_CONCURRENT_CONNECTIONS", "2")
    server = start_sqld()
    connections = [dbapi.connect(endpoint(server.url)) for _ in range(4)]
    with pytest.raises(dbapi.UnavailableError) as caught:
        for each in connections:
            each.run("BEGIN")
            each.run("SELECT 1")
    assert caught.value.http_status == 429
    for each in connections:
        each.close()


# ---- a server that dies ----


def test_a_transaction_does_not_survive_its_server(private_sqld: Sqld, connection: Connection) -> None:
    connection.run("UPDATE t SET v = 2")
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 3")
    private_sqld.kill()
    private_sqld.start()
    with pytest.raises(dbapi.TransactionLostError, match="baton"):
        connection.run("UPDATE t SET v = 4")
    connection.rollback()
    assert value(connection) == 2


def test_an_idle_connection_survives_its_server(private_sqld: Sqld, connection: Connection) -> None:
    connection.run("UPDATE t SET v = 2")
    private_sqld.kill()
    with pytest.raises(dbapi.UnavailableError, match="not reached"):
        connection.run("UPDATE t SET v = 3")
    private_sqld.start()
    assert value(connection) == 2


def test_a_commit_to_a_dead_server_is_not_in_doubt(private_sqld: Sqld, connection: Connection) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")
    private_sqld.kill()
    with pytest.raises(dbapi.UnavailableError):
        connection.commit()
    connection.rollback()
    private_sqld.start()
    assert value(connection) == 1


# ---- answers that are lost ----


def test_a_lost_answer_leaves_in_doubt_only_what_could_commit(connect: Open, private_sqld: Sqld, through_proxy) -> None:
    url, proxy = through_proxy(private_sqld.url)
    direct, through = connect(), connect(url)
    update = ("UPDATE t SET v = v + 1", ())

    proxy.lose_answer(b"batch")
    with pytest.raises(dbapi.OutcomeUnknownError):
        through.run(*update)
    assert value(direct) == 2

    proxy.lose_answer(b"batch", how="fin")
    with pytest.raises(dbapi.OutcomeUnknownError):
        through.batch([update], demands=[0])
    assert value(direct) == 3

    for read in (
        lambda: through.run("SELECT 1"),
        lambda: through.batch([("SELECT 1", ())]),
        lambda: through.batch([("PRAGMA table_info(t)", ())], read_only=True),
    ):
        proxy.lose_answer(b"batch")
        with pytest.raises(dbapi.UnavailableError):
            read()

    through.run("BEGIN")
    proxy.lose_answer(b"SELECT")
    with pytest.raises(dbapi.TransactionLostError):
        value(through)
    through.rollback()

    through.run("BEGIN IMMEDIATE")
    through.run(*update)
    proxy.lose_answer(b"COMMIT")
    with pytest.raises(dbapi.OutcomeUnknownError):
        through.run("COMMIT")
    with pytest.raises(dbapi.TransactionLostError):
        through.run("SELECT 1")
    through.run("ROLLBACK")
    assert value(through) == 4


def test_a_silent_server_is_waited_for_only_so_long(connect: Open, private_sqld: Sqld, through_proxy) -> None:
    url, proxy = through_proxy(private_sqld.url)
    connection = connect(url, timeout_s=10)
    assert value(connection) == 1
    connection.timeout_s = 0.3
    proxy.hold()
    begun = time.monotonic()
    with pytest.raises(dbapi.OutcomeUnknownError, match="ReadTimeout"):
        connection.run("UPDATE t SET v = 2")
    with pytest.raises(dbapi.UnavailableError, match="ReadTimeout"):
        value(connection)
    assert time.monotonic() - begun < 3


def test_what_was_given_up_may_still_be_applied(connect: Open, private_sqld: Sqld) -> None:
    holder, impatient = connect(), connect(timeout_s=0.3)
    holder.run("BEGIN IMMEDIATE")
    holder.run("UPDATE t SET v = 2")
    with pytest.raises(dbapi.OutcomeUnknownError):
        impatient.batch([("INSERT INTO t VALUES ('late', 0)", ())])
    with pytest.raises(dbapi.OutcomeUnknownError):
        impatient.run("INSERT INTO t VALUES ('later', 0)")
    impatient.run("BEGIN IMMEDIATE")
    with pytest.raises(dbapi.TransactionLostError):
        impatient.run("INSERT INTO t VALUES ('never', 0)")
    impatient.rollback()
    holder.run("COMMIT")
    deadline = time.monotonic() + 10
    while keys(holder) != ["a", "late", "later"]:
        assert time.monotonic() < deadline


# ---- forks ----


@contextmanager
def in_a_child(work: Callable[[], None]) -> Iterator[None]:
    """Run ``work`` in a forked child during the block, and demand that it does not fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, whose locks are not asked for here
        child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(30)
            work()
            code = 0
        finally:
            os._exit(code)
    yield
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_parent_and_child_use_an_inherited_connection_at_once(connection: Connection) -> None:
    assert value(connection) == 1

    def work() -> None:
        for _ in range(20):
            connection.run("UPDATE t SET v = v + 1")
        connection.close()

    with in_a_child(work):
        for _ in range(20):
            connection.run("UPDATE t SET v = v + 1")
    assert value(connection) == 41


def test_a_transaction_stays_with_the_parent(connection: Connection) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")

    def work() -> None:
        with pytest.raises(dbapi.TransactionLostError):
            connection.run("UPDATE t SET v = 99")
        with pytest.raises(dbapi.TransactionLostError):
            connection.commit()
        connection.rollback()
        assert value(connection) == 1
        connection.close()

    with in_a_child(work):
        pass
    connection.run("UPDATE t SET v = v + 1")
    connection.commit()
    assert value(connection) == 3


def test_a_connection_that_a_child_opens_does_not_harm_its_parent(connection: Connection, connect: Open) -> None:
    value(connection)

    def work() -> None:
        connect().run("UPDATE t SET v = v + 1")

    for _ in range(3):
        with in_a_child(work):
            pass
    assert value(connection) == 4


# ---- threads and processes ----


def increment(url: str) -> None:
    """Read and write in interactive transactions, in batches, and by compare-and-set."""
    with closing(dbapi.connect(endpoint(url))) as connection:
        for turn in range(INCREMENTS):
            while not [one_increment_in_a_transaction, one_increment_in_a_batch, one_compare_and_set][turn % 3](
                connection
            ):
                pass


def one_increment_in_a_transaction(connection: Connection) -> bool:
    try:
        connection.run("BEGIN IMMEDIATE")
        connection.run("UPDATE t SET v = ? WHERE k = 'a'", (int(str(value(connection))) + 1,))
        connection.commit()
    except (dbapi.BusyError, dbapi.TransactionLostError):
        return False
    finally:
        connection.rollback()
    return True


def one_increment_in_a_batch(connection: Connection) -> bool:
    try:
        connection.batch([("UPDATE t SET v = v + 1 WHERE k = 'a'", ())], demands=[0])
    except dbapi.BusyError:
        return False
    return True


def one_compare_and_set(connection: Connection) -> bool:
    seen = value(connection)
    try:
        return connection.run("UPDATE t SET v = v + 1 WHERE k = 'a' AND v = ?", (seen,)).rowcount == 1
    except dbapi.BusyError:
        return False


def test_no_increment_of_eight_threads_is_lost(connection: Connection, private_sqld: Sqld) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(increment, [private_sqld.url] * WRITERS))
    assert value(connection) == 1 + WRITERS * INCREMENTS


def test_no_increment_of_eight_processes_is_lost(connection: Connection, private_sqld: Sqld) -> None:
    processes = [SPAWN.Process(target=increment, args=(private_sqld.url,)) for _ in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(50)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    assert value(connection) == 1 + WRITERS * INCREMENTS


def test_a_waiting_writer_does_not_hold_up_other_threads(connection: Connection, connect: Open) -> None:
    connection.run("BEGIN IMMEDIATE")
    connection.run("UPDATE t SET v = 2")
    waiter = threading.Thread(target=connect().run, args=("UPDATE t SET v = v + 1",))
    waiter.start()
    reader = connect()
    assert [value(reader) for _ in range(5)] == [1] * 5
    connection.commit()
    waiter.join(20)
    assert value(connection) == 3
