"""`seeknal partitions list`: how each partition stands, and pages of many, as a shell and its user see it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from seeknal.cli.app import main
from seeknal.model.records import PartitionReport
from seeknal.state.backend import StateBackendFactory, open_state_backend
from seeknal.state.memory import MemoryStateBackend, MemoryStore

SEEKNAL = [sys.executable, "-m", "seeknal.cli.app"]
DONE_AT = datetime(2024, 1, 10, 6, tzinfo=UTC)
WHY = "the source\nhas no such day, and will not have it before the year 2025 either"
STANDING = {"a": "completed", "b": "failed", "c": "completed", "d": "failed", "e": "running", "f": "missing"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("SEEKNAL_STATE_BACKEND", "SEEKNAL_DATABASE_URL", "TURSO_DATABASE_URL", "TURSO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["file", "database"])
def project(request, tmp_path, monkeypatch):
    """A node with partitions of every kind, of which this process works on one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text(f"name: p\nstate_backend: {request.param}\n")
    with open_state_backend() as store:
        store.create_run("monday")
        yield from standing_like_that(store, tmp_path)


def standing_like_that(store, yielded):
    for key in ("a", "c"):
        store.add_completed_partition("monday", "orders", key, row_count=7, completed_at=DONE_AT)
    store.expect_partitions("orders", ["a", "e", "f"])
    store.create_run("backfill")
    with store.lock("backfill", "worker-1") as lease:
        (parked,) = store.claim_partitions("backfill", "orders", ["b"], lease=lease, max_attempts=1)
        store.fail_claim(parked, WHY)
        (failed,) = store.claim_partitions("backfill", "orders", ["d"], lease=lease, max_attempts=5)
        store.fail_claim(failed, "\x1b[31mtimeout")
        store.claim_partitions("backfill", "orders", ["e"], lease=lease)
        yield yielded


def said(capsys, *arguments, code=0):
    """Run the command and return what it printed on stdout and stderr."""
    assert main(["partitions", "list", *arguments]) == code
    return capsys.readouterr()


def parsed(capsys, *arguments):
    out, err = said(capsys, *arguments, "--output", "json", "--quiet")
    assert err == ""
    return json.loads(out)


def keys(out):
    return [json.loads(line)["partition"] for line in out.splitlines()]


def test_a_table_tells_how_each_stands_and_below_it_what_went_wrong(project, capsys) -> None:
    out, err = said(capsys, "orders")
    rows, errors = (part.splitlines() for part in out.split("\n\n"))
    assert rows[0].split() == ["PARTITION", "STATUS", "ROW_COUNT", "AT", "RUN_ID"]
    assert {line.split()[0]: line.split()[1] for line in rows[1:]} == STANDING
    assert rows[1].split()[2:] == ["7", "2024-01-10T06:00:00Z", "monday"]
    assert rows[2].split()[-1] == "backfill"
    assert rows[6].split()[2:] == ["-", "-", "-"]
    assert errors[0].startswith("b is parked after attempt 1: the source has no such day, and will not")
    assert errors[1] == r"d failed in attempt 1: \x1b[31mtimeout"
    assert max(map(len, [*rows, *errors])) <= 80
    assert err == ""
    assert WHY.replace("\n", " ") in said(capsys, "orders", "--all").out


def test_json_has_the_fields_of_the_record(project, capsys) -> None:
    found = parsed(capsys, "orders")
    assert {each["partition"]: each["status"] for each in found} == STANDING
    assert all(tuple(each) == PartitionReport.__struct_fields__ for each in found)
    assert (found[1]["attempt"], found[1]["is_parked"], found[1]["error_message"]) == (1, True, WHY)
    out, _ = said(capsys, "orders", "--output", "jsonl")
    assert [json.loads(line) for line in out.splitlines()] == found


@pytest.mark.parametrize("status", ["completed", "running", "failed", "missing"])
def test_those_of_one_status_are_listed(project, capsys, status) -> None:
    found = parsed(capsys, "orders", "--status", status)
    assert [each["partition"] for each in found] == [key for key, stands in STANDING.items() if stands == status]
    assert said(capsys, "nobody", "--status", status) == ("", f"no partition of nobody is {status}\n")


def test_pages_come_one_after_the_other_and_each_says_how_to_get_the_next(project, capsys) -> None:
    for form in ("jsonl", "table"):
        seen, more = [], ["orders", "--limit", "2"]
        while more:
            out, err = said(capsys, *more, "--output", form)
            lines = out.split("\n\n")[0].splitlines()
            seen += keys(out) if form == "jsonl" else [line.split()[0] for line in lines[1:]]
            more = ["orders", *shlex.split(err.removeprefix("more follow: "))] if err else []
        assert seen == list(STANDING)
    assert [each["partition"] for each in parsed(capsys, "orders", "--after", "bb", "--limit", "1")] == ["c"]
    out, err = said(capsys, "orders", "--status", "failed", "--limit", "1")
    assert (out.splitlines()[1].split()[0], err) == ("b", "more follow: --status failed --after b --limit 1\n")
    assert said(capsys, "orders", "--after", "f") == ("", "orders has no partitions behind f\n")


def test_a_key_that_a_shell_would_read_otherwise_is_quoted_in_the_way_to_the_next_page(project, capsys) -> None:
    strange = ["$HOME 'x'", "-a;b", "é|\\"]
    with open_state_backend() as store:
        store.expect_partitions("strange", strange)
    seen, more = [], "--limit 1"
    while more:
        command = f"{shlex.join(SEEKNAL)} partitions list strange --output jsonl {more}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=50, check=True)
        seen += keys(done.stdout)
        more = done.stderr.strip().removeprefix("more follow: ")
    assert seen == sorted(strange)


def test_nodes_are_counted_by_how_their_partitions_stand(project, capsys) -> None:
    with open_state_backend() as store:
        store.expect_partitions("customers", ["k" * 190, "l"])
        store.add_completed_partition("monday", "n" * 190, "é" * 95)
    out, err = said(capsys)
    head, customers, nnn, orders = out.splitlines()
    assert head.split() == ["NODE_ID", "COMPLETED", "RUNNING", "FAILED", "MISSING", "FIRST", "LAST"]
    assert customers.split() == ["customers", "0", "0", "0", "2", "-", "-"]
    assert orders.split() == ["orders", "2", "1", "2", "1", "a", "c"]
    assert nnn.split()[1:5] == ["1", "0", "0", "0"]
    assert max(map(len, out.splitlines())) <= 80
    assert err == ""
    assert parsed(capsys)[-1] == {
        "node_id": "orders",
        "completed": 2,
        "running": 1,
        "failed": 2,
        "missing": 1,
        "first": "a",
        "last": "c",
    }


def test_a_node_that_has_nothing_but_claims_is_counted(project, capsys) -> None:
    with open_state_backend() as store, store.lock("backfill", "worker-2") as lease:
        store.claim_partitions("backfill", "claimed only", ["a"], lease=lease)
        assert [(each["node_id"], each["running"]) for each in parsed(capsys)] == [("claimed only", 1), ("orders", 1)]


def test_what_is_completed_under_the_claim_of_another_is_counted_once(project, capsys) -> None:
    with open_state_backend() as store:
        for key in ("b", "e", "f"):
            store.add_completed_partition("monday", "orders", key)
    assert {each["partition"]: each["status"] for each in parsed(capsys, "orders")} == {
        **dict.fromkeys("abcef", "completed"),
        "d": "failed",
    }
    (counts,) = parsed(capsys)
    assert (counts["completed"], counts["running"], counts["failed"], counts["missing"]) == (5, 0, 1, 0)


def test_a_table_fits_80_columns_whatever_is_in_it(project, capsys) -> None:
    with open_state_backend() as store, store.transaction():
        store.create_run("r" * 190)
        for number in range(30):
            store.add_completed_partition("r" * 190, "wide", f"{number:02}{'漢' * 60}", row_count=2**63 - 1)
    lines = said(capsys, "wide").out.splitlines()
    assert len(lines) == 22
    # a wide character takes two cells
    assert max(len(line) + line.count("漢") for line in lines) <= 80
    assert "漢" * 60 in said(capsys, "wide", "--all").out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--status", "failed"), "--status says nothing without a node"),
        (("--after", "a"), "--after says nothing"),
        (("--limit", "1"), "--limit says nothing"),
        (("orders", "--limit", "0"), "--limit"),
        (("orders", "--limit", "x"), "--limit"),
        (("orders", "--status", "done"), "status 'done'"),
        (("orders", "--after", ""), "after"),
        (("orders", "--after", "a\nb"), "after"),
        (("",), "node_id"),
    ],
)
@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_what_is_not_said_rightly_is_refused_in_two_lines(project, capsys, arguments, named, form) -> None:
    out, err = said(capsys, *arguments, "--output", form, code=2)
    assert (out, len(err.splitlines())) == ("", 2)
    assert named in err


def test_a_reader_that_goes_away_ends_the_listing(project) -> None:
    with open_state_backend() as store, store.transaction():
        for number in range(3000):
            store.add_completed_partition("monday", "many", f"{number:04}")
    command = f"{shlex.join(SEEKNAL)} partitions list many --output jsonl | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=50, check=True)
    assert (keys(done.stdout), done.stderr) == (["0000"], "")


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A project whose store tells how many partitions each command reads, and holds 2500 of one node."""
    reads = []
    image = MemoryStore()

    class Counted(MemoryStateBackend):
        def __init__(self, **options):
            super().__init__(image, **options)

        def read_partitions(self, *arguments, **options):
            found = super().read_partitions(*arguments, **options)
            reads.append(len(found))
            return found

    with Counted() as store, store.transaction():
        store.create_run("monday")
        for number in range(2500):
            store.add_completed_partition("monday", "many", f"{number:04}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeknal_project.yml").write_text("name: p\nstate_backend: counted\n")
    monkeypatch.setitem(StateBackendFactory._registered, "counted", Counted)
    reads.clear()
    return reads


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        ((), 2),
        (("many",), 21),
        (("many", "--limit", "5"), 6),
        (("many", "--after", "1000", "--limit", "5", "--output", "json"), 6),
        (("many", "--limit", "1500", "--output", "jsonl"), 1501),
    ],
)
def test_no_more_are_read_than_are_shown(counted, capsys, arguments, most) -> None:
    said(capsys, *arguments)
    assert 0 < sum(counted) <= most


def test_the_lines_of_a_page_are_printed_before_the_next_page_is_read(counted, capsys, monkeypatch) -> None:
    printed = []
    reading = MemoryStateBackend.read_partitions

    def noting(*arguments, **options):
        printed.append(len(capsys.readouterr().out.splitlines()))
        return reading(*arguments, **options)

    monkeypatch.setattr(MemoryStateBackend, "read_partitions", noting)
    out, _ = said(capsys, "many", "--output", "jsonl")
    assert printed[:3] == [0, 1000, 1000]
    assert sum(printed) + len(out.splitlines()) == 2500


def test_a_backend_that_keeps_neither_claims_nor_what_is_expected_lists_what_is_completed(
    counted, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(MemoryStateBackend, "capabilities", frozenset())
    assert "2480 more" in said(capsys, "many").out
    assert parsed(capsys) == [
        {"node_id": "many", "completed": 2500, "running": 0, "failed": 0, "missing": 0, "first": "0000", "last": "2499"}
    ]
    assert len(parsed(capsys, "many", "--status", "completed")) == 2500
    assert parsed(capsys, "many", "--status", "failed") == []


def test_servers_do_as_files_do(server_store, tmp_path, capsys) -> None:
    project = f"name: p\nstate_backend: database\nstate_options: {json.dumps(server_store.options)}\n"
    (tmp_path / "seeknal_project.yml").write_text(project)
    with open_state_backend(tmp_path) as store:
        store.create_run("monday")
        for _ in standing_like_that(store, None):
            found = parsed(capsys, "orders", "-p", str(tmp_path))
            assert {each["partition"]: each["status"] for each in found} == STANDING
            assert parsed(capsys, "-p", str(tmp_path))[0]["failed"] == 2
            _, err = said(capsys, "orders", "--limit", "3", "-p", str(tmp_path))
            assert err == "more follow: --after c --limit 3\n"
