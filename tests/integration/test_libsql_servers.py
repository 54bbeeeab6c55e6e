"""The libSQL client before servers that ask for tokens, and before replicas."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.servers.process import ServerUnavailableError
from tests.servers.sqld import Sqld

from seeknal.state.sql.libsql import dbapi
from seeknal.state.sql.libsql.connection import Connection
from seeknal.state.sql.libsql.endpoint import endpoint

READ = ("SELECT v FROM t WHERE k = 'a'", ())
KEY = Ed25519PrivateKey.generate()


def token(key: Ed25519PrivateKey = KEY, *, lives_s: int = 3600, **claims: str) -> str:
    return jwt.encode({"exp": int(time.time()) + lives_s, **claims}, key, algorithm="EdDSA")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[Sqld, Sqld]]:
    """Return a primary and a replica that ask for tokens, with the table ``t``."""
    key_file = tmp_path_factory.mktemp("jwt") / "key.pem"
    key_file.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    try:
        primary = Sqld(jwt_key_file=key_file, is_primary=True)
    except ServerUnavailableError as error:
        if request.config.getoption("--require-backends"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with ExitStack() as stack:
        stack.callback(primary.discard)
        primary.start()
        with closing(dbapi.connect(endpoint(primary.url, token(a="rw")))) as connection:
            connection.run("CREATE TABLE t (k TEXT PRIMARY KEY, v)")
        replica = Sqld(jwt_key_file=key_file, replica_of=primary)
        stack.callback(replica.discard)
        replica.start()
        with closing(dbapi.connect(endpoint(replica.url, token(a="rw")))) as connection:
            connection.batch([READ], read_only=True)
        yield primary, replica


@pytest.fixture
def pair(servers: tuple[Sqld, Sqld]) -> tuple[Sqld, Sqld]:
    """Return the two with nothing in the table but the rows ``a`` and ``b``."""
    with closing(dbapi.connect(endpoint(servers[0].url, token(a="rw")))) as connection:
        connection.batch([("DELETE FROM t", ()), ("INSERT INTO t VALUES ('a', 0), ('b', 0)", ())])
    return servers


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    made: list[Connection] = []

    def get(server: Sqld, with_token: str | None = None) -> Connection:
        made.append(dbapi.connect(endpoint(server.url, token(a="rw") if with_token is None else with_token)))
        return made[-1]

    yield get
    for each in made:
        each.close()


@pytest.fixture
def primary(pair, connect) -> Connection:
    return connect(pair[0])


@pytest.fixture
def replica(pair, connect) -> Connection:
    return connect(pair[1])


# ---- tokens ----


@pytest.mark.parametrize(
    "refused",
    ["", token(lives_s=-120), token(Ed25519PrivateKey.generate()), "garbage"],
    ids=["none", "expired", "of another key", "garbage"],
)
def test_a_token_that_is_not_the_servers_is_refused(pair, connect, refused) -> None:
    for server in pair:
        connection = connect(server, refused)
        for work in (
            lambda connection=connection: connection.run("SELECT 1"),
            lambda connection=connection: connection.batch([("DELETE FROM t", ())]),
        ):
            with pytest.raises(dbapi.OperationalError) as caught:
                work()
            while isinstance(caught.value, dbapi.OutcomeUnknownError | dbapi.UnavailableError):
                # The server may hang up on whom it does not know before its answer is read.
                with pytest.raises(dbapi.OperationalError) as caught:
                    work()
            assert isinstance(caught.value, dbapi.AuthenticationError)
            assert caught.value.http_status == 401
            assert not refused or refused not in str(caught.value)


@pytest.mark.parametrize("claims", [{"a": "rw"}, {}])
def test_a_token_that_may_write_writes(pair, connect, claims) -> None:
    connection = connect(pair[0], token(**claims))
    assert connection.batch([("UPDATE t SET v = v + 1", ())], demands=[0])[0].rowcount == 2


@pytest.mark.parametrize(("where", "status"), [(0, 403), (1, 400)], ids=["primary", "replica"])
def test_a_token_that_may_only_read_reads(pair, connect, where, status) -> None:
    connection = connect(pair[where], token(a="ro"))
    assert connection.run("SELECT 1").rows == [(1,)]
    assert connection.batch([READ], demands=[0], read_only=True)[0].rowcount == 1
    for sql in ("DELETE FROM t", "CREATE TABLE u (x)", "PRAGMA user_version = 7"):
        with pytest.raises(dbapi.ForbiddenError) as caught:
            connection.run(sql)
        assert caught.value.http_status == status
    with pytest.raises(dbapi.ForbiddenError):
        connection.batch([("DELETE FROM t", ())])
    connection.run("BEGIN IMMEDIATE")
    with pytest.raises(dbapi.ForbiddenError):
        connection.run("DELETE FROM t")
    connection.rollback()


# ---- replicas ----


def test_a_batch_that_only_reads_is_never_old_on_a_replica(primary: Connection, replica: Connection) -> None:
    for _ in range(100):
        (new,) = primary.run("UPDATE t SET v = v + 1 WHERE k = 'a' RETURNING v").rows
        assert replica.batch([READ], read_only=True)[0].rows == [new]
        (new,) = primary.run("UPDATE t SET v = v + 1 WHERE k = 'a' RETURNING v").rows
        assert replica.batch([READ])[0].rows == [new]


def test_a_transaction_is_never_old_on_a_replica(primary: Connection, replica: Connection) -> None:
    for _ in range(40):
        (new,) = primary.run("UPDATE t SET v = v + 1 WHERE k = 'a' RETURNING v").rows
        replica.run("BEGIN")
        assert replica.run(*READ).rows == [new]
        replica.run("ROLLBACK")


@pytest.mark.parametrize(
    ("sql", "met", "unmet"),
    [
        ("UPDATE t SET v = v + 1 WHERE k = ?", "a", "x"),
        ("INSERT INTO t VALUES (?, 7) ON CONFLICT (k) DO NOTHING", "new", "a"),
        ("DELETE FROM t WHERE k = ? RETURNING k", "b", "x"),
        ("SELECT v FROM t WHERE k = ?", "a", "x"),
    ],
)
def test_demands_are_judged_by_the_primary(primary: Connection, replica: Connection, sql, met, unmet) -> None:
    (before,) = primary.run("SELECT v FROM t WHERE k = 'a'").rows[0]
    last = ("UPDATE t SET v = v + 1000 WHERE k = 'a' RETURNING v", ())
    with pytest.raises(dbapi.UnmetDemandError) as caught:
        replica.batch([last, (sql, (unmet,)), last], demands=[0, 1])
    assert caught.value.step == 1
    assert primary.run("SELECT v FROM t WHERE k = 'a'").rows == [(before,)]
    result = replica.batch([(sql, (met,)), last], demands=[0, 1])
    assert result[0].rowcount == 1
    assert primary.run("SELECT v FROM t WHERE k = 'a'").rows == result[1].rows


def test_errors_of_the_primary_keep_their_type_and_step(replica: Connection) -> None:
    insert = "INSERT INTO t VALUES (?, 0)"
    with pytest.raises(dbapi.IntegrityError, match="UNIQUE") as caught:
        replica.batch([("UPDATE t SET v = v", ()), (insert, ("a",))])
    assert (caught.value.code, caught.value.step) == ("PROXY_ERROR", 1)
    with pytest.raises(dbapi.ProgrammingError, match="no such table"):
        replica.run("DELETE FROM absent")
    replica.run("BEGIN IMMEDIATE")
    with pytest.raises(dbapi.IntegrityError):
        replica.run(insert, ("a",))
    replica.rollback()


def test_interactive_increments_through_a_replica_add_up(primary: Connection, replica: Connection) -> None:
    (before,) = primary.run(*READ).rows[0]
    done = 0
    while done < 20:
        try:
            replica.run("BEGIN IMMEDIATE")
            (seen,) = replica.run(*READ).rows[0]
            replica.run("UPDATE t SET v = ? WHERE k = 'a'", (seen + 1,))
            replica.run("COMMIT")
            done += 1
        except dbapi.BusyError:  # while it replicates
            replica.run("ROLLBACK")
    assert primary.run(*READ).rows == [(before + 20,)]


def test_a_prefix_that_leads_nowhere_is_a_wrong_address(pair) -> None:
    with closing(dbapi.connect(endpoint(f"{pair[0].url}/nowhere", token()))) as connection:
        with pytest.raises(dbapi.EndpointError) as caught:
            connection.run("SELECT 1")
        assert caught.value.http_status == 404
