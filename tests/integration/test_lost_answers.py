"""An answer that is lost, or a request: an operation is applied once, and tells its true outcome."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.integration.conftest import DEADLINE_S, Far

from seeknal.state.backend import StateBackend

NOON, ONE, TWO = (datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (12, 13, 14))

Operation = Callable[[StateBackend, str], object]


def grant(backend: StateBackend, run: str) -> bool:
    return backend.acquire_lock(run, "free", timeout_ms=0)


OPERATIONS: dict[str, Operation] = {
    "create_run": lambda backend, run: backend.create_run(f"{run}-new", metadata={"a": 1}),
    "update_run": lambda backend, run: backend.update_run(run, metadata={"more": 1}),
    "finish_run": lambda backend, run: backend.update_run(run, status="success"),
    "update_run_at_its_version": lambda backend, run: backend.update_run(run, expected_version=1, metadata={"b": 1}),
    "delete_run": lambda backend, run: backend.delete_run(run),
    "create_node": lambda backend, run: backend.set_node_state(run, "new", status="running"),
    "create_node_not_over": lambda backend, run: backend.set_node_state(run, "new", overwrite=False),
    "change_node": lambda backend, run: backend.set_node_state(run, "node", row_count=2),
    "change_node_at_its_version": lambda backend, run: backend.set_node_state(run, "node", expected_version=1),
    "delete_node": lambda backend, run: backend.delete_node_state(run, "node"),
    "add_completed_interval": lambda backend, run: backend.add_completed_interval(run, f"of-{run}", ONE, TWO),
    "restate_intervals": lambda backend, run: backend.restate_intervals(f"of-{run}", NOON, ONE),
    "add_completed_partition": lambda backend, run: backend.add_completed_partition(run, f"of-{run}", "q"),
    "restate_partition": lambda backend, run: backend.restate_partition(f"of-{run}", "p"),
    "acquire_lock": grant,
    "release_lock": lambda backend, run: backend.release_lock(run, "mine"),
    "break_lock": lambda backend, run: backend.break_lock(run, "theirs", reason="test"),
}

WHAT_COMMITS = {"acquire_lock": b"locks"}
"""What the request contains that commits; all others leave a receipt."""


def prepare(far: Far, run: str) -> StateBackend:
    """Make a run with something of everything; return an instance that has written its node, and holds a lock of it.

    A new one each time, since psycopg sends a text five times and then a name for it.
    """
    backend, beside = far.open(), far.beside
    with beside.transaction():
        beside.create_run(run, metadata={"a": 1})
        beside.add_completed_interval(run, f"of-{run}", NOON, ONE)
        beside.add_completed_partition(run, f"of-{run}", "p")
    backend.set_node_state(run, "node", status="running", row_count=1)
    assert backend.acquire_lock(run, "mine")
    assert beside.acquire_lock(run, "theirs")
    return backend


def told(outcome: object, run: str) -> object:
    """Return what an operation told, without times and the name of its run."""
    if outcome is None or isinstance(outcome, bool):
        return outcome
    shown = {name: getattr(outcome, name) for name in outcome.__struct_fields__}
    volatile = ("started_at", "finished_at", "completed_at", "acquired_at", "expires_at", "owner", "duration_ms")
    return {
        name: value.replace(run, "RUN") if isinstance(value, str) else value
        for name, value in shown.items()
        if not name.endswith("sequence") and name not in volatile
    }


def held(backend: StateBackend, run: str) -> object:
    """Return all that the store holds of a run."""
    records = [backend.get_run(run), backend.get_run(f"{run}-new"), *backend.get_all_node_states(run).values()]
    return (
        [told(record, run) for record in records],
        [(each.start, each.end) for each in backend.get_completed_intervals(f"of-{run}")],
        [told(each, run) for each in backend.list_partitions(f"of-{run}")],
        [(lock.node_id, lock.token, lock.pid) for lock in backend.list_locks() if lock.run_id == run],
    )


@pytest.mark.parametrize("fault", ["lose_answer", "lose_request"])
@pytest.mark.parametrize("names", [[*OPERATIONS][:6], [*OPERATIONS][6:12], [*OPERATIONS][12:]], ids=["1", "2", "3"])
def test_an_operation_is_applied_once_and_tells_its_outcome(far: Far, names: list[str], fault: str) -> None:
    for name in names:
        calm, stormy = f"{name}-calm", f"{name}-stormy"
        expected = OPERATIONS[name](prepare(far, calm), calm)
        backend = prepare(far, stormy)
        lost = getattr(far.proxy, fault)(WHAT_COMMITS.get(name, b"receipts"))
        outcome = OPERATIONS[name](backend, stormy)
        assert lost.count == 1, name
        assert told(outcome, stormy) == told(expected, calm), name
        assert held(far.beside, stormy) == held(far.beside, calm), name


def test_the_sequence_that_is_told_is_the_one_that_is_stored(far: Far) -> None:
    for name in ("create_run", "create_node", "change_node"):
        backend = prepare(far, name)
        far.proxy.lose_answer(b"receipts")
        outcome = OPERATIONS[name](backend, name)
        if name == "create_run":
            assert outcome == far.beside.get_run(f"{name}-new")
            continue
        assert outcome == far.beside.get_node_state(name, outcome.node_id)
        assert outcome == far.beside.get_latest_node_state(outcome.node_id)
        assert backend.set_node_state(name, outcome.node_id, row_count=9).version == outcome.version + 1


def test_a_node_that_another_instance_wrote_is_patched_once(far: Far) -> None:
    far.beside.create_run("run")
    far.beside.set_node_state("run", "node", metadata={"theirs": 1})
    far.proxy.lose_answer(b"receipts")
    state = far.backend.set_node_state("run", "node", metadata={"ours": 1})
    assert (state.version, state.metadata) == (2, {"theirs": 1, "ours": 1})


def test_a_renewed_lease_is_renewed_whatever_is_lost(far: Far) -> None:
    with far.backend.lock("run", "node", ttl_ms=60_000) as lease:
        for fault in (far.proxy.lose_answer, far.proxy.lose_request):
            lost = fault(b"locks")
            assert far.backend.renew_lock(lease, 90_000)
            assert lost.count == 1
        (lock,) = far.beside.list_locks()
        assert (lock.ttl_ms, lock.token) == (90_000, 1)


def test_a_lock_that_somebody_holds_is_refused_whatever_is_lost(far: Far) -> None:
    assert far.beside.acquire_lock("run")
    for fault in (far.proxy.lose_answer, far.proxy.lose_request):
        lost = fault(b"locks")
        assert not far.backend.acquire_lock("run", timeout_ms=0)
        assert lost.count == 1


# ---- somebody else writes between the lost answer and the retry ----


def between(far: Far, name: str, theirs: Callable[[StateBackend], object]) -> object:
    """Return what an operation tells whose answer is lost, while somebody else does ``theirs``."""
    backend = prepare(far, name)
    lost = far.proxy.lose_answer(WHAT_COMMITS.get(name, b"receipts"))
    far.proxy.refuse()
    outcome = far.soon(OPERATIONS[name], backend, name)
    lost.wait()
    theirs(far.beside)
    far.proxy.restore()
    return outcome.result(DEADLINE_S)


def test_a_node_is_overwritten_by_somebody_else(far: Far) -> None:
    for name, node, version in (
        ("create_node", "new", 1),
        ("change_node", "node", 2),
        ("change_node_at_its_version", "node", 2),
    ):
        state = between(far, name, lambda beside, n=name, o=node: beside.set_node_state(n, o, metadata={"theirs": 1}))
        assert state.version == version
        found = far.beside.get_node_state(name, node)
        assert (found.version, found.metadata) == (version + 1, {"theirs": 1})


def test_a_node_is_deleted_by_somebody_else(far: Far) -> None:
    created = between(far, "create_node", lambda beside: beside.delete_node_state("create_node", "new"))
    assert created.version == 1
    assert far.beside.get_node_state("create_node", "new") is None, "a retry must not bring it back"
    assert between(far, "delete_node", lambda beside: beside.set_node_state("delete_node", "node")) is True
    assert far.beside.get_node_state("delete_node", "node").version == 1, "a retry must not delete theirs"


def test_a_run_is_patched_and_deleted_by_somebody_else(far: Far) -> None:
    run = between(far, "update_run", lambda beside: beside.update_run("update_run", metadata={"theirs": 1}))
    assert (run.version, run.metadata) == (2, {"a": 1, "more": 1})
    assert far.beside.get_run("update_run").metadata == {"a": 1, "more": 1, "theirs": 1}
    assert between(far, "create_run", lambda beside: beside.delete_run("create_run-new")).version == 1
    assert far.beside.get_run("create_run-new") is None
    assert between(far, "delete_run", lambda beside: beside.create_run("delete_run", metadata={"b": 1})) is True
    assert far.beside.get_run("delete_run").metadata == {"b": 1}


def test_an_interval_is_restated_by_somebody_else(far: Far) -> None:
    run = "add_completed_interval"
    between(far, run, lambda beside: beside.restate_intervals(f"of-{run}", NOON, TWO))
    assert far.beside.get_completed_intervals(f"of-{run}") == [], "what somebody un-completed later stays so"
    run = "restate_intervals"
    between(far, run, lambda beside: beside.add_completed_interval(run, f"of-{run}", NOON, TWO))
    (done,) = far.beside.get_completed_intervals(f"of-{run}")
    assert (done.start, done.end) == (NOON, TWO)


def tokens(far: Far, run: str, node: str) -> list[int]:
    return [lock.token for lock in far.beside.list_locks() if (lock.run_id, lock.node_id) == (run, node)]


def test_a_lock_is_taken_by_somebody_else_after_it_was_released(far: Far) -> None:
    assert between(far, "release_lock", lambda beside: beside.acquire_lock("release_lock", "mine", 0)) is True
    assert tokens(far, "release_lock", "mine") == [2]


def test_a_lock_is_taken_by_somebody_else_after_it_was_broken(far: Far) -> None:
    broken = between(far, "break_lock", lambda beside: beside.acquire_lock("break_lock", "theirs", 0))
    assert broken.token == 1
    assert tokens(far, "break_lock", "theirs") == [2], "a later lease stands"


def test_a_lock_is_broken_and_taken_by_somebody_else_after_it_was_granted(far: Far) -> None:
    def theirs(beside: StateBackend) -> None:
        assert beside.break_lock("acquire_lock", "free", reason="test").token == 1
        assert beside.acquire_lock("acquire_lock", "free", 0)

    assert between(far, "acquire_lock", theirs) is False, "it is not held any more"
    assert tokens(far, "acquire_lock", "free") == [2]
