"""The backend of the documentation keeps the contract."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from seeknal.clock import Clock
from seeknal.state.backend import StateBackend
from seeknal.state.testing import StateBackendConformance

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_backend.py"


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("custom_backend", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_backend"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


class TestCustomBackend(StateBackendConformance):
    @pytest.fixture
    def open_backend(self) -> Any:
        example = load_example()
        store = example.Store()

        def open_another(clock: Clock | None = None, busy_timeout_ms: int = 0) -> StateBackend:
            backend: StateBackend = example.CustomBackend(store=store, clock=clock)
            return backend

        return open_another
