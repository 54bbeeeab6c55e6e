"""The example for Airflow, run by a real Airflow."""

from __future__ import annotations

import pytest
from tests.integrations.orchestrators import Example


@pytest.mark.timeout(500)
def test_dag_runs_are_recorded_skipped_when_current_and_failed_when_they_fail(tmp_path):
    example = Example("airflow", tmp_path)
    example.spoil("2024-01-10")
    dag = example.source / "dags" / "nightly.py"

    def airflow(*arguments):
        return example.run(
            "-m",
            "airflow",
            *arguments,
            AIRFLOW_HOME=str(tmp_path / "airflow"),
            AIRFLOW__CORE__DAGS_FOLDER=str(dag.parent),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
        )

    made = airflow("db", "migrate")
    assert made.returncode == 0, made.stdout
    # A run at midnight has the data interval of the day before.
    ends = [airflow("dags", "test", "nightly", day, "-f", dag) for day in ("2024-01-10", "2024-01-10", "2024-01-11")]
    assert [done.returncode for done in ends] == [0, 0, 1], "\n".join(done.stdout for done in ends)
    example.check()
