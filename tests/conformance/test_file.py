"""The file backend keeps the contract."""

from functools import partial

import pytest

from seeknal.state.backend import create_state_backend
from seeknal.state.file.backend import FileStateBackend
from seeknal.state.testing import StateBackendConformance


class TestFile(StateBackendConformance):
    capabilities = FileStateBackend.capabilities

    @pytest.fixture
    def open_backend(self, tmp_path):
        return partial(create_state_backend, "file", base_path=str(tmp_path / "target"))

    @pytest.fixture
    def open_in_process(self, open_backend):
        return open_backend
