"""A terminal for a command: a real pseudo-terminal, and the screen that its user would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]

_SIGN = re.compile(r"\x1b\[(?P<numbers>[\d;?]*)(?P<letter>[A-Za-z])|(?P<char>.)", re.S)


class Screen:
    """What a terminal shows, with all that has left it at its top; it knows no more than what is written to it here.

    Attributes:
        lines: Every line, from the first one that was ever written.
        wrapped: The lines that went on in the next one, since they were wider than the terminal.
        lost: How often the cursor was to go above the top of the screen, where nothing can be drawn again.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.wrapped: list[str] = []
        self.lost = 0
        self.is_cursor_hidden = False
        self._row = self._column = 0

    def write(self, text: str) -> None:
        for found in _SIGN.finditer(text):
            if found["letter"]:
                self._obey(found["letter"], found["numbers"])
            else:
                self._put(found["char"])

    def _obey(self, letter: str, numbers: str) -> None:
        if letter == "A":
            top = max(0, len(self.lines) - self.rows)
            up = int(numbers or 1)
            self.lost += max(0, top - (self._row - up))
            self._row = max(top, self._row - up)
        elif letter == "K":
            assert numbers == "2"
            self.lines[self._row] = ""
        elif letter in "lh" and numbers == "?25":
            self.is_cursor_hidden = letter == "l"
        else:
            assert letter == "m", f"ESC[{numbers}{letter} is not known here"

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._row += 1
            if self._row == len(self.lines):
                self.lines.append("")
        else:
            assert char.isprintable(), f"{char!a} is not known here"
            if self._column == self.columns:
                self.wrapped.append(self.lines[self._row])
                self._put("\n")
                self._column = 0
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1


class OnTerminal:
    """A command with its standard error on a terminal, and its output on another file."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        ignored: Sequence[signal.Signals] = (),
        **environment: str,
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*SEEKNAL, *arguments],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=kept | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
            preexec_fn=lambda: _own_terminal(ignored),
        )
        os.close(theirs)
        self.screen = Screen(columns, rows)
        self.raw = b""
        self._kept = b""

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read_until(self, is_there: Callable[[Screen], bool]) -> bool:
        """Read until something is on the screen; return whether it was before the command ended."""
        while not is_there(self.screen):
            if not self._read():
                return False
        return True

    def finish(self) -> tuple[int, str]:
        """Read to the end; return the exit code and what was written to standard output."""
        while self._read():
            pass
        os.close(self._ours)
        out, _ = self.process.communicate(timeout=50)
        return self.process.returncode, out.decode()

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._ours)

    def end(self) -> None:
        """Kill the command if it still runs, as after a test that failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def _read(self) -> bool:
        try:
            chunk = os.read(self._ours, 4096)
        except OSError:  # Linux tells the end of a terminal so
            return False
        self.raw += chunk
        self._kept += chunk
        # What is cut in the middle of a character or of an order to the terminal waits for the rest.
        whole = re.sub(rb"(\x1b(\[[\d;?]*)?|[\xc0-\xff][\x80-\xbf]{0,2})$", b"", self._kept)
        self.screen.write(whole.decode(errors="replace"))
        self._kept = self._kept[len(whole) :]
        return bool(chunk)


def _own_terminal(ignored: Sequence[signal.Signals]) -> None:
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
