"""The proxy does to a connection what it says, and counts what passes."""

import socket
import socketserver
import threading
import time
from contextlib import nullcontext

import pytest
from tests.servers.proxy import Proxy

TIMEOUT_S = 20


class Echo(socketserver.BaseRequestHandler):
    """Answers each line with itself, in capitals, and remembers it."""

    def handle(self):
        for line in self.request.makefile("rb"):
            self.server.heard.append(line)
            self.request.sendall(line.upper())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A connection that was reset is nothing to tell of."""


@pytest.fixture
def echo():
    with Server(("127.0.0.1", 0), Echo) as server:
        server.heard = []
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(echo):
    with Proxy(*echo.server_address) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy):
    opened = []

    def connect(timeout=TIMEOUT_S):
        opened.append(socket.create_connection(proxy.address, timeout))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def ask(client, line):
    client.sendall(line)
    answer = b""
    while not answer.endswith(b"\n"):
        part = client.recv(1 << 16)
        if not part:
            break
        answer += part
    return answer


def test_forwards_and_counts_round_trips(proxy, connect):
    first, second = connect(), connect()
    with proxy.counting() as count:
        assert ask(first, b"one\n") == b"ONE\n"
        first.sendall(b"a request in ")
        assert ask(first, b"two parts\n") == b"A REQUEST IN TWO PARTS\n"
        assert ask(second, b"three\n") == b"THREE\n"
    ask(first, b"not counted\n")
    assert (count.round_trips, count.sent_bytes, count.received_bytes) == (3, 33, 33)
    assert (proxy.round_trips, proxy.connections) == (4, 2)


def test_large_data_in_both_directions(proxy, connect):
    line = b"x" * 5_000_000 + b"\n"
    client = connect()
    sender = threading.Thread(target=client.sendall, args=(line,))
    sender.start()
    proxy.wait_until(lambda: proxy.sent_bytes == len(line))
    assert ask(client, b"") == line.upper()
    sender.join()


def test_delays_either_direction(proxy, connect):
    client = connect()
    for direction in ("to_server", "to_client"):
        proxy.delay(**{direction: 0.1})
        start = time.monotonic()
        ask(client, b"x\n")
        assert time.monotonic() - start >= 0.1
    proxy.restore()
    assert ask(client, b"y\n") == b"Y\n"


def test_cut_with_a_reset(proxy, connect):
    client = connect()
    ask(client, b"x\n")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert ask(connect(), b"y\n") == b"Y\n"
    assert proxy.open_connections == 1


def test_cut_in_an_orderly_way(proxy, connect):
    client = connect()
    ask(client, b"x\n")
    proxy.cut("fin")
    assert client.recv(1) == b""


@pytest.mark.parametrize("how", ["rst", "fin", "silence"])
def test_an_answer_is_lost_after_the_server_has_done_what_was_asked(proxy, echo, connect, how):
    client, idle = connect(), connect()
    ask(idle, b"idle\n")
    fault = proxy.lose_answer(b"COMMIT", how=how)
    assert ask(client, b"BEGIN\n") == b"BEGIN\n"
    client.sendall(b"COM")
    client.sendall(b"MIT\n")
    fault.wait()
    client.settimeout(0.1)
    raised = {"rst": ConnectionResetError, "silence": TimeoutError}
    with pytest.raises(raised[how]) if how in raised else nullcontext():
        assert client.recv(1) == b""
    assert echo.heard == [b"idle\n", b"BEGIN\n", b"COMMIT\n"]
    assert ask(idle, b"COMMIT\n") == b"COMMIT\n", "it happens once"
    assert fault.count == 1


@pytest.mark.parametrize("how", ["rst", "fin", "silence"])
def test_a_request_is_lost_and_the_server_never_sees_it(proxy, echo, connect, how):
    client = connect()
    fault = proxy.lose_request(b"COMMIT", how=how)
    ask(client, b"BEGIN\n")
    client.sendall(b"COMMIT\n")
    fault.wait()
    assert ask(connect(), b"last\n") == b"LAST\n"
    assert echo.heard == [b"BEGIN\n", b"last\n"]


def test_the_nth_request_is_lost(proxy, connect):
    client = connect()
    ask(client, b"before\n")
    proxy.lose_request(turn=3)
    assert ask(client, b"1\n") == b"1\n"
    assert ask(client, b"2\n") == b"2\n"
    with pytest.raises(ConnectionResetError):
        ask(client, b"3\n")
    assert ask(connect(), b"4\n") == b"4\n"


def test_several_requests_in_succession_are_lost(proxy, connect):
    fault = proxy.lose_answer(b"x", turn=2, times=2)
    assert ask(connect(), b"x1\n") == b"X1\n"
    for line in (b"x2\n", b"x3\n"):
        with pytest.raises(ConnectionResetError):
            ask(connect(), line)
    assert ask(connect(), b"x4\n") == b"X4\n"
    assert fault.count == 2


def test_half_close(proxy, echo, connect):
    client = connect()
    ask(client, b"x\n")
    proxy.half_close("to_client")
    assert client.recv(1) == b""
    client.sendall(b"still heard\n")
    proxy.wait_until(lambda: proxy.round_trips == 2)
    assert echo.heard == [b"x\n", b"still heard\n"]


def test_what_is_held_arrives_later(proxy, connect):
    client = connect()
    proxy.hold("to_client")
    client.sendall(b"x\n")
    proxy.wait_until(lambda: proxy.round_trips == 1)
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.restore()
    client.settimeout(TIMEOUT_S)
    assert client.recv(2) == b"X\n"


def test_refuses_and_listens_again_on_the_same_port(proxy, connect):
    client = connect()
    ask(client, b"x\n")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert ask(client, b"y\n") == b"Y\n"
    proxy.restore()
    assert ask(connect(), b"z\n") == b"Z\n"


def test_accepts_and_never_answers(proxy, echo, connect):
    proxy.ignore()
    client = connect(timeout=0.1)
    with pytest.raises(TimeoutError):
        ask(client, b"x\n")
    proxy.restore()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.heard == []


def test_another_upstream(proxy, connect):
    with Server(("127.0.0.1", 0), Echo) as other:
        proxy.upstream = other.server_address
        client = connect()
    with pytest.raises(ConnectionResetError):
        ask(client, b"nobody is there any more\n")


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("postgresql://u:p%40@db.example:5432/test?sslmode=disable", "postgresql://u:p%40@{}/test?sslmode=disable"),
        ("mysql://root@127.0.0.1:3306/test", "mysql://root@{}/test"),
        ("http://127.0.0.1:8080", "http://{}"),
    ],
)
def test_urls(proxy, url, proxied):
    assert proxy.url_for(url) == proxied.format("{}:{}".format(*proxy.address))
