"""One connection through the proxy: what arrives, when it goes on, and what becomes of it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from typing import Literal

Direction = Literal["to_server", "to_client"]
How = Literal["rst", "fin", "silence"]

TO_SERVER: Direction = "to_server"
TO_CLIENT: Direction = "to_client"
BOTH: tuple[Direction, Direction] = (TO_SERVER, TO_CLIENT)
SETTLED_S = 0.03
"""An answer is taken to be complete, and what it answers to be done, when nothing more came for so long."""


class Fault:
    """Something that will happen to certain requests, or to their answers. `Proxy` makes and explains them."""

    def __init__(self, containing: bytes, turn: int, how: How, times: int, *, is_forwarded: bool) -> None:
        self.containing = containing
        self.how = how
        self.is_forwarded = is_forwarded
        self.count = 0
        """How often it has happened."""
        self._turns = range(turn, turn + times)
        self._requests = 0
        self._happened = threading.Event()

    def wait(self, timeout_s: float = 20) -> None:
        """Return when it has happened; an `AssertionError` after the deadline."""
        assert self._happened.wait(timeout_s), "no request was the one to lose"

    def is_due(self) -> bool:
        """Take note of a request that is meant; return whether it is this one's turn."""
        self._requests += 1
        return self._requests in self._turns

    @property
    def is_over(self) -> bool:
        return self._requests + 1 >= self._turns.stop

    def note(self) -> None:
        self.count += 1
        self._happened.set()


class Traffic:
    """What all connections of a proxy share: the counts, and what is to be done to them."""

    def __init__(self) -> None:
        self.round_trips = self.connections = self.sent_bytes = self.received_bytes = 0
        self.recorded: bytearray | None = None
        self.delays: dict[Direction, float] = {TO_SERVER: 0.0, TO_CLIENT: 0.0}
        self.held: set[Direction] = set()
        self.faults: list[Fault] = []


class Pipe:
    """One direction: from a source to a target, with what is on its way."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.on_its_way: deque[tuple[float, bytes]] = deque()  # empty bytes are the end
        self.has_ended = False
        self.is_blocked = False
        self.is_finished = False

    def put(self, data: bytes, delay_s: float) -> None:
        due = time.monotonic() + delay_s
        if self.on_its_way:
            due = max(due, self.on_its_way[-1][0])
        self.on_its_way.append((due, data))

    def send(self, now: float) -> None:
        """Send what is due, as far as the target takes it."""
        while self.on_its_way and not self.is_blocked and not self.is_finished:
            due, data = self.on_its_way[0]
            if due > now:
                return
            if not data:
                self.finish()
                return
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                self.is_blocked = True
                return
            self.on_its_way.popleft()
            if sent < len(data):
                self.on_its_way.appendleft((due, data[sent:]))

    def finish(self) -> None:
        """Send an end; whatever comes after it is dropped."""
        self.is_finished = True
        with contextlib.suppress(OSError):  # the other side may be gone
            self.target.shutdown(socket.SHUT_WR)


class Link:
    """A connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self, client: socket.socket, server: socket.socket, traffic: Traffic, selector: selectors.BaseSelector
    ) -> None:
        self.is_open = True
        self.pipes: dict[Direction, Pipe] = {TO_SERVER: Pipe(client, server), TO_CLIENT: Pipe(server, client)}
        self._client = client
        self._server = server
        self._traffic = traffic
        self._selector = selector
        self._is_silent = False
        self._is_clients_turn = False
        self._request = b""
        self._met: set[Fault] = set()
        self._doom: Fault | None = None
        self._doomed_at: float | None = None
        for each in (client, server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(each, selectors.EVENT_READ, self)

    # ---- what arrives ----

    def on_event(self, ready: socket.socket, events: int) -> None:
        direction = TO_SERVER if ready is self._client else TO_CLIENT
        if events & selectors.EVENT_WRITE:
            self.pipes[TO_CLIENT if ready is self._client else TO_SERVER].is_blocked = False
        if not events & selectors.EVENT_READ:
            return
        try:
            data = ready.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.end("rst")
            return
        if not data:
            self._on_end(direction)
        elif not self._is_silent and direction == TO_SERVER:
            self._on_request(data)
        elif not self._is_silent:
            self._on_answer(data)

    def _on_end(self, direction: Direction) -> None:
        self.pipes[direction].has_ended = True
        if self._is_silent:  # neither side hears that the other one has gone
            if all(pipe.has_ended for pipe in self.pipes.values()):
                self.end("fin")
        elif self._doom is not None:
            self._fall(self._doom)
        else:
            self.pipes[direction].put(b"", self._traffic.delays[direction])

    def _on_request(self, data: bytes) -> None:
        if not self._is_clients_turn:
            self._is_clients_turn = True
            self._request = b""
            self._met.clear()
        fault = self._fault_for(data)
        if fault is not None and not fault.is_forwarded:
            self._fall(fault)
            return
        self._doom = self._doom or fault
        self._traffic.sent_bytes += len(data)
        if self._traffic.recorded is not None:
            self._traffic.recorded += data
        self.pipes[TO_SERVER].put(data, self._traffic.delays[TO_SERVER])

    def _on_answer(self, data: bytes) -> None:
        if self._is_clients_turn:
            self._is_clients_turn = False
            self._traffic.round_trips += 1
        if self._doom is not None:
            self._doomed_at = time.monotonic() + SETTLED_S
            return
        self._traffic.received_bytes += len(data)
        self.pipes[TO_CLIENT].put(data, self._traffic.delays[TO_CLIENT])

    def _fault_for(self, data: bytes) -> Fault | None:
        """Return the fault whose turn it is with this part of a request, which may come in several."""
        text = self._request + data
        found = None
        for fault in list(self._traffic.faults):
            if fault not in self._met and fault.containing in text:
                self._met.add(fault)
                found = fault if fault.is_due() and found is None else found
                if fault.is_over:
                    self._traffic.faults.remove(fault)
        longest = max((len(fault.containing) for fault in self._traffic.faults), default=0)
        self._request = text[-longest:] if longest else b""
        return found

    # ---- what goes on ----

    def pump(self, now: float) -> None:
        """Do what is due."""
        if self._doom is not None and self._doomed_at is not None and now >= self._doomed_at:
            self._fall(self._doom)
        for direction, pipe in self.pipes.items():
            if self.is_open and direction not in self._traffic.held:
                try:
                    pipe.send(now)
                except OSError:
                    self.end("rst")
        if self.is_open and all(pipe.is_finished for pipe in self.pipes.values()):
            self.end("fin")
        if self.is_open:
            self._watch(self._client, self.pipes[TO_SERVER], self.pipes[TO_CLIENT])
            self._watch(self._server, self.pipes[TO_CLIENT], self.pipes[TO_SERVER])

    def next_due(self) -> float | None:
        """Return when there is something to do, if nothing arrives."""
        dues = [] if self._doomed_at is None else [self._doomed_at]
        for direction, pipe in self.pipes.items():
            is_moving = not (pipe.is_blocked or pipe.is_finished or direction in self._traffic.held)
            if is_moving and pipe.on_its_way:
                dues.append(pipe.on_its_way[0][0])
        return min(dues, default=None)

    def _watch(self, side: socket.socket, outward: Pipe, inward: Pipe) -> None:
        wanted = 0 if outward.has_ended else selectors.EVENT_READ
        wanted |= selectors.EVENT_WRITE if inward.is_blocked else 0
        watched = self._selector.get_map().get(side)
        if watched is None and wanted:
            self._selector.register(side, wanted, self)
        elif watched is not None and not wanted:
            self._selector.unregister(side)
        elif watched is not None and watched.events != wanted:
            self._selector.modify(side, wanted, self)

    # ---- its end ----

    def _fall(self, fault: Fault) -> None:
        self._doom = self._doomed_at = None
        self.end(fault.how)
        fault.note()

    def end(self, how: How) -> None:
        """End both sides in a way; ``silence`` is an end that nobody is told of."""
        if how == "silence":
            self._is_silent = True
            for pipe in self.pipes.values():
                pipe.on_its_way.clear()
        elif self.is_open:
            self.is_open = False
            for side in (self._client, self._server):
                if side in self._selector.get_map():
                    self._selector.unregister(side)
                reset(side) if how == "rst" else _finish(side)


def reset(side: socket.socket) -> None:
    """Close a socket so that its peer gets a reset."""
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def _finish(side: socket.socket) -> None:
    """Close a socket so that its peer gets an end: what has arrived is read, or the kernel would send a reset."""
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while side.recv(1 << 16):
            pass
    side.close()
