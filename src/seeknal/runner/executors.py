"""Where nodes are computed: any ``concurrent.futures.Executor``.

The runner submits `seeknal.runner.compute.compute` with a picklable task and waits for its outcome; it alone
talks to the store. So a pool of threads or processes, or a Dask cluster's
``distributed.Client.get_executor()``, serves as it is, as long as it sees the project's files.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class InlineExecutor(Executor):
    """Computes in the calling thread, at once: nothing to start, and Ctrl-C reaches the node."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn`` and return its outcome; an interruption is raised here and now."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to whoever asks for the result
            future.set_exception(error)
        return future
