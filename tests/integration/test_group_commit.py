"""Commits of several threads that one sync makes durable."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seeknal.errors import BackendUnavailableError, CommitUnknownError, ConcurrencyError
from seeknal.state.file import durable
from seeknal.state.file.backend import FileStateBackend


class Group:
    """Threads that commit while the sync of another commit goes on, and so wait for the next turn together."""

    def __init__(self, backend: FileStateBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend = backend
        self.syncs = 0
        self.on_second: Callable[[], None] = lambda: None
        self._gathered, self._begun = threading.Event(), threading.Event()
        real = durable._sync

        def sync(descriptor: int) -> None:
            self.syncs += 1
            if self.syncs == 1:
                self._begun.set()
                assert self._gathered.wait(20)
            if self.syncs == 2:
                self.on_second()
            real(descriptor)

        monkeypatch.setattr(durable, "_sync", sync)

    def commit(self, *works: Callable[[], object]) -> list[BaseException | None]:
        """Let each of these commit in a thread of its own, all in one turn; return what they raised."""
        raised: list[BaseException | None] = [None] * len(works)

        def call(number: int) -> None:
            try:
                works[number]()
            except BaseException as error:
                raised[number] = error

        first = threading.Thread(target=self.backend.set_node_state, args=("run", "first"))
        first.start()
        assert self._begun.wait(20)
        threads = [threading.Thread(target=call, args=(number,)) for number in range(len(works))]
        for thread in threads:
            thread.start()
        waiting = self.backend._store._queue._waiting
        while len(waiting) < len(works) and any(thread.is_alive() for thread in threads):
            threading.Event().wait(0.001)
        self._gathered.set()
        for thread in (first, *threads):
            thread.join(20)
        return raised


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[FileStateBackend]:
    with FileStateBackend(tmp_path) as opened:
        opened.initialize()
        opened.create_run("run")
        yield opened


def setting(backend: FileStateBackend, *nodes: str) -> list[Callable[[], object]]:
    return [lambda node=node: backend.set_node_state("run", node, row_count=1) for node in nodes]


def nodes_on_disk(folder: Path) -> set[str]:
    with FileStateBackend(folder) as other:
        other.initialize()
        return set(other.list_nodes("run"))


def test_one_sync_is_for_all_threads_that_wait(backend, tmp_path, monkeypatch) -> None:
    group = Group(backend, monkeypatch)
    assert group.commit(*setting(backend, "a", "b", "c", "d")) == [None] * 4
    assert group.syncs == 2
    assert nodes_on_disk(tmp_path) == {"first", "a", "b", "c", "d"}


def test_a_commit_of_a_group_conflicts_with_those_before_it_and_is_refused_alone(backend, tmp_path, monkeypatch):
    backend.set_node_state("run", "counter", row_count=0)

    def count() -> None:
        with backend.transaction():
            backend.set_node_state("run", "counter", row_count=backend.get_node_state("run", "counter").row_count + 1)

    raised = Group(backend, monkeypatch).commit(count, *setting(backend, "a"), count, count)
    assert raised[1] is None
    assert sorted(isinstance(raised[number], ConcurrencyError) for number in (0, 2, 3)) == [False, True, True]
    assert backend.get_node_state("run", "counter").row_count == 1
    assert nodes_on_disk(tmp_path) == {"first", "a", "counter"}


def test_what_cannot_be_written_is_told_to_whom_it_belongs(backend, tmp_path, monkeypatch) -> None:
    real = durable.append

    def append(descriptor: int, frame: bytes, start: int) -> None:
        if b'"b"' in frame:
            os.write(descriptor, frame[:10])  # and what was written cannot be cut back either
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor, frame, start)

    monkeypatch.setattr(durable, "append", append)
    raised = Group(backend, monkeypatch).commit(*setting(backend, "a", "b", "c"))
    assert isinstance(raised[1], BackendUnavailableError)
    assert raised[0] is None
    assert raised[2] is None
    assert nodes_on_disk(tmp_path) == {"first", "a", "c"}


def test_a_sync_that_fails_leaves_all_of_its_group_unknown(backend, monkeypatch) -> None:
    group = Group(backend, monkeypatch)

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    group.on_second = fail
    raised = group.commit(*setting(backend, "a", "b", "c"))
    assert [type(error) for error in raised] == [CommitUnknownError] * 3
    with pytest.raises(BackendUnavailableError, match="could not be made certain"):
        backend.set_node_state("run", "a", row_count=2)
    with pytest.raises(BackendUnavailableError, match="could not be made certain"):
        backend.close()


def test_threads_whose_leader_is_interrupted_finish_their_commits_themselves(backend, tmp_path, monkeypatch) -> None:
    group = Group(backend, monkeypatch)

    def interrupt() -> None:
        raise KeyboardInterrupt

    group.on_second = interrupt
    raised = group.commit(*setting(backend, "a", "b", "c"))
    assert sorted(str(type(error).__name__) for error in raised) == ["KeyboardInterrupt", "NoneType", "NoneType"]
    assert group.syncs == 3
    acknowledged = {node for node, error in zip("abc", raised, strict=True) if error is None}
    assert acknowledged < nodes_on_disk(tmp_path)
    assert [backend.get_node_state("run", node).version for node in acknowledged] == [1, 1]


def test_a_commit_that_was_given_up_is_not_made_later(tmp_path: Path) -> None:
    with FileStateBackend(tmp_path, busy_timeout_ms=30) as backend:
        backend.initialize()
        backend.create_run("run")
        with backend._store._queue.turn():
            with pytest.raises(BackendUnavailableError, match="30 ms"):
                backend.set_node_state("run", "late")
            assert not backend._store._queue._waiting
        backend.set_node_state("run", "node")
        assert backend.list_nodes("run") == ["node"]
