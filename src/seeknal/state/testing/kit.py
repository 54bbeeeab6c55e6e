"""The conformance kit: every clause of the contract as a test that any backend can be held to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from seeknal.clock import FakeClock
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.testing.cases_claim_ends import ClaimEndCases
from seeknal.state.testing.cases_claims import ClaimCases
from seeknal.state.testing.cases_conflicts import ConflictCases
from seeknal.state.testing.cases_intervals import IntervalCases
from seeknal.state.testing.cases_leases import LeaseCases
from seeknal.state.testing.cases_log import LogCases
from seeknal.state.testing.cases_nodes import NodeCases
from seeknal.state.testing.cases_partitions import PartitionCases
from seeknal.state.testing.cases_processes import ProcessCases
from seeknal.state.testing.cases_provenance import ProvenanceCases
from seeknal.state.testing.cases_retention import RetentionCases
from seeknal.state.testing.cases_runs import RunCases
from seeknal.state.testing.cases_store import StoreCases
from seeknal.state.testing.cases_transactions import TransactionCases
from seeknal.state.testing.peer import OpenInProcess
from seeknal.state.testing.scene import OpenBackend, Scene


class StateBackendConformance(
    StoreCases,
    RunCases,
    NodeCases,
    TransactionCases,
    ConflictCases,
    LeaseCases,
    LogCases,
    IntervalCases,
    ProvenanceCases,
    PartitionCases,
    ClaimCases,
    ClaimEndCases,
    RetentionCases,
    ProcessCases,
):
    """Derive from it, override `open_backend`, and state `capabilities`; pytest does the rest.

    Cases that need a capability which is not stated are not collected.

    Example::

        class TestMine(StateBackendConformance):
            @pytest.fixture
            def open_backend(self, tmp_path):
                return partial(MyStateBackend, tmp_path / "store")
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in dir(cls):
            if not getattr(getattr(cls, name), "capabilities", cls.capabilities) <= cls.capabilities:
                setattr(cls, name, None)  # pytest collects functions only

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        """Override: return a callable that opens a new, independent instance on the same store each time.

        It takes the keywords ``clock`` and ``busy_timeout_ms``. The kit initializes and closes what it opens.
        """
        pytest.fail("override the fixture open_backend: a callable that opens a new instance on the same store")

    @pytest.fixture
    def open_in_process(self) -> OpenInProcess:
        """Override with `Capability.PROCESSES`: a picklable callable that opens an instance on the same store."""
        pytest.fail("override the fixture open_in_process, since this backend declares Capability.PROCESSES")

    def pass_time(self, clock: FakeClock, seconds: float) -> None:
        """Override where the store measures leases by its own clock: make it see ``seconds`` more, too."""
        clock.advance(seconds=seconds)

    @pytest.fixture
    def scene(self, open_backend: OpenBackend) -> Iterator[Scene]:
        """The store, the clock, and the way to more instances."""
        scene = Scene(open_backend, self.pass_time)
        yield scene
        scene.close()

    @pytest.fixture
    def clock(self, scene: Scene) -> FakeClock:
        """The clock of `backend` and `other`."""
        return scene.clock

    @pytest.fixture
    def backend(self, scene: Scene) -> StateBackend:
        """An instance on an empty store."""
        return scene.open()

    @pytest.fixture
    def other(self, scene: Scene, backend: StateBackend) -> StateBackend:
        """A second instance on the same store, opened after `backend`."""
        return scene.open()
