"""A cleanup that archives deletes what stands in the archive, and nothing that was written since."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from seeknal.clock import FakeClock
from seeknal.errors import CorruptStateError, TransferError
from seeknal.state.backend import create_state_backend
from seeknal.state.dump import archive
from seeknal.state.dump.archive import clean_into
from seeknal.state.dump.importing import import_dump
from seeknal.state.dump.reading import dump_file
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.retention import rules_of

AGE = timedelta(days=30)


@pytest.fixture(params=["file", "database", "memory"])
def store(request, tmp_path):
    options = {"file": {"base_path": tmp_path / "t"}, "database": {"db_path": tmp_path / "s.db"}}.get(request.param, {})
    with create_state_backend(request.param, clock=FakeClock(), **options) as backend:
        backend.initialize()
        for number in range(5):
            backend.create_run(f"r{number}", status="success", metadata={"number": number})
            for node in ("a", "b"):
                backend.set_node_state(f"r{number}", node, status="success", row_count=number)
        backend.clock.advance(days=60)
        yield backend


def rules(store):
    return rules_of(store.clock.now(), AGE, 0, None)


def after_archiving(monkeypatch, action):
    """Let somebody do something once the archive stands, before anything goes."""
    marks = archive._marks

    def marked(path):
        found = marks(path)
        action()
        return found

    monkeypatch.setattr(archive, "_marks", marked)


def test_the_archive_is_the_export_of_a_store_that_holds_what_went(store, tmp_path) -> None:
    went = [store.get_run(f"r{number}") for number in range(4)]
    done = clean_into(store, tmp_path / "gone.jsonl.gz", rules(store))
    assert done.report.deleted == [run.run_id for run in went]
    assert (done.archive.counts.runs, done.archive.counts.node_states) == (4, 8)
    with MemoryStateBackend() as copy, dump_file(tmp_path / "gone.jsonl.gz") as dump:
        import_dump(dump, copy)
        assert [copy.get_run(run_id) for run_id in copy.list_runs()] == went
        assert copy.read_store().store_id != store.read_store().store_id


@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.set_node_state("r1", "a", row_count=9),
        lambda store: store.set_node_state("r1", "c", status="failed"),
        lambda store: store.delete_node_state("r1", "a"),
        lambda store: store.set_metadata("r1", {"more": 1}),
    ],
    ids=["patched-node", "new-node", "deleted-node", "patched-run"],
)
def test_a_run_that_is_written_after_it_was_archived_stays(store, tmp_path, monkeypatch, action) -> None:
    after_archiving(monkeypatch, lambda: action(store))
    report = clean_into(store, tmp_path / "gone.jsonl", rules(store)).report
    assert report.deleted == ["r0", "r2", "r3"]
    assert report.kept["r1"] == "written meanwhile"
    assert store.exists("r1")


def test_a_run_that_may_go_only_after_the_archive_was_written_stays(store, tmp_path, monkeypatch) -> None:
    store.acquire_lock("r1", timeout_ms=0)
    after_archiving(monkeypatch, lambda: store.release_lock("r1"))
    report = clean_into(store, tmp_path / "gone.jsonl", rules(store)).report
    assert report.deleted == ["r0", "r2", "r3"]
    assert report.kept["r1"] == "not archived"


def test_an_archive_that_cannot_be_read_back_deletes_nothing(store, tmp_path, monkeypatch) -> None:
    export = archive.export_to_file

    def damaged(part, path, **options):
        report = export(part, path, **options)
        with open(path, "r+b") as file:
            file.seek(-200, os.SEEK_END)
            file.write(b"~")
        return report

    monkeypatch.setattr(archive, "export_to_file", damaged)
    with pytest.raises(CorruptStateError):
        clean_into(store, tmp_path / "gone.jsonl", rules(store))
    assert len(store.list_runs()) == 5


def test_a_file_that_stands_is_refused(store, tmp_path) -> None:
    (tmp_path / "gone.jsonl").write_text("mine")
    with pytest.raises(TransferError):
        clean_into(store, tmp_path / "gone.jsonl", rules(store))
    assert (tmp_path / "gone.jsonl").read_text() == "mine"
    assert len(store.list_runs()) == 5


def test_the_budget_is_for_the_deletion_and_the_archive_stands_before_it(store, tmp_path) -> None:
    report = clean_into(store, tmp_path / "gone.jsonl", rules(store), budget=timedelta()).report
    assert (report.deleted, report.is_complete) == ([], False)
    assert (tmp_path / "gone.jsonl").exists()
    report = clean_into(store, tmp_path / "again.jsonl", rules(store), budget=timedelta(hours=1)).report
    assert len(report.deleted) == 4
