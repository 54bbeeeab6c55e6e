"""An export holds a whole store, an import believes nothing of it, and neither leaves anything half-done."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import sys
import threading
import tracemalloc
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import msgspec
import pytest

from seeknal.clock import FakeClock
from seeknal.errors import (
    BackendUnavailableError,
    CorruptStateError,
    LockHeldError,
    MissingDriverError,
    SchemaVersionError,
    SeeknalError,
    TransferError,
)
from seeknal.model.records import NodeState, RunState
from seeknal.state.backend import create_state_backend
from seeknal.state.batch import Batch
from seeknal.state.dump.format import ExportCounts, Tally
from seeknal.state.dump.importing import import_dump, import_planned, plan_import
from seeknal.state.dump.reading import Dump, dump_file, dump_stream
from seeknal.state.dump.writing import ATTEMPTS, export_to_file, export_to_stream
from seeknal.state.memory import MemoryStateBackend
from seeknal.state.migration.ends import KEY
from seeknal.state.transfer import digest_of, records

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "reference" / "export.schema.json").read_text())
LINE = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


def fill(store):
    for run in ("b", "a", "é/../x", "\N{SNOWMAN} \U0001f600"):
        store.create_run(run, config={"k": run, "ü": [1, 1.5, None, True]})
        for node in ("n1", "N1", "e\u0301", "é"):
            store.set_node_state(run, node, status="success", row_count=3, fingerprint="f", error_message="a\nb")
    store.set_node_state("b", "n1", metadata={"late": True})
    store.add_completed_interval("b", "n1", day(1), day(2))
    store.add_completed_interval("b", "n1", day(7), day(8))
    store.add_completed_interval("a", "é", day(4), day(5) + timedelta(microseconds=1))
    store.add_completed_interval("a", "é", day(9), day(12))
    store.add_completed_interval("b", "é", day(12), day(13))
    store.add_completed_interval("a", "é", day(13), day(14))
    store.add_completed_partition("a", "n1", "p", row_count=1, metadata={"m": {}})
    store.add_completed_partition("a", "n1", "P")
    store.expect_partitions("n1", ["p", "q"])
    store.expect_partitions("n4", ["x"])
    store.update_run("a", status="success")
    store.create_run("gone")
    store.add_completed_interval("gone", "n3", day(1), day(3))
    store.delete_run("gone")
    store.log_change("clean-up", run_id="gone", reason="too \x00 old é", detail={"n": [1.5, None]})
    store.log_change("repair", node_id="n1")


@pytest.fixture
def source():
    with MemoryStateBackend(clock=FakeClock()) as store:
        fill(store)
        yield store


@pytest.fixture
def target():
    with MemoryStateBackend() as store:
        yield store


def exported(store):
    sink = io.BytesIO()
    export_to_stream(store, sink)
    return sink.getvalue()


def of(content):
    return Dump(io.BytesIO(content), "x.jsonl")


def lines_of(content):
    """The lines of the records, without header, change log and end."""
    return [line for line in content.splitlines()[1:-1] if not line.startswith(b'{"kind":"change",')]


def content_of(store):
    return [msgspec.json.encode(record) for record in records(store)]


def resealed(lines):
    """Return lines as an export whose trailer is right, as another program would write it."""
    tally, body = Tally(), b"".join(lines)
    kinds = {"run": RunState, "node": NodeState}
    for line in lines[1:]:
        found = json.loads(line)
        kind = kinds.get(found.pop("kind", None))
        if kind is not None:
            try:
                tally.line_of(msgspec.convert(found, kind))
            except msgspec.ValidationError:
                tally.counts.node_states += 1
    tally.add_line(body)
    trailer = {"kind": "end", **msgspec.to_builtins(tally.trailer())}
    return body + json.dumps(trailer, separators=(",", ":")).encode() + b"\n"


# ---- there and back ----


@pytest.mark.parametrize("rows", [1, 2, 5, 2000])
def test_everything_arrives_and_gives_the_same_bytes_again(source, target, rows):
    content = exported(source)
    report = import_dump(of(content), target, batch_rows=rows)
    assert report.counts == ExportCounts(
        runs=4, node_states=16, intervals=5, partitions=2, provenance=1, expected=3, changes=2
    )
    assert report.written == 31
    assert digest_of(target) == digest_of(source) == report.state_sha256
    assert target.read_store().store_id == source.read_store().store_id == report.store_id
    again = exported(target).splitlines()
    assert lines_of(exported(target)) == lines_of(content)
    assert json.loads(again[-1])["state_sha256"] == json.loads(content.splitlines()[-1])["state_sha256"]
    assert target.get_latest_node_state("n1").run_id == "b"
    target.create_run("next")
    assert target.list_runs()[-1] == "next"


# ---- the change log ----


def test_the_change_log_is_united_with_the_targets(source, target):
    target.log_change("mine")
    import_dump(of(exported(source)), target)
    assert {change.action for change in target.list_changes()} == {"mine", "clean-up", "repair", "import"}
    assert [change for change in target.list_changes() if change.action in ("clean-up", "repair")] == (
        source.list_changes()
    )
    (logged,) = target.list_changes(action="import")
    assert (logged.detail["from"], logged.detail["records"]) == ("x.jsonl", 31)


def test_an_import_that_finds_all_of_it_there_logs_nothing(source, target):
    content = exported(source)
    import_dump(of(content), target)
    before = target.list_changes()
    assert import_dump(of(content), target).written == 0
    assert target.list_changes() == before


def test_the_log_is_no_part_of_the_state(source):
    before = json.loads(exported(source).splitlines()[-1])
    source.log_change("x")
    after = json.loads(exported(source).splitlines()[-1])
    assert before["state_sha256"] == after["state_sha256"] == digest_of(source)
    assert (before["counts"]["changes"], after["counts"]["changes"]) == (2, 3)


def test_an_export_without_a_change_log_is_read(source, target):
    *lines, _ = exported(source).splitlines(keepends=True)
    header = json.loads(lines[0])
    del header["counts"]["changes"]
    body = b"".join([json.dumps(header).encode() + b"\n", *(line for line in lines[1:] if b'"change"' not in line)])
    tally = Tally()
    tally.add_line(body)
    for record in records(source):
        tally.line_of(record)
    end = {"kind": "end", **msgspec.to_builtins(tally.trailer())}
    del end["counts"]["changes"]
    assert import_dump(of(body + json.dumps(end).encode() + b"\n"), target).written == 31


def test_a_store_without_a_log_takes_the_rest_and_says_so(source):
    class Keepless(MemoryStateBackend):
        capabilities = frozenset()

    with Keepless() as target:
        report = import_dump(of(exported(source)), target)
        assert (report.written, report.has_log) == (31, False)
        assert json.loads(exported(target).splitlines()[-1])["counts"]["changes"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("change_id", "x"),
        ("change_id", "00000000-0000-7000-8000-000000000000"),
        ("action", "Two words"),
        ("run_id", ""),
        ("at", "2024-01-01T00:00:00+01:00"),
        ("pid", -1),
    ],
)
def test_a_change_that_no_store_can_keep_is_refused(source, target, field, value):
    *lines, _, _ = exported(source).splitlines(keepends=True)
    wrong = json.loads(lines[-1]) | {field: value}
    again = [*lines, json.dumps(wrong).encode() + b"\n"]
    with pytest.raises(CorruptStateError):
        import_dump(of(resealed(again)), target)
    assert content_of(target) == []


def test_no_record_stands_after_the_change_log(source, target):
    *lines, _ = exported(source).splitlines(keepends=True)
    (first,) = [line for line in lines if line.startswith(b'{"kind":"run"') and b'"run_id":"b"' in line]
    again = [*lines, first.replace(b'"run_id":"b"', b'"run_id":"z"')]
    with pytest.raises(CorruptStateError, match="after the change log"):
        import_dump(of(resealed(again)), target)


def test_an_empty_store_has_an_export(target):
    with MemoryStateBackend() as empty:
        content = exported(empty)
        assert len(content.splitlines()) == 2
        assert import_dump(of(content), target).written == 0


def test_a_record_has_a_line_of_its_own_fields(source):
    lines = [json.loads(line) for line in exported(source).splitlines()]
    assert [line["kind"] for line in lines[:6]] == ["header", "run", "node", "node", "node", "node"]
    assert [line["run_id"] for line in lines if line["kind"] == "run"] == source.list_runs()
    assert list(lines[1]) == ["kind", *RunState.__struct_fields__]
    assert list(lines[2]) == ["kind", *NodeState.__struct_fields__]
    assert lines[0]["counts"] == lines[-1]["counts"]
    assert lines[0]["exported_at"].endswith("Z")


def test_every_line_is_what_the_published_schema_says(source):
    for line in exported(source).splitlines():
        LINE.validate(json.loads(line))


def test_the_published_schema_refuses_what_an_import_refuses(source):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    lines = [json.loads(line) for line in exported(source).splitlines()]
    for line in lines:
        assert not LINE.is_valid(line | {"new": 1})
        assert not LINE.is_valid({key: value for key, value in line.items() if key != "kind"})
    assert not LINE.is_valid(lines[1] | {"status": "done"})
    assert not LINE.is_valid(lines[1] | {"version": 0})
    assert not LINE.is_valid(lines[1] | {"started_at": "2024-01-10T12:00:00"})
    assert not LINE.is_valid(lines[1] | {"run_id": "a\u0000"})


def test_the_schema_names_all_fields_of_the_records():
    for kind, record in (("run", RunState), ("node", NodeState)):
        assert list(SCHEMA["$defs"][kind]["properties"]) == ["kind", *record.__struct_fields__]


def test_white_space_and_the_order_of_fields_are_free(source, target):
    lines = [json.loads(line) for line in exported(source).splitlines()]
    tally = Tally()
    body = b"".join(json.dumps(dict(reversed(line.items()))).encode() + b"\n" for line in lines[:-1])
    tally.add_line(body)
    trailer = json.dumps(lines[-1] | {"sha256": tally.trailer().sha256}).encode() + b"\n"
    import_dump(of(body + trailer), target)
    assert content_of(target) == content_of(source)


# ---- files ----


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.jsonl.zst", "d.GZ"])
def test_a_file_is_compressed_as_its_name_says_and_recognised_without_it(source, target, tmp_path, name):
    export_to_file(source, tmp_path / name)
    magic = {"": b"{", ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
    content = (tmp_path / name).read_bytes()
    assert content.startswith(magic[Path(name).suffix.lower().replace(".jsonl", "")])
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [name]
    export_to_file(source, tmp_path / name, force=True)
    assert (tmp_path / name).read_bytes() == content
    (tmp_path / name).rename(tmp_path / "any name")
    with dump_file(tmp_path / "any name") as dump:
        import_dump(dump, target)
    assert content_of(target) == content_of(source)


def test_a_stream_may_be_compressed(source, target):
    with dump_stream(io.BytesIO(gzip.compress(exported(source)))) as dump:
        import_dump(dump, target)
    assert content_of(target) == content_of(source)


def test_a_missing_package_names_its_extra(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDriverError) as caught:
        export_to_file(source, tmp_path / "d.zst")
    assert "seeknal-state[zstd]" in caught.value.hint
    assert os.listdir(tmp_path) == []


def test_a_file_that_stands_is_kept_unless_forced(source, tmp_path):
    place = tmp_path / "d.jsonl"
    place.write_text("mine")
    with pytest.raises(TransferError, match="exists already"):
        export_to_file(source, place)
    assert place.read_text() == "mine"
    export_to_file(source, place, force=True)
    assert place.read_bytes().startswith(b'{"kind":"header"')


def test_a_link_stays_a_link(source, tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    export_to_file(source, tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes().startswith(b'{"kind"')


@pytest.mark.parametrize("name", ["no/such/place", "directory"])
def test_a_place_that_cannot_be_written_is_told(source, tmp_path, name):
    (tmp_path / "directory").mkdir()
    with pytest.raises(TransferError, match=name) as caught:
        export_to_file(source, tmp_path / name, force=True)
    assert caught.value.hint
    assert os.listdir(tmp_path) == ["directory"]


def test_a_file_that_cannot_be_read_is_told(target, tmp_path):
    for name in ("missing", "."):
        with pytest.raises(TransferError, match="cannot read"), dump_file(tmp_path / name) as dump:
            import_dump(dump, target)


def test_a_named_pipe_is_written_and_read_as_it_is(source, target, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=export_to_file, args=(source, tmp_path / "pipe"))
    writer.start()
    with dump_file(tmp_path / "pipe") as dump:
        import_dump(dump, target)
    writer.join()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert content_of(target) == content_of(source)


# ---- one instant ----


class Restless(MemoryStateBackend):
    """A store without snapshots; somebody else writes during each of the first readings."""

    def __init__(self, store, readings):
        super().__init__(store)
        self.left = readings

    def snapshot(self):
        return nullcontext()

    def read_worked_nodes(self):
        if self.left:
            self.left -= 1
            with MemoryStateBackend(self.store) as other:
                other.set_node_state("b", "n1", row_count=self.left)
        return super().read_worked_nodes()


def test_a_store_is_exported_as_it_was_in_the_beginning_whatever_is_written_meanwhile(source, target):
    class Disturbing(io.BytesIO):
        def write(self, line):
            with MemoryStateBackend(source.store) as other:
                other.set_node_state("b", "n1", row_count=len(line))
            return super().write(line)

    before, sink = content_of(source), Disturbing()
    export_to_stream(source, sink)
    import_dump(of(sink.getvalue()), target)
    assert content_of(target) == before != content_of(source)


def test_a_file_is_tried_again_while_the_store_changes(source, target, tmp_path):
    export_to_file(Restless(source.store, ATTEMPTS - 1), tmp_path / "d.jsonl")
    with dump_file(tmp_path / "d.jsonl") as dump:
        import_dump(dump, target)
    assert content_of(target) == content_of(source)


def test_a_store_that_does_not_stop_changing_leaves_no_file(source, tmp_path):
    with pytest.raises(TransferError, match="changed") as caught:
        export_to_file(Restless(source.store, 1000), tmp_path / "d.jsonl")
    assert caught.value.retriable
    assert os.listdir(tmp_path) == []


def test_a_store_that_changes_leaves_a_stream_without_its_end(source, target):
    sink = io.BytesIO()
    with pytest.raises(TransferError, match="without its end"):
        export_to_stream(Restless(source.store, 1), sink)
    with pytest.raises(CorruptStateError, match="without its last line"):
        import_dump(of(sink.getvalue()), target)
    assert content_of(target) == []


# ---- damage ----


def test_no_flipped_byte_is_believed(target):
    with MemoryStateBackend(clock=FakeClock()) as small:
        small.create_run("r")
        small.set_node_state("r", "n", status="success")
        small.add_completed_interval("r", "n", day(1), day(2))
        small.add_completed_partition("r", "n", "p")
        content = exported(small)
    before = target.read_store()
    for place in range(len(content)):
        for flip in (0x01, 0x20, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= flip
            with pytest.raises((CorruptStateError, TransferError, SchemaVersionError)) as caught:
                import_dump(of(bytes(damaged)), target)
            assert caught.value.hint
    assert content_of(target) == []
    assert target.read_store() == before


def test_no_part_of_an_export_is_taken_for_the_whole(source, target):
    content = exported(source)
    for size in {*range(0, len(content), 97), *range(len(content) - 300, len(content)), content.index(b"\n")}:
        with pytest.raises((CorruptStateError, TransferError)):
            import_dump(of(content[:size]), target)
    lines = content.splitlines(keepends=True)
    for number in range(len(lines)):
        with pytest.raises((CorruptStateError, TransferError)):
            import_dump(of(b"".join(lines[:number])), target)
        with pytest.raises((CorruptStateError, TransferError)):
            import_dump(of(b"".join(lines[:number] + lines[number + 1 :])), target)
        with pytest.raises((CorruptStateError, TransferError)):
            import_dump(of(b"".join([*lines[: number + 1], *lines[number:]])), target)
    with pytest.raises(CorruptStateError, match="something follows"):
        import_dump(of(content + b"\n"), target)
    assert content_of(target) == []


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_no_damaged_compressed_file_is_believed(source, target, tmp_path, ending):
    export_to_file(source, tmp_path / f"d.{ending}")
    content = (tmp_path / f"d.{ending}").read_bytes()
    for place in range(0, len(content) - 8, 7):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        for wrong in (bytes(damaged), content[:place]):
            try:
                plan = plan_import(of(wrong), target)
            except (CorruptStateError, TransferError):
                continue
            assert plan.state_sha256 == digest_of(source), "only what says nothing of the content may change"
    assert content_of(target) == []


def test_damage_is_told_with_its_line_and_its_first_byte(source, target):
    lines = exported(source).splitlines(keepends=True)
    lines[3] = b'{"kind":"nothing"}\n'
    with pytest.raises(CorruptStateError, match=r"x\.jsonl is damaged at line 4: ") as caught:
        import_dump(of(b"".join(lines)), target)
    assert caught.value.location == "x.jsonl:4"
    assert caught.value.offset == sum(map(len, lines[:3]))


RUN = {
    "kind": "run", "run_id": "r", "status": "success", "started_at": None, "finished_at": None,
    "config": {}, "metadata": {}, "version": 1, "sequence": 1,
}  # fmt: skip
NODE = {"kind": "node", "run_id": "r", "node_id": "n", "status": "success", "version": 1, "sequence": 2}
WORK = {
    "kind": "interval",
    "node_id": "n",
    "start": "2024-01-01T00:00:00Z",
    "end": "2024-01-02T00:00:00Z",
    "run_id": "r",
}
SPAN = WORK | {"end": "2024-01-05T00:00:00Z"}
PIECE = {
    "kind": "provenance",
    "node_id": "n",
    "start": "2024-01-02T00:00:00Z",
    "end": "2024-01-03T00:00:00Z",
    "run_id": "s",
}
PART = {"kind": "partition", "node_id": "n", "partition": "p", "run_id": "r", "completed_at": "2024-01-01T00:00:00Z"}


WANTED = {"kind": "expected", "node_id": "n", "partition": "p"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([RUN | {"status": "done"}], "done"),
        ([RUN | {"run_id": ""}], "run_id"),
        ([RUN | {"run_id": "x" * 191}], "run_id"),
        ([RUN | {"version": 0}], "version"),
        ([RUN | {"sequence": 2**63}], "sequence"),
        ([RUN | {"started_at": "2024-01-01T00:00:00"}], "started_at"),
        ([RUN | {"started_at": "2024-01-01T00:00:00+01:00"}], "started_at"),
        ([RUN | {"config": []}], "config"),
        ([RUN | {"unknown": 1}], "unknown"),
        ([RUN, RUN], "twice"),
        ([RUN | {"sequence": 5}, RUN | {"run_id": "s"}], "created before"),
        ([NODE], "does not follow its run"),
        ([RUN, NODE | {"run_id": "s"}], "does not follow its run"),
        ([RUN, NODE, NODE], "out of order"),
        ([RUN, NODE | {"attempt": 0}], "attempt"),
        ([RUN, NODE | {"row_count": -1}], "row_count"),
        ([RUN, NODE | {"fingerprint": "x" * 4_000_001}], "fingerprint"),
        ([RUN, NODE | {"metadata": {"x": "x" * 4_000_001}}], "metadata"),
        ([RUN, NODE | {"metadata": json.loads("[" * 200 + "]" * 200)}], "metadata"),
        ([RUN, NODE | {"metadata": {"x": json.loads("[" * 200 + "]" * 200)}}], "nesting"),
        ([WORK, RUN], "after completed work"),
        ([WORK | {"end": "2024-01-01T00:00:00Z"}], "empty or runs backwards"),
        ([WORK, WORK | {"start": "2024-01-02T00:00:00Z", "end": "2024-01-03T00:00:00Z"}], "touch or overlap"),
        ([WORK, WORK | {"node_id": "m"}], "out of order"),
        ([PART, PART], "out of order"),
        ([PART, WORK], "out of order"),
        ([PART | {"completed_at": None}], "completed_at"),
        ([PIECE], "no part of an interval"),
        ([SPAN, PIECE | {"end": "2024-01-09T00:00:00Z"}], "no part of an interval"),
        ([SPAN, PIECE | {"node_id": "o"}], "no part of an interval"),
        ([SPAN, PIECE | {"run_id": "r"}], "names the run of its interval"),
        ([SPAN, PIECE, PIECE | {"start": "2024-01-02T12:00:00Z"}], "overlap"),
        ([SPAN, PIECE, PIECE | {"start": PIECE["end"], "end": SPAN["end"]}], "are one"),
        ([SPAN, PIECE, SPAN | {"start": SPAN["end"], "end": "2024-01-09T00:00:00Z"}], "out of order"),
        ([WANTED | {"partition": "q"}, WANTED], "out of order"),
        ([WANTED | {"partition": ""}], "partition"),
        ([WANTED, PART], "out of order"),
    ],
)
def test_a_record_that_no_store_can_hold_is_refused_although_the_digest_is_right(source, target, wrong, said):
    header = exported(source).splitlines(keepends=True)[0]
    lines = [header, *(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in wrong)]
    with pytest.raises(CorruptStateError, match=said) as caught:
        import_dump(of(resealed(lines)), target)
    assert caught.value.location == f"x.jsonl:{len(lines)}"
    assert content_of(target) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"PK\x03\x04", b"{}\n", b"[]\n", b'{"format":"other","version":1}\n'])
def test_a_foreign_file_is_no_export(target, content):
    with pytest.raises((TransferError, CorruptStateError)) as caught:
        import_dump(of(content), target)
    assert caught.value.hint


def test_an_export_of_version_1_is_read(target):
    with MemoryStateBackend(clock=FakeClock()) as store:
        store.create_run("r")
        store.add_completed_interval("r", "n", day(1), day(3))
        store.add_completed_partition("r", "n", "p")
        content = exported(store)
    header = json.loads(content.splitlines()[0]) | {"version": 1}
    for count in ("provenance", "expected"):
        del header["counts"][count]
    body = b"\n".join([json.dumps(header).encode(), *content.splitlines()[1:-1], b""])
    tally = Tally()
    tally.add_line(body)
    end = json.loads(content.splitlines()[-1]) | {"counts": header["counts"], "sha256": tally.trailer().sha256}
    report = import_dump(of(body + json.dumps(end).encode() + b"\n"), target)
    assert (report.written, report.state_sha256) == (3, digest_of(target))
    assert [each.run_id for each in target.get_interval_provenance("n")] == ["r"]


def test_a_newer_version_is_named(source, target):
    content = (
        exported(source).replace(b'"version":2', b'"version":3', 1).replace(b'"kind":"header"', b'"kind":"head"', 1)
    )
    with pytest.raises(SchemaVersionError) as caught:
        import_dump(of(content), target)
    assert (caught.value.found, caught.value.wanted) == ("3", "2")
    assert caught.value.hint


# ---- the target ----


def test_a_target_with_another_state_refuses(source, target):
    target.create_run("mine")
    before = target.read_store()
    with pytest.raises(TransferError, match="another state"):
        import_dump(of(exported(source)), target)
    assert target.list_runs() == ["mine"]
    assert target.read_store() == before


def test_a_lock_in_the_target_refuses(source, target):
    target.acquire_lock("b")
    with pytest.raises(LockHeldError):
        import_dump(of(exported(source)), target)
    assert content_of(target) == []


def test_a_superseded_target_refuses(source, target):
    target.write_successor(target.read_store().store_id, "there")
    with pytest.raises(TransferError, match="there"):
        import_dump(of(exported(source)), target)


def test_a_preview_writes_nothing(source, target):
    before = target.read_store()
    plan = plan_import(of(exported(source)), target)
    assert (plan.counts.runs, plan.present) == (4, 0)
    assert content_of(target) == []
    assert target.read_store() == before


def test_a_target_that_was_written_after_the_preview_refuses(source, target):
    dump = of(exported(source))
    plan = plan_import(dump, None)
    target.write_successor(source.read_store().store_id, None)
    target.create_run("b")
    with pytest.raises(TransferError, match="not empty any more"):
        import_planned(dump, target, plan)
    assert target.list_runs() == ["b"]


@pytest.mark.parametrize("kind", ["file", "database"])
def test_of_two_imports_at_once_one_is_refused_and_the_store_keeps_the_identity(source, tmp_path, kind, monkeypatch):
    place = {"base_path": tmp_path / "t"} if kind == "file" else {"db_path": tmp_path / "t.db"}
    dump, refused = of(exported(source)), []
    with create_state_backend(kind, **place) as ours, create_state_backend(kind, **place) as theirs:
        ours.initialize()
        theirs.initialize()
        their_plan, write = plan_import(dump, theirs), ours.write_successor

        def import_theirs_first(*given, **named):
            monkeypatch.undo()
            try:
                import_planned(dump, theirs, their_plan)
            except SeeknalError as error:
                refused.append(error)
            write(*given, **named)

        monkeypatch.setattr(ours, "write_successor", import_theirs_first)
        try:
            import_dump(dump, ours)
        except SeeknalError as error:
            refused.append(error)
        assert [type(error) for error in refused] == [LockHeldError]
        assert ours.read_store().store_id == source.read_store().store_id
        assert content_of(ours) == content_of(source)
        assert ours.list_locks() == []


def test_an_import_whose_lease_was_lost_takes_nothing_out_of_the_one_that_goes_on(source, target):
    content, is_late = exported(source), []

    def wake_late(stage, done, total):
        if stage == "importing" and not is_late:
            is_late.append(True)
            target.break_lock(KEY, reason="its process seemed to be gone")
            import_dump(of(content), target)

    with pytest.raises(TransferError, match="no longer held"):
        import_dump(of(content), target, batch_rows=3, on_progress=wake_late)
    assert content_of(target) == content_of(source)
    assert target.read_store().store_id == source.read_store().store_id


def interrupted(content, target, batches, monkeypatch):
    """Leave in the target what a kill after some batches leaves there."""

    def kill(stage, done, total):
        nonlocal batches
        batches -= stage == "importing"
        if not batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("seeknal.state.dump.importing._take_out", lambda *_: None)
        patched.setattr(
            target,
            "write_successor",
            lambda *_, **__: MemoryStateBackend.write_successor(
                target, json.loads(content.splitlines()[0])["store_id"], None
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            import_dump(of(content), target, batch_rows=3, on_progress=kill)


@pytest.mark.parametrize("batches", [1, 2, 5, 8, 9])
def test_an_interrupted_import_goes_on(source, target, batches, monkeypatch):
    content = exported(source)
    interrupted(content, target, batches, monkeypatch)
    there = len(content_of(target))
    assert 0 < there <= 31
    assert plan_import(of(content), target).present == there
    assert import_dump(of(content), target, batch_rows=4).written == 31 - there
    assert lines_of(exported(target)) == lines_of(content)
    assert import_dump(of(content), target).written == 0


@pytest.mark.parametrize("batches", [1, 2, 5, 8])
def test_an_error_leaves_the_target_as_it_was_found(source, target, batches, monkeypatch):
    content = exported(source)
    before = target.read_store()
    seen = []

    def fail(stage, done, total):
        seen.append(stage)
        if seen.count("importing") == batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_dump(of(content), target, batch_rows=3, on_progress=fail)
    assert content_of(target) == []
    assert target.read_store() == before
    interrupted(content, target, 3, monkeypatch)
    there, seen[:] = content_of(target), []
    with pytest.raises(KeyboardInterrupt):
        import_dump(of(content), target, batch_rows=2, on_progress=fail)
    assert content_of(target) == there


def test_what_differs_in_a_former_import_refuses(source, target):
    content = exported(source)
    import_dump(of(content), target)
    target.set_node_state("a", "n1", row_count=4)
    before = content_of(target)
    with pytest.raises(TransferError, match="node 'n1' of run 'a'"):
        import_dump(of(content), target)
    assert content_of(target) == before


class Crowded(MemoryStateBackend):
    """Somebody else does something right before a commit."""

    def __init__(self, meanwhile, nth):
        super().__init__()
        self.meanwhile, self.left = meanwhile, nth

    def commit(self, batch):
        self.left -= 1
        if self.left == 0:
            with MemoryStateBackend(self.store) as other:
                self.meanwhile(other)
        return super().commit(batch)


@pytest.mark.parametrize("nth", [1, 4, 9])
def test_a_write_that_slips_in_is_found_and_left_alone(source, nth):
    with Crowded(lambda other: other.create_run("late"), nth) as target:
        with pytest.raises(TransferError, match="somebody else wrote"):
            import_dump(of(exported(source)), target, batch_rows=3)
        assert target.list_runs() == ["late"]


def test_a_run_that_somebody_else_creates_first_is_theirs(source):
    with Crowded(lambda other: other.create_run("é/../x"), 3) as target:
        with pytest.raises(SeeknalError, match="version"):
            import_dump(of(exported(source)), target, batch_rows=5)
        assert target.list_runs() == ["é/../x"]
        assert target.get_run("é/../x").version == 1


def test_an_import_that_cannot_be_taken_out_says_so_and_goes_on(source, monkeypatch):
    with MemoryStateBackend() as target:
        commits = iter([True, True, False, False])

        def commit(batch: Batch):
            if not next(commits):
                raise BackendUnavailableError("gone", hint="Come back.")
            return MemoryStateBackend.commit(target, batch)

        monkeypatch.setattr(target, "commit", commit)
        content = exported(source)
        with pytest.raises(TransferError, match="a part of it was left") as caught:
            import_dump(of(content), target, batch_rows=6)
        assert "same import again" in caught.value.hint
        monkeypatch.undo()
        assert import_dump(of(content), target).written == 31 - 12


# ---- memory ----


def test_memory_does_not_grow_with_the_store(tmp_path):
    with create_state_backend("database", db_path=tmp_path / "a.db") as source:
        source.initialize()
        sequence = 0
        for number in range(50):
            run = RunState(run_id=f"r{number:03}", version=1, sequence=(sequence := sequence + 1))
            nodes = [
                NodeState(run_id=run.run_id, node_id=f"node_{each:04}", version=1, sequence=sequence + each + 1)
                for each in range(200)
            ]
            sequence += 200
            source.commit(Batch(runs=[run], nodes=nodes, run_versions={run.run_id: 0}))
        with create_state_backend("database", db_path=tmp_path / "b.db") as target:
            target.initialize()
            tracemalloc.start()
            try:
                export_to_file(source, tmp_path / "d.jsonl.gz")
                with dump_file(tmp_path / "d.jsonl.gz") as dump:
                    assert import_dump(dump, target, batch_rows=500).written == 10_050
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert peak < 12 << 20
