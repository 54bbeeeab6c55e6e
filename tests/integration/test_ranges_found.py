"""Faults of ranges that a review found, each once: what hung, what was done twice, and what was taken for done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.integration.test_ranges import Almanac, ran

from seeknal.errors import ConfigurationError
from seeknal.pipeline.load import load_project
from seeknal.runner.execute import run_project
from seeknal.runner.ranges import Window
from seeknal.state.backend import create_state_backend

FAILING = """
    kind: transform
    name: failing
    schedule: "@daily"
    start: {start}
    batch_size: 1
    retries: 1
    transform: SELECT {what} AS x, TIMESTAMP '{{{{ start }}}}' AS at
    """
COMMAND = """
    kind: command
    name: note
    schedule: "@daily"
    start: 2024-01-07
    batch_size: 1
    command: echo {text} {{{{ start }}}} >> noted
    """


@pytest.fixture(params=["file", "database"])
def almanac(request, tmp_path):
    workshop = Almanac(request.param, tmp_path)
    workshop.write({"seeknal_project.yml": f"name: almanac\nstate_backend: {request.param}\n"})
    yield workshop
    assert workshop.is_clean()


def noted(almanac: Almanac) -> list[str]:
    path = almanac.path / "noted"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_a_node_ends_whose_every_range_fails_and_is_tried_again(almanac):
    almanac.write({"seeknal/failing.yml": FAILING.format(start="2024-01-07", what="error('no')")})
    assert almanac.run().nodes == {"transform.failing": "failed"}
    assert almanac.run(continue_on_error=True).nodes == {"transform.failing": "failed"}


def test_a_query_that_only_tells_the_columns_is_tried_again_and_fails_the_node(almanac):
    almanac.write({"seeknal/failing.yml": FAILING.format(start="2999-01-01", what="nope")})
    report = almanac.run()
    assert report.nodes == {"transform.failing": "failed"}
    with almanac.open() as backend:
        assert "nope" in backend.get_node_state(report.run_id, "transform.failing").error_message
    almanac.edit("seeknal/failing.yml", "nope", "1")
    assert almanac.run().nodes == {"transform.failing": "success"}


def test_after_a_failure_a_backfill_begins_no_other_stage(almanac):
    almanac.write(
        {"seeknal/a.yml": "kind: command\nname: a\ncommand: exit 1\n", "seeknal/note.yml": COMMAND.format(text="x")}
    )
    assert almanac.run(backfill=True).nodes == {"command.a": "failed", "command.note": "skipped"}
    assert noted(almanac) == []
    assert almanac.run(backfill=True, continue_on_error=True).nodes == {
        "command.a": "failed",
        "command.note": "success",
    }
    assert len(noted(almanac)) == 3


def test_a_command_that_is_computed_otherwise_has_changed(almanac):
    almanac.write({"seeknal/note.yml": "kind: command\nname: note\npartitions: [a]\ncommand: echo done >> noted\n"})
    assert ran(almanac.run()) == {"command.note"}
    almanac.edit("seeknal/note.yml", "partitions: [a]\n", "")
    assert ran(almanac.run()) == {"command.note"}
    assert noted(almanac) == ["done", "done"]


def test_what_was_completed_by_hand_before_the_first_run_of_a_command_is_not_done(almanac):
    almanac.write({"seeknal/note.yml": COMMAND.format(text="x")})
    with almanac.open() as backend:
        backend.create_run("manual", status="success")
        backend.add_completed_interval("manual", "command.note", almanac_day(7), almanac_day(9))
    almanac.run()
    assert noted(almanac) == ["x 2024-01-09 00:00:00"]


def test_what_a_command_did_under_another_definition_does_not_count_once_its_run_is_forgotten(almanac):
    almanac.write({"seeknal/note.yml": COMMAND.format(text="old")})
    first = almanac.run()
    almanac.edit("seeknal/note.yml", "old", "new")
    almanac.run(window=Window(end=almanac_day(8)))
    with almanac.open() as backend:
        backend.delete_run(first.run_id)
    almanac.run()
    assert [line for line in noted(almanac) if line.startswith("new")] == [
        f"new 2024-01-0{number} 00:00:00" for number in (7, 8, 9)
    ]


def test_bounds_within_ticks_do_whole_ticks_again_and_take_back_no_others(almanac):
    almanac.write({"seeknal/note.yml": COMMAND.format(text="x")})
    almanac.run()
    noted(almanac)
    noon = timedelta(hours=12)
    almanac.run(window=Window(start=almanac_day(7) + noon, end=almanac_day(9) + noon, restates=True))
    assert noted(almanac) == ["x 2024-01-08 00:00:00"]
    assert (ran(almanac.run()), noted(almanac)) == (set(), [])


def test_code_that_is_edited_while_its_ranges_run_fails_them(almanac):
    almanac.write(
        {
            "seeknal/steps.py": """
                from seeknal.pipeline import transform

                RATE = 1

                @transform(schedule="@daily", start="2024-01-07", batch_size=1)
                def rated(ctx):
                    return [{"day": ctx.interval.start, "rate": RATE}]
                """
        }
    )

    def edit(event) -> None:
        if event.done == 1 and event.detail.endswith("done"):
            almanac.edit("seeknal/steps.py", "RATE = 1", "RATE = 2")

    report = almanac.run(on_any_event=edit)
    assert report.nodes == {"transform.rated": "failed"}
    with almanac.open() as backend:
        assert "edited meanwhile" in backend.get_node_state(report.run_id, "transform.rated").error_message
    almanac.edit("seeknal/steps.py", "RATE = 2", "RATE = 1  # a remark")
    almanac.run()
    assert [rate for _, rate in almanac.rows("transform.rated")] == [1, 1, 1]


def test_a_remark_in_the_code_meanwhile_fails_nothing(almanac):
    almanac.write(
        {
            "seeknal/steps.py": """
                from seeknal.pipeline import command

                @command(schedule="@daily", start="2024-01-07", batch_size=1)
                def note(ctx):
                    pass
                """
        }
    )

    def edit(event) -> None:
        if event.done == 1 and event.detail.endswith("done"):
            almanac.edit("seeknal/steps.py", "pass", "pass  # a remark")

    assert almanac.run(on_any_event=edit).status == "success"


def test_a_key_that_a_shell_would_run_is_refused(almanac):
    almanac.write(
        {
            "seeknal/note.yml": """
            kind: command
            name: note
            partitions: ["$(touch never)"]
            command: echo "key={{ partition }}" >> noted
            """
        }
    )
    report = almanac.run()
    assert (report.status, noted(almanac), (almanac.path / "never").exists()) == ("failed", [], False)
    with almanac.open() as backend:
        assert "cannot be filled" in backend.get_node_state(report.run_id, "command.note").error_message


def test_a_query_of_an_input_without_rows_says_so(almanac):
    almanac.write(
        {
            "seeknal/steps.py": """
                from seeknal.pipeline import source

                @source(schedule="@daily", start="2024-01-07")
                def empty(ctx):
                    return []
                """,
            "seeknal/after.yml": "kind: transform\nname: after\ntransform: SELECT * FROM ref('source.empty')\n",
        }
    )
    report = almanac.run()
    assert report.nodes == {"source.empty": "success", "transform.after": "failed"}
    with almanac.open() as backend:
        message = backend.get_node_state(report.run_id, "transform.after").error_message
    assert message.startswith("source.empty has no rows")


def test_a_whole_node_after_keys_of_any_order_is_up_to_date_afterwards(almanac):
    almanac.write(
        {
            "seeknal/keys.yml": """
                kind: transform
                name: keys
                partitions: [ID, id-old, id, SG]
                transform: SELECT '{{ partition }}' AS key
                """,
            "seeknal/all.yml": "kind: transform\nname: all\ntransform: SELECT 1 AS n FROM ref('transform.keys')\n",
        }
    )
    assert almanac.run().status == "success"
    assert ran(almanac.run()) == set()


def test_nothing_to_resume_of_nodes_that_are_gone_is_an_error(almanac):
    almanac.write({"seeknal/a.yml": "kind: command\nname: a\ncommand: exit 1\n"})
    almanac.run(selected={"command.a"})
    almanac.edit("seeknal/a.yml", "name: a", "name: b")
    with pytest.raises(ConfigurationError, match=r"asked for command\.a, which the project has no more"):
        almanac.run(resume=True)


def test_files_of_a_run_that_the_store_does_not_know_are_left_alone(almanac):
    almanac.write({"seeknal/failing.yml": FAILING.format(start="2024-01-07", what="1")})
    almanac.run()
    before = {part.file for part in almanac.parts("transform.failing")}
    other = Almanac(almanac.kind, almanac.path)
    with create_state_backend("memory", clock=other.clock) as backend:
        backend.initialize()
        assert run_project(load_project(almanac.path), backend, window=Window(end=almanac_day(8))).status == "success"
    assert before < {part.file for part in almanac.parts("transform.failing")}
    assert ran(almanac.run()) == set()


def almanac_day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC)
