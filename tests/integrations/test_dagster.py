"""The example for Dagster, run by a real Dagster."""

from __future__ import annotations

import pytest
from tests.integrations.orchestrators import Example

SENSORS = """\
import dagster as dg, nightly

with dg.DagsterInstance.ephemeral() as instance:
    for day, sensor in [
        ("2024-01-09", nightly.succeeded), ("2024-01-10", nightly.failed), ("2024-01-10", nightly.canceled)
    ]:
        result = nightly.defs.resolve_job_def("nightly").execute_in_process(
            partition_key=day, raise_on_error=False, instance=instance)
        event = result.get_run_success_event() if result.success else result.get_run_failure_event()
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name, dagster_instance=instance, dagster_run=result.dagster_run, dagster_event=event)
        sensor(context.for_run_failure() if sensor is nightly.failed else context)
"""


@pytest.fixture
def example(tmp_path):
    found = Example("dagster", tmp_path)
    found.spoil("2024-01-10")
    (tmp_path / "home").mkdir()
    return found


def variables(example):
    return {"DAGSTER_HOME": str(example.place / "home"), "DAGSTER_DISABLE_TELEMETRY": "1"}


@pytest.mark.timeout(300)
def test_runs_are_recorded_skipped_when_current_and_failed_when_they_fail(example):
    days = ("2024-01-09", "2024-01-09", "2024-01-10")
    done = example.run(example.source / "nightly.py", *days, **variables(example))
    assert done.returncode == 1, done.stdout
    example.check()


@pytest.mark.timeout(300)
def test_sensors_end_the_runs(example):
    program = f"import sys; sys.path.insert(0, {str(example.source)!r})\n{SENSORS}"
    done = example.run("-c", program, **variables(example))
    assert done.returncode == 0, done.stdout
    assert [status for status, _ in example.runs()] == ["success", "failed", "failed"]


@pytest.mark.timeout(300)
def test_steps_in_processes_of_their_own_record_into_one_run_that_waits_for_its_sensor(example):
    tags = '{"dagster/partition": "2024-01-09"}'
    job = ("-m", "dagster", "job", "execute", "-f", example.source / "nightly.py", "-j", "nightly", "--tags", tags)
    done = example.run(*job, **variables(example))
    assert done.returncode == 0, done.stdout
    assert "Multiprocess executor" in done.stdout
    assert example.runs() == [("running", {"orders": "success", "totals": "success"})]
