"""The contract holds when some instances reach a libSQL database through a replica of it."""

from contextlib import ExitStack
from itertools import cycle

import pytest
from tests.conftest import available
from tests.servers.sqld import Sqld
from tests.servers.stores import SERVERS, fresh_store

from seeknal.state.backend import create_state_backend
from seeknal.state.capabilities import Capability
from seeknal.state.sql.backend import DatabaseStateBackend
from seeknal.state.testing import StateBackendConformance


@pytest.fixture(scope="module")
def pair(request):
    """A primary, and a replica of it."""
    with ExitStack() as stack:
        primary = available(request, lambda: Sqld(is_primary=True))
        stack.callback(primary.discard)
        primary.start()
        replica = Sqld(replica_of=primary)
        stack.callback(replica.discard)
        replica.start()
        yield primary, replica


@pytest.mark.nightly
class TestLibsqlThroughAReplica(StateBackendConformance):
    """The first instance of a case is on the replica, the second on the primary, and so on."""

    capabilities = DatabaseStateBackend.capabilities - {Capability.PROCESSES} | {Capability.MACHINES}

    @pytest.fixture
    def open_backend(self, pair):
        primary, replica = pair
        with fresh_store(SERVERS["libsql"](primary.url)) as store:
            self.store = store
            urls = cycle([replica.url, primary.url])

            def open_next(**options):
                return create_state_backend("database", url=next(urls), schema=store.schema, **options)

            yield open_next

    def pass_time(self, clock, seconds):
        super().pass_time(clock, seconds)
        self.store.age_leases(seconds)
