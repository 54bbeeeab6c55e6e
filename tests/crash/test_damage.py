"""Files that are cut, flipped, zeroed or replaced: all of the data up to the damage, or an error that says where."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from seeknal.errors import BackendUnavailableError, CorruptStateError, SchemaVersionError
from seeknal.state.backend import create_state_backend
from seeknal.state.file import durable
from seeknal.state.file.documents import FORMAT
from seeknal.state.testing.crashes import check_survivor, commit_number

COMMITS = 6

FRAME = 16
"""Of the bytes of a record so many hold its checksum and its length, and a little of what follows them."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A file store with a checkpoint behind it and ``COMMITS`` commits in its journal."""
    folder = tmp_path / "target"
    with create_state_backend("file", base_path=folder, checkpoint_bytes=1) as backend:
        backend.initialize()
        backend.create_run("before the checkpoint")
        backend.delete_run("before the checkpoint")
    with create_state_backend("file", base_path=folder) as backend:
        backend.initialize()
        for number in range(1, COMMITS + 1):
            commit_number(backend, number)
        # A process that is killed writes nothing more: keep the files as they are now.
        shutil.copytree(folder, tmp_path / "killed")
    return tmp_path / "killed"


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: what a program reads after a cut is the same, and there are more than a thousand of them."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(durable, "_sync", lambda descriptor: None)


def journal_of(store: Path) -> Path:
    [journal] = (store / "run_state").glob("journal-*.log")
    return journal


def linked(store: Path, scratch: Path) -> None:
    """Copy a store, its documents as links: they are replaced and never written into; a journal and a lock are."""

    def copy(path: str, to: str) -> None:
        os.link(path, to) if path.endswith(".json") else shutil.copyfile(path, to)

    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(store, scratch, copy_function=copy)


def reopened(store: Path, scratch: Path) -> int:
    """Return the last commit that a copy of the store holds."""
    linked(store, scratch)
    with create_state_backend("file", base_path=scratch) as backend:
        backend.initialize()
        left = backend.get_latest_node_state("left")
        last = left.row_count if left and left.row_count else 0
        check_survivor(backend, last)
        commit_number(backend, last + 1)
        return last


def cut_and_open(store: Path, scratch: Path, sizes: Callable[[list[int]], Iterable[int]]) -> None:
    """Cut the journal at some sizes, given the ends of its records, and look what is left each time."""
    journal = journal_of(store)
    content = journal.read_bytes()
    ends = [0, *(at + 1 for at, byte in enumerate(content) if byte == 0x0A)]
    for size in sizes(ends):
        journal.write_bytes(content[:size])
        whole = COMMITS - sum(end > size for end in ends)
        assert reopened(store, scratch) == whole, f"cut at byte {size} of {len(content)}"


@pytest.mark.usefixtures("unsynced")
def test_a_journal_cut_anywhere_holds_every_whole_commit_before_the_cut(store: Path, tmp_path: Path) -> None:
    """At every byte where a record begins and ends, and at every seventh one between."""

    def sizes(ends: list[int]) -> Iterable[int]:
        *_, second, last, end = ends
        near = [size for at in (second, last, end) for size in range(max(second, at - FRAME), min(end, at + FRAME) + 1)]
        return sorted({*near, *range(second, end, 7)})

    cut_and_open(store, tmp_path / "copy", sizes)


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("unsynced")
def test_a_journal_cut_at_any_byte_holds_every_whole_commit_before_the_cut(store: Path, tmp_path: Path) -> None:
    cut_and_open(store, tmp_path / "copy", lambda ends: range(ends[-3], ends[-1] + 1))


def flip_and_open(store: Path, scratch: Path, bits_of: Callable[[int, bool], Iterable[int]]) -> None:
    """Flip bits of each byte of the last record, one at a time: each time it is refused."""
    journal = journal_of(store)
    content = journal.read_bytes()
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    for at in range(start, len(content)):
        is_frame = at < start + FRAME or at == len(content) - 1
        for bit in bits_of(at, is_frame):
            journal.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            with pytest.raises(CorruptStateError) as raised:
                reopened(store, scratch)
            assert raised.value.offset == start
            assert raised.value.location.endswith(journal.name)
            assert raised.value.hint


@pytest.mark.usefixtures("unsynced")
def test_a_journal_with_a_bit_flipped_is_refused_with_its_offset(store: Path, tmp_path: Path) -> None:
    """Three bits of each byte of the frame, and one of every third byte of what it holds."""

    def bits_of(at: int, is_frame: bool) -> Iterable[int]:
        return (0, 5, 7) if is_frame else () if at % 3 else ((0, 5, 7)[at // 3 % 3],)

    flip_and_open(store, tmp_path / "copy", bits_of)


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("unsynced")
def test_a_journal_with_any_bit_flipped_is_refused_with_its_offset(store: Path, tmp_path: Path) -> None:
    flip_and_open(store, tmp_path / "copy", lambda at, is_frame: (0, 5, 7))


@pytest.mark.parametrize("zeros", [1, 7, 512, 4096])
def test_a_journal_with_a_tail_of_zeros_loses_nothing(store: Path, tmp_path: Path, zeros: int) -> None:
    journal = journal_of(store)
    journal.write_bytes(journal.read_bytes() + bytes(zeros))
    assert reopened(store, tmp_path / "copy") == COMMITS


@pytest.mark.parametrize("name", ["store.json", "index-*.json", "runs/run%200.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing", "directory"])
def test_a_damaged_json_file_is_named_and_nothing_is_taken_for_empty(
    store: Path, tmp_path: Path, name: str, damage: str
) -> None:
    with create_state_backend("file", base_path=store, checkpoint_bytes=1) as backend:
        backend.initialize()
        backend.set_metadata("run 0", {"checkpoint": "written"})
    [path] = (store / "run_state").glob(name)
    content = path.read_bytes()
    for changed in _damaged(content, damage):
        path.unlink() if path.is_file() else path.rmdir()
        if changed is not None:
            path.write_bytes(changed)
        elif damage == "directory":
            path.mkdir()
        with pytest.raises((CorruptStateError, BackendUnavailableError, SchemaVersionError)) as raised:
            _read_everything(store, tmp_path / "copy")
        assert path.name in str(raised.value)
        assert raised.value.hint


def _damaged(content: bytes, damage: str) -> list[bytes | None]:
    if damage == "cut":
        return [content[:size] for size in range(len(content) - 40, len(content) - 1)]
    if damage == "flipped":
        digits = [at for at, byte in enumerate(content) if chr(byte).isalnum()]
        return [
            content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in digits[:: max(1, len(digits) // 60)]
        ]
    return [b"" if damage == "empty" else None]


def _read_everything(store: Path, scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(store, scratch)
    with create_state_backend("file", base_path=scratch) as backend:
        backend.initialize()
        for run_id in backend.list_runs():
            backend.get_all_node_states(run_id)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"nodes": 3}', b"\xff\xfe"])
def test_a_run_state_json_that_is_no_run_state_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    view = tmp_path / "run_state.json"
    view.write_bytes(content)
    with pytest.raises(CorruptStateError) as raised:
        create_state_backend("file", base_path=tmp_path).initialize()
    assert raised.value.location == str(view)
    assert view.read_bytes() == content


def test_a_full_disk_refuses_the_commit_and_keeps_what_was_there(tmp_path: Path) -> None:
    backend = create_state_backend("file", base_path=tmp_path / "target")
    backend.initialize()
    commit_number(backend, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = journal_of(tmp_path / "target").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        with pytest.raises(BackendUnavailableError, match=r"journal-.*\.log"):
            commit_number(backend, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal_of(tmp_path / "target").stat().st_size == size
    check_survivor(backend, 1)
    commit_number(backend, 2)
    check_survivor(backend, 2)
    backend.close()


def test_a_disk_that_does_not_confirm_a_commit_leaves_the_outcome_unknown(tmp_path: Path, monkeypatch) -> None:
    from seeknal.errors import CommitUnknownError

    backend = create_state_backend("file", base_path=tmp_path)
    backend.initialize()
    backend.create_run("run")

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_sync", failing)
        with pytest.raises(CommitUnknownError) as raised:
            backend.set_node_state("run", "node", status="success")
    assert raised.value.outcome == "unknown"
    with pytest.raises(BackendUnavailableError, match="could not be made certain"):
        backend.get_run("run")
    with pytest.raises(BackendUnavailableError):
        backend.close()
    with create_state_backend("file", base_path=tmp_path) as again:
        again.initialize()
        assert again.exists("run")


@pytest.mark.parametrize(
    "place", [lambda base: base, lambda base: base / "run_state", lambda base: base / "run_state" / "lock"]
)
def test_a_file_or_directory_in_the_way_is_named(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path / "target")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if path.name == "lock" else path.write_text("in the way")
    with pytest.raises(BackendUnavailableError) as raised:
        create_state_backend("file", base_path=tmp_path / "target").initialize()
    assert str(path) in str(raised.value)


def test_permission_lost_while_open_is_a_typed_error(tmp_path: Path, monkeypatch) -> None:
    backend = create_state_backend("file", base_path=tmp_path)
    backend.initialize()
    backend.create_run("run")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(BackendUnavailableError, match="Permission denied") as raised:
            backend.set_node_state("run", "node", status="success")
    assert "owns" in raised.value.hint
    assert backend.get_node_state("run", "node") is None
    backend.close()


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    with create_state_backend("file", base_path=tmp_path) as backend:
        backend.initialize()
    document = tmp_path / "run_state" / "store.json"
    document.write_text(document.read_text().replace(f'"format": {FORMAT}', '"format": 9'))
    with pytest.raises(SchemaVersionError) as raised:
        create_state_backend("file", base_path=tmp_path).initialize()
    assert (raised.value.found, raised.value.wanted) == ("9", str(FORMAT))


def test_a_journal_without_its_store_json_is_not_an_empty_store(store: Path) -> None:
    (store / "run_state" / "store.json").unlink()
    with pytest.raises(CorruptStateError, match=r"store\.json"):
        create_state_backend("file", base_path=store).initialize()


@pytest.mark.parametrize("kind", ["file", "database"])
def test_signals_in_the_middle_of_system_calls_disturb_nothing(tmp_path: Path, kind: str) -> None:
    options = {"base_path": tmp_path} if kind == "file" else {"db_path": tmp_path / "state.db"}
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        with create_state_backend(kind, **options) as backend:
            backend.initialize()
            for number in range(1, 100):
                commit_number(backend, number)
            check_survivor(backend, 99)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung


def test_a_read_only_file_system_is_a_typed_error(tmp_path: Path, monkeypatch) -> None:
    def refuse(path: object, flags: int, *rest: object, **named: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BackendUnavailableError, match="Read-only file system"):
        create_state_backend("file", base_path=tmp_path / "target").initialize()
