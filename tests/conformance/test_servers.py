"""The database backend keeps the contract on real servers, each test with an empty store of its own."""

from functools import partial

import pytest

from seeknal.state.backend import create_state_backend
from seeknal.state.capabilities import Capability
from seeknal.state.sql.backend import DatabaseStateBackend
from seeknal.state.testing import StateBackendConformance


class OnServer(StateBackendConformance):
    capabilities = DatabaseStateBackend.capabilities | {Capability.MACHINES}
    kind = ""

    @pytest.fixture
    def open_backend(self, emptied_store):
        self.store = emptied_store(self.kind)
        return partial(create_state_backend, "database", **self.store.options)

    @pytest.fixture
    def open_in_process(self, open_backend):
        return open_backend

    def pass_time(self, clock, seconds):
        super().pass_time(clock, seconds)
        self.store.age_leases(seconds)


class TestPostgresql(OnServer):
    kind = "postgresql"


class TestMysql(OnServer):
    kind = "mysql"


class TestLibsql(OnServer):
    kind = "libsql"
