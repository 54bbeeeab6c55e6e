"""Cases about conflicts between transactions, and about repeating them."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import (
    ConcurrencyError,
    RunNotFoundError,
    StaleVersionError,
)
from seeknal.state.contract import StateBackend
from seeknal.state.testing.cases_transactions import fill
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import NODE, day, everything, spans


class ConflictCases:
    """Cases about conflicts between transactions, and about repeating them."""

    @clause("TX-7")
    @pytest.mark.parametrize("verb", ["node", "run", "new node", "new run", "deleted"])
    def test_read_then_written_meanwhile(self, backend: StateBackend, other: StateBackend, verb: str) -> None:
        """A commit on top of what somebody else wrote is refused, and writes nothing."""
        fill(backend)
        with pytest.raises(ConcurrencyError), backend.transaction():
            backend.create_run("beside")
            if verb == "node":
                state = backend.get_node_state("r", NODE)
                assert state is not None
                assert state.row_count is not None
                other.set_node_state("r", NODE, row_count=100)
                backend.set_node_state("r", NODE, row_count=state.row_count + 1)
            elif verb == "run":
                assert backend.get_metadata("r") == {}
                other.update_run("r", metadata={"a": 1})
                backend.update_run("r", metadata={"b": 1})
            elif verb == "new node":
                assert backend.get_node_state("r", "n") is None
                other.set_node_state("r", "n")
                backend.set_node_state("r", "n", overwrite=False)
            elif verb == "new run":
                assert not backend.exists("s")
                other.create_run("s")
                backend.create_run("s")
            else:
                assert NODE in backend.get_all_node_states("r")
                other.delete_node_state("r", NODE)
                backend.set_node_state("r", NODE, row_count=2)
            expected = everything(other)
        assert everything(backend) == expected
        assert not backend.exists("beside")

    @clause("TX-7", "NODE-6")
    def test_run_deleted_before_the_commit(self, backend: StateBackend, other: StateBackend) -> None:
        """New nodes and completed work of a run that is gone are not written."""
        for write in (
            lambda: backend.set_node_state("r", "n"),
            lambda: backend.add_completed_interval("r", NODE, day(1), day(2)),
            lambda: backend.add_completed_partition("r", NODE, "p"),
        ):
            other.create_run("r")
            with pytest.raises((RunNotFoundError, ConcurrencyError)), backend.transaction():
                write()
                other.delete_run("r")
            assert spans(backend) == []
            assert backend.list_partitions(NODE) == []
            assert backend.get_latest_node_state("n") is None

    @clause("TX-7")
    def test_other_records_do_not_conflict(self, backend: StateBackend, other: StateBackend) -> None:
        """Two transactions on different nodes of one run both commit; completed work merges."""
        backend.create_run("r")
        with backend.transaction():
            backend.set_node_state("r", "a", status="success")
            backend.add_completed_interval("r", NODE, day(1), day(2))
            with other.transaction():
                other.set_node_state("r", "b", status="success")
                other.add_completed_interval("r", NODE, day(2), day(3))
        assert backend.list_nodes("r") == ["a", "b"]
        assert spans(backend) == [(day(1), day(3), "r")]

    @clause("TX-14")
    def test_run_transaction_repeats_conflicts(self, backend: StateBackend, other: StateBackend) -> None:
        """The whole function, until it commits; its result is returned."""
        backend.create_run("r", metadata={"n": 0})
        attempts: list[int] = []

        def add() -> int:
            number: int = backend.get_metadata("r")["n"]
            attempts.append(number)
            if len(attempts) < 3:
                other.update_run("r", metadata={"n": number + 10})
            backend.update_run("r", metadata={"n": number + 1})
            return number + 1

        assert backend.run_transaction(add) == 21
        assert attempts == [0, 10, 20]
        assert other.get_metadata("r") == {"n": 21}

    @clause("TX-14")
    def test_run_transaction_gives_up(self, backend: StateBackend, other: StateBackend, clock: FakeClock) -> None:
        """When time is up, on errors that repeating does not cure, and inside another transaction."""
        backend.create_run("r")
        calls: list[str] = []

        def conflict() -> None:
            calls.append("conflict")
            backend.get_run("r")
            other.update_run("r")
            backend.update_run("r", metadata={"lost": True})

        start = clock.ticks_us()
        with pytest.raises(ConcurrencyError):
            backend.run_transaction(conflict, timeout_ms=500)
        assert len(calls) > 2
        assert 500_000 <= clock.ticks_us() - start < 2_000_000

        def wrong() -> None:
            calls.append("wrong")
            backend.update_run("no")

        with pytest.raises(RunNotFoundError):
            backend.run_transaction(wrong)
        assert calls.count("wrong") == 1
        calls.clear()
        with pytest.raises(StaleVersionError), backend.transaction():
            backend.run_transaction(conflict)
        assert calls == ["conflict"]
        assert backend.get_metadata("r") == {}
