"""Why a node runs, or does not: the reasons as words that programs can rely on, and as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from seeknal.pipeline.fingerprint import CODE, COMMAND, CONFIG, DATA, FUNCTION, INPUT, SQL


class Reason(StrEnum):
    """One of the reasons why a node runs or does not; the value is what JSON has."""

    FORCED = "forced"
    NEW = "new"
    NEVER_SUCCEEDED = "never_succeeded"
    OLDER_FINGERPRINT = "older_fingerprint"
    SQL_CHANGED = "sql_changed"
    COMMAND_CHANGED = "command_changed"
    FUNCTION_CHANGED = "function_changed"
    CODE_CHANGED = "code_changed"
    DATA_CHANGED = "data_changed"
    CONFIG_CHANGED = "config_changed"
    PARENT_CHANGED = "parent_changed"
    CHANGED = "changed"
    OUTPUT_MISSING = "output_missing"
    OUTPUT_UNREADABLE = "output_unreadable"
    OUTPUT_OF_ANOTHER_STATE = "output_of_another_state"
    OUTPUT_ALTERED = "output_altered"
    RESTATED = "restated"
    INTERVAL_MISSING = "interval_missing"
    PARTITION_MISSING = "partition_missing"
    DATA_UNREADABLE = "data_unreadable"
    CHANGED_MEANWHILE = "changed_meanwhile"
    UP_TO_DATE = "up_to_date"
    NOT_SELECTED = "not_selected"

    @property
    def words(self) -> str:
        """What people read."""
        return _WORDS.get(self, self.value.replace("_", " "))


_WORDS = {
    Reason.OLDER_FINGERPRINT: "fingerprint of an older version",
    Reason.SQL_CHANGED: "SQL changed",
    Reason.OUTPUT_UNREADABLE: "output cannot be read",
    Reason.OUTPUT_OF_ANOTHER_STATE: "output is of another state",
    Reason.DATA_UNREADABLE: "data file cannot be read",
}

_OF_PARTS = {
    SQL: Reason.SQL_CHANGED,
    COMMAND: Reason.COMMAND_CHANGED,
    FUNCTION: Reason.FUNCTION_CHANGED,
    CODE: Reason.CODE_CHANGED,
    DATA: Reason.DATA_CHANGED,
    CONFIG: Reason.CONFIG_CHANGED,
    INPUT: Reason.PARENT_CHANGED,
}


class Why(msgspec.Struct, frozen=True):
    """A reason, and what it is about: which parents, which intervals; empty where there is nothing to add."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.words}: {self.detail}" if self.detail else self.reason.words


def of_changed_parts(names: Sequence[str]) -> tuple[Why, ...]:
    """Return the reasons for parts of a fingerprint that differ, each kind once, with the names of code and parents."""
    found: dict[Reason, list[str]] = {}
    for name in names:
        kind, mark, about = name.partition(":")
        details = found.setdefault(_OF_PARTS.get(kind + mark, Reason.CHANGED), [])
        if about:
            details.append(about)
    order = list(_OF_PARTS.values())
    kinds = sorted(found, key=lambda reason: order.index(reason) if reason in order else len(order))
    return tuple(Why(reason, ", ".join(found[reason])) for reason in kinds)


def told(reasons: Sequence[Why]) -> str:
    """Return reasons as one line."""
    return "; ".join(map(str, reasons))
