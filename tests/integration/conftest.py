"""A store on a server behind a proxy, and a way past it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property

import pytest
from tests.servers.proxy import Proxy
from tests.servers.stores import ServerStore

from seeknal.state.backend import StateBackend, create_state_backend

DEADLINE_S = 40
"""After so long a test fails that waits for a thread."""


class Far:
    """A store on a server: ``backend`` reaches it through ``proxy``, ``beside`` directly."""

    def __init__(self, store: ServerStore, url: str, proxy: Proxy, stack: ExitStack) -> None:
        self.store = store
        self.url = url
        self.proxy = proxy
        self.budget_ms = 30_000
        self._stack = stack
        self._threads = stack.enter_context(ThreadPoolExecutor(40))

    @property
    def kind(self) -> str:
        return self.store.kind

    def at(self, url: str, **options) -> StateBackend:
        """Return a backend that is not initialized; it is closed in the end."""
        backend = create_state_backend("database", **self.store.options_at(url), **options)
        self._stack.callback(backend.close)
        return backend

    def open(self, **options) -> StateBackend:
        """Return another instance that goes through the proxy."""
        backend = self.at(self.url, **{"busy_timeout_ms": self.budget_ms, **options})
        backend.initialize()
        return backend

    @cached_property
    def backend(self) -> StateBackend:
        self.beside.health_check()  # the store is made by the way that no fault is on
        return self.open()

    @cached_property
    def beside(self) -> StateBackend:
        backend = self.at(self.store.url)
        backend.initialize()
        return backend

    def soon(self, function, *arguments, **fields) -> Future:
        """Call something in another thread."""
        return self._threads.submit(function, *arguments, **fields)


def far_of(store: ServerStore, through_proxy) -> Iterator[Far]:
    url, proxy = through_proxy(store.url)
    with ExitStack() as stack:
        yield Far(store, url, proxy, stack)
        if store.process is not None:
            store.process.start()
        proxy.restore()


@pytest.fixture
def far(emptied_server_store: ServerStore, through_proxy) -> Iterator[Far]:
    yield from far_of(emptied_server_store, through_proxy)


@pytest.fixture
def private_far(private_store: ServerStore, through_proxy) -> Iterator[Far]:
    yield from far_of(private_store, through_proxy)


@pytest.fixture
def far_libsql(emptied_store, through_proxy) -> Iterator[Far]:
    yield from far_of(emptied_store("libsql"), through_proxy)


@pytest.fixture(params=["postgresql", "mysql"])
def far_rows(request: pytest.FixtureRequest, emptied_store, through_proxy) -> Iterator[Far]:
    """Return a store on a server whose writers lock rows."""
    yield from far_of(emptied_store(request.param), through_proxy)


@pytest.fixture(
    params=[
        "postgresql",
        pytest.param("mysql", marks=pytest.mark.nightly),
        pytest.param("libsql", marks=pytest.mark.nightly),
    ]
)
def far_somewhere(request: pytest.FixtureRequest, emptied_store, through_proxy) -> Iterator[Far]:
    """Return a store on one kind of server, and in the long form on each: for what takes long and is no dialect's."""
    yield from far_of(emptied_store(request.param), through_proxy)
