"""Where nodes are computed: in threads, in processes, or on any ``concurrent.futures.Executor``.

The runner submits `seeknal.runner.compute.compute` with a picklable task and waits for its outcome; it alone talks to
the store and puts outputs in their places. So a pool of processes, or a Dask cluster's
``distributed.Client.get_executor()``, serves as it is, as long as it sees the project's files.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, ParamSpec, Protocol, TypeVar

from seeknal.errors import NodeFailedError
from seeknal.pipeline.nodes import PYTHON
from seeknal.runner.compute import Outcome, Task, compute
from seeknal.runner.control import Control

P = ParamSpec("P")
T = TypeVar("T")


class Endable(Protocol):
    """How an attempt is ended."""

    @property
    def has_process(self) -> bool:
        """Whether it can be killed."""

    def end(self) -> None:
        """Ask it to end; again, until it has."""

    def kill(self) -> None:
        """End it without asking."""


class Workers(Protocol):
    """What computes tasks; whoever begins them decides how many run at once."""

    def begin(self, task: Task) -> tuple[Future[Outcome], Endable | None]:
        """Begin to compute a task; return its outcome to come, and what ends it, if anything does."""


class Threads(Executor):
    """A thread for each call. Whoever submits decides how many run at once.

    Unlike those of a ``ThreadPoolExecutor`` these threads do not keep the interpreter from ending: a function that
    cannot be interrupted must not keep a run that was given up alive.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin ``fn`` in a thread of its own; whatever it raises is the outcome, an interruption too."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the future carries it to whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        Thread(target=work, name="seeknal-node", daemon=True).start()
        return future


class InThreads:
    """A thread for each task; shell commands are processes, whose end the thread waits for."""

    def begin(self, task: Task) -> tuple[Future[Outcome], Endable | None]:
        """Begin a task."""
        control = Control()
        return Threads().submit(compute, task, control), control


class InProcesses:
    """A process for each task, so that it can be killed, and takes nobody with it when it crashes.

    They are forked from a server that has DuckDB loaded already, where the platform has such servers.
    """

    def __init__(self) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(["seeknal.runner.compute"])
        self._in_threads = InThreads()

    def begin(self, task: Task) -> tuple[Future[Outcome], Endable | None]:
        """Begin a task; a shell command has a process anyway."""
        if not task.node.has_output and task.node.format != PYTHON:
            return self._in_threads.begin(task)
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_compute_and_send, args=(task, sender))  # it may have children
        process.start()
        sender.close()  # so that the end of the process is the end of what is received
        return Threads().submit(_received, process, receiver), _ProcessControl(process)


class OnExecutor:
    """Any executor. What runs there cannot be ended: after its timeout it is given up."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def begin(self, task: Task) -> tuple[Future[Outcome], Endable | None]:
        """Submit a task."""
        return self._executor.submit(compute, task), None


class _ProcessControl:
    """Ends a process of `InProcesses`."""

    has_process = True

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self._is_asked = False

    def end(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _compute_and_send(task: Task, sender: Connection) -> None:
    """Compute a task in a process of its own and send ``(outcome, error)``."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the runner alone, which ends this if it has to
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sender.send((compute(task), None))
    except BaseException as error:  # noqa: BLE001 - the runner raises it again
        try:
            sender.send((None, error))
        except Exception:  # noqa: BLE001 - what cannot be pickled is told in words
            sender.send((None, NodeFailedError(f"{type(error).__name__}: {error}", hint="Run again.")))


def _received(process: BaseProcess, receiver: Connection) -> Outcome:
    with receiver:
        try:
            outcome, error = receiver.recv()
        except EOFError:
            outcome, error = None, None
    process.join()
    if error is not None:
        raise error
    if outcome is None:
        code = process.exitcode or 0
        how = f"exit code {code}"
        with suppress(ValueError):  # a number that this platform has no name for
            how = signal.Signals(-code).name if code < 0 else how
        raise NodeFailedError(f"its process ended without a result: {how}", hint="Look at its log, and at the memory.")
    found: Outcome = outcome
    return found
