"""Cases about the store as a whole: ids, instances, dictionaries, opening and closing."""
# ruff: noqa: PT012 - what must raise is the whole `with` block of a transaction

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from seeknal.errors import BackendUnavailableError, CapabilityError, InvalidIdError
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend
from seeknal.state.testing.clauses import clause, needs
from seeknal.state.testing.factories import BAD_IDS, GOOD_IDS, NODE, RICH, day, everything
from seeknal.state.testing.scene import Scene


class StoreCases:
    """Cases about the store as a whole."""

    @clause("ID-2", "ID-3")
    def test_ids_are_kept_apart_byte_for_byte(self, backend: StateBackend, other: StateBackend) -> None:
        """Runs, nodes and partitions whose ids look alike stay different ones."""
        for run_id in GOOD_IDS:
            backend.create_run(run_id, metadata={"id": run_id})
        assert other.list_runs() == list(GOOD_IDS)
        assert [other.get_metadata(run_id) for run_id in GOOD_IDS] == [{"id": run_id} for run_id in GOOD_IDS]
        with backend.transaction():
            for node_id in GOOD_IDS:
                backend.set_node_state("../x", node_id, metadata={"id": node_id})
                backend.add_completed_partition("../x", NODE, node_id, metadata={"id": node_id})
        in_order = sorted(GOOD_IDS, key=str.encode)
        assert other.list_nodes("../x") == in_order
        assert list(other.get_all_node_states("../x")) == in_order
        assert [state.metadata["id"] for state in other.get_all_node_states("../x").values()] == in_order
        assert [(each.partition, each.metadata["id"]) for each in other.list_partitions(NODE)] == [
            (key, key) for key in in_order
        ]
        assert other.list_nodes("a/b") == []

    @clause("ID-2", "ID-3")
    def test_deleting_an_id_leaves_its_lookalikes(self, backend: StateBackend) -> None:
        """Each run goes alone."""
        for run_id in GOOD_IDS:
            backend.create_run(run_id)
            backend.set_node_state(run_id, run_id, status="success")
        left = list(GOOD_IDS)
        while left:
            assert backend.delete_run(left.pop(0))
            assert backend.list_runs() == left
            assert [backend.get_latest_node_state(run_id) is not None for run_id in left] == [True] * len(left)

    @clause("ID-2")
    def test_locks_of_lookalikes_do_not_meet(self, backend: StateBackend, other: StateBackend) -> None:
        """Every one of them can be held at once, run and node."""
        for key in ("a", "A", "a ", "caf\u00e9", "cafe\u0301", "a/b", "a\\b"):
            assert backend.acquire_lock(key, timeout_ms=0)
            assert other.acquire_lock("r", key, timeout_ms=0)
        assert not backend.acquire_lock("r", "A", timeout_ms=0)

    @clause("ID-1", "ERR-1")
    @pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
    def test_bad_ids_are_refused(self, backend: StateBackend, bad: Any) -> None:
        """By every verb, with nothing changed."""
        backend.create_run("r")
        backend.set_node_state("r", NODE)
        before = everything(backend)
        calls: list[Callable[[], object]] = [
            lambda: backend.create_run(bad),
            lambda: backend.update_run(bad, status="success"),
            lambda: backend.get_run(bad),
            lambda: backend.exists(bad),
            lambda: backend.delete_run(bad),
            lambda: backend.get_metadata(bad),
            lambda: backend.set_metadata(bad, {}),
            lambda: backend.list_nodes(bad),
            lambda: backend.get_all_node_states(bad),
            lambda: backend.set_node_state(bad, NODE),
            lambda: backend.set_node_state("r", bad),
            lambda: backend.get_node_state(bad, NODE),
            lambda: backend.get_node_state("r", bad),
            lambda: backend.node_exists("r", bad),
            lambda: backend.delete_node_state("r", bad),
            lambda: backend.get_latest_node_state(bad),
            lambda: backend.add_completed_interval(bad, NODE, day(1), day(2)),
            lambda: backend.add_completed_interval("r", bad, day(1), day(2)),
            lambda: backend.restate_intervals(bad, day(1), day(2)),
            lambda: backend.get_completed_intervals(bad),
            lambda: backend.add_completed_partition(bad, NODE, "p"),
            lambda: backend.add_completed_partition("r", bad, "p"),
            lambda: backend.add_completed_partition("r", NODE, bad),
            lambda: backend.restate_partition(bad, "p"),
            lambda: backend.restate_partition(NODE, bad),
            lambda: backend.list_partitions(bad),
            lambda: backend.acquire_lock(bad),
            lambda: backend.release_lock(bad),
            lambda: backend.break_lock(bad, reason="test"),
        ]
        if bad is not None:
            calls.append(lambda: backend.acquire_lock("r", bad))
        for call in calls:
            with pytest.raises(InvalidIdError) as caught:
                call()
            assert caught.value.field in ("run_id", "node_id", "partition")
            assert caught.value.hint
        assert everything(backend) == before

    @clause("FACT-1")
    def test_another_instance_sees_what_was_committed(self, backend: StateBackend, other: StateBackend) -> None:
        """At once, and in both directions."""
        backend.create_run("r", config=RICH, metadata=RICH)
        backend.set_node_state("r", NODE, status="success", row_count=2**63 - 1, fingerprint="f\u00e9", metadata=RICH)
        backend.add_completed_interval("r", NODE, day(1), day(2))
        backend.add_completed_partition("r", NODE, "p", row_count=0, metadata=RICH)
        assert everything(other) == everything(backend)
        other.set_node_state("r", NODE, status="failed", error_message="\u00e9\n\x00")
        other.restate_intervals(NODE, day(1), day(2))
        assert everything(other) == everything(backend)
        run = backend.get_run("r")
        assert run is not None
        assert run.config == run.metadata == RICH
        assert repr(sorted(run.metadata.items())) == repr(sorted(RICH.items())), "types are kept: 1 is not 1.0"

    @clause("FACT-1")
    @needs(Capability.PERSISTENT)
    def test_an_instance_opened_later_sees_everything(self, scene: Scene) -> None:
        """What is committed is there after all instances are closed."""
        with scene.open() as first:
            first.create_run("r", metadata=RICH)
            for number in range(30):
                first.set_node_state("r", f"n{number}", status="success", row_count=number)
            first.add_completed_interval("r", NODE, day(1), day(2))
            first.add_completed_partition("r", NODE, "p")
            before = everything(first)
        for _ in range(3):
            with scene.open() as again:
                assert everything(again) == before
                again.set_node_state("r", NODE, status="running")
                before = everything(again)

    @clause("FACT-2")
    def test_dictionaries_are_copied(self, backend: StateBackend) -> None:
        """What is passed and what is returned never reaches the store, empty dictionaries included."""
        contents: tuple[dict[str, Any], ...] = ({}, {"a": {"b": [1]}})
        for number, passed in enumerate(contents):
            backend.create_run(f"r{number}", config=passed, metadata=passed)
            backend.set_node_state(f"r{number}", NODE, metadata=passed)
            backend.add_completed_partition(f"r{number}", f"n{number}", "p", metadata=passed)
            before = everything(backend)
            _spoil(passed)
            assert everything(backend) == before
            _spoil_returned(backend, number)
            assert everything(backend) == before
            with pytest.raises(ZeroDivisionError), backend.transaction():
                _spoil_returned(backend, number)
                assert everything(backend) == before
                _spoil(backend.set_node_state(f"r{number}", NODE).metadata)
                _spoil_returned(backend, number)
                assert "spoilt" not in repr(everything(backend))
                raise ZeroDivisionError
            assert everything(backend) == before
        returned = backend.set_node_state("r0", NODE, row_count=1)
        _spoil(returned.metadata)
        run = backend.update_run("r0", status="failed")
        _spoil(run.metadata)
        _spoil(run.config)
        after = everything(backend)
        assert "spoilt" not in repr(after)

    @clause("INIT-1")
    def test_initialize_twice(self, backend: StateBackend, other: StateBackend) -> None:
        """It changes nothing that is there."""
        backend.create_run("r")
        before = everything(backend)
        backend.initialize()
        other.initialize()
        assert everything(backend) == before

    @clause("INIT-2", "INIT-3")
    def test_close_twice_and_use_after(self, scene: Scene) -> None:
        """Closing again does nothing; using it afterwards says so."""
        backend = scene.open()
        backend.create_run("r")
        assert backend.health_check()
        backend.close()
        backend.close()
        assert not backend.health_check()
        for call in (
            lambda: backend.get_run("r"),
            lambda: backend.create_run("s"),
            lambda: backend.set_node_state("r", NODE),
            backend.list_locks,
            lambda: backend.acquire_lock("r", timeout_ms=0),
            lambda: backend.transaction().__enter__(),
            backend.initialize,
        ):
            with pytest.raises(BackendUnavailableError, match="closed"):
                call()

    @clause("INIT-2")
    def test_close_inside_a_transaction_writes_nothing(self, scene: Scene) -> None:
        """Its commit is refused."""
        backend, witness = scene.open(), scene.open()
        with pytest.raises(BackendUnavailableError), backend.transaction():
            backend.create_run("r")
            backend.close()
        assert witness.list_runs() == []

    @clause("FACT-3")
    def test_pickling_is_refused(self, backend: StateBackend) -> None:
        """The error says what to do instead."""
        with pytest.raises(CapabilityError) as caught:
            pickle.dumps(backend)
        assert "same arguments" in caught.value.hint

    @clause("TIME-1")
    def test_instants_come_back_in_utc_with_microseconds(self, backend: StateBackend, scene: Scene) -> None:
        """Whatever zone they came in."""
        moment = day(5, 6) + timedelta(microseconds=123_457)
        scene.clock.advance(microseconds=1)
        backend.create_run("r", started_at=moment)
        state = backend.set_node_state("r", NODE, started_at=moment, finished_at=moment)
        part = backend.add_completed_partition("r", NODE, "p")
        backend.add_completed_interval("r", NODE, moment, moment + timedelta(microseconds=1))
        run = backend.get_run("r")
        assert run is not None
        assert run.started_at == state.started_at == state.finished_at == moment
        assert part == backend.list_partitions(NODE)[0]
        assert part.completed_at == scene.clock.now()
        (done,) = backend.get_completed_intervals(NODE)
        assert (done.start, done.end) == (moment, moment + timedelta(microseconds=1))
        for found in (run.started_at, state.started_at, part.completed_at, done.start):
            assert found is not None
            assert found.utcoffset() == timedelta()


def _spoil(value: dict[str, Any]) -> None:
    for nested in value.values():
        if isinstance(nested, dict):
            _spoil(nested)
    value["spoilt"] = True


def _spoil_returned(backend: StateBackend, number: int) -> None:
    """Change every dictionary that a store returns."""
    for run_id in backend.list_runs():
        run = backend.get_run(run_id)
        assert run is not None
        _spoil(run.metadata)
        _spoil(run.config)
        _spoil(backend.get_metadata(run_id))
        state = backend.get_node_state(run_id, NODE)
        assert state is not None
        _spoil(state.metadata)
        for each in backend.get_all_node_states(run_id).values():
            _spoil(each.metadata)
    latest = backend.get_latest_node_state(NODE)
    assert latest is not None
    _spoil(latest.metadata)
    for part in backend.list_partitions(f"n{number}"):
        _spoil(part.metadata)
