"""Directories that two processes remove at once, as the copy of a file store that one has read and another finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from seeknal.state.file import durable


def test_what_another_process_removes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "snapshot-1.tmp"
    (copy / "runs").mkdir(parents=True)
    (copy / "runs" / "a.json").write_text("{}")
    (copy / "lock").write_text("")
    real, calls = shutil.rmtree, []

    def overtaken(path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:  # the other one is at it: one file is gone under our hands
            (copy / "lock").unlink()
            raise FileNotFoundError(str(copy / "lock"))
        real(path)

    monkeypatch.setattr(shutil, "rmtree", overtaken)
    durable.remove_tree(copy)
    assert (copy.exists(), len(calls)) == (False, 2)
    durable.remove_tree(copy)
    assert len(calls) == 2


def test_what_cannot_be_removed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(PermissionError):
        durable.remove_tree(tmp_path)
