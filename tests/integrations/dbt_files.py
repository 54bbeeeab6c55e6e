"""The files of a dbt invocation, in the shape in which dbt 1.11 writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "https://schemas.getdbt.com/dbt/{}/v{}.json"
SHA = "49fdc5e8d90ea1143a20dcc9dd730ec5e9c636bb7126b4d423c3727d6144ab46"
MICROBATCH = {
    "materialized": "incremental",
    "incremental_strategy": "microbatch",
    "event_time": "ordered_at",
    "batch_size": "day",
    "begin": "2024-01-01T00:00:00",
    "full_refresh": None,
}
ORDERS = "model.shop.orders"
DAILY = "model.shop.daily"


def result(unique_id: str = ORDERS, status: str = "success", **fields: Any) -> dict[str, Any]:
    """A result; ``fields`` replace what it would hold."""
    timing = [
        {"name": "compile", "started_at": "2024-01-10T12:00:01.000000Z", "completed_at": "2024-01-10T12:00:01.100000Z"},
        {"name": "execute", "started_at": "2024-01-10T12:00:01.200000Z", "completed_at": "2024-01-10T12:00:03.000000Z"},
    ]
    made = {
        "status": status,
        "timing": [] if status == "skipped" else timing,
        "thread_id": "Thread-1 (worker)",
        "execution_time": 0 if status == "skipped" else 2.0005,
        "adapter_response": {"_message": "OK"},
        "message": None,
        "failures": None,
        "unique_id": unique_id,
        "compiled": True,
        "compiled_code": "select 1",
        "relation_name": None,
        "batch_results": None,
    }
    return made | fields


def batches(successful: list[tuple[str, str]], failed: list[tuple[str, str]] | None = None) -> dict[str, Any]:
    """Batches, each from a day to a day."""

    def written(days: list[tuple[str, str]]) -> list[list[str]]:
        return [[f"{day}T00:00:00+00:00" for day in batch] for batch in days]

    return {"successful": written(successful), "failed": written(failed or [])}


def daily(successful: list[tuple[str, str]], failed: list[tuple[str, str]] | None = None, **fields: Any) -> Any:
    """A result of the microbatch model."""
    status = "success" if not failed else "partial success" if successful else "error"
    return result(DAILY, status, batch_results=batches(successful, failed), **fields)


def node(unique_id: str, **fields: Any) -> dict[str, Any]:
    """A node of the manifest."""
    kind, _, name = unique_id.split(".", 2)
    made = {
        "unique_id": unique_id,
        "resource_type": kind,
        "name": name,
        "checksum": {"name": "sha256", "checksum": SHA},
        "tags": [],
        "relation_name": f'"shop"."main"."{name}"',
        "depends_on": {"macros": [], "nodes": []},
        "compiled_path": None,
        "original_file_path": f"models/{name}.sql",
        "config": {"full_refresh": None, "event_time": None, "batch_size": None, "begin": None},
    }
    return made | fields


def write_dbt(
    directory: Path,
    *results: dict[str, Any],
    invocation_id: str = "a1",
    generated_at: str = "2024-01-10T12:00:05.000000Z",
    args: dict[str, Any] | None = None,
    run_results_version: int = 6,
    manifest_version: int = 12,
    nodes: dict[str, Any] | None = None,
) -> Path:
    """Write both files and return the directory.

    Args:
        directory: Where; made if it is not there.
        results: What became of the nodes.
        invocation_id: Of both files.
        generated_at: When the invocation wrote its results.
        args: What dbt was told, beside ``which``.
        run_results_version: Of the schema.
        manifest_version: Of the schema.
        nodes: Those of the manifest; the two models when ``None``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    about = {
        "dbt_version": "1.11.16",
        "generated_at": generated_at,
        "invocation_id": invocation_id,
        "invocation_started_at": "2024-01-10T12:00:00.000000Z",
        "env": {},
    }
    if run_results_version < 6:
        del about["invocation_started_at"]
    told = {"which": "run", "invocation_command": "dbt run", "vars": {"token": "s3cret"}} | (args or {})
    (directory / "run_results.json").write_text(
        json.dumps(
            {
                "metadata": about | {"dbt_schema_version": NAME.format("run-results", run_results_version)},
                "results": list(results),
                "elapsed_time": 4.0,
                "args": told,
            }
        )
    )
    known = nodes if nodes is not None else {ORDERS: node(ORDERS), DAILY: node(DAILY, config=MICROBATCH)}
    (directory / "manifest.json").write_text(
        json.dumps(
            {
                "metadata": about
                | {"dbt_schema_version": NAME.format("manifest", manifest_version), "project_name": "shop"},
                "nodes": known,
                "macros": {},
                "exposures": {},
                "unit_tests": {},
            }
        )
    )
    return directory
