"""Another process that uses the same store and does what it is told."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from seeknal.state.contract import StateBackend
from seeknal.state.transaction import Transaction

OpenInProcess = Callable[[], StateBackend]
"""Opens an instance in another process: picklable, such as a ``functools.partial`` of a module's function."""

ANSWER_S = 30


class Peer(AbstractContextManager["Peer"]):
    """A child process with one instance. It ends when the block ends, without closing its instance."""

    def __init__(self, open_in_process: OpenInProcess) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, open_in_process), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_alive():
            self.end()
        self._connection.close()
        self._process.close()

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return self._process.pid

    def call(self, verb: str, *args: Any, **options: Any) -> Any:
        """Call a method of its instance, or one of ``begin``, ``commit`` and ``count``; return or raise its outcome."""
        self.send(verb, *args, **options)
        return self.answer()

    def send(self, verb: str, *args: Any, **options: Any) -> None:
        """Call without waiting for the answer."""
        self._connection.send((verb, args, options))

    def answer(self) -> Any:
        """Return or raise the outcome of the last call."""
        if not self._connection.poll(ANSWER_S):
            raise TimeoutError(f"process {self.pid} gives no answer")
        outcome, is_error = self._connection.recv()
        if is_error:
            raise outcome
        return outcome

    def end(self) -> None:
        """Let it come to its end, as a program does that forgets to close its backend."""
        self._connection.send(None)
        self._process.join(ANSWER_S)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self._process.kill()
        self._process.join(ANSWER_S)


def _serve(connection: Connection, open_in_process: OpenInProcess) -> None:
    backend = open_in_process()
    backend.initialize()
    begun: list[Transaction] = []
    while (order := connection.recv()) is not None:
        verb, args, options = order
        try:
            connection.send((_obey(backend, begun, verb, args, options), False))
        except Exception as error:  # noqa: BLE001 - the other side raises it
            connection.send((error, True))


def _obey(backend: StateBackend, begun: list[Transaction], verb: str, args: Any, options: Any) -> Any:
    if verb == "begin":
        begun.append(backend.begin_transaction())
    elif verb == "commit":
        backend.commit_transaction(begun.pop())
    elif verb == "count":
        _count(backend, *args)
    else:
        return getattr(backend, verb)(*args, **options)
    return None


def _count(backend: StateBackend, run_id: str, node_id: str, name: str, times: int) -> None:
    """Raise the node's row count by one so many times, and note each under a key of its own."""

    def once(key: str) -> None:
        state = backend.get_node_state(run_id, node_id)
        assert state is not None
        backend.set_node_state(run_id, node_id, row_count=(state.row_count or 0) + 1, metadata={key: True})

    for number in range(times):
        backend.run_transaction(lambda key=f"{name}{number}": once(key), timeout_ms=30_000)  # type: ignore[misc]
        backend.set_node_state(run_id, node_id, metadata={f"patch {name}{number}": True})
