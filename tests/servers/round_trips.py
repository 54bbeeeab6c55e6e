"""How often a client waits for a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

from tests.servers.proxy import Proxy

ASKING = frozenset("SHQp\0")
"""Sync, Flush, Query, passwords, and what begins a connection, which has no letter.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html."""


@contextmanager
def waits(proxy: Proxy, kind: str) -> Iterator[Callable[[], int]]:
    """Count in a block how often a client waits for answers, over one connection after the other.

    Of PostgreSQL it counts what asks for the answers to what was sent before: the server begins to answer a long
    pipeline before it was sent all of it, which a count of its answers would take for a round trip. What asks twice,
    with nothing between, waits once.
    """
    if kind != "postgresql":
        with proxy.counting() as count:
            yield lambda: count.round_trips
        return
    with proxy.recording() as sent:
        yield lambda: sum(is_asking for is_asking, _ in groupby(each in ASKING for each in _messages(sent)))


def _messages(sent: bytearray) -> Iterator[str]:
    """Yield the letters of messages, each of which is followed by a length that counts itself; or NUL for no letter."""
    at = 0
    while at < len(sent):
        yield chr(sent[at])
        at += sent[at] != 0
        at += int.from_bytes(sent[at : at + 4], "big")
    assert at == len(sent), "these are no messages of one connection"
