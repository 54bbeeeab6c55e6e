"""Cases about transactions."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from seeknal.errors import (
    ConcurrencyError,
    InvalidFieldError,
    InvalidIdError,
    RunNotFoundError,
    StaleVersionError,
    TransactionError,
)
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause
from seeknal.state.testing.factories import NODE, day, everything, spans
from seeknal.state.testing.scene import in_thread


class StopError(Exception):
    """Raised by a case in the middle of a transaction."""


def stop_if(wanted: bool) -> None:
    """Raise, if that is wanted."""
    if wanted:
        raise StopError


def write_all_kinds(backend: StateBackend, run_id: str = "new") -> None:
    """Make one change of every kind; run ``r`` exists."""
    backend.create_run(run_id, metadata={"a": 1})
    backend.set_node_state(run_id, NODE, status="success", row_count=1)
    backend.update_run("r", metadata={run_id: True})
    backend.set_node_state("r", NODE, metadata={run_id: True})
    backend.delete_node_state("r", "gone")
    backend.add_completed_interval("r", NODE, day(3), day(4))
    backend.restate_intervals(NODE, day(1), day(2))
    backend.add_completed_partition(run_id, NODE, run_id)
    backend.restate_partition(NODE, "old")


def fill(backend: StateBackend) -> None:
    """Prepare what `write_all_kinds` changes."""
    backend.create_run("r")
    for node_id in (NODE, "gone"):
        backend.set_node_state("r", node_id, row_count=1)
    backend.add_completed_interval("r", NODE, day(1), day(3))
    backend.add_completed_partition("r", NODE, "old")


class TransactionCases:
    """Cases about transactions."""

    @clause("TX-1", "TX-2", "TX-3")
    def test_own_writes_are_seen_and_nobody_elses(self, backend: StateBackend, other: StateBackend) -> None:
        """Inside everything is there; another thread and another instance see nothing until the commit."""
        fill(backend)
        before = everything(backend)
        with backend.transaction():
            write_all_kinds(backend)
            inside = everything(backend)
            assert inside != before
            assert spans(backend) == [(day(2), day(4), "r")]
            assert [each.partition for each in backend.list_partitions(NODE)] == ["new"]
            assert everything(other) == before
            assert in_thread(lambda: everything(backend)) == before
            assert not in_thread(lambda: backend.in_transaction)
        assert everything(backend) == everything(other) == inside

    @clause("TX-1", "TX-4")
    def test_an_exception_rolls_everything_back(self, backend: StateBackend, other: StateBackend) -> None:
        """And is raised again, as it is."""
        fill(backend)
        before = everything(backend)
        stop = StopError("now")
        with pytest.raises(StopError) as caught, backend.transaction():
            write_all_kinds(backend)
            backend.delete_run("r")
            raise stop
        assert caught.value is stop
        assert everything(backend) == everything(other) == before
        with pytest.raises(KeyboardInterrupt), backend.transaction():
            backend.create_run("s")
            raise KeyboardInterrupt
        assert everything(backend) == before
        assert not backend.in_transaction

    @clause("TX-1")
    def test_a_refused_commit_writes_none_of_it(self, backend: StateBackend, other: StateBackend) -> None:
        """One stale record among many: nothing of the batch is there."""
        fill(backend)
        with pytest.raises(ConcurrencyError), backend.transaction():
            write_all_kinds(backend)
            other.set_node_state("r", NODE, row_count=9)
            expected = everything(other)
        assert everything(backend) == everything(other) == expected

    @clause("TX-5")
    def test_a_savepoint_rolls_back_alone(self, backend: StateBackend, other: StateBackend) -> None:
        """What came before and after it stays; three deep."""
        fill(backend)
        with backend.transaction():
            backend.create_run("one")
            kept = everything(backend)
            with pytest.raises(StopError), backend.transaction():
                write_all_kinds(backend, "two")
                with backend.transaction():
                    backend.delete_run("r")
                    backend.create_run("r", status="pending")
                    backend.set_node_state("r", "three")
                assert backend.list_nodes("r") == ["three"]
                raise StopError
            assert everything(backend) == kept
            with backend.transaction():
                backend.set_node_state("one", NODE, row_count=4)
            inside = everything(backend)
        assert everything(other) == inside
        assert other.list_runs() == ["r", "one"]

    @clause("TX-5")
    def test_a_savepoint_that_is_kept_falls_with_its_transaction(self, backend: StateBackend) -> None:
        """An inner end is no commit."""
        fill(backend)
        before = everything(backend)
        with pytest.raises(StopError), backend.transaction():
            with backend.transaction():
                write_all_kinds(backend)
            raise StopError
        assert everything(backend) == before

    @clause("TX-5")
    def test_a_rolled_back_savepoint_demands_nothing_of_the_commit(self, backend: StateBackend) -> None:
        """A run that was created and used inside it need not exist at the commit."""
        with backend.transaction():
            backend.create_run("r")
            with pytest.raises(StopError), backend.transaction():
                backend.create_run("s")
                backend.set_node_state("s", NODE)
                backend.add_completed_interval("s", NODE, day(1), day(2))
                raise StopError
            backend.set_node_state("r", NODE)
        assert backend.list_runs() == ["r"]
        assert backend.node_exists("r", NODE)

    @clause("TX-6", "ERR-1")
    def test_a_refused_write_leaves_the_transaction_usable(self, backend: StateBackend, other: StateBackend) -> None:
        """Every kind of refusal: what was written stays, and what follows is written."""
        fill(backend)
        refused: tuple[tuple[type[Exception], Callable[[], object]], ...] = (
            (ConcurrencyError, lambda: backend.create_run("r")),
            (ConcurrencyError, lambda: backend.create_run("one")),
            (RunNotFoundError, lambda: backend.update_run("no", status="failed")),
            (RunNotFoundError, lambda: backend.set_node_state("no", NODE)),
            (RunNotFoundError, lambda: backend.add_completed_interval("no", NODE, day(1), day(2))),
            (RunNotFoundError, lambda: backend.add_completed_partition("no", NODE, "p")),
            (RunNotFoundError, lambda: backend.delete_node_state("no", NODE)),
            (InvalidFieldError, lambda: backend.set_node_state("r", NODE, row_count=-1)),
            (InvalidIdError, lambda: backend.set_node_state("r", "")),
            (StaleVersionError, lambda: backend.set_node_state("r", NODE, expected_version=9)),
            (StaleVersionError, lambda: backend.update_run("r", expected_version=9)),
            (ConcurrencyError, lambda: backend.set_node_state("r", NODE, overwrite=False)),
        )
        with backend.transaction():
            backend.create_run("one")
            before = everything(backend)
            for kind, call in refused:
                with pytest.raises(kind):
                    call()
                assert backend.in_transaction
            assert everything(backend) == before
            backend.create_run("two")
        assert other.list_runs() == ["r", "one", "two"]

    @clause("TX-8")
    def test_it_belongs_to_its_thread(self, backend: StateBackend) -> None:
        """Another thread has its own, cannot end this one, and writes beside it."""
        backend.create_run("r")
        begun = backend.begin_transaction()
        backend.set_node_state("r", "mine")
        for end in (backend.commit_transaction, backend.rollback_transaction):
            with pytest.raises(TransactionError):
                in_thread(lambda end=end: end(begun))  # type: ignore[misc]
        assert begun.is_active
        in_thread(lambda: backend.set_node_state("r", "theirs"))
        backend.commit_transaction(begun)
        assert backend.list_nodes("r") == ["mine", "theirs"]

    @clause("TX-9")
    def test_use_after_the_end(self, backend: StateBackend) -> None:
        """A transaction ends once."""
        begun = backend.begin_transaction()
        backend.create_run("r")
        backend.commit_transaction(begun)
        assert not begun.is_active
        for end in (backend.commit_transaction, backend.rollback_transaction):
            with pytest.raises(TransactionError):
                end(begun)
        block = backend.transaction()
        with block:
            pass
        with pytest.raises(TransactionError):
            block.__enter__()
        assert backend.list_runs() == ["r"]

    @clause("TX-9")
    def test_out_of_order(self, backend: StateBackend) -> None:
        """An outer one does not end before the inner one; both stand as they were."""
        outer = backend.begin_transaction()
        backend.create_run("outer")
        inner = backend.begin_transaction()
        backend.create_run("inner")
        for end in (backend.commit_transaction, backend.rollback_transaction):
            with pytest.raises(TransactionError):
                end(outer)
        assert [outer.is_active, inner.is_active] == [True, True]
        backend.rollback_transaction(inner)
        backend.commit_transaction(outer)
        assert backend.list_runs() == ["outer"]
        with pytest.raises(TransactionError):
            backend.commit_transaction(backend.transaction())  # type: ignore[arg-type]

    @clause("TX-4", "TX-9")
    @pytest.mark.parametrize("raises", [True, False])
    def test_a_block_left_with_an_inner_one_open(self, backend: StateBackend, raises: bool) -> None:
        """Nothing is written and nothing stays open; the caller's own exception is not replaced."""
        with pytest.raises(StopError if raises else TransactionError), backend.transaction():
            backend.create_run("outer")
            inner = backend.begin_transaction()
            backend.create_run("inner")
            stop_if(raises)
        assert [inner.is_active, backend.in_transaction] == [False, False]
        assert backend.list_runs() == []
        backend.create_run("after")
        assert in_thread(backend.list_runs) == ["after"]

    @clause("TX-10")
    def test_in_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """True inside, at any depth, of this instance only."""
        seen = [backend.in_transaction]
        with backend.transaction() as transaction:
            active = transaction.is_active
            with backend.transaction():
                seen.append(backend.in_transaction)
            seen += [backend.in_transaction, other.in_transaction]
        assert active
        assert seen == [False, True, True, False]
        assert [transaction.is_active, backend.in_transaction] == [False, False]

    @clause("TX-11", "TX-12", "TX-13")
    def test_begin_commit_rollback(self, backend: StateBackend, other: StateBackend) -> None:
        """The verbs without a block mean the same."""
        begun = backend.begin_transaction()
        backend.create_run("r")
        nested = backend.begin_transaction()
        backend.create_run("s")
        backend.rollback_transaction(nested)
        nested = backend.begin_transaction()
        backend.create_run("t")
        backend.commit_transaction(nested)
        assert other.list_runs() == []
        backend.commit_transaction(begun)
        assert other.list_runs() == ["r", "t"]
        begun = backend.begin_transaction()
        backend.delete_run("r")
        backend.rollback_transaction(begun)
        assert not begun.is_active
        assert other.list_runs() == ["r", "t"]

    @clause("TX-12")
    def test_a_refused_commit_ends_the_transaction(self, backend: StateBackend, other: StateBackend) -> None:
        """The thread is free for the next one."""
        backend.create_run("r")
        begun = backend.begin_transaction()
        backend.update_run("r", metadata={"a": 1})
        other.update_run("r", metadata={"b": 1})
        with pytest.raises(ConcurrencyError):
            backend.commit_transaction(begun)
        assert not begun.is_active
        assert not backend.in_transaction
        assert backend.get_metadata("r") == {"b": 1}

    @clause("TX-3", "TX-8")
    def test_threads_have_transactions_of_their_own(self, backend: StateBackend) -> None:
        """Two open at once on one instance do not mix."""
        backend.create_run("r")
        ready, go = threading.Event(), threading.Event()

        def theirs() -> list[str]:
            with backend.transaction():
                backend.set_node_state("r", "theirs")
                ready.set()
                assert go.wait(20)
                return backend.list_nodes("r")

        seen: list[list[str]] = []
        thread = threading.Thread(target=lambda: seen.append(theirs()))
        thread.start()
        try:
            assert ready.wait(20)
            with backend.transaction():
                backend.set_node_state("r", "mine")
                assert backend.list_nodes("r") == ["mine"]
        finally:
            go.set()
            thread.join(20)
        assert "theirs" in seen[0]
        assert backend.list_nodes("r") == ["mine", "theirs"]
