"""What the libSQL client makes of every answer, and of none: what no real server can be brought to say."""

from __future__ import annotations

import datetime as dt
import json
import logging
import pickle
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from seeknal.state.sql.libsql import classify, dbapi
from seeknal.state.sql.libsql.classify import ServerError
from seeknal.state.sql.libsql.connection import Connection
from seeknal.state.sql.libsql.endpoint import endpoint

TOKEN = "eyJhbGciOiJFZERTQSJ9.e30.c2VjcmV0LXNpZ25hdHVyZQ"
SILENCE = None

Answer = bytes | None


class Cut(bytes):
    """An answer behind which the connection ends."""


DROP = Cut()


def http(status: int, body: object = b"", *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def ok(steps: int = 1, **envelope: object) -> bytes:
    """Return the answer to a batch whose steps all succeed."""
    step = {"cols": [], "rows": [], "affected_row_count": 0, "last_insert_rowid": None}
    batch = {"step_results": [step] * steps, "step_errors": [None] * steps}
    outcome = {"type": "ok", "response": {"type": "batch", "result": batch}}
    return http(200, {"results": [outcome], **envelope})


class Peer:
    """A server that answers each request with the next of its answers, the last of them for ever."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self._answers = list(answers)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(accepted)
            threading.Thread(target=self._talk, args=(accepted,), daemon=True).start()

    def _talk(self, side: socket.socket) -> None:
        try:
            if self._tls is not None:
                side = self._tls.wrap_socket(side, server_side=True)
                self._open.append(side)
            while request := self._read(side):
                self.requests.append(request)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                side.sendall(answer or b"")
                if isinstance(answer, Cut):
                    break
        except OSError:
            pass
        finally:
            side.close()

    def _read(self, side: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            more = side.recv(1 << 16)
            if not more:
                return b""
            data += more
            if data.startswith(b"\x16"):  # TLS, which is not spoken here
                side.sendall(http(400))
                return b""
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
        while len(body) < length:
            body += side.recv(1 << 16)
        return head + b"\r\n\r\n" + body


@pytest.fixture
def serve() -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def start(*answers: Answer, tls: ssl.SSLContext | None = None) -> Peer:
        peers.append(Peer(*answers, tls=tls))
        return peers[-1]

    yield start
    for each in peers:
        each.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    made: list[Connection] = []

    def get(url: str, token: str | None = None, timeout_s: float = 5.0) -> Connection:
        made.append(dbapi.connect(endpoint(url, token), timeout_s=timeout_s))
        return made[-1]

    yield get
    for each in made:
        each.close()


def read(connection: Connection) -> None:
    connection.run("SELECT 1")


def write(connection: Connection) -> None:
    connection.run("UPDATE t SET v = 1")


def write_batch(connection: Connection) -> None:
    connection.batch([("UPDATE t SET v = 1", ())])


def in_transaction(connection: Connection) -> None:
    connection.run("BEGIN")
    connection.run("UPDATE t SET v = 1")


LOST = {
    read: dbapi.UnavailableError,
    write: dbapi.OutcomeUnknownError,
    write_batch: dbapi.OutcomeUnknownError,
    in_transaction: dbapi.TransactionLostError,
}


@pytest.mark.parametrize("work", LOST, ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    "answer",
    [
        DROP,
        Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        Cut(b"no HTTP\r\n\r\n"),
        http(500, {"error": "Connection with primary broken"}),
        http(500, {"error": "UNIQUE constraint failed: t.k"}),
        http(502, b"<html>Bad Gateway</html>"),
        http(503, b"upstream timed out"),
        http(504),
    ],
    ids=lambda answer: repr(answer[:12] + answer[-12:]),
)
def test_a_lost_answer_means_what_the_request_could_do(serve, connect, work, answer) -> None:
    with pytest.raises(dbapi.OperationalError) as caught:
        work(connect(serve(answer).url))
    assert type(caught.value) is LOST[work]
    assert caught.value.http_status == (int(answer[9:12]) if answer[9:10] == b"5" else 0)


@pytest.mark.parametrize("work", LOST, ids=lambda work: work.__name__)
def test_silence_ends_with_the_time_limit(serve, connect, work) -> None:
    begun = time.monotonic()
    with pytest.raises(dbapi.OperationalError, match="ReadTimeout") as caught:
        work(connect(serve(SILENCE).url, timeout_s=0.2))
    assert type(caught.value) is LOST[work]
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("work", LOST, ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(429, {"error": "Timed out while opening database connection"}), dbapi.UnavailableError),
        (http(408), dbapi.UnavailableError),
        (http(401, {"error": "The JWT has expired"}), dbapi.AuthenticationError),
        (http(403, {"error": "Authorization forbidden"}), dbapi.ForbiddenError),
        (http(404), dbapi.EndpointError),
        (http(405), dbapi.EndpointError),
        (http(302, b"", "Location: http://127.0.0.1:1/"), dbapi.EndpointError),
        (http(413, b"<html>Too Large</html>"), dbapi.DataError),
        (http(400, b"Cannot deserialize client message"), dbapi.ProgrammingError),
        (http(400, {"error": "Namespace `x` doesn't exist"}), dbapi.EndpointError),
        (http(400, {"error": "Error code: 3, message: Authorization forbidden: no Write"}), dbapi.ForbiddenError),
        (http(400, b"Received an invalid baton"), dbapi.TransactionLostError),
        (http(400, b"Received a baton that has already been used"), dbapi.TransactionLostError),
        (http(400, {"message": "expired", "code": "STREAM_EXPIRED"}), dbapi.TransactionLostError),
        (http(500, {"message": "expired", "code": "STREAM_EXPIRED"}), dbapi.TransactionLostError),
    ],
    ids=lambda value: repr(value[9:12] + value[-15:]) if isinstance(value, bytes) else value.__name__,
)
def test_a_refusal_means_that_nothing_was_done(serve, connect, work, answer, error) -> None:
    with pytest.raises(dbapi.DatabaseError) as caught:
        work(connect(serve(answer).url))
    assert type(caught.value) is error
    assert caught.value.http_status == int(answer[9:12])


@pytest.mark.parametrize("work", LOST, ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    "body",
    [b"<html>Log in to the network</html>", b"\xff", {}, {"results": []}, {"results": [{"type": "ok"}]}],
    ids=repr,
)
def test_an_answer_that_is_not_of_hrana_is_not_taken_for_one(serve, connect, work, body) -> None:
    expected = {**LOST, read: dbapi.EndpointError}
    with pytest.raises(dbapi.OperationalError) as caught:
        work(connect(serve(http(200, body)).url))
    assert type(caught.value) is expected[work]


@pytest.mark.parametrize("cell", [{"type": "integer", "value": "x"}, {"type": "blob", "base64": "?"}, {"type": "new"}])
def test_a_value_that_cannot_be_read_is_not_guessed(serve, connect, cell) -> None:
    step = {"cols": [{"name": "v"}], "rows": [[cell]], "affected_row_count": 0}
    batch = {"step_results": [step], "step_errors": [None]}
    answer = http(200, {"results": [{"type": "ok", "response": {"type": "batch", "result": batch}}]})
    with pytest.raises(dbapi.EndpointError):
        connect(serve(answer).url).run("SELECT v FROM t")


def test_an_open_transaction_without_a_stream_is_lost(serve, connect) -> None:
    with pytest.raises(dbapi.TransactionLostError):
        in_transaction(connect(serve(ok(2)).url))


# ---- what a code or a text means ----


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        ("SQLITE_BUSY", "database is locked", dbapi.BusyError),
        ("SQLITE_LOCKED", "database table is locked", dbapi.BusyError),
        ("TRANSACTION_BUSY", "Server cannot handle additional transactions", dbapi.BusyError),
        ("TRANSACTION_TIMEOUT", "Transaction timed out", dbapi.TransactionLostError),
        ("STREAM_EXPIRED", "The stream has expired due to inactivity", dbapi.TransactionLostError),
        ("SQLITE_UNKNOWN", "cannot commit - no transaction is active", dbapi.TransactionLostError),
        ("SQLITE_CONSTRAINT", "CHECK constraint failed: too big", dbapi.IntegrityError),
        ("PROXY_ERROR", "on the primary: UNIQUE constraint failed: t.k", dbapi.IntegrityError),
        ("PROXY_ERROR", "on the primary: NOT NULL constraint failed: t.k", dbapi.IntegrityError),
        ("PROXY_ERROR", "on the primary: no such table: t", dbapi.ProgrammingError),
        ("PROXY_ERROR", "on the primary: table t has no column named x", dbapi.ProgrammingError),
        ("PROXY_ERROR", "on the primary: database is locked", dbapi.BusyError),
        ("PROXY_ERROR", "on the primary: Transaction timed-out", dbapi.TransactionLostError),
        ("PROXY_ERROR", "on the primary: string or blob too big", dbapi.DataError),
        ("PROXY_ERROR", "on the primary: something else", dbapi.OperationalError),
        ("SQL_PARSE_ERROR", "unsupported: 'constraint failed'", dbapi.ProgrammingError),
        ("SQL_INPUT_ERROR", "no such column: x", dbapi.ProgrammingError),
        ("SQL_NO_STATEMENT", "", dbapi.ProgrammingError),
        ("SQL_MANY_STATEMENTS", "", dbapi.ProgrammingError),
        ("ARGS_INVALID", "value for parameter 2 not found", dbapi.ProgrammingError),
        ("ARGS_INVALID", "string or blob too big", dbapi.DataError),
        ("SQLITE_TOOBIG", "string or blob too big", dbapi.DataError),
        ("RESPONSE_TOO_LARGE", "Response is too large", dbapi.DataError),
        ("BLOCKED", "Operation was blocked: quota", dbapi.OperationalError),
        ("SQLITE_FULL", "database or disk is full", dbapi.OperationalError),
        ("SQLITE_CORRUPT", "database disk image is malformed", dbapi.OperationalError),
        ("SQLITE_IOERR", "disk I/O error", dbapi.OperationalError),
        ("A_NEW_ONE", "no such table", dbapi.OperationalError),
        (None, "no such table: t", dbapi.ProgrammingError),
    ],
)
def test_a_code_and_a_text_have_one_meaning(code, message, error) -> None:
    found = classify.of_server(ServerError(message, code), dbapi.UnavailableError, step=3)
    assert type(found) is error
    assert (str(found), found.code, found.step, found.http_status) == (message, code or "", 3, 0)


@pytest.mark.parametrize("code", ["SQLITE_IOERR", "PROXY_ERROR"])
def test_a_commit_whose_disk_failed_is_in_doubt(code) -> None:
    error = ServerError("disk I/O error", code)
    assert type(classify.of_server(error, dbapi.OutcomeUnknownError)) is dbapi.OutcomeUnknownError


def test_errors_survive_pickling() -> None:
    error = dbapi.ForbiddenError("read only", code="X", http_status=403, step=2)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is dbapi.ForbiddenError
    assert (str(copy), vars(copy)) == ("read only", vars(error))


# ---- the way there ----


def test_a_port_where_nothing_listens_is_unavailable(connect) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    for work in LOST:
        with pytest.raises(dbapi.UnavailableError, match="not reached"):
            work(connect(f"http://127.0.0.1:{port}"))


def test_a_name_that_nobody_has_is_unavailable(connect, without_proxies) -> None:
    with pytest.raises(dbapi.UnavailableError, match="not reached"):
        write(connect("https://nowhere.invalid", TOKEN))


def test_a_name_that_cannot_be_one_is_a_wrong_address(connect) -> None:
    with pytest.raises(dbapi.EndpointError):
        write(connect("https://xn--zz.invalid", TOKEN))


def test_a_transaction_goes_on_where_its_server_says(serve, connect) -> None:
    second = serve(ok(1, baton="b2"), ok(1))
    first = serve(ok(2, baton="b1", base_url=f"http://user@127.0.0.1:{second.port}/prefix/?q"))
    connection = connect(first.url, TOKEN)
    in_transaction(connection)
    write(connection)
    connection.commit()
    assert [request.split()[1] for request in second.requests] == [b"/prefix/v3/pipeline"] * 2
    assert [json.loads(request.partition(b"\r\n\r\n")[2])["baton"] for request in second.requests] == ["b1", "b2"]
    assert all(TOKEN.encode() in request for request in second.requests)
    assert len(first.requests) == 1


@pytest.mark.parametrize(
    "foreign", ["http://localhost:{}", "https://127.0.0.1:{}", "http://[::1", "//127.0.0.1:{}", "x"]
)
def test_the_token_goes_to_no_other_host(serve, connect, foreign) -> None:
    other = serve(ok(1))
    first = serve(ok(2, baton="b1", base_url=foreign.format(other.port)), ok(1))
    connection = connect(first.url, TOKEN)
    in_transaction(connection)
    connection.commit()
    assert len(first.requests) == 2
    assert other.requests == []


def test_a_redirect_is_not_followed(serve, connect) -> None:
    other = serve(ok(1))
    first = serve(http(307, b"", f"Location: {other.url}/v3/pipeline"))
    with pytest.raises(dbapi.EndpointError):
        read(connect(first.url, TOKEN))
    assert other.requests == []


@pytest.fixture
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_a_proxy_stands_before_other_machines_only(serve, connect, without_proxies, monkeypatch) -> None:
    proxy, here = serve(ok(1)), serve(ok(1))
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    read(connect(here.url))
    read(connect(here.url.replace("127.0.0.1", "localhost")))
    assert (len(here.requests), proxy.requests) == (2, [])
    read(connect("http://db.invalid/prefix"))
    assert proxy.requests[0].startswith(b"POST http://db.invalid/prefix/v3/pipeline ")


def test_settings_of_the_environment_that_do_not_work_are_reported(connect, without_proxies, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(dbapi.EndpointError, match="certificates of the environment"):
        read(connect("https://127.0.0.1:1"))


# ---- TLS ----


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and the certificate of a private authority for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_private_authority_is_trusted_if_the_environment_names_it(
    serve, connect, tls, certificate, monkeypatch
) -> None:
    peer = serve(ok(1), tls=tls)
    with pytest.raises(dbapi.TlsError, match="CERTIFICATE_VERIFY_FAILED"):
        write(connect(peer.url, TOKEN))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    write(connect(peer.url.replace("https", "libsql"), TOKEN))
    assert len(peer.requests) == 1


def test_tls_to_a_server_without_it_is_a_wrong_setting(serve, connect) -> None:
    peer = serve(http(400))
    with pytest.raises(dbapi.TlsError):
        write(connect(peer.url.replace("http", "libsql"), TOKEN))


# ---- secrets ----


def test_no_token_is_shown_anywhere(serve, connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = http(403, {"error": f"Bearer {TOKEN} may only read"})
    texts = []
    for answer in (ok(1), echo, http(502, f"<p>Authorization: Bearer {TOKEN}</p>".encode()), DROP, http(401)):
        connection = connect(serve(answer).url, TOKEN)
        texts += [repr(connection), repr(vars(connection)), repr(connection._client), str(vars(connection._client))]
        try:
            write(connection)
        except dbapi.Error as error:
            texts += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    with pytest.raises(dbapi.TlsError) as caught:
        write(connect(serve(DROP).url.replace("http", "https"), TOKEN))
    texts += ["".join(traceback.format_exception(caught.value)), caplog.text]
    assert caplog.records
    assert "*** may only read" in "".join(texts)
    for text in texts:
        assert TOKEN not in text
