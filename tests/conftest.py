"""What all tests share: Hypothesis profiles, real servers, and whether absent servers are failures.

A test that needs a server takes one of the fixtures below:

- ``server_store``: runs once for each kind; ``postgres_store``, ``mysql_store``, ``libsql_store``: on one kind.
  A place of the test's own on the servers that all tests share.
- ``emptied_server_store`` for each kind, ``emptied_store`` for one: the same with a store in it that stands and is
  empty; cheaper, for tests that change no table.
- ``private_store``, ``private_postgres``, ``private_mysql``, ``private_libsql``: the same on servers that the test
  may stop, kill and start again.
- ``through_proxy``: a way to any of them that can be delayed, cut and counted.
"""

import os
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("ci", max_examples=100, print_blob=True, **_common)
settings.register_profile(
    "nightly", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "2000")), print_blob=True, **_common
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

KINDS = ("postgresql", "mysql", "libsql")


def pytest_addoption(parser):
    parser.addoption(
        "--require-backends",
        action="store_true",
        help="fail, instead of skipping, where a server that a test needs is not there",
    )


# ---- servers ----


def available(request, get):
    """Return what a function gives; where this machine cannot have it, the test is skipped, or fails."""
    from tests.servers.process import ServerUnavailableError

    try:
        return get()
    except ServerUnavailableError as error:
        reason = str(error)
    if request.config.getoption("--require-backends"):
        pytest.fail(f"{reason} (--require-backends)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_server():
    """Return the shared server of a kind, on which nothing of killed test runs is left."""
    from tests.servers.stores import SERVERS

    found = {}

    def get(kind):
        if kind not in found:
            server = SERVERS[kind].from_environment()
            server.drop_stale()
            found[kind] = server
        return found[kind]

    return get


@pytest.fixture(scope="session")
def private_process():
    """Return this worker's own server of a kind, which runs: started at its first use, and again if a test ended it."""
    from tests.servers.private import PROCESSES
    from tests.servers.process import ServerUnavailableError

    made = {}

    def get(kind):
        if kind not in made:
            try:
                made[kind] = PROCESSES[kind]()
            except ServerUnavailableError as error:
                made[kind] = error
        if isinstance(made[kind], ServerUnavailableError):
            raise made[kind]
        made[kind].start()
        return made[kind]

    yield get
    for each in made.values():
        if not isinstance(each, ServerUnavailableError):
            each.discard()


@pytest.fixture
def places():
    """The stores of a test: gone in the end, when no proxy keeps anything of them open."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def shared_store(request, shared_server, places):
    """Return a new place on the shared server of a kind."""
    from tests.servers.stores import fresh_store

    return lambda kind: places.enter_context(fresh_store(available(request, lambda: shared_server(kind))))


@pytest.fixture(scope="session")
def emptied_stores(shared_server):
    """Return the stores of a kind that stand and are empty, which this worker's tests have one after another."""
    from tests.servers.stores import EmptiedStores

    found = {}

    def get(kind):
        if kind not in found:
            found[kind] = EmptiedStores(shared_server(kind))
        return found[kind]

    yield get
    for each in found.values():
        each.close()


@pytest.fixture
def emptied_store(request, emptied_stores, places):
    """Return a store on the shared server of a kind that stands and is empty."""
    return lambda kind: places.enter_context(available(request, lambda: emptied_stores(kind)).one())


@pytest.fixture(params=KINDS)
def emptied_server_store(request, emptied_store):
    return emptied_store(request.param)


@pytest.fixture(params=KINDS)
def server_store(request, shared_store):
    return shared_store(request.param)


@pytest.fixture
def postgres_store(shared_store):
    return shared_store("postgresql")


@pytest.fixture
def mysql_store(shared_store):
    return shared_store("mysql")


@pytest.fixture
def libsql_store(shared_store):
    return shared_store("libsql")


@pytest.fixture(params=KINDS)
def private_store(request, private_process, places):
    """A new place on a server of the test's own, which is the store's ``process``."""
    from tests.servers.stores import SERVERS, fresh_store

    process = available(request, lambda: private_process(request.param))
    return places.enter_context(fresh_store(SERVERS[request.param](process.url), process))


@pytest.fixture
def private_postgres(request, private_process):
    return available(request, lambda: private_process("postgresql"))


@pytest.fixture
def private_mysql(request, private_process):
    return available(request, lambda: private_process("mysql"))


@pytest.fixture
def private_sqld(request, private_process):
    return available(request, lambda: private_process("libsql"))


@pytest.fixture
def start_sqld(request):
    """Start a libSQL server for one test, with the options of `tests.servers.sqld.Sqld`."""
    from tests.servers.sqld import Sqld

    with ExitStack() as stack:

        def start(**options):
            server = available(request, lambda: Sqld(**options))
            stack.callback(server.discard)
            server.start()
            return server

        yield start


@pytest.fixture
def through_proxy(places):
    """Return, for the URL of a server, the URL of a proxy before it, and the proxy."""
    from tests.servers.proxy import Proxy

    with ExitStack() as stack:

        def place(url):
            proxy = stack.enter_context(Proxy.before(url))
            return proxy.url_for(url), proxy

        yield place
