"""A run whose store goes away: it ends, what it recorded is true, and the next one does the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.conftest import Far

from seeknal.errors import BackendUnavailableError
from seeknal.pipeline.load import load_project
from seeknal.runner.execute import run_project

FILES = {
    "seeknal_project.yml": "name: far\n",
    "seeknal/steps.py": """\
from seeknal.pipeline import command


def note(ctx, text):
    with (ctx.project_path / "done.txt").open("a") as file:
        file.write(text + "\\n")


@command
def before(ctx):
    note(ctx, "before")


@command(schedule="@daily", start="2024-01-01", end="2024-01-05", batch_size=1, inputs=["command.before"])
def daily(ctx):
    note(ctx, f"{ctx.interval.start:%d}")


@command(inputs=["command.daily"])
def after(ctx):
    note(ctx, "after")
""",
}


def write(project_path: Path) -> None:
    for name, text in FILES.items():
        (project_path / name).parent.mkdir(exist_ok=True)
        (project_path / name).write_text(text)


def done(project_path: Path) -> list[str]:
    return (project_path / "done.txt").read_text().split()


def test_a_run_that_loses_its_store_ends_and_another_one_resumes_it(far_somewhere: Far, tmp_path: Path) -> None:
    write(tmp_path)
    project = load_project(tmp_path)
    far = far_somewhere
    assert far.beside.health_check()

    def lose(event) -> None:
        if (event.node_id, event.done) == ("command.daily", 2):
            far.proxy.refuse()
            far.proxy.cut()

    backend = far.open(busy_timeout_ms=1000)
    with pytest.raises(BackendUnavailableError) as raised:
        run_project(project, backend, full=True, on_event=lose)
    assert raised.value.outcome != "applied"
    assert done(tmp_path)[:3] == ["before", "01", "02"]
    far.proxy.restore()
    backend.close()
    beside = far.beside
    for lock in beside.list_locks():  # they would end by themselves after their time
        beside.break_lock(lock.run_id, lock.node_id, reason="its process is gone")
    (run_id,) = beside.list_runs()
    assert beside.get_node_state(run_id, "command.before").status == "success"
    (completed,) = beside.get_completed_intervals("command.daily")
    assert (completed.start.day, completed.end.day) == (1, 3)

    report = run_project(project, beside, resume=True, wait_ms=60_000)
    assert (report.status, report.resumes) == ("success", run_id)
    assert report.nodes["command.before"] == "cached", "it succeeded in the run that is resumed, also with full"
    lines = done(tmp_path)
    assert [lines.count(each) for each in ("before", "01", "02", "04", "after")] == [1, 1, 1, 1, 1]
    assert 1 <= lines.count("03") <= 2, "it was begun, and nobody knows whether it ended"
    assert beside.get_run(run_id).status == "failed"
    assert (beside.list_locks(), beside.list_claims("command.daily")) == ([], [])
