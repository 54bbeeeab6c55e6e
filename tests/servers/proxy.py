"""A TCP proxy that does to a connection what networks do: delay it, cut it, lose an answer, fall silent.

One thread owns all sockets. A call from a test is carried out by that thread and returns when it is done.
"""

from __future__ import annotations

import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from tests.servers.links import BOTH, TO_CLIENT, TO_SERVER, Direction, Fault, How, Link, Traffic, reset
from tests.servers.process import HOST, Port

DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "http": 80}


class Count:
    """What has passed since it was made; after its block, what passed in it."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._before = dict(vars(traffic))
        self._after: dict[str, int] | None = None

    def finish(self) -> None:
        self._after = dict(vars(self._traffic))

    def _since(self, name: str) -> int:
        return (self._after or vars(self._traffic))[name] - self._before[name]

    @property
    def round_trips(self) -> int:
        """How often a server began to answer what a client had sent: no greeting counts, and no farewell."""
        return self._since("round_trips")

    @property
    def connections(self) -> int:
        """How often a client connected."""
        return self._since("connections")

    @property
    def sent_bytes(self) -> int:
        """What went to the server."""
        return self._since("sent_bytes")

    @property
    def received_bytes(self) -> int:
        """What went to the clients."""
        return self._since("received_bytes")


class Proxy(Count):
    """A proxy on a port of its own; what it counts, it counts from its beginning, over all connections.

    Close it, or leave its ``with`` block, to be rid of it. A process that was forked while it runs keeps its
    connections open.

    Args:
        host: The server's; set `upstream` anew to lead the connections that follow elsewhere.
        port: The server's.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(Traffic())
        self.upstream = (host, port)
        self._links: list[Link] = []
        self._ignored: list[socket.socket] = []
        self._is_ignoring = False
        self._is_closed = False
        self._port = Port()
        self._listener: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._tasks: queue.SimpleQueue[tuple[Future[None], Callable[[], object]]] = queue.SimpleQueue()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._passed = threading.Condition()
        self._listen()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._thread.start()

    @classmethod
    def before(cls, url: str) -> Proxy:
        """Return a proxy to the server of a URL."""
        parts = urlsplit(url)
        return cls(parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme])

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        return (HOST, self._port.number)

    def url_for(self, url: str) -> str:
        """Return a URL with its host and port replaced by the proxy's."""
        parts = urlsplit(url)
        userinfo, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{userinfo}{at}{HOST}:{self._port.number}"))

    # ---- watching ----

    @property
    def open_connections(self) -> int:
        return len(self._links)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count what passes in a block."""
        count = Count(self._traffic)
        try:
            yield count
        finally:
            count.finish()

    @contextmanager
    def recording(self) -> Iterator[bytearray]:
        """Keep what goes to the server in a block, over all connections."""
        self._traffic.recorded = recorded = bytearray()
        try:
            yield recorded
        finally:
            self._traffic.recorded = None

    def wait_until(self, holds: Callable[[], bool], timeout_s: float = 20) -> None:
        """Return when something holds that depends on what has passed; an `AssertionError` after the deadline."""
        with self._passed:
            assert self._passed.wait_for(holds, timeout_s), "this has not come about at the proxy"

    # ---- faults now ----

    def cut(self, how: How = "rst") -> None:
        """End all connections, both sides: with a reset, or in an orderly way (``fin``)."""
        self._do(lambda: [link.end(how) for link in list(self._links)])

    def half_close(self, direction: Direction) -> None:
        """End one direction of all connections, in an orderly way; the other direction goes on."""
        self._do(lambda: [link.pipes[direction].finish() for link in self._links])

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """Let everything that arrives from now on wait for so many seconds."""
        self._do(lambda: self._traffic.delays.update({TO_SERVER: to_server, TO_CLIENT: to_client}))

    def hold(self, *directions: Direction) -> None:
        """Let nothing through in these directions, or in both, until `restore`; connections stay open.

        What is held arrives after `restore`, also if its sender has given up: as on a network that was down.
        """
        self._do(lambda: self._traffic.held.update(directions or BOTH))

    def refuse(self) -> None:
        """Refuse new connections, as a port where nothing listens does."""
        self._do(self._stop_listening)

    def ignore(self) -> None:
        """Accept new connections, and never answer them; `restore` ends those."""
        self._do(lambda: setattr(self, "_is_ignoring", True))

    def restore(self) -> None:
        """Forward everything again, without delay, and forget the faults that have not come about."""
        self._do(self._restore)

    # ---- faults to come ----

    def lose_request(self, containing: bytes = b"", *, turn: int = 1, how: How = "rst", times: int = 1) -> Fault:
        """Cut a connection when a certain request arrives: the server never sees it.

        Args:
            containing: What the request contains.
            turn: Which of the requests from now on that contain it, over all connections.
            how: ``silence`` keeps the connection open, and lets nothing through any more.
            times: For how many of such requests in succession, each on whatever connection.
        """
        return self._expect(Fault(containing, turn, how, times, is_forwarded=False))

    def lose_answer(self, containing: bytes = b"", *, turn: int = 1, how: How = "rst", times: int = 1) -> Fault:
        """Cut a connection when the server has answered a certain request: it is done, and nobody hears of it.

        Args: as for `lose_request`.
        """
        return self._expect(Fault(containing, turn, how, times, is_forwarded=True))

    def _expect(self, fault: Fault) -> Fault:
        self._do(lambda: self._traffic.faults.append(fault))
        return fault

    # ---- the thread ----

    def close(self) -> None:
        """End all connections, and the proxy."""
        if not self._is_closed:
            self._do(self._close)
            self._thread.join()
            self._selector.close()
            self._woken.close()
            self._waker.close()
            self._port.close()

    def _do(self, task: Callable[[], object]) -> None:
        done: Future[None] = Future()
        self._tasks.put((done, task))
        self._waker.send(b".")
        done.result(20)

    def _serve(self) -> None:
        while not self._is_closed:
            for key, events in self._selector.select(self._patience()):
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data.is_open:
                    key.data.on_event(key.fileobj, events)
            while not self._tasks.empty():
                done, task = self._tasks.get()
                try:
                    task()
                    done.set_result(None)
                except Exception as error:
                    done.set_exception(error)
            for link in self._links:
                link.pump(time.monotonic())
            self._links = [link for link in self._links if link.is_open]
            with self._passed:
                self._passed.notify_all()

    def _patience(self) -> float | None:
        dues = [due for link in self._links if (due := link.next_due()) is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._traffic.connections += 1
        if self._is_ignoring:
            self._ignored.append(client)
            return
        try:
            server = socket.create_connection(self.upstream, timeout=10)
        except OSError:
            reset(client)
        else:
            self._links.append(Link(client, server, self._traffic, self._selector))

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(self.address, backlog=128)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _restore(self) -> None:
        self._traffic.delays.update({TO_SERVER: 0.0, TO_CLIENT: 0.0})
        self._traffic.held.clear()
        self._traffic.faults.clear()
        self._end_ignored()
        self._listen()

    def _end_ignored(self) -> None:
        self._is_ignoring = False
        for client in self._ignored:
            reset(client)
        self._ignored.clear()

    def _close(self) -> None:
        self._is_closed = True
        for link in self._links:
            link.end("rst")
        self._links = []
        self._end_ignored()
        self._stop_listening()
