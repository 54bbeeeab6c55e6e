"""What keeps a fork and the use of a store apart."""

from __future__ import annotations

import threading

from seeknal.clock import SystemClock

_real = SystemClock()


class Gate:
    """Threads go in and out of it; shut, it holds back those who come, and waits for those inside.

    On the path of every call: an append and a removal, each of which is atomic, and no lock.
    """

    def __init__(self) -> None:
        self._inside: list[int] = []
        self._opened = threading.Event()
        self._opened.set()

    def enter(self) -> None:
        """Go in, as soon as it is open; who is inside already goes further in."""
        me = threading.get_ident()
        self._inside.append(me)
        while not self._opened.is_set() and self._inside.count(me) == 1:
            self._inside.remove(me)
            self._opened.wait()
            self._inside.append(me)

    def leave(self) -> None:
        """Go out."""
        self._inside.remove(threading.get_ident())

    def shut(self) -> None:
        """Let nobody in, and return when no other thread is inside."""
        self._opened.clear()
        me = threading.get_ident()
        while any(each != me for each in tuple(self._inside)):
            _real.sleep(0.0005)

    def open(self) -> None:
        """Let everybody in."""
        self._opened.set()
