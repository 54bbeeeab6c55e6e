"""``seeknal partitions pending`` and ``expect``: what a node is expected to have, and what is missing of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli.expected import keys_of_file, keys_of_grid, keys_of_span
from seeknal.cli.listing import Every, listed
from seeknal.cli.options import Backend, DatabaseUrl, Debug, Output, ProjectPath, Quiet, opened
from seeknal.cli.output import Format, Printer, shown
from seeknal.cli.times import Timezone, as_span, as_zone
from seeknal.cli.which_node import Unknown, which_node
from seeknal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal.state.contract import StateBackend

Node = Annotated[str, typer.Argument(help="The node.")]
Expected = Annotated[
    Path | None, typer.Option("--expected", metavar="FILE", help="Keys, one a line; - is standard input.")
]
From = Annotated[str | None, typer.Option("--start", metavar="TIME", help="Keys by time: from here on.")]
To = Annotated[str | None, typer.Option("--end", metavar="TIME", help="Up to here; now if left out.")]
Form = Annotated[str | None, typer.Option("--format", metavar="FORMAT", help="How a key tells its time; %Y-%m-%d.")]
Cron = Annotated[str | None, typer.Option("--schedule", metavar="CRON", help="A key a tick; @daily.")]
By = Annotated[str | None, typer.Option("--by-keys", metavar="KEY,KEY", help="Each key by time with each of these.")]


def pending(
    node: Node,
    expected: Expected = None,
    start: From = None,
    end: To = None,
    form: Form = None,
    schedule: Cron = None,
    timezone: Timezone = None,
    by_keys: By = None,
    every: Every = False,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the partitions that a node is expected to have and has not completed.

    Expected is what the store was told with `seeknal partitions expect`, unless it is given: the lines of a file, the
    beginnings of the whole ticks in [--start, --end), or both. A TIME is like 2024-01-10, 2024-01-10T06:00+01:00,
    now, today, -7d or today-7d.
    """
    printer = Printer(output, quiet=quiet)
    told = _told(expected, start, end, form, schedule, timezone, by_keys)
    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.REFUSED_IN_PROJECT)
        keys = _kept(store, node) if told is None else told
        missing = store.get_missing_partitions(node, keys)
    records = [{"node_id": node, "partition": key} for key in missing]
    listed(printer, records, _cells, ("partition",), empty="", every=every)
    printer.note(f"{len(missing)} of {len(keys)} expected partitions pending" if missing else "nothing is pending")


def expect(
    node: Node,
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys of partitions.", metavar="KEY", show_default=False)
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Expect them no longer.")] = False,
    expected: Expected = None,
    start: From = None,
    end: To = None,
    form: Form = None,
    schedule: Cron = None,
    timezone: Timezone = None,
    by_keys: By = None,
    project_path: ProjectPath = Path(),
    backend: Backend = None,
    database_url: DatabaseUrl = None,
    output: Output = Format.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell the store which partitions a node is expected to have, and list those that are new to it.

    They are the keys that are named, the lines of a file, and the beginnings of the whole ticks in [--start, --end),
    as for `seeknal partitions pending`. What is completed stays completed, also with --drop.
    """
    printer = Printer(output, quiet=quiet)
    told = _told(expected, start, end, form, schedule, timezone, by_keys)
    if not keys and told is None:
        raise ConfigurationError(
            "nothing says which partitions are meant",
            hint="Name their keys, or give --expected FILE with one key a line, or --start TIME for keys by time.",
        )
    wanted = list(dict.fromkeys([*(keys or []), *(told or [])]))
    with opened(project_path, backend, database_url) as store:
        node = which_node(store, project_path, node, printer, Unknown.NEW)
        verb = store.drop_expected_partitions if drop else store.expect_partitions
        changed = verb(node, wanted)
    among = set(changed)
    others = [key for key in wanted if key not in among]
    if output is Format.TABLE:
        records = [{"node_id": node, "partition": key} for key in changed]
        listed(printer, records, _cells, ("partition",), empty="", every=None)
    else:
        names = ("dropped", "not_expected") if drop else ("new", "expected_already")
        printer.thing({"node_id": node, names[0]: changed, names[1]: others}, [])
    printer.note(_outcome(len(changed), others, drop=drop))


def _cells(record: dict[str, str]) -> dict[str, str]:
    return {"partition": shown(record["partition"])}


def _outcome(changed: int, others: Sequence[str], *, drop: bool) -> str:
    done, left = ("expected no longer", "not expected before") if drop else ("new", "expected already")
    if not changed:
        return f"nothing was changed: {len(others)} {left}" if others else "nothing was changed: there were no keys"
    return f"{changed} {done}{f', {len(others)} {left}' if others else ''}"


def _told(
    expected: Path | None,
    start: str | None,
    end: str | None,
    form: str | None,
    schedule: str | None,
    timezone: str | None,
    by_keys: str | None,
) -> list[str] | None:
    """Return the keys that the options name, each once; ``None`` if they name none, which is not an empty file.

    Raises:
        ConfigurationError: An option says nothing without another one, or cannot be read.
        InvalidIdError, IntervalError: As `keys_of_file` and `keys_of_span`.
    """
    zone = as_zone(timezone)
    by_time = {"--end": end, "--format": form, "--schedule": schedule, "--timezone": timezone, "--by-keys": by_keys}
    if start is None:
        for option, value in by_time.items():
            if value is not None:
                raise ConfigurationError(f"{option} says nothing without --start", hint="Give --start, too.")
        return None if expected is None else keys_of_file(expected)
    span = as_span(start, "now" if end is None else end, zone)
    found = [] if expected is None else keys_of_file(expected)
    times = keys_of_span(span, schedule or "@daily", timezone, "%Y-%m-%d" if form is None else form)
    return list(dict.fromkeys([*found, *(times if by_keys is None else keys_of_grid(times, by_keys))]))


def _kept(store: StateBackend, node: str) -> list[str]:
    """Return the keys that the store was told to expect of a node.

    Raises:
        ConfigurationError: There are none: empty does not mean that nothing is missing.
    """
    from seeknal.model.ids import check_id
    from seeknal.state.capabilities import Capability

    check_id(node, "node_id")
    keeps = Capability.EXPECTED in store.capabilities
    keys = store.list_expected_partitions(node) if keeps else []
    if not keys:
        tell = f"Tell the store with `seeknal partitions expect {shown(node)} KEY...`, or give" if keeps else "Give"
        raise ConfigurationError(
            f"nothing says which partitions are expected of {shown(node)}",
            hint=f"{tell} --expected FILE with one key a line, or --start TIME for keys by time, or both.",
        )
    return keys
