"""A Ctrl-C in the middle of a commit or of a lease, wherever it comes, leaves nothing locked that others wait for."""

from __future__ import annotations

import dis
import sys
import threading
from itertools import count

import pytest

from seeknal.state import lease
from seeknal.state.backend import create_state_backend
from seeknal.state.file import view

SOON_S = 20
WATCHED = (threading.__file__, view.__file__, lease.__file__)
"""Where the interpreter runs Python while a commit is noted, or a lease is kept."""
LOOKS_AFTER = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
"""Instructions after which the interpreter looks for signals, as CPython's ``CHECK_EVAL_BREAKER`` stands in them."""


class Interrupt:
    """Raises `KeyboardInterrupt` where the interpreter looks for signals in the watched files, at one of its looks."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._last: dict[object, int] = {}
        self.came = False

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame, event, arg):
        if frame.f_code.co_filename not in WATCHED:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._count

    def _count(self, frame, event, arg):
        if event == "opcode" and not self.came:
            code, last, now = frame.f_code, self._last.get(frame), frame.f_lasti
            self._last[frame] = now
            if last is not None and looks_after(code, last, now):
                self._left -= 1
            if self._left < 0:
                self.came = True
                raise KeyboardInterrupt
        return self._count


def looks_after(code, last: int, now: int) -> bool:
    """Return whether signals are looked for between two instructions, so that what the second raises is the same."""
    return dis.opname[code.co_code[last]] in LOOKS_AFTER and handler(code, last) == handler(code, now)


def handler(code, offset: int) -> int | None:
    """Return where an instruction's error goes; what follows the last call in a ``with`` is past its handler."""
    covering = [entry for entry in dis.Bytecode(code).exception_entries if entry.start <= offset < entry.end]
    return covering[-1].target if covering else None


def ends(action, at: int) -> None:
    """Do something in another thread, and demand that it comes to an end."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(SOON_S)
    assert not thread.is_alive(), f"after an interrupt at look {at} others wait for ever"


def interrupted(action, at: int) -> bool:
    """Do something with an interrupt at a look; return whether there was such a look."""
    interrupt = Interrupt(at)
    try:
        with interrupt:
            action()
    except (KeyboardInterrupt, RuntimeError):  # this one of a Condition in `Thread.start`, which is interrupted badly
        assert interrupt.came
    return interrupt.came


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_store_closes_after_an_interrupt_anywhere_in_the_noting_of_a_commit(tmp_path):
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        backend.create_run("r")
    for at in count():
        backend = create_state_backend("file", base_path=tmp_path)
        backend.initialize()
        backend.set_node_state("r", "n", row_count=at)
        backend._view._allowance = -1.0  # the thread has to write it
        came = interrupted(backend._view.committed, at)
        ends(backend.close, at)
        if not came:
            break
    assert at > 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_leases_are_given_up_after_an_interrupt_anywhere_in_the_keeping_of_one():
    held = lease.Lease("r", None, "owner", 1)

    def keep():
        keeper.add(held, ttl_ms=60_000)
        assert keeper.get(held.key) == held
        assert keeper.kept() == [held]
        keeper.drop(held)

    for at in count():
        keeper = lease.LeaseKeeper(lambda *_: True)
        came = interrupted(keep, at)
        ends(keeper.drop_all, at)
        if not came:
            break
    assert at > 10
