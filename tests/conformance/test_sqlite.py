"""The database backend keeps the contract on SQLite."""

from functools import partial

import pytest

from seeknal.state.backend import create_state_backend
from seeknal.state.sql.backend import DatabaseStateBackend
from seeknal.state.testing import StateBackendConformance


class TestSqlite(StateBackendConformance):
    capabilities = DatabaseStateBackend.capabilities

    @pytest.fixture
    def open_backend(self, tmp_path):
        return partial(create_state_backend, "database", db_path=str(tmp_path / "state.db"))

    @pytest.fixture
    def open_in_process(self, open_backend):
        return open_backend
