"""What is special about the file store: its files, its view, its followers, its successor."""

from __future__ import annotations

import gc
import json
import os
import shutil
import stat
import threading
import zlib
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.processes import PROCESSES

from seeknal.clock import FakeClock
from seeknal.errors import BackendUnavailableError, CorruptStateError, LeaseLostError, SupersededError
from seeknal.state.backend import create_state_backend
from seeknal.state.file import checkpoint, durable
from seeknal.state.file.backend import FileStateBackend
from seeknal.state.file.documents import FORMAT
from seeknal.state.file.network import file_system_type, refuse_network_file_system
from seeknal.state.file.store import FileStore


def opened(folder: Path, **options) -> FileStateBackend:
    backend = FileStateBackend(folder, **options)
    backend.initialize()
    return backend


def view_of(folder: Path) -> dict:
    return json.loads((folder / "run_state.json").read_bytes())


def test_run_state_json_has_the_shape_of_the_guide(tmp_path: Path) -> None:
    with opened(tmp_path) as backend:
        backend.create_run("run_20240110_120000", started_at=datetime(2024, 1, 10, 12, tzinfo=UTC))
        backend.set_node_state(
            "run_20240110_120000",
            "my_node",
            status="success",
            duration_ms=1500,
            row_count=1000,
            fingerprint="abc123...",
        )
        # Light use: the view is written with the commit itself.
        view = view_of(tmp_path)
    assert view["run_id"] == "run_20240110_120000"
    assert view["started_at"] == "2024-01-10T12:00:00Z"
    node = view["nodes"]["my_node"]
    expected = {
        "run_id": "run_20240110_120000",
        "node_id": "my_node",
        "status": "success",
        "duration_ms": 1500,
        "row_count": 1000,
        "fingerprint": "abc123...",
    }
    assert {key: node[key] for key in expected} == expected


def test_run_state_json_is_valid_before_the_first_run(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert view_of(tmp_path) == {"run_id": None, "started_at": None, "nodes": {}}


def test_run_state_json_follows_a_writer_that_never_pauses(tmp_path: Path) -> None:
    with opened(tmp_path) as backend:
        backend.create_run("run")
        for number in range(3000):
            backend.set_node_state("run", "node", row_count=number)
        written = threading.Event()

        def watch() -> None:
            while view_of(tmp_path)["nodes"]["node"]["row_count"] != 2999:
                pass
            written.set()

        threading.Thread(target=watch, daemon=True).start()
        assert written.wait(10), "the view never caught up while the store was open"


def test_earlier_runs_and_completed_work_stand_beside_in_readable_json(tmp_path: Path) -> None:
    with opened(tmp_path) as backend:
        backend.create_run("first")
        backend.set_node_state("first", "node", status="success")
        backend.add_completed_interval("first", "node", datetime(2024, 1, 1), datetime(2024, 1, 2))
        backend.add_completed_partition("first", "node", "eu", row_count=3)
        backend.create_run("second")
        first = json.loads((tmp_path / "run_state" / "runs" / "first.json").read_bytes())
        work = json.loads((tmp_path / "run_state" / "nodes" / "node.json").read_bytes())
    assert first["nodes"]["node"]["status"] == "success"
    assert work["intervals"] == [
        {"node_id": "node", "start": "2024-01-01T00:00:00Z", "end": "2024-01-02T00:00:00Z", "run_id": "first"}
    ]
    assert work["partitions"]["eu"]["row_count"] == 3


def test_every_file_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "target", checkpoint_bytes=1) as backend:
            backend.create_run("run")
            backend.create_run("other")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "target").rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("checkpoint_bytes", [1, 1500, 1 << 20])
def test_an_open_instance_follows_another_through_its_checkpoints(tmp_path: Path, checkpoint_bytes: int) -> None:
    with opened(tmp_path, checkpoint_bytes=checkpoint_bytes) as writer, opened(tmp_path) as reader:
        for number in range(40):
            run_id = f"run {number}"
            writer.create_run(run_id)
            writer.set_node_state(run_id, "node", status="success", row_count=number)
            if number >= 3:
                writer.delete_run(f"run {number - 3}")
            if number % 7 == 0:  # it falls several checkpoints behind in between
                assert reader.get_latest_node_state("node").row_count == number
                assert reader.list_runs() == writer.list_runs()
        assert [reader.get_node_state(run_id, "node").row_count for run_id in reader.list_runs()] == [37, 38, 39]


def test_an_open_instance_follows_a_checkpoint_that_removed_the_file_of_a_run(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.create_run("gone")
        writer.set_node_state("gone", "node", status="success")
        writer.create_run("latest")  # of which everybody reads the nodes
        with writer._store.writing():
            writer._store.checkpoint()
        with opened(tmp_path) as reader:
            assert reader.exists("gone")
            writer.delete_run("gone")
            with writer._store.writing():
                writer._store.checkpoint()
            assert reader.list_runs() == ["latest"]
            assert reader.get_latest_node_state("node") is None


def test_a_commit_to_one_run_reads_no_other_run(tmp_path: Path) -> None:
    with opened(tmp_path) as backend:
        for run_id in ("old", "new"):
            backend.create_run(run_id)
            backend.set_node_state(run_id, "node", status="success")
        with backend._store.writing():
            backend._store.checkpoint()
    (tmp_path / "run_state" / "runs" / "old.json").write_text("damaged, but nobody asks")
    with opened(tmp_path) as backend:
        backend.set_node_state("new", "node", status="failed")
        assert backend.get_latest_node_state("node").run_id == "new"


def test_ids_that_look_like_paths_stay_inside_and_apart(tmp_path: Path) -> None:
    ids = ["../x", "a/b", "ab", "AB", "a%2fb", "..", ".", "x" * 190, "x" * 189 + "y", "é", "e\u0301", "a b", "a b "]
    with opened(tmp_path / "target", checkpoint_bytes=1) as backend:
        for run_id in ids:
            backend.create_run(run_id)
            backend.set_node_state(run_id, run_id, status="success", error_message=run_id)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    with opened(tmp_path / "target") as backend:
        assert backend.list_runs() == ids
        assert [backend.get_node_state(run_id, run_id).error_message for run_id in ids] == ids


def test_a_store_that_was_left_refuses_late_writers_until_its_backup_is_put_back(tmp_path: Path) -> None:
    late = opened(tmp_path)
    late.create_run("run")
    late.set_node_state("run", "node", status="success")
    with opened(tmp_path) as mover:
        store_id = mover.read_store().store_id
        mover.write_successor(store_id, "target/state.db")
    with pytest.raises(SupersededError, match=r"target/state\.db"):
        late.set_node_state("run", "node", status="failed")
    with pytest.raises(SupersededError):
        late.acquire_lock("run", timeout_ms=0)
    assert late.get_node_state("run", "node").status == "success", "reading goes on"
    late.close()
    assert view_of(tmp_path)["superseded_by"] == "target/state.db"
    with opened(tmp_path) as again, pytest.raises(SupersededError):
        again.create_run("another")

    shutil.copy(tmp_path / "run_state.json.bak", tmp_path / "run_state.json")
    with opened(tmp_path) as restored:
        assert restored.read_store().superseded_by is None
        assert restored.read_store().store_id == store_id
        assert restored.get_node_state("run", "node").status == "success"
        restored.set_node_state("run", "node", status="failed")
    assert "superseded_by" not in view_of(tmp_path)


def test_a_run_state_json_without_a_store_is_taken_in(tmp_path: Path) -> None:
    (tmp_path / "run_state.json").write_text(
        json.dumps(
            {
                "schema_version": "2.0",
                "run_id": "run_1",
                "last_run": "2024-01-10T12:00:00",
                "config": {"a": 1},
                "nodes": {"n": {"hash": "abc", "status": "success", "row_count": 7, "iceberg_table_ref": "db.t"}},
            }
        )
    )
    with opened(tmp_path) as backend:
        run, node = backend.get_run("run_1"), backend.get_node_state("run_1", "n")
    assert run.started_at == datetime(2024, 1, 10, 12).astimezone(UTC), "the platform writes local time"
    assert (run.config, run.metadata["schema_version"]) == ({"a": 1}, "2.0")
    assert (node.fingerprint, node.row_count, node.metadata) == ("abc", 7, {"iceberg_table_ref": "db.t"})


def test_the_view_is_rebuilt_when_it_is_deleted(tmp_path: Path) -> None:
    with opened(tmp_path) as backend:
        backend.create_run("run")
    (tmp_path / "run_state.json").unlink()
    opened(tmp_path).close()
    assert view_of(tmp_path)["run_id"] == "run"


def _write_in_a_loop(folder: Path, number: int, count: int) -> None:
    with opened(folder, checkpoint_bytes=20_000) as backend:
        for each in range(count):
            backend.set_node_state("run", "shared", metadata={f"{number}-{each}": True})
            backend.set_node_state("run", f"own {number}", row_count=each)


def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, checkpoint_bytes=20_000) as backend:
        backend.create_run("run")
        writers = [PROCESSES.Process(target=_write_in_a_loop, args=(tmp_path, number, 25)) for number in range(8)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            json.loads((tmp_path / "run_state.json").read_bytes())
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        shared = backend.get_node_state("run", "shared")
        assert shared.version == 200
        assert len(shared.metadata) == 200
        assert [backend.get_node_state("run", f"own {number}").version for number in range(8)] == [25] * 8


def test_a_view_that_falls_behind_while_it_is_written_is_not_taken_for_somebody_elses(tmp_path, monkeypatch):
    with opened(tmp_path) as backend, opened(tmp_path) as other:
        backend.create_run("run")
        commits = iter(range(1000))

        def commit_in_between(point: str) -> None:
            if point == "write":
                monkeypatch.setattr(durable, "at", lambda _: None)
                other.set_node_state("run", "node", row_count=next(commits))

        for _ in range(10):
            monkeypatch.setattr(durable, "at", commit_in_between)
            backend._view.write()
            assert (tmp_path / "run_state.json").stat().st_mtime_ns <= backend._store.last_commit_ns()
    assert list(tmp_path.glob("run_state.json.*")) == []


def test_another_thread_does_not_wait_beyond_its_budget(tmp_path: Path) -> None:
    with opened(tmp_path) as backend:
        backend.create_run("run")
        other = opened(tmp_path, busy_timeout_ms=30)
        store = backend._store
        with store.writing(), pytest.raises(BackendUnavailableError, match="30 ms"):
            other.set_node_state("run", "node", status="success")
        other.set_node_state("run", "node", status="success")
        other.close()


def test_another_thread_that_meets_a_store_as_it_is_closed_is_told_so(tmp_path: Path) -> None:
    backend = FileStateBackend(tmp_path)
    backend.initialize()
    backend.create_run("run")
    store = backend._store  # which a thread has that waits for the mutex when it is closed
    backend.close()
    with pytest.raises(BackendUnavailableError, match="was closed"), store.writing():
        pass
    with pytest.raises(BackendUnavailableError, match="was closed"):
        store.read(lambda image: image.read_nodes("run"))


def test_who_has_waited_long_asks_as_often_as_who_has_just_come(tmp_path: Path) -> None:
    clock, pauses = FakeClock(), []
    with opened(tmp_path) as backend, opened(tmp_path, clock=clock) as other:
        backend.create_run("run")
        with ExitStack() as held:
            held.enter_context(backend._store.writing())

            def sleep(seconds: float) -> None:
                pauses.append(seconds)
                clock.advance(seconds=seconds)
                if sum(pauses) > 0.9:
                    held.close()

            clock.sleep = sleep
            other.set_node_state("run", "node", status="success")
    assert 0 < max(pauses) < 0.001


def test_a_forked_child_works_and_owns_nothing_of_its_parent(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.create_run("run")
    assert backend.acquire_lock("run")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = b"failed"
        try:
            backend.set_node_state("run", "from the child", status="success")
            if not backend.release_lock("run") and not backend.acquire_lock("run", timeout_ms=0):
                outcome = b"worked"
            backend.close()
        finally:
            os.write(writing, outcome)
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"worked"
    assert backend.node_exists("run", "from the child")
    assert backend.release_lock("run"), "the child's close must not give the parent's lock back"
    backend.close()
    os.close(reading)
    os.close(writing)


def test_a_thousand_openings_leak_nothing(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    opened(tmp_path).close()
    gc.collect()  # what earlier tests dropped would otherwise be closed while we count
    before = count(), threading.active_count()
    for number in range(1000):
        with opened(tmp_path) as backend:
            if number % 50 == 0:
                backend.create_run(f"run {number}")
                backend.acquire_lock(f"run {number}")
    assert (count(), threading.active_count()) == before


def test_a_lease_lost_to_a_break_refuses_the_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as ours, opened(tmp_path) as theirs:
        ours.create_run("run")
        with ours.lock("run") as lease:
            assert theirs.break_lock("run", reason="its machine is gone").token == lease.token
            with pytest.raises(LeaseLostError), ours.transaction(lease=lease):
                ours.set_node_state("run", "node", status="success")
        assert not theirs.node_exists("run", "node")


MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:40 / /mnt/share rw - nfs4 server:/export rw
31 21 0:41 / /mnt/with\\040space rw - cifs //server/share rw
33 21 0:42 / /mnt/данные rw - nfs server:/data rw
32 30 8:2 / /mnt/share/local rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/target", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/project/target", "nfs4"),
        ("/mnt/shared/target", "ext4"),
        ("/mnt/with space/target", "cifs"),
        ("/mnt/данные/target", "nfs"),
        ("/mnt/share/local/target", "xfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(path: str, kind: str) -> None:
    assert file_system_type(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused_with_the_reason(tmp_path: Path, monkeypatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:40 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr("seeknal.state.file.network.MOUNTS", table)
    with pytest.raises(BackendUnavailableError, match=r"network file system \(nfs4\)") as raised:
        create_state_backend("file", base_path=tmp_path / "target").initialize()
    assert "database" in raised.value.hint
    refuse_network_file_system(Path("/"))


def test_a_run_state_json_that_somebody_put_back_is_kept_beside_with_a_warning(tmp_path: Path, caplog) -> None:
    view = tmp_path / "run_state.json"
    with opened(tmp_path) as backend:
        backend.create_run("first")
        backend.set_node_state("first", "node", status="success")
    old = view.read_bytes()
    with opened(tmp_path) as backend:
        backend.create_run("second")
    view.write_bytes(old)
    os.utime(view, ns=(view.stat().st_atime_ns, view.stat().st_mtime_ns + 1_000_000_000))
    with opened(tmp_path) as backend:
        assert backend.list_runs() == ["first", "second"], "the journal is the truth"
    assert view_of(tmp_path)["run_id"] == "second"
    [kept] = tmp_path.glob("run_state.json.*.bak")
    assert kept.read_bytes() == old
    assert str(kept) in caplog.text


@pytest.mark.parametrize("node", ['{"status": "completed"}', '{"attempt": 0}', '{"metadata": [1]}', "[]"])
def test_a_run_state_json_that_cannot_be_taken_in_is_refused_each_time_and_kept(tmp_path: Path, node: str) -> None:
    content = f'{{"run_id": "r1", "nodes": {{"n": {node}}}}}'
    (tmp_path / "run_state.json").write_text(content)
    for _ in range(2):
        with pytest.raises(CorruptStateError, match=r"run_state\.json"):
            FileStateBackend(tmp_path).initialize()
    assert (tmp_path / "run_state.json").read_text() == content


def test_completed_work_of_the_published_platform_is_taken_in(tmp_path: Path) -> None:
    node = {
        "status": "success",
        "completed_intervals": [["2024-01-01T00:00:00", "2024-01-02T00:00:00"]],
        "completed_partitions": ["eu"],
    }
    (tmp_path / "run_state.json").write_text(json.dumps({"run_id": "r", "nodes": {"n": node}}))
    with opened(tmp_path) as backend:
        [span] = backend.get_completed_intervals("n")
        assert (span.start, span.end) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
        assert [state.partition for state in backend.list_partitions("n")] == ["eu"]
        assert backend.get_node_state("r", "n").metadata == {}


# ---- very many runs ----


def of_many_runs(folder: Path, runs: int, **options) -> FileStateBackend:
    backend = opened(folder, **options)
    for number in range(runs):
        with backend.transaction():
            backend.create_run(f"r{number}")
            for node in range(5):
                backend.set_node_state(f"r{number}", f"n{node}", row_count=number)
    return backend


def loaded(backend: FileStateBackend) -> int:
    return sum(map(len, backend._store.image._nodes.values()))


def test_a_writer_of_many_runs_keeps_few_of_them_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_LOADED_NODES", 10)
    with of_many_runs(tmp_path, 20) as backend:
        assert loaded(backend) <= 15
        assert [backend.get_node_state(f"r{number}", "n4").row_count for number in range(20)] == list(range(20))
        assert loaded(backend) <= 15


def test_who_reads_a_long_journal_keeps_few_runs_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_LOADED_NODES", 10)
    monkeypatch.setattr(FileStore, "checkpoint_in_passing", lambda store: None)
    with of_many_runs(tmp_path, 20, checkpoint_bytes=1) as writer, opened(tmp_path) as reader:
        assert loaded(reader) <= 15
        assert all(reader.get_all_node_states(f"r{n}") == writer.get_all_node_states(f"r{n}") for n in range(20))
        assert reader.get_latest_node_state("n0").run_id == "r19"


def test_a_process_that_opens_a_store_does_not_begin_with_a_checkpoint_of_it(tmp_path: Path) -> None:
    with of_many_runs(tmp_path, 20) as backend, backend._store.writing():
        backend._store.checkpoint()
    [index] = (tmp_path / "run_state").glob("index-*.json")
    for number in range(3):
        with opened(tmp_path, checkpoint_bytes=100) as backend:
            backend.create_run(f"more {number}")
    assert list((tmp_path / "run_state").glob("index-*.json")) == [index]


def test_a_store_of_format_1_is_read_and_brought_to_the_format_of_today(tmp_path: Path) -> None:
    with of_many_runs(tmp_path, 3) as backend, backend._store.writing():
        backend._store.checkpoint()
    directory = tmp_path / "run_state"
    [index] = directory.glob("index-*.json")
    rewritten(index, lambda found: found.update(history={"n0": [["r0", 2, "pending"], ["r2", 14, "pending"]]}))
    rewritten(index, lambda found: found.pop("has_log"))
    rewritten(directory / "store.json", lambda found: found.update(format=1))
    (directory / "log.json").unlink()
    with opened(tmp_path) as backend:
        assert backend.get_latest_node_state("n0").run_id == "r2"
        assert backend.get_latest_node_state("n1") is None
    assert json.loads((directory / "store.json").read_bytes())["format"] == FORMAT
    [index] = directory.glob("index-*.json")
    assert json.loads(index.read_bytes())["history"] == {"n0": {"runs": "0 2", "sequences": "2 14", "statuses": "pp"}}


def rewritten(path: Path, change) -> None:
    """Change a document as somebody would who also knows how to set its checksum."""
    document = json.loads(path.read_bytes())
    del document["checksum"]
    change(document)
    body = json.dumps(document, indent=2).encode().removesuffix(b"\n}")
    path.write_bytes(body + b',\n  "checksum": "crc32:%08x"\n}\n' % zlib.crc32(body))


def test_a_store_opens_while_another_process_removes_the_checkpoint_that_it_was_about_to_read(tmp_path, monkeypatch):
    with opened(tmp_path) as other:
        other.create_run("r")
        load, loads = checkpoint.FileImage.load, []

        def overtaken(image, path):
            loads.append(path)
            if len(loads) == 1:
                other.set_node_state("r", "n", row_count=1)
                with other._store.writing():
                    other._store.checkpoint()
                assert not path.exists()
            load(image, path)

        monkeypatch.setattr(checkpoint.FileImage, "load", overtaken)
        with opened(tmp_path) as backend:
            assert backend.get_node_state("r", "n").row_count == 1
    assert len(loads) == 2
