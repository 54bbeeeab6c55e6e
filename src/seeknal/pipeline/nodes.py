"""Node definitions and the project they form: frozen values."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import msgspec

_REF = re.compile(r"\bref\(\s*'([^']+)'\s*\)")
_NOISE = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|(?:--[^\n]*|/\*.*?\*/|\s+)+""", re.DOTALL)

PYTHON = "python"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a pipeline.

    Attributes:
        kind: ``source``, ``transform`` or ``command``.
        name: Its name; the id is ``kind.name``.
        file: Where it is defined, relative to the project.
        content: The path of a data file, an SQL query, or a shell command; empty for a Python node.
        format: Of a source: ``csv``, ``parquet``, ``json`` or ``jsonl``. ``python``: ``function`` computes it.
        function: The name of the function in ``file``.
        inputs: Ids of the nodes it needs, each once.
        schedule: A cron expression or shorthand; then it is computed for the ticks that are missing.
        timezone: Of the schedule.
        start: Where the first tick begins; never ``None`` with a schedule.
        end: Where the last tick ends; now, when ``None``.
        retries: How often it is tried again after it failed.
        retry_delay_seconds: Before the first retry; it doubles with each.
        timeout_seconds: How long one attempt may take; for ever, when ``None``.
    """

    kind: str
    name: str
    file: str
    content: str
    format: str = ""
    function: str = ""
    inputs: tuple[str, ...] = ()
    schedule: str | None = None
    timezone: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    retries: int = 0
    retry_delay_seconds: float = 1.0
    timeout_seconds: float | None = None

    @property
    def node_id(self) -> str:
        """``kind.name``."""
        return f"{self.kind}.{self.name}"


class Project(msgspec.Struct, frozen=True):
    """A project's nodes by id, inputs before those that need them."""

    name: str
    path: Path
    nodes: dict[str, Node]


def canonical_sql(sql: str) -> str:
    """Return a query without comments and with single blanks; text in quotes stays as it is."""
    if "$" in sql:  # a dollar-quoted string may hold anything
        return sql
    return _NOISE.sub(lambda found: found[1] or " ", sql).strip()


def sql_refs(sql: str) -> tuple[str, ...]:
    """Return the node ids that a query names with ``ref('kind.name')``, in order, once each."""
    return tuple(dict.fromkeys(_REF.findall(canonical_sql(sql))))


def resolved_sql(sql: str) -> str:
    """Return the query with every ``ref('kind.name')`` turned into the view of that name."""
    return _REF.sub(lambda found: quoted(found[1]), sql)


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"
