"""The recorder of one run."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast
from uuid import uuid4

from seeknal.clock import Clock
from seeknal.errors import CapabilityError, SeeknalError
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease, lost, this_host
from seeknal.tracking.node import NodeRecorder, current_state, describe
from seeknal.tracking.recovery import RECORDED_BY

P = ParamSpec("P")
T = TypeVar("T")


class RunRecorder:
    """A run that is being recorded; made by `track_run`. Safe from threads.

    Every write commits only while ``lease`` is held: a process that slept through its expiry gets
    `LeaseLostError` and changes nothing.
    """

    def __init__(self, backend: StateBackend, run_id: str, lease: Lease) -> None:
        self.backend = backend
        self.run_id = run_id
        self.lease = lease
        self._failure: str | None = None

    def end(self) -> None:
        """Record the end of a block that raised nothing; called by `track_run`."""
        if self._failure is None:
            self.write(lambda: self.backend.update_run(self.run_id, status="success"))
        else:
            message = {"error_message": self._failure}
            self.write(lambda: self.backend.update_run(self.run_id, status="failed", metadata=message))

    def write(self, change: Callable[[], T]) -> T:
        """Run ``change`` in a transaction under the lease of this run; conflicts repeat it.

        Raises:
            LeaseLostError: The lock of the run is no longer held; nothing was written.
        """
        return self.backend.run_transaction(change, lease=self.lease)

    def check_lease(self) -> None:
        """Look whether the lease of this run is still held, before something that no transaction can take back.

        It may be lost right after; so what can be written to the store belongs into `write`.

        Raises:
            LeaseLostError: It is not.
        """
        mine = (*self.lease.key, self.lease.token)
        if all((lock.run_id, lock.node_id, lock.token) != mine for lock in self.backend.list_locks()):
            raise lost(self.lease)

    def node(self, node_id: str, fingerprint: str | None = None) -> NodeRecorder:
        """Return a block that records one execution of a node."""
        return NodeRecorder(self, node_id, fingerprint)

    def task(self, node_id: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorate a function: each call records one execution of the node. A coroutine function is awaited inside.

        Raises:
            CapabilityError: The function is a generator, whose work is done only after the call.
        """

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise CapabilityError(
                    f"{function.__name__} is a generator and cannot be a task",
                    hint="Use `with run.node(...)` where it is consumed.",
                )
            if inspect.iscoroutinefunction(function):
                return cast("Callable[P, T]", self._async_task(node_id, function))

            @functools.wraps(function)
            def recorded(*args: P.args, **kwargs: P.kwargs) -> T:
                with self.node(node_id):
                    return function(*args, **kwargs)

            return recorded

        return decorate

    def _async_task(self, node_id: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def recorded(*args: Any, **kwargs: Any) -> Any:
            with self.node(node_id):
                return await function(*args, **kwargs)

        return recorded

    def is_current(self, node_id: str, fingerprint: str) -> bool:
        """Return whether the newest success of the node has this fingerprint."""
        return current_state(self.backend, node_id, fingerprint) is not None

    def skip_if_current(self, node_id: str, fingerprint: str) -> bool:
        """Record the node as ``cached`` if its newest success has this fingerprint; return whether it has."""

        def skip() -> bool:
            state = current_state(self.backend, node_id, fingerprint)
            if state is not None:
                self.backend.set_node_state(
                    self.run_id, node_id, status="cached", row_count=state.row_count, fingerprint=fingerprint
                )
            return state is not None

        return self.write(skip)

    def fail_node(self, node_id: str, message: str) -> None:
        """Record that a node failed before it could begin."""
        self.write(lambda: self.backend.set_node_state(self.run_id, node_id, status="failed", error_message=message))

    def fail(self, message: str) -> None:
        """Let the run end as ``failed`` without an exception, as when some of its nodes failed."""
        self._failure = message

    def skip(self, node_id: str, reason: str) -> None:
        """Record that the node did not run, and why (metadata key ``reason``)."""
        self.write(
            lambda: self.backend.set_node_state(self.run_id, node_id, status="skipped", metadata={"reason": reason})
        )


@contextmanager
def track_run(
    backend: StateBackend,
    run_id: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    timeout_ms: int = 0,
) -> Iterator[RunRecorder]:
    """Record the block as a run, under the lock of the run.

    It ends as ``success``; as ``failed`` when the block raises, with the message under the metadata key
    ``error_message``; as ``cancelled`` on ``KeyboardInterrupt`` and ``SystemExit``. The exception is raised again.

    Args:
        backend: An initialized store.
        run_id: A new id, like ``run_20240110_120000_ab12cd34``, when ``None``.
        config: What the run was started with.
        metadata: Anything else.
        timeout_ms: How long to wait for the lock.

    Raises:
        LockHeldError: Somebody else holds the lock of this run.
        ConcurrencyError: The run exists already.
    """
    chosen = new_run_id(backend.clock) if run_id is None else run_id
    with backend.lock(chosen, timeout_ms=timeout_ms) as lease:
        run = RunRecorder(backend, chosen, lease)
        mark = {RECORDED_BY: {"host": this_host(), "pid": os.getpid()}}
        run.write(lambda: backend.create_run(chosen, config=config, metadata={**(metadata or {}), **mark}))
        try:
            yield run
        except BaseException as error:
            status = "cancelled" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            message = {"error_message": describe(error)}
            try:
                run.write(lambda: backend.update_run(chosen, status=status, metadata=message))
            except SeeknalError as refused:
                error.add_note(f"The end of run {chosen} could not be recorded: {refused}")
            raise
        run.end()


def new_run_id(clock: Clock) -> str:
    """Return an id that sorts by time and is not used twice, like ``run_20240110_120000_ab12cd34``."""
    return f"run_{clock.now():%Y%m%d_%H%M%S}_{uuid4().hex[:8]}"
