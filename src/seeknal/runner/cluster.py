"""Compute nodes on a Dask cluster: one that runs, or one of processes on this machine for the time of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from seeknal.errors import BackendUnavailableError, MissingDriverError
from seeknal.runner.executors import OnExecutor

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""


@contextmanager
def dask_workers(address: str | None, parallel: int) -> Iterator[OnExecutor]:
    """Yield what computes tasks on a Dask cluster, whose workers see the project's files under the same path.

    A worker that is lost takes the attempts with it that ran there. A cluster of one's own run counts each of them, as
    an attempt that failed; another one may first begin it again by itself, as often as its setting
    ``distributed.scheduler.allowed-failures`` says. Only the runner puts outputs in their places and talks to the
    store, so an attempt that goes on somewhere although it was given up harms nobody.

    Args:
        address: Of the scheduler, like ``tcp://10.0.0.7:8786``; processes on this machine when ``None``.
        parallel: How many of these; without meaning where there is an address.

    Raises:
        MissingDriverError: Dask is not installed.
        BackendUnavailableError: The scheduler does not answer.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            f"a Dask cluster needs {error.name}, which is not installed", hint="pip install 'seeknal-state[dask]'."
        ) from error
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
            cluster = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=parallel, threads_per_worker=1, processes=True, dashboard_address=None
            )
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
            stack.enter_context(client)
        except (OSError, ValueError) as error:
            raise BackendUnavailableError(
                f"the Dask scheduler at {address} does not answer: {error}", hint="Check --dask-address, or start it."
            ) from error
        yield OnExecutor(client.get_executor(pure=False))  # type: ignore[no-untyped-call]
