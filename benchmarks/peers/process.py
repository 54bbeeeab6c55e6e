"""A peer as a process of its own environment, which takes turns with what it is compared with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / "build" / "peers"
"""Where `make bench-peers` installs them, each under its name."""
OURS = "ours"
"""The environment that the benchmarks themselves run in."""
WRITES_TO_DISK = "fsync,fdatasync,sync_file_range,msync"


class PeerError(Exception):
    """A peer could not be started, or ended; the message is what it wrote."""


class Peer:
    """One peer. Use it as a context: it is ended with the block.

    Args:
        name: Of its environment; `OURS` for what is measured beside the peers.
        script: Of this folder, which calls `turns.serve`.
        arguments: What the script is given.
    """

    def __init__(self, name: str, script: str, arguments: Sequence[str] = ()) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the peer
        try:
            self._process = subprocess.Popen(
                [python_of(name), HERE / script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=_environment(name),
            )
            self.about: dict[str, Any] = json.loads(self._answer())
        except BaseException:
            self._errors.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def work(self, times: int) -> float:
        """Let it do its work so many times; return the seconds by its own clock.

        Raises:
            PeerError: It ended.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            self._process.stdin.write(f"{times}\n")
            self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise PeerError(f"{self.name} ended: {self._errors.read()[-2000:].strip()}")
        return line


def python_of(name: str) -> Path:
    """Return the interpreter of a peer's environment.

    Raises:
        PeerError: It is not installed.
    """
    if name == OURS:
        return Path(sys.executable)
    found = ENVIRONMENTS / name / "bin" / "python"
    if not found.exists():
        raise PeerError(f"{name} is not installed: make bench-peers")
    return found


def _environment(name: str) -> dict[str, str]:
    """Return the variables that a peer is given: it imports nothing but what is installed for it."""
    return dict(os.environ) if name == OURS else {key: os.environ[key] for key in os.environ if key != "PYTHONPATH"}


def syncs(pid: int, work: Callable[[int], object], times: int) -> float | None:
    """Return how often a process makes the disk take what was written, for each time that it does its work.

    This is seen at the kernel's border, whatever the process says of itself. `None` where there is no strace, or it
    may not look.
    """
    if shutil.which("strace") is None:
        return None
    with tempfile.NamedTemporaryFile("r") as told:
        command = ["strace", "-f", "-qq", "-e", f"trace={WRITES_TO_DISK}", "-o", told.name, "-p", str(pid)]
        tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not _is_traced(pid, tracer):
                return None
            work(times)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)
        lines = told.read().splitlines()
    return sum("(" in line and "resumed>" not in line for line in lines) / times


def _is_traced(pid: int, tracer: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and tracer.poll() is None:
        status = Path(f"/proc/{pid}/status").read_text()
        if "TracerPid:\t0\n" not in status:
            return True
        time.sleep(0.01)
    return False
