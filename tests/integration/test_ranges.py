"""Nodes that are computed range by range, on real stores: what is computed, what is kept, and what a kill leaves.

It is noon of 10 January 2024. Functions and commands write down which ranges they were called for, so each test sees
what was computed and how often.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest
from tests.integration.test_attempts import when_written
from tests.integration.test_runner import Workshop, ran

from seeknal.cli.app import main
from seeknal.errors import LeaseLostError
from seeknal.pipeline.load import load_project
from seeknal.runner.outputs import list_parts, parts_folder
from seeknal.runner.ranges import Window

DAILY = """
    from seeknal.pipeline import transform

    @transform(schedule="@daily", start="2024-01-05", batch_size=1{more})
    def daily(ctx):
        day = ctx.interval.start
        with open(ctx.project_path / "computed", "a") as file:
            file.write(f"daily {{day.day}}\\n")
        if (ctx.project_path / f"bad-{{day.day}}").exists():
            raise ValueError("no such day")
        return [{{"day": day.day, "version": 1}}]
    """
AFTER = """
    from seeknal.pipeline import transform

    @transform(schedule="@daily", start="2024-01-05", batch_size=1)
    def after(ctx):
        days = range(ctx.interval.start.day, ctx.interval.end.day)
        with open(ctx.project_path / "computed", "a") as file:
            file.writelines(f"after {day}\\n" for day in days)
        return ctx.ref("transform.daily").filter(f"day IN {(*days, 0)}")
    """
TOTAL = """
    kind: transform
    name: total
    transform: SELECT count(*) AS days, sum(day) AS sum FROM ref('transform.daily')
    """
KILLED = """
import os, signal, sys
from pathlib import Path
from seeknal.runner import work
from tests.integration.test_runner import Workshop

publish, begun = work.publish_part, []

def publish_and_die(*arguments):
    part = publish(*arguments)
    begun.append(part)
    if len(begun) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return part

work.publish_part = publish_and_die
Workshop(sys.argv[1], Path(sys.argv[2])).run()
"""


class Almanac(Workshop):
    """A workshop that reads what was written down."""

    def computed(self) -> list[str]:
        """Return what was computed since it was asked last, sorted."""
        path = self.path / "computed"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(lines)

    def parts(self, node_id: str = "transform.daily") -> list:
        return list_parts(parts_folder(self.path, node_id))

    def is_clean(self) -> bool:
        """Whether no run has left anything that it held or was about to write."""
        with self.open() as backend:
            nodes = load_project(self.path).nodes
            claims = [claim for node_id in nodes for claim in backend.list_claims(node_id, status="claimed")]
            running = backend.list_runs(status="running")
            return not [*claims, *backend.list_locks(), *running, *(self.path / "target").rglob("*.tmp")]

    def kill(self, after: int) -> None:
        """Run it in a process that is killed when the file of so many ranges is in place, and the last not recorded."""
        done = subprocess.run([sys.executable, "-c", KILLED, self.kind, self.path, str(after)], check=False)
        assert done.returncode == -signal.SIGKILL
        self.clock.advance(minutes=2)


@pytest.fixture(params=["file", "database"])
def almanac(request, tmp_path):
    workshop = Almanac(request.param, tmp_path)
    workshop.write({"seeknal_project.yml": f"name: almanac\nstate_backend: {request.param}\n"})
    yield workshop
    assert workshop.is_clean()


def add_daily(almanac: Almanac, more: str = "") -> None:
    almanac.write({"seeknal/daily.py": DAILY.format(more=more and f", {more}")})


def day(number: int) -> datetime:
    return datetime.fromisoformat(f"2024-01-{number:02}T00:00:00+00:00")


def each(name: str, first: int, last: int) -> list[str]:
    return sorted(f"{name} {number}" for number in range(first, last))


# ---- every form ----

FORMS = {
    "seeknal/sql_days.yml": """
        kind: transform
        name: sql_days
        schedule: "@daily"
        start: 2024-01-07
        batch_size: 2
        transform: SELECT TIMESTAMP '{{ start }}' AS a, TIMESTAMP '{{end}}' AS b
        """,
    "seeknal/sql_keys.yml": """
        kind: transform
        name: sql_keys
        partitions: [ID, "it's"]
        transform: SELECT '{{ partition }}' AS key
        """,
    "seeknal/shell_days.yml": """
        kind: command
        name: shell_days
        schedule: "@daily"
        start: 2024-01-07
        end: 2024-01-09
        batch_size: 1
        command: echo "$SEEKNAL_START $SEEKNAL_END {{ start }}" >> shell_days
        """,
    "seeknal/shell_keys.yml": """
        kind: command
        name: shell_keys
        partitions: [ID, "it's", "$(touch never)"]
        command: echo "$SEEKNAL_PARTITION" >> shell_keys
        """,
    "seeknal/filled.yml": """
        kind: command
        name: filled
        partitions: [country=ID, 2024/01-31]
        command: echo {{ partition }} >> filled
        """,
    "seeknal/functions.py": """
        from seeknal.pipeline import command, source, transform

        @source(schedule="0 0 * * *", start="2024-01-08")
        def days(ctx):
            return [{"first": ctx.interval.start, "last": ctx.interval.end}]

        @source(partitions=["x", "y"])
        def keys(ctx):
            return [{"key": ctx.partition}] if ctx.partition == "x" else []

        @transform(partitions=["x"], inputs=["source.keys"])
        def upper(ctx):
            return ctx.ref("source.keys").project("upper(key) AS key")

        @command(schedule="@daily", start="2024-01-09")
        def note_day(ctx):
            (ctx.project_path / "note_day").write_text(f"{ctx.interval.start:%d}")

        @command(partitions=["z"])
        def note_key(ctx):
            (ctx.project_path / "note_key").write_text(ctx.partition)
        """,
}


def test_every_form_of_node_is_told_its_range(almanac):
    almanac.write(FORMS)
    report = almanac.run()
    assert set(report.nodes.values()) == {"success"}
    assert len(report.nodes) == 10
    naive = [datetime(2024, 1, number) for number in range(7, 11)]
    assert almanac.rows("transform.sql_days") == [(naive[0], naive[2]), (naive[2], naive[3])]
    assert almanac.rows("transform.sql_keys") == [("ID",), ("it's",)]
    assert (almanac.path / "shell_days").read_text().splitlines() == [
        "2024-01-07T00:00:00Z 2024-01-08T00:00:00Z 2024-01-07 00:00:00",
        "2024-01-08T00:00:00Z 2024-01-09T00:00:00Z 2024-01-08 00:00:00",
    ]
    assert (almanac.path / "shell_keys").read_text().splitlines() == ["ID", "it's", "$(touch never)"]
    assert (almanac.path / "filled").read_text().splitlines() == ["country=ID", "2024/01-31"]
    assert not (almanac.path / "never").exists()
    assert [(first.day, last.day) for first, last in almanac.rows("source.days")] == [(8, 10)]
    assert [(part.unit, part.rows) for part in almanac.parts("source.keys")] == [("=x", 1), ("=y", 0)]
    assert almanac.rows("transform.upper") == [("X",)]
    assert (almanac.path / "note_day").read_text() == "09"
    assert (almanac.path / "note_key").read_text() == "z"
    with almanac.open() as backend:
        assert [each.partition for each in backend.list_partitions("command.shell_keys")] == [
            "$(touch never)",
            "ID",
            "it's",
        ]
        assert [each.row_count for each in backend.list_partitions("source.keys")] == [1, 0]
        assert backend.get_node_state(report.run_id, "transform.sql_days").row_count == 2
    assert ran(almanac.run()) == set()


@pytest.mark.parametrize("command", ["echo {{ partition }}", "echo '{{ partition }}'", 'echo "{{partition}}"'])
def test_a_key_that_a_shell_might_take_for_something_else_is_not_filled_in(almanac, command):
    keys = ["$(touch never)", "`touch never`", "'; touch never; '", "a b"]
    text = f"kind: command\nname: keys\npartitions: {json.dumps(keys)}\ncommand: {json.dumps(command)}\n"
    almanac.write({"seeknal/keys.yml": text})
    report = almanac.run(continue_on_error=True)
    assert report.status == "failed"
    assert not (almanac.path / "never").exists()
    with almanac.open() as backend:
        assert backend.list_partitions("command.keys") == []
        state = backend.get_node_state(report.run_id, "command.keys")
    assert "cannot be filled into a shell command" in state.error_message


def test_partitions_that_the_store_expects_are_computed_when_they_are_new(almanac):
    almanac.write(
        {
            "seeknal/keys.yml": """
                kind: command
                name: keys
                partitions: expected
                command: echo "$SEEKNAL_PARTITION" >> computed
                """
        }
    )
    assert almanac.run().status == "success"
    assert almanac.computed() == []
    with almanac.open() as backend:
        backend.expect_partitions("command.keys", ["b", "a"])
    almanac.run()
    assert almanac.computed() == ["a", "b"]
    with almanac.open() as backend:
        backend.expect_partitions("command.keys", ["c"])
        backend.drop_expected_partitions("command.keys", ["a"])
        backend.restate_partitions("command.keys", ["a", "b"])
    almanac.run()
    assert almanac.computed() == ["b", "c"]


# ---- what fails ----


def test_a_batch_that_fails_leaves_the_others_completed_and_is_computed_alone_by_the_next_run(almanac):
    add_daily(almanac)
    almanac.write({"bad-7": "", "seeknal/total.yml": TOTAL})
    report = almanac.run(continue_on_error=True)
    assert report.nodes == {"transform.daily": "failed", "transform.total": "skipped"}
    assert (almanac.computed(), almanac.days()) == (each("daily", 5, 10), [(5, 7), (8, 10)])
    with almanac.open() as backend:
        message = backend.get_node_state(report.run_id, "transform.daily").error_message
    assert message == "2024-01-07 to 2024-01-08: ValueError: no such day"
    (almanac.path / "bad-7").unlink()
    assert almanac.run().status == "success"
    assert almanac.computed() == ["daily 7"]
    assert almanac.rows("transform.total") == [(5, 35)]


def test_after_a_batch_that_failed_no_other_is_begun_unless_the_run_is_to_continue(almanac):
    add_daily(almanac)
    almanac.write({"bad-7": ""})
    assert almanac.run().status == "failed"
    assert almanac.computed() == each("daily", 5, 8)
    (almanac.path / "bad-7").unlink()
    almanac.run()
    assert almanac.computed() == each("daily", 7, 10)
    assert almanac.rows("transform.daily") == [(number, 1) for number in range(5, 10)]


def test_each_batch_has_retries_of_its_own(almanac):
    almanac.write(
        {
            "seeknal/flaky.yml": """
                kind: command
                name: flaky
                schedule: "@daily"
                start: 2024-01-07
                batch_size: 1
                retries: 1
                command: echo "$SEEKNAL_START" >> computed; mkdir "once-$SEEKNAL_START" && exit 3; true
                """
        }
    )
    events = []
    assert almanac.run(on_event=events.append).status == "success"
    assert almanac.computed() == sorted([f"2024-01-0{number}T00:00:00Z" for number in (7, 8, 9)] * 2)
    assert [event.status for event in events].count("retrying") == 3
    assert events[0].detail.startswith("2024-01-07 to 2024-01-08 in ")
    assert almanac.days("command.flaky") == [(7, 10)]


def test_a_batch_that_failed_in_run_after_run_is_tried_by_the_next_one_all_the_same(almanac):
    add_daily(almanac)
    almanac.write({"bad-5": ""})
    for _ in range(5):
        assert almanac.run().status == "failed"
    assert almanac.computed() == ["daily 5"] * 5
    (almanac.path / "bad-5").unlink()
    assert almanac.run().status == "success"


def test_a_batch_that_takes_too_long_is_ended_alone(almanac):
    began = almanac.path / "began"
    os.mkfifo(began)
    almanac.write(
        {
            "seeknal/slow.yml": """
                kind: command
                name: slow
                schedule: "@daily"
                start: 2024-01-07
                batch_size: 1
                timeout: 10s
                command: |
                  test "{{ start }}" = "2024-01-08 00:00:00" && test ! -e spare && { echo > began; sleep 50; }
                  echo "$SEEKNAL_START" >> computed
                """
        }
    )
    moving = when_written(almanac, "began", lambda: almanac.clock.advance(seconds=10))
    report = almanac.run(continue_on_error=True)
    moving.join()
    assert report.status == "failed"
    assert almanac.days("command.slow") == [(7, 8), (9, 10)]
    with almanac.open() as backend:
        message = backend.get_node_state(report.run_id, "command.slow").error_message
    assert message == "2024-01-08 to 2024-01-09: timed out after 10 s"
    almanac.computed()
    almanac.write({"spare": ""})
    almanac.run()
    assert almanac.computed() == ["2024-01-08T00:00:00Z"]


# ---- what is cut short ----


def test_a_run_that_is_stopped_gives_its_claims_back_and_the_next_one_does_what_is_left(almanac):
    os.mkfifo(almanac.path / "began")
    almanac.write(
        {
            "seeknal/slow.yml": """
                kind: command
                name: slow
                schedule: "@daily"
                start: 2024-01-05
                end: 2024-01-10
                batch_size: 1
                command: |
                  echo "$SEEKNAL_START" >> computed
                  test "{{ start }}" = "2024-01-07 00:00:00" && test ! -e spare && { echo > began; sleep 50; }
                  true
                """
        }
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "seeknal.cli.app", "run", "--quiet"], cwd=almanac.path, stderr=subprocess.PIPE
    )
    (almanac.path / "began").read_text()
    runner.send_signal(signal.SIGINT)
    runner.send_signal(signal.SIGINT)
    _, said = runner.communicate()
    assert runner.returncode == 130, said
    assert almanac.computed() == [f"2024-01-0{number}T00:00:00Z" for number in (5, 6, 7)]
    assert almanac.is_clean()
    with almanac.open() as backend:
        assert [claim.attempt for claim in backend.list_claims("command.slow")] in ([], [0])
        (run_id,) = backend.list_runs()
        assert backend.get_run(run_id).status == "cancelled"
        assert backend.get_node_state(run_id, "command.slow").error_message == "cancelled"
    almanac.write({"spare": ""})
    assert almanac.run().status == "success"
    assert almanac.computed() == [f"2024-01-0{number}T00:00:00Z" for number in (7, 8, 9)]


def test_the_file_of_a_killed_run_that_was_never_recorded_is_not_read_and_is_deleted(almanac):
    add_daily(almanac)
    almanac.write({"seeknal/total.yml": TOTAL})
    almanac.kill(after=3)
    assert (almanac.computed(), almanac.days()) == (each("daily", 5, 8), [(5, 7)])
    (_, _, orphan) = almanac.parts()
    assert almanac.run().status == "success"
    assert almanac.computed() == each("daily", 7, 10)
    assert almanac.rows("transform.daily") == [(number, 1) for number in range(5, 10)]
    assert almanac.rows("transform.total") == [(5, 35)]
    assert orphan.file not in {part.file for part in almanac.parts()}


def test_what_a_killed_rebuild_has_rebuilt_is_not_done_again(almanac):
    add_daily(almanac)
    almanac.write({"seeknal/total.yml": TOTAL})
    almanac.run()
    almanac.computed()
    almanac.edit("seeknal/daily.py", '"version": 1', '"version": 2')
    almanac.kill(after=3)
    assert almanac.computed() == each("daily", 5, 8)
    report = almanac.run()
    assert ran(report) == {"transform.daily", "transform.total"}
    assert almanac.computed() == each("daily", 7, 10)
    assert almanac.rows("transform.daily") == [(number, 2) for number in range(5, 10)]
    assert (ran(almanac.run()), almanac.computed()) == (set(), [])


@pytest.mark.parametrize("damage", ["unlink", "truncate", "lengthen"])
def test_a_part_that_is_gone_or_of_another_length_is_computed_again_alone(almanac, damage):
    add_daily(almanac)
    almanac.write({"seeknal/total.yml": TOTAL})
    almanac.run()
    almanac.computed()
    path = parts_folder(almanac.path, "transform.daily") / almanac.parts()[2].file
    if damage == "unlink":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "truncate" else path.read_bytes() + b"x")
    assert ran(almanac.run()) == {"transform.daily", "transform.total"}
    assert almanac.computed() == ["daily 7"]
    assert almanac.rows("transform.daily") == [(number, 1) for number in range(5, 10)], "the damaged file is gone"
    assert ran(almanac.run()) == set()


# ---- again ----


def test_the_last_ticks_are_done_again_with_each_new_one_and_never_without(almanac):
    add_daily(almanac, "lookback=2")
    almanac.run()
    assert almanac.computed() == each("daily", 5, 10)
    assert (ran(almanac.run()), almanac.computed()) == (set(), [])
    almanac.clock.advance(days=1)
    almanac.run()
    assert almanac.computed() == each("daily", 9, 11)
    assert almanac.rows("transform.daily") == [(number, 1) for number in range(5, 11)]


def test_rows_of_a_batch_that_a_lookback_reaches_into_are_there_for_what_comes_after(almanac):
    almanac.write(
        {
            "seeknal/daily.yml": """
                kind: transform
                name: daily
                schedule: "@daily"
                start: 2024-01-05
                lookback: 1
                batch_size: 4
                transform: |
                  SELECT unnest(generate_series(day(TIMESTAMP '{{ start }}'), day(TIMESTAMP '{{ end }}') - 1)) AS day
                """,
            "seeknal/total.yml": TOTAL,
        }
    )
    almanac.run(backfill=True)
    assert [part.rows for part in almanac.parts()] == [4, 1]
    almanac.edit("seeknal/daily.yml", "lookback: 1", "lookback: 4")
    almanac.clock.advance(days=1)
    almanac.run()
    assert almanac.rows("transform.total") == [(6, 45)]
    assert sorted(number for (number,) in almanac.rows("transform.daily")) == [5, 6, 7, 8, 9, 10]


def test_a_scheduled_node_behind_another_does_what_is_new_and_what_reads_a_part_that_is_new(almanac, capsys):
    add_daily(almanac)
    almanac.write({"seeknal/after.py": AFTER, "seeknal/total.yml": TOTAL})
    almanac.run()
    assert almanac.computed() == each("after", 5, 10) + each("daily", 5, 10)
    almanac.clock.advance(days=1)
    almanac.run()
    assert almanac.computed() == ["after 10", "daily 10"]
    said = ["intervals", "restate", "transform.daily", "--start", "2024-01-06", "--end", "2024-01-07", "--yes"]
    assert main([*said, "--project-path", str(almanac.path)]) == 0
    capsys.readouterr()
    assert ran(almanac.run()) == {"transform.daily", "transform.after", "transform.total"}
    assert almanac.computed() == ["after 6", "daily 6"]
    with almanac.open() as backend:
        backend.restate_intervals("transform.after", day(8), day(9))
    assert ran(almanac.run()) == {"transform.after"}
    assert almanac.computed() == ["after 8"]
    assert ran(almanac.run()) == set()


def test_a_window_is_about_its_ticks_and_those_after_them_follow(almanac):
    add_daily(almanac)
    almanac.write({"seeknal/after.py": AFTER, "seeknal/total.yml": TOTAL})
    window = Window(start=day(6), end=day(8))
    almanac.run(window=window)
    assert almanac.computed() == each("after", 6, 8) + each("daily", 6, 8)
    assert almanac.rows("transform.total") == [(2, 13)]
    almanac.run()
    assert almanac.computed() == sorted(f"{name} {number}" for name in ("after", "daily") for number in (5, 8, 9))
    almanac.run(window=Window(start=day(6), end=day(7), restates=True))
    assert almanac.computed() == ["after 6", "daily 6"]
    assert almanac.rows("transform.total") == [(5, 35)]
    assert ran(almanac.run()) == set()


def test_a_window_of_a_changed_node_leaves_the_rest_for_later_and_takes_nothing_of_it_back(almanac):
    add_daily(almanac)
    almanac.run()
    almanac.computed()
    almanac.edit("seeknal/daily.py", '"version": 1', '"version": 2')
    almanac.run(window=Window(start=day(6), end=day(7)))
    assert (almanac.computed(), almanac.days()) == (["daily 6"], [(5, 10)])
    almanac.run()
    assert almanac.computed() == sorted(f"daily {number}" for number in (5, 7, 8, 9))
    assert almanac.rows("transform.daily") == [(number, 2) for number in range(5, 10)]


def test_partitions_that_are_named_are_done_again_alone(almanac):
    almanac.write(
        {
            "seeknal/keys.yml": """
                kind: command
                name: keys
                partitions: [a, b, c]
                command: echo "$SEEKNAL_PARTITION" >> computed
                """
        }
    )
    almanac.run(window=Window(partitions=("a", "c")))
    assert almanac.computed() == ["a", "c"]
    almanac.run()
    assert almanac.computed() == ["b"]
    almanac.run(window=Window(partitions=("c",), restates=True))
    assert almanac.computed() == ["c"]
    almanac.run(full=True)
    assert almanac.computed() == ["a", "b", "c"]
    assert ran(almanac.run()) == set()


def test_the_parts_of_a_node_that_lost_its_claims_are_not_read(almanac):
    """Somebody breaks the lock of a run, as if it were dead: it completes nothing more, and the next does it all."""
    add_daily(almanac)

    def break_it(event) -> None:
        if event.done == 2:
            with almanac.open() as beside:
                for lock in beside.list_locks():
                    beside.break_lock(lock.run_id, lock.node_id, reason="taken for dead")

    with pytest.raises(LeaseLostError):
        almanac.run(on_any_event=break_it)
    assert almanac.days() == [(5, 7)]
    almanac.computed()
    assert almanac.run().status == "success"
    assert almanac.computed() == each("daily", 7, 10)
    assert almanac.rows("transform.daily") == [(number, 1) for number in range(5, 10)]
