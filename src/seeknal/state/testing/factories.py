"""Values that cases are made of, and everything that a store can be asked at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from seeknal.model.status import NodeStatus
from seeknal.state.capabilities import Capability
from seeknal.state.contract import StateBackend

NODE = "transform.orders"

GOOD_IDS = (
    "a",
    "A",
    "a ",
    " a",
    "ab",
    "a/b",
    "a\\b",
    "../x",
    "..",
    ".",
    "a%2Fb",
    "a_b",
    "a%",
    "caf\u00e9",  # composed
    "cafe\u0301",  # decomposed: the same to the eye, other bytes
    "cafe",
    "CAF\u00c9",
    "stra\u00dfe",
    "strasse",
    "\u0131",
    "i",
    "I",
    "'; DROP TABLE runs; --",
    "CON",
    "a\u200bb",
    "\U0001f600",
    "null",
    "x" * 190,
    "y" + "\u00e9" * 94,
)
"""Ids that must be kept apart from one another."""

BAD_IDS: tuple[Any, ...] = (
    "",
    "x" * 191,
    "\u00e9" * 96,
    "a\nb",
    "a\x00b",
    "\x7f",
    "a\x85b",
    "\ud800",
    None,
    7,
    b"a",
    True,
    ["a"],
)


def circular() -> dict[str, Any]:
    """Return a dictionary that holds itself."""
    value: dict[str, Any] = {}
    value["self"] = value
    return value


_NOT_JSON: tuple[Any, ...] = (
    {"x": math.nan},
    {"x": math.inf},
    {"x": {1}},
    {"x": b"bytes"},
    {"x": datetime(2024, 1, 1, tzinfo=UTC)},
    {"x": [1j]},
    {1: "x"},
    {"x": "\ud800"},
    {"\ud800": 1},
    {"x": "y" * 4_000_001},
    circular(),
    [],
    "text",
    None,
    7,
)

BAD_NODE_FIELDS: tuple[tuple[str, Any], ...] = (
    *(("status", bad) for bad in ("done", "SUCCESS", "", None, 1, "cancelled", ["success"])),
    *((name, bad) for name in ("started_at", "finished_at") for bad in ("2024-01-01", 0, 1.5, datetime.max.date())),
    *((name, bad) for name in ("duration_ms", "row_count", "attempt") for bad in (-1, 2**63, 1.0, "1", True, math.nan)),
    ("attempt", 0),
    ("attempt", None),
    *((name, bad) for name in ("fingerprint", "error_message") for bad in (b"x", 1, "\ud800", "y" * 4_000_001)),
    *(("metadata", bad) for bad in _NOT_JSON),
    ("run", "x"),
    ("version", 3),
    ("sequence", 3),
    ("statsu", "success"),
)

BAD_RUN_FIELDS: tuple[tuple[str, Any], ...] = (
    *(("status", bad) for bad in ("done", "skipped", "cached", "", None, 1, "Running")),
    *((name, bad) for name in ("started_at", "finished_at") for bad in ("2024-01-01", 0, 1.5)),
    *((name, bad) for name in ("config", "metadata") for bad in _NOT_JSON),
    ("version", 3),
    ("run", "x"),
    ("stauts", "failed"),
)

RICH: dict[str, Any] = {
    "text": "\u00e9\u0301\U0001f600\x00\n\"'\\",
    "": "empty key",
    "none": None,
    "yes": True,
    "one": 1,
    "point": 1.0,
    "tenth": 0.1,
    "tiny": 5e-324,
    "huge": 1e300,
    "long": 2**53 + 1,
    "longer": -(2**63),
    "list": [1, [2, {"a": []}]],
    "deep": {"a": {"b": {"c": {}}}},
}
"""JSON that stores like to change on its way."""


def day(number: int, hour: int = 0, minute: int = 0) -> datetime:
    """Return an instant of January 2024, in UTC."""
    return datetime(2024, 1, number, hour, minute, tzinfo=UTC)


def spans(backend: StateBackend, node_id: str = NODE) -> list[tuple[datetime, datetime, str]]:
    """Return the completed intervals of a node as tuples: start, end, run id."""
    return [(each.start, each.end, each.run_id) for each in backend.get_completed_intervals(node_id)]


def everything(backend: StateBackend, node_ids: Iterable[str] = (NODE,)) -> dict[str, Any]:
    """Return all that can be asked of a store about these nodes and all runs, sequences left out."""
    runs = backend.list_runs()
    nodes = sorted({*node_ids, *(node_id for run_id in runs for node_id in backend.list_nodes(run_id))})
    found: dict[str, Any] = {
        "runs": [_plain(backend.get_run(run_id)) for run_id in runs],
        "newest": backend.list_runs(newest_first=True, limit=2),
        "nodes": {
            run_id: {node_id: _plain(state) for node_id, state in backend.get_all_node_states(run_id).items()}
            for run_id in runs
        },
        "intervals": {node_id: spans(backend, node_id) for node_id in nodes},
        "partitions": {node_id: [_plain(each) for each in backend.list_partitions(node_id)] for node_id in nodes},
        "locks": [(lock.run_id, lock.node_id, lock.token) for lock in backend.list_locks()],
    }
    if Capability.PROVENANCE in backend.capabilities:
        found["provenance"] = {node_id: backend.get_interval_provenance(node_id) for node_id in nodes}
    if Capability.EXPECTED in backend.capabilities:
        found["expected"] = {node_id: backend.list_expected_partitions(node_id) for node_id in nodes}
    for status in (None, *NodeStatus):
        latest = [backend.get_latest_node_state(node_id, status) for node_id in nodes]
        found[f"latest {status}"] = [_plain(state) for state in latest]
    return found


def _plain(record: Any) -> Any:
    if record is None:
        return None
    return {name: value for name, value in msgspec.structs.asdict(record).items() if name != "sequence"}
