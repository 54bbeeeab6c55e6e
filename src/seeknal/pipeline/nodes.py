"""Node definitions and the project they form: frozen values."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import msgspec

_REF = re.compile(r"\bref\(\s*'([^']+)'\s*\)")
_NOISE = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|--[^\n]*|/\*.*?\*/|\s+""", re.DOTALL)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One step: ``content`` is a data file's path, an SQL query or a shell command, as ``kind`` says."""

    kind: str
    name: str
    content: str
    format: str = ""
    inputs: tuple[str, ...] = ()
    schedule: str | None = None
    start: datetime | None = None
    end: datetime | None = None

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
    return _REF.sub(lambda found: '"' + found[1].replace('"', '""') + '"', sql)
