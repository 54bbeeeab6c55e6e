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
        timezone: Of the schedule, and of a start and an end that were written without an offset.
        start: Where the first tick begins, in UTC; never ``None`` with a schedule.
        end: Where the last tick ends; now, when ``None``.
        lookback: How many of the last ticks are computed again with each new one.
        lateness_seconds: How long after its end a tick is due.
        batch_size: How many ticks are computed together at most; ``None`` leaves it to the runner.
        partitions: The keys it is computed for, or ``expected`` for those that the store expects.
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
    lookback: int = 0
    lateness_seconds: float = 0.0
    batch_size: int | None = None
    partitions: tuple[str, ...] | str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    retries: int = 0
    retry_delay_seconds: float = 1.0
    timeout_seconds: float | None = None

    @property
    def node_id(self) -> str:
        """``kind.name``."""
        return f"{self.kind}.{self.name}"

    @property
    def is_ranged(self) -> bool:
        """Whether it is computed range by range: for the ticks of a schedule, or for partitions."""
        return self.schedule is not None or self.partitions is not None

    @property
    def has_output(self) -> bool:
        """Whether it leaves rows; a command does not."""
        return self.kind != "command"


class Project(msgspec.Struct, frozen=True):
    """A project's nodes by id, inputs before those that need them.

    Attributes:
        name: Its name.
        path: Where its files are.
        nodes: By id.
        hashes_outputs: Whether the hash of each output is kept, beside its size and time.
    """

    name: str
    path: Path
    nodes: dict[str, Node]
    hashes_outputs: bool = False


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
