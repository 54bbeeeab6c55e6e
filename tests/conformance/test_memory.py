"""The memory backend keeps the contract."""

from functools import partial

import pytest

from seeknal.state.memory import MemoryStateBackend, MemoryStore
from seeknal.state.testing import StateBackendConformance


class TestMemory(StateBackendConformance):
    capabilities = MemoryStateBackend.capabilities

    @pytest.fixture
    def open_backend(self):
        return partial(MemoryStateBackend, MemoryStore())
