"""A server that the tests own: a child process, started, stopped, killed and started again where it was."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

HOST = "127.0.0.1"
PORTS = range(15_000, 30_000)  # below those that systems give to outgoing connections, which could take one of ours
POLL_S = 0.02
STARTS = 10
LINES_SHOWN = 40

# The kernel ends a server with the thread that started it, so that a killed test run leaves none behind. This
# thread lives as long as the process, whichever thread of a test starts a server.
_starter = ThreadPoolExecutor(1, "servers")
_random = random.SystemRandom()  # the plain generator gives every xdist worker the same numbers


class ServerUnavailableError(Exception):
    """This machine cannot have such a server; the message says why."""


class Port:
    """A free TCP port that no other test takes until it is closed.

    The UDP port of the same number is the claim: it costs no file, and ends with the process.
    """

    def __init__(self) -> None:
        for _ in range(100):
            self.number = _random.choice(PORTS)
            self._claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self._claim.bind((HOST, self.number))
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((HOST, self.number))
            except OSError:
                self._claim.close()
            else:
                return
        raise RuntimeError("no port is free")

    def close(self) -> None:
        self._claim.close()


class ServerProcess:
    """Derive from it: `command`, `is_ready`, `url`.

    Args:
        directory: Where data and log are; a new one, removed by `discard`, if none is given.
    """

    name: ClassVar[str]
    account: ClassVar[str] = "nobody"
    """Who runs the server when the tests run as root."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    discard_signal: ClassVar[signal.Signals] = signal.SIGKILL
    deadline_s: ClassVar[float] = 40.0

    def __init__(self, directory: Path | None = None) -> None:
        self._is_own = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"seeknal-{self.name}-"))
        self.log = self.directory / "server.log"
        self.port = Port()
        self._process: subprocess.Popen[bytes] | None = None
        self._has_run = False
        if self._identity():
            shutil.chown(self.directory, self._identity()["user"], self._identity()["group"])

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self.is_running and self._process else "not running"
        return f"<{self.name} at {self.url}, {state}>"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # ---- life ----

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers. A second start takes the same port.

        A server that ends at once is started again: the first time on another port, since somebody may have
        taken this one; later on the same, since what a killed server leaves behind goes away by itself.
        """
        end = time.monotonic() + self.deadline_s
        starts = 0
        while not self.is_running:
            if starts == STARTS or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not start:\n{self.tail()}")
            if starts and not self._has_run:
                self.port.close()
                self.port = Port()
            self._launch()
            starts += 1
            while self.is_running and not self.is_ready():
                if time.monotonic() > end:
                    self.kill()
                else:
                    self._pause()
        self._has_run = True

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it and its children as a power cut does: at once, with nothing written any more."""
        if self._process is not None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            pids = children.read_text().split() if self.is_running and children.exists() else []
            self._end(signal.SIGKILL)
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def restart(self) -> None:
        """Stop it and start it on the same data and port."""
        self.stop()
        self.start()

    def discard(self) -> None:
        """End it and remove its data. It cannot be used again."""
        self._end(self.discard_signal)
        self.port.close()
        if self._is_own:
            shutil.rmtree(self.directory)

    def tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else ["no log"]
        return "\n".join(lines[-LINES_SHOWN:])

    # ---- parts ----

    def run_tool(self, command: list[str]) -> None:
        """Run a command that prepares the data, as the account that will run the server."""
        with self.log.open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, check=False,
                **self._identity(),
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{self.tail()}")

    def _launch(self) -> None:
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", self.discard_signal.name.removeprefix("SIG")] if setpriv else []
        with self.log.open("ab") as log:
            self._process = _starter.submit(
                subprocess.Popen, [*guard, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.directory, start_new_session=True, **self._identity(),
            ).result()  # fmt: skip

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(how)
        try:
            self._process.wait(self.deadline_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"{self.name} did not end within {self.deadline_s} s:\n{self.tail()}") from None
        finally:
            self._process = None

    def _pause(self) -> None:
        """Wait a moment, or until the process ends."""
        try:
            self._process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            return

    def _identity(self) -> dict[str, object]:
        """Return who runs the server: database servers refuse to be run by root."""
        if os.geteuid() != 0:
            return {}
        names = {entry.pw_name for entry in pwd.getpwall()}
        entry = pwd.getpwnam(self.account if self.account in names else "nobody")
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
