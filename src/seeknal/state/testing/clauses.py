"""Which case tests which clause of the contract."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from seeknal.state import claims, contract, partitions, reader, retention
from seeknal.state.capabilities import Capability

C = TypeVar("C", bound=Callable[..., Any])

_CLAUSE = re.compile(r"\[([A-Z]+-\d+)\]")


def clause(*ids: str) -> Callable[[C], C]:
    """Say which clauses a case tests."""

    def mark(case: C) -> C:
        case.__dict__["clauses"] = ids
        return case

    return mark


def needs(*capabilities: Capability) -> Callable[[C], C]:
    """Say what a backend must declare for a case to be run against it."""

    def mark(case: C) -> C:
        case.__dict__["capabilities"] = frozenset(capabilities)
        return case

    return mark


def contract_clauses() -> set[str]:
    """Return the ids of all clauses of the contract."""
    return {
        found
        for module in (contract, reader, retention, claims, partitions)
        for found in _CLAUSE.findall(inspect.getsource(module))
    }


def kit_clauses(kit: type) -> dict[str, list[str]]:
    """Return, by clause id, the names of the cases of a kit that test it."""
    tested: dict[str, list[str]] = {}
    for name, case in inspect.getmembers(kit, inspect.isfunction):
        for found in getattr(case, "clauses", ()):
            tested.setdefault(found, []).append(name)
    return tested
