"""A Ctrl-C in the middle of a commit of a file store, wherever it comes, leaves nothing locked that others wait for."""

from __future__ import annotations

import dis
import sys
import threading
from itertools import count

import pytest

from seeknal.state.backend import create_state_backend
from seeknal.state.file import view

SOON_S = 20
WATCHED = (threading.__file__, view.__file__)
"""Where the interpreter runs Python while a commit is noted."""
LOOKS_AFTER = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
"""Instructions after which the interpreter looks for signals, as CPython's ``CHECK_EVAL_BREAKER`` stands in them."""


class Interrupt:
    """Raises `KeyboardInterrupt` where the interpreter looks for signals in the watched files, at one of its looks."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._last: dict[object, str] = {}
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
            last, self._last[frame] = self._last.get(frame), dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if last in LOOKS_AFTER:
                self._left -= 1
            if self._left < 0:
                self.came = True
                raise KeyboardInterrupt
        return self._count


def interrupted(files, at: int) -> bool:
    """Interrupt the noting of a commit and close the store; return whether there was such a look."""
    backend = create_state_backend("file", base_path=files)
    backend.initialize()
    backend.set_node_state("r", "n", row_count=at)
    backend._view._allowance = -1.0  # the thread has to write it
    interrupt = Interrupt(at)
    try:
        with interrupt:
            backend._view.committed()
    except (KeyboardInterrupt, RuntimeError):  # this one of a Condition in `Thread.start`, which is interrupted badly
        assert interrupt.came
    closing = threading.Thread(target=backend.close, daemon=True)
    closing.start()
    closing.join(SOON_S)
    assert not closing.is_alive(), f"interrupted at look {at}, the store does not close"
    return interrupt.came


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_store_closes_after_an_interrupt_anywhere_in_the_noting_of_a_commit(tmp_path):
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
        backend.create_run("r")
    assert next(at for at in count() if not interrupted(tmp_path, at)) > 10
