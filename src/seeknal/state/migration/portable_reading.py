"""A store that is read through the verbs of the contract alone, as a copy reads any other one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from seeknal.errors import CapabilityError, TransferError
from seeknal.model.records import CompletedInterval, IntervalProvenance, NodeState, PartitionState, RunState
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.migration.copying import Lookup
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.work import all_parts

R = TypeVar("R", RunState, NodeState)


def reading_of(store: StateBackend) -> Lookup:
    """Return what reads any store."""
    return store if isinstance(store, RecordStateBackend) else PlainReading(store)


class PlainReading:
    """A store that nobody writes to meanwhile, read through the verbs of the contract.

    What the records of the store say of their order is relied on, so it has to be one: `CapabilityError` if the
    sequences of the runs do not grow in the order of `StateBackend.list_runs`, or a record has no version or sequence.

    Args:
        store: The store, open. Each method raises what the store raises.
    """

    def __init__(self, store: StateBackend) -> None:
        self._store = store

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order.

        Raises:
            TransferError: One that was listed is gone.
        """
        last = 0
        for run_id in self._store.list_runs():
            run = self._store.get_run(run_id)
            if run is None:
                raise TransferError(f"run {run_id!a} was deleted meanwhile", hint="Stop the writers of the store.")
            if run.sequence <= last:
                raise self._unordered(f"run {run_id!a} has the sequence {run.sequence} after {last}")
            last = run.sequence
            yield self._counted(run, f"run {run_id!a}")

    def read_run(self, run_id: str) -> RunState | None:
        """Return a run, or ``None``."""
        return self._store.get_run(run_id)

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by the bytes of their ids."""
        found = self._store.get_all_node_states(run_id)
        return {key: self._counted(state, f"node {key!a} of run {run_id!a}") for key, state in found.items()}

    def read_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed work, sorted by their bytes."""
        return self._store.list_worked_nodes()

    def read_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return the completed intervals of a node, canonical."""
        return self._store.get_completed_intervals(node_id)

    def read_partitions(self, node_id: str) -> list[PartitionState]:
        """Return the completed partitions of a node, sorted by the bytes of their keys."""
        return self._store.list_partitions(node_id)

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run completed each part of its intervals, or the run that each of them names."""
        if Capability.PROVENANCE in self._store.capabilities:
            return self._store.get_interval_provenance(node_id)
        return all_parts(self.read_intervals(node_id), [])

    def read_expected(self, node_id: str) -> list[str]:
        """Return the keys of the partitions that are expected of a node; none of a store that keeps none."""
        return self._store.list_expected_partitions(node_id) if Capability.EXPECTED in self._store.capabilities else []

    def _counted(self, record: R, what: str) -> R:
        if record.sequence < 1 or record.version < 1:
            raise self._unordered(f"{what} has the version {record.version} and the sequence {record.sequence}")
        return record

    def _unordered(self, found: str) -> CapabilityError:
        return CapabilityError(
            f"a {type(self._store).__name__} does not number its records: {found}",
            hint="Whoever maintains that backend has to give each written record a version from 1 on and a growing "
            "sequence.",
        )


class Unplaced:
    """A store as plain verbs can write it: without versions and sequences, which are 0 here, and what not all keep.

    That is which run completed each part of an interval, and which partitions are expected.

    Args:
        store: What it is read with.
    """

    def __init__(self, store: Lookup) -> None:
        self._store = store
        self.read_worked_nodes = store.read_worked_nodes
        self.read_intervals = store.read_intervals
        self.read_partitions = store.read_partitions

    def scan_runs(self) -> Iterator[RunState]:
        """Yield all runs in creation order."""
        return map(unplaced, self._store.scan_runs())

    def read_run(self, run_id: str) -> RunState | None:
        """Return a run, or ``None``."""
        run = self._store.read_run(run_id)
        return None if run is None else unplaced(run)

    def read_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return the run that each interval names, of all of it."""
        return all_parts(self.read_intervals(node_id), [])

    def read_expected(self, node_id: str) -> list[str]:
        """Return nothing."""
        return []

    def read_nodes(self, run_id: str) -> dict[str, NodeState]:
        """Return the node states of a run, sorted by the bytes of their ids."""
        return {node_id: unplaced(state) for node_id, state in self._store.read_nodes(run_id).items()}


def unplaced(record: R) -> R:
    """Return a record without its version and its sequence."""
    return msgspec.structs.replace(record, version=0, sequence=0)
