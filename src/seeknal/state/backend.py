"""The doorway: everything a program needs to open and use a store.

>>> from seeknal.state.backend import create_state_backend
>>> backend = create_state_backend("memory")
>>> backend.initialize()
>>> backend.create_run("run_1").status
<RunStatus.RUNNING: 'running'>
"""

from __future__ import annotations

from typing import Any

from seeknal.errors import (
    BackendUnavailableError,
    CommitUnknownError,
    ConcurrencyError,
    CorruptStateError,
    LeaseLostError,
    LockHeldError,
    RunNotFoundError,
    StateBackendError,
    TransactionError,
)
from seeknal.model.records import (
    CompletedInterval,
    IntervalProvenance,
    LockInfo,
    LoggedChange,
    NodeState,
    PartitionReport,
    PartitionState,
    RunState,
)
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.lease import Lease
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.registry import StateBackendFactory
from seeknal.state.settings import open_state_backend
from seeknal.state.transaction import Transaction

__all__ = [
    "BackendUnavailableError",
    "Capability",
    "CommitUnknownError",
    "CompletedInterval",
    "ConcurrencyError",
    "CorruptStateError",
    "IntervalProvenance",
    "Lease",
    "LeaseLostError",
    "LockHeldError",
    "LockInfo",
    "LoggedChange",
    "NodeState",
    "PartitionReport",
    "PartitionState",
    "RecordStateBackend",
    "RunNotFoundError",
    "RunState",
    "StateBackend",
    "StateBackendError",
    "StateBackendFactory",
    "Transaction",
    "TransactionError",
    "create_state_backend",
    "open_state_backend",
]


def create_state_backend(backend_type: str, **options: Any) -> StateBackend:
    """Return a new backend instance; call its `initialize` before anything else.

    Args:
        backend_type: ``file``, ``database`` (alias ``sqlite``), ``memory``, or a registered name.
        **options: Of that backend: ``base_path`` of ``file``, ``db_path`` or ``url`` of ``database``.

    Raises:
        UnknownBackendError, MissingDriverError, ConfigurationError: As `StateBackendFactory.create`.
    """
    return StateBackendFactory.create(backend_type, **options)
