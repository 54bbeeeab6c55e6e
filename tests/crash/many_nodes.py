"""A project of 200 nodes of every kind, made of a seed, whose nodes tell each time that they do something.

A node of the project that does something appends a line to a file of its own in ``traces``: which run it is, and which
range. What it computes depends on its inputs and its range alone, so it is the same in every run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

BEGIN, HOUR = datetime(2024, 1, 1, tzinfo=UTC), timedelta(hours=1)
HOURS = 6
KEYS = ("north", "south", "east", "west")

COUNTS = {
    "act": 126,  # Python commands
    "shell": 8,  # shell commands, which outlive a runner that is killed
    "act_hourly": 16,  # Python commands with a schedule
    "act_keyed": 8,  # Python commands with partitions
    "rows": 25,  # SQL transforms
    "function": 8,  # Python transforms
    "hourly": 6,  # SQL transforms with a schedule
    "keyed": 3,  # SQL transforms with partitions
}
NODES = sum(COUNTS.values())

SCHEDULE = f'schedule: "@hourly"\nstart: 2024-01-01\nend: 2024-01-01T{HOURS:02}:00:00Z\n'
PARTITIONS = f"partitions: [{', '.join(KEYS)}]\n"

HEAD = f"""
import os

from seeknal.pipeline import command, transform

SPAN = {{"schedule": "@hourly", "start": "2024-01-01", "end": "2024-01-01T{HOURS:02}:00:00Z"}}
KEYS = {KEYS!r}


def leave(ctx, name, unit="all"):
    number = os.open(ctx.project_path / "traces" / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(number, f"{{ctx.run_id}} {{unit}}\\n".encode())
    os.fsync(number)
    os.close(number)


def act(name, **options):
    @command(name=name, **options)
    def step(ctx):
        if "partitions" in options:
            leave(ctx, name, ctx.partition)
        elif "schedule" in options:
            leave(ctx, name, f"{{ctx.interval.start:%H}}-{{ctx.interval.end:%H}}")
        else:
            leave(ctx, name)

    return step


def function(name, inputs):
    @transform(name=name, inputs=inputs)
    def step(ctx):
        leave(ctx, name)
        read = [ctx.ref(each).fetchall() for each in inputs if not each.startswith("command.")]
        return [{{"place": "all", "value": len(name) + sum(len(rows) for rows in read)}}]

    return step

"""


class Trace(NamedTuple):
    """One time that a node did something: in which run, and for which range."""

    run_id: str
    unit: str

    @property
    def hours(self) -> range:
        """The hours of a range of time."""
        first, _, last = self.unit.partition("-")
        return range(int(first), int(last))


def write_project(path: Path, seed: int, settings: str = "") -> None:
    """Write the project that a seed makes.

    Args:
        path: Where.
        seed: Which.
        settings: More lines of the project file.
    """
    rng = random.Random(seed)
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    rng.shuffle(kinds)
    (path / "seeknal").mkdir(parents=True)
    (path / "traces").mkdir()
    (path / "seeknal_project.yml").write_text(f"name: many\n{settings}")
    code = [HEAD]
    ids: list[str] = []
    for number, kind in enumerate(kinds):
        name = f"{kind}_{number}"
        inputs = rng.sample(ids[-30:], min(len(ids), rng.randint(0, 3)))
        is_yaml = kind in ("shell", "rows", "hourly", "keyed")
        if is_yaml:
            (path / "seeknal" / f"{name}.yml").write_text(_yaml(kind, name, inputs, rng))
        else:
            code.append(_call(kind, name, inputs, rng))
        ids.append(f"{'command' if kind.startswith(('act', 'shell')) else 'transform'}.{name}")
    (path / "seeknal" / "steps.py").write_text("\n".join(code) + "\n")


def _call(kind: str, name: str, inputs: Sequence[str], rng: random.Random) -> str:
    if kind == "function":
        return f"{name} = function({name!r}, {inputs!r})"
    options = {
        "act": "",
        "act_hourly": f", **SPAN, batch_size={rng.randint(1, 2)}",
        "act_keyed": ", partitions=KEYS",
    }[kind]
    return f"{name} = act({name!r}, inputs={inputs!r}{options})"


def _yaml(kind: str, name: str, inputs: Sequence[str], rng: random.Random) -> str:
    refs = ", ".join(f"{{ref: {each}}}" for each in inputs)
    head = f"kind: {'command' if kind == 'shell' else 'transform'}\nname: {name}\ninputs: [{refs}]\n"
    if kind == "shell":
        return f'{head}command: echo "$SEEKNAL_RUN_ID all" >> traces/{name}\n'
    read = [f"SELECT value FROM ref('{each}')" for each in inputs if each.startswith("transform.")]
    values = f"(SELECT count(*) % 97 FROM ({' UNION ALL '.join(['SELECT 1 AS value', *read])}))"
    if kind == "hourly":
        span = "TIMESTAMP '{{ start }}', TIMESTAMP '{{ end }}' - INTERVAL 1 HOUR, INTERVAL 1 HOUR"
        sql = f"SELECT strftime(unnest(generate_series({span})), '%H') AS place, {values} AS value"
        return f"{head}{SCHEDULE}batch_size: {rng.randint(1, 2)}\ntransform: |\n  {sql}\n"
    if kind == "keyed":
        return f"{head}{PARTITIONS}transform: |\n  SELECT '{{{{ partition }}}}' AS place, {values} AS value\n"
    return f"{head}transform: |\n  SELECT 'all' AS place, {values} AS value\n"


def traces_of(path: Path) -> dict[str, list[Trace]]:
    """Return by the name of each node that did something what it did, in order."""
    found = {}
    for file in sorted((path / "traces").iterdir()):
        found[file.name] = [Trace(*line.split(" ")) for line in file.read_text().splitlines()]
    return found
