"""A project, run by a real dbt, is taken in. ``SEEKNAL_TEST_DBT_PYTHON`` names an interpreter that has dbt-duckdb."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime

import pytest

from seeknal.integrations.dbt import import_dbt
from seeknal.state.backend import create_state_backend

DAILY = "model.shop.daily"
FILES = {
    "dbt_project.yml": "name: shop\nversion: 1.0.0\nconfig-version: 2\nprofile: shop\nmodel-paths: [models]\n"
    "seed-paths: [seeds]\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": "shop:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: shop.duckdb, threads: 1}\n",
    "seeds/raw.csv": "id,ordered_at,amount\n1,2024-01-01T09:00:00,10\n"
    "2,2024-01-02T10:00:00,20\n3,2024-01-03T11:00:00,30\n",
    "models/orders.sql": "select id, cast(ordered_at as timestamp) as ordered_at, amount from {{ ref('raw') }}\n",
    "models/daily.sql": "{{ config(materialized='incremental', incremental_strategy='microbatch', "
    "event_time='ordered_at', batch_size='day', begin='2024-01-01') }}\n"
    "select ordered_at, case when ordered_at::date = date '2024-01-03' and {{ var('bad', false) }}"
    " then cast(error('no third') as int) else amount end as amount from {{ ref('orders') }}\n",
    "models/schema.yml": "models:\n  - name: orders\n    config: {event_time: ordered_at}\n    columns:\n"
    "      - name: id\n        data_tests: [unique]\n",
}


@pytest.fixture
def dbt(tmp_path):
    """Run a dbt command in a project of its own; return where its files are."""
    python = os.environ.get("SEEKNAL_TEST_DBT_PYTHON")
    if not python:
        pytest.skip("SEEKNAL_TEST_DBT_PYTHON names no interpreter with dbt-core and dbt-duckdb")
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def run(*arguments):
        program = "import sys; from dbt.cli.main import cli; cli()"
        environment = os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        done = subprocess.run(
            [python, "-c", program, "--quiet", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr  # 1 is a node that failed
        return tmp_path / "target"

    return run


@pytest.mark.timeout(300)
def test_a_real_dbt_invocation_its_retry_and_its_full_refresh(dbt):
    def completed():
        return [(span.start.day, span.end.day) for span in backend.get_completed_intervals(DAILY)]

    days = ["--event-time-start", "2024-01-01", "--event-time-end", "2024-01-04"]
    with create_state_backend("memory") as backend:
        backend.initialize()
        first = import_dbt(backend, dbt("build", *days, "--vars", "{bad: true}"))
        states = backend.get_all_node_states(first.run_id)
        assert (first.status, states[DAILY].status, states["seed.shop.raw"].row_count) == ("failed", "failed", 3)
        assert states["model.shop.orders"].fingerprint.startswith("dbt-sha256:")
        assert [state.status for node, state in states.items() if node.startswith("test.")] == ["success"]
        assert completed() == [(1, 3)]

        retried = import_dbt(backend, dbt("retry", "--vars", "{bad: false}"))
        assert (retried.status, completed()) == ("success", [(1, 4)])
        newest = backend.get_latest_node_state(DAILY, "success")
        assert newest.fingerprint == states[DAILY].fingerprint

        today = import_dbt(backend, dbt("run", "--select", "daily"))
        assert all(span.end > datetime.now(UTC) for span in today.open)
        assert len(today.open) == 1

        import_dbt(backend, dbt("run", "--select", "daily", "--full-refresh", *days))
        assert completed() == [(1, 4)]
        import_dbt(backend, dbt("run", "--select", "daily", "--empty", *days[:3], "2024-01-02"))
        assert completed() == [(2, 4)]
