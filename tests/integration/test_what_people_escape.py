"""The faults of the published platform's backends that people come here to escape, one test each."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from tests.processes import PROCESSES

from seeknal.errors import BackendUnavailableError, CommitUnknownError, CorruptStateError
from seeknal.state.backend import create_state_backend


@pytest.fixture(params=["file", "database"])
def place(request, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Return the name of a backend and where its store is."""
    if request.param == "file":
        return "file", {"base_path": str(tmp_path)}
    return "database", {"db_path": str(tmp_path / "state.db")}


def opened(place):
    backend = create_state_backend(place[0], **place[1])
    backend.initialize()
    return backend


def test_a_rollback_undoes_what_was_written(place) -> None:
    with opened(place) as backend:
        backend.create_run("run")
        transaction = backend.begin_transaction()
        backend.set_node_state("run", "node", status="success")
        backend.rollback_transaction(transaction)
        assert not backend.node_exists("run", "node")
    with opened(place) as again:
        assert not again.node_exists("run", "node")


def _try_lock(place, granted) -> None:
    with opened(place) as backend:
        granted.put(backend.acquire_lock("run", timeout_ms=0))


def test_a_lock_holds_against_another_process(place) -> None:
    granted = PROCESSES.SimpleQueue()
    with opened(place) as backend, backend.lock("run"):
        child = PROCESSES.Process(target=_try_lock, args=(place, granted))
        child.start()
        assert granted.get() is False
        child.join()
    granted.close()


def test_two_ids_never_land_in_one_record(place) -> None:
    ids = ["a/b", "a_b", "a\\b", "a:b", "A/B", "../a", "a"]
    with opened(place) as backend:
        for run_id in ids:
            backend.create_run(run_id, metadata={"own": run_id})
    with opened(place) as again:
        assert [again.get_metadata(run_id) for run_id in ids] == [{"own": run_id} for run_id in ids]


def test_a_write_is_there_before_anything_is_closed(place) -> None:
    with opened(place) as backend, opened(place) as other:
        backend.create_run("run")
        backend.set_node_state("run", "node", status="success")
        assert other.get_node_state("run", "node").status == "success"


def test_a_full_disk_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with opened(("database", {"db_path": tmp_path / "state.db"})) as backend:
        backend.create_run("run", metadata={"kept": True})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "state.db-wal").stat().st_size, before[1]))
            with pytest.raises((BackendUnavailableError, CommitUnknownError), match=r"state\.db"):
                backend.set_node_state("run", "node", error_message="x" * 100_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert backend.get_metadata("run") == {"kept": True}
        backend.set_node_state("run", "node", status="success")


def test_a_database_cut_in_the_middle_is_an_error_and_not_an_empty_store(tmp_path: Path) -> None:
    place = ("database", {"db_path": tmp_path / "state.db"})
    with opened(place) as backend:
        for number in range(200):
            backend.create_run(f"run {number}", metadata={"text": "x" * 500})
    path = tmp_path / "state.db"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 4096 * 4096])

    def read_all() -> None:
        with opened(place) as backend:
            assert len([backend.get_run(run_id) for run_id in backend.list_runs()]) == 200

    with pytest.raises(CorruptStateError, match=r"state\.db"):
        read_all()
