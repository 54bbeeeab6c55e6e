"""Where nodes are computed: any ``concurrent.futures.Executor``.

The runner submits `seeknal.runner.compute.compute` with a picklable task and waits for its outcome; it alone
talks to the store. So a pool of processes, or a Dask cluster's ``distributed.Client.get_executor()``, serves as it
is, as long as it sees the project's files.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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
