"""Signals that ask a run to stop, as values in a queue: nothing is interrupted where it happens to be."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 10.0
"""How long running nodes may go on after the first signal."""

KILL_SECONDS = 5.0
"""How long a node that was asked to end may take, before a command is killed and anything else is given up."""

GIVE_UP_SECONDS = 1.0
"""How long it may take until it is seen that a command was killed."""

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def told_of_signals(tell: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call ``tell`` for each SIGINT, SIGTERM and SIGHUP while the block runs.

    Only in the main thread, where Python takes signals; elsewhere nothing changes. A signal that is ignored, as
    SIGHUP is under ``nohup``, stays ignored.

    Args:
        tell: Is called between any two instructions of the main thread, so it must do next to nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}
    try:
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, lambda got, _: tell(signal.Signals(got)))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
