"""The example for Prefect, run by a real Prefect."""

from __future__ import annotations

import pytest
from tests.integrations.orchestrators import Example


@pytest.mark.timeout(400)
def test_flow_runs_are_recorded_skipped_when_current_and_failed_when_they_fail(tmp_path):
    example = Example("prefect", tmp_path)
    example.spoil("2024-01-10")
    done = example.run(
        example.source / "nightly.py",
        "2024-01-09",
        "2024-01-09",
        "2024-01-10",
        PREFECT_HOME=str(tmp_path / "prefect"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
        DO_NOT_TRACK="1",
    )
    assert done.returncode == 1, done.stdout
    example.check()
