"""Where the outputs of nodes are, and what their names and files say of themselves.

The output of a node is one Parquet file. That of a node that is computed range by range is a folder with a file for
each range, whose name says what it is: the range, what it was made of, its rows, its bytes, and the run that made it.
So what is there is known from the names and sizes of files alone, however many there are.
"""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import msgspec

from seeknal.model.intervals import Interval
from seeknal.model.records import NodeState
from seeknal.state.file.layout import file_name

OUTPUT_KEY = "output"
"""Under which the metadata of a node state has what its output file is like: ``bytes``, ``modified_ns``, ``sha256``."""

MOST_NAME_CHARS = 120
"""Under the 255 bytes that file systems allow, with room for suffixes."""

MOST_KEY_CHARS = 110
"""Of a partition in the name of a file, which has its size, its run and more behind it."""

Unit = Interval | str
"""What a node is computed for at once: a span of time, or the key of a partition."""

_INSTANT = r"\d{8}T\d{6}(?:\d{6})?"
_PART = re.compile(
    rf"(?P<unit>(?P<start>{_INSTANT})Z-(?P<end>{_INSTANT})Z|=.+)"
    r"\.(?P<made>[0-9a-f]{16})\.(?P<rows>\d+)\.(?P<size>\d+)\.(?P<run>[^.]+)\.parquet"
)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one range of a node.

    Attributes:
        file: Its name in the folder of the node.
        unit: The name of the range, as `unit_name` gives it.
        span: The range, if it is one of time.
        made: What it was made of: the definition of the node, and the parts of its inputs that it read.
        run_id: The run that made it, quoted.
        rows: How many rows it has.
        size: How many bytes; a part of none has no rows, and nobody knows its columns.
    """

    file: str
    unit: str
    span: Interval | None
    made: str
    run_id: str
    rows: int
    size: int


def output_path(project_path: Path, node_id: str) -> Path:
    """Return where the output of a node is; the id is quoted, so it is never a path."""
    return project_path / "target" / "outputs" / f"{_node_name(node_id)}.parquet"


def parts_folder(project_path: Path, node_id: str) -> Path:
    """Return where the parts of a node are that is computed range by range."""
    return project_path / "target" / "outputs" / _node_name(node_id)


def unit_name(unit: Unit) -> str:
    """Return the name of a range, which is another one for every other range and never a path."""
    if isinstance(unit, str):
        name = file_name(unit)
        is_long = len(name) > MOST_KEY_CHARS
        return f"={name[:40]}~{hashlib.sha256(unit.encode()).hexdigest()}" if is_long else f"={name}"
    return f"{_instant(unit.start)}-{_instant(unit.end)}"


def part_file(unit: Unit, made: str, run_id: str, rows: int, size: int) -> str:
    """Return the name of the file of a part."""
    return f"{unit_name(unit)}.{made}.{rows}.{size}.{file_name(run_id)}.parquet"


def list_parts(folder: Path, *, with_damaged: bool = False) -> list[Part]:
    """Return the parts in a folder by their names; none, if there is no folder.

    Args:
        folder: That of a node.
        with_damaged: Also those of another size than they were written with.
    """
    found = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    for entry in entries:
        part = as_part(entry.name)
        try:
            is_whole = part is not None and entry.stat().st_size == part.size
        except FileNotFoundError:  # another process has replaced it meanwhile
            continue
        if part is not None and (is_whole or with_damaged):
            found.append(part)
    return found


def as_part(name: str) -> Part | None:
    """Return the part that a file of this name is; ``None`` if it is something else."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    span = Interval(_parsed(match["start"]), _parsed(match["end"])) if match["start"] else None
    return Part(
        file=name,
        unit=match["unit"],
        span=span,
        made=match["made"],
        run_id=match["run"],
        rows=int(match["rows"]),
        size=int(match["size"]),
    )


def output_facts(path: Path) -> dict[str, str]:
    """Return what an output says of itself; empty if it is missing or cannot be read."""
    try:
        with duckdb.connect() as connection:  # the module's own may be in use by the program around
            rows = connection.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(path)]).fetchall()
        return {bytes(key).decode(): bytes(value).decode() for key, value in rows}
    except (duckdb.Error, UnicodeDecodeError):
        return {}


def file_facts(path: Path, sha256: str = "") -> dict[str, Any]:
    """Return what a file is like, for the metadata of a node state; with its hash, if that is known."""
    stat = path.stat()
    found: dict[str, Any] = {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    return found | ({"sha256": sha256} if sha256 else {})


def is_as_recorded(path: Path, newest: NodeState | None) -> bool | None:
    """Return whether an output file is the one that the newest success left; ``None`` if that did not say.

    One of another time is the same if it has the same hash, where a hash was kept.
    """
    kept = newest.metadata.get(OUTPUT_KEY) if newest is not None else None
    if not isinstance(kept, dict):
        return None
    try:
        now = file_facts(path)
        if now["bytes"] != kept.get("bytes"):
            return False
        return now["modified_ns"] == kept.get("modified_ns") or kept.get("sha256") == file_hash(path)
    except OSError:
        return False


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _node_name(node_id: str) -> str:
    name = quote(node_id, safe="")
    return name if len(name) <= MOST_NAME_CHARS else f"{name[:40]}~{hashlib.sha256(node_id.encode()).hexdigest()}"


def _instant(at: datetime) -> str:
    # Not by strftime, which writes early years with fewer digits on some platforms.
    return re.sub(r"[-:.]", "", at.replace(tzinfo=None).isoformat()) + "Z"


def _parsed(text: str) -> datetime:
    form = "%Y%m%dT%H%M%S%f" if len(text) > len("20240101T000000") else "%Y%m%dT%H%M%S"
    return datetime.strptime(text, form).replace(tzinfo=UTC)
