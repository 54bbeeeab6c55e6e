"""Every workload on every store at hand, beside the physical limit and beside what people use instead.

    python -m benchmarks [WORKLOAD ...] [--store STORE ...] [--rounds 11] [--quick] [--json FILE]
                         [--states 10000000] [--minutes 5]

Without a name, all workloads but `scale` and `memory`, which take long: name them to have them. Stores on servers are
those whose variable is set (SEEKNAL_TEST_POSTGRES_URL, SEEKNAL_TEST_MYSQL_URL, SEEKNAL_TEST_LIBSQL_URL), in places of
their own that are removed at the end; peers are those that `make bench-peers` has installed. What is not at hand is
told.

Prints what was measured with its spread over the rounds, and whether it meets its bar, and adds it to a JSON file, from
which `python -m benchmarks.page` makes `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Finding
from benchmarks.machine import described
from benchmarks.places import Place, places
from benchmarks.workloads import (
    batch,
    cleanup,
    load,
    memory,
    migration,
    missing,
    peers,
    processes,
    scale,
    start_up,
    transition,
)
from tests.servers.process import ServerUnavailableError
from tests.servers.stores import SERVERS

STORES = ("file", "sqlite", "postgresql", "mysql", "libsql")
IN_EACH_STORE = ("transition", "batch", "load", "missing", "processes")
ALONE = ("start_up", "cleanup", "migration", "peers")
LONG = ("scale", "memory")
RESULTS = Path("build/benchmarks.json")

Part = tuple[str, Callable[[], Iterator[Finding]]]


def main() -> None:
    arguments = parsed()
    wanted = arguments.workload or [*IN_EACH_STORE, *ALONE]
    findings: list[Finding] = []
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS.parent) as name, ExitStack() as stack:
        for title, part in parts(wanted, arguments, Path(name), stack):
            print(f"-- {title}", flush=True)
            for finding in part():
                findings.append(finding)
                print(finding.text(), flush=True)
    keep(arguments.json, {"command": " ".join(told(sys.argv[1:])), "machine": described()}, findings)
    missed = [(each, figure) for each in findings for figure in each.figures if figure.is_met is False]
    print(f"-- bars missed: {len(missed)}")
    for each, figure in missed:
        print(f"{each.workload} on {each.store}: {figure.line()}")


def told(arguments: list[str]) -> list[str]:
    """Return the arguments as they are published: without where the results went, which is a path of this machine."""
    kept = [each for each in arguments if not each.startswith("--json=")]
    if "--json" in kept:
        at = kept.index("--json")
        del kept[at : at + 2]
    return kept


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    every = [*IN_EACH_STORE, *ALONE, *LONG]
    parser.add_argument("workload", nargs="*", help=f"any of {', '.join(every)}")
    parser.add_argument("--store", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--rounds", type=int, default=11, help="2 or more")
    parser.add_argument("--quick", action="store_true", help="3 rounds, and a tenth of the migration")
    parser.add_argument("--states", type=int, default=10_000_000, help="of `scale`")
    parser.add_argument("--minutes", type=float, default=5, help="of `memory`")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if unknown := [each for each in arguments.workload if each not in every]:
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(every)}")
    if arguments.quick:
        arguments.rounds = 3
    return arguments


def parts(wanted: list[str], arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> Iterator[Part]:
    """Yield what is to be measured, one after the other."""
    rounds, few = arguments.rounds, max(2, arguments.rounds // 4)
    in_each: dict[str, Callable[[Place], Iterator[Finding]]] = {
        "transition": lambda place: transition.measure(place, folder, rounds),
        "batch": lambda place: batch.measure(place, folder, rounds),
        "load": lambda place: load.measure(place, folder, rounds),
        "missing": lambda place: missing.measure(place, folder, rounds),
        "processes": lambda place: processes.measure(place, 1.0, few),
    }
    found = at_hand(arguments.store, folder, stack) if set(wanted) & set(in_each) else []
    for workload in wanted:
        if workload in in_each:
            for place in found:
                yield f"{workload} on {place.kind}", partial(in_each[workload], place)
    alone: dict[str, Callable[[Path], Iterator[Finding]]] = {
        "start_up": lambda inside: start_up.measure(inside, rounds),
        "cleanup": lambda inside: cleanup.measure(inside, few),
        "migration": lambda inside: migration.measure(inside, few, migration.STATES // (10 if arguments.quick else 1)),
        "peers": lambda inside: peers.measure(inside, rounds, 100),
        "memory": lambda inside: memory.measure(
            inside,
            arguments.minutes,
            dict(scaled(arguments.store)).get("postgresql"),
            [each for each in memory.STORES if each in arguments.store],
        ),
    }
    for workload in wanted:
        if workload in alone:
            yield workload, partial(in_folder, alone[workload], folder / workload)
    if "scale" in wanted:
        for store, url in scaled(arguments.store):
            yield f"scale on {store}", partial(scale.measure, folder, url, arguments.states, rounds)


def in_folder(measure: Callable[[Path], Iterator[Finding]], folder: Path) -> Iterator[Finding]:
    folder.mkdir()
    return measure(folder)


def at_hand(stores: list[str], folder: Path, stack: ExitStack) -> list[Place]:
    """Return the stores that there are of those that are wanted."""
    kinds = [each for each in ("file", "sqlite") if each in stores]
    servers = {"servers"} if set(stores) & set(SERVERS) else set()
    return [place for place in places([*kinds, *servers], folder, stack) if place.kind in stores]


def scaled(stores: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the stores that are measured at scale, with the URL of a server."""
    if "sqlite" in stores:
        yield "sqlite", None
    if "postgresql" in stores:
        try:
            yield "postgresql", SERVERS["postgresql"].from_environment().url
        except ServerUnavailableError as error:
            print(f"postgresql: not measured: {error}")


def keep(path: Path, about: dict[str, Any], findings: list[Finding]) -> None:
    """Add what one run of the command found out to what earlier ones did."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    taken = {"taken_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **about}
    runs.append({**taken, "findings": [finding.document() for finding in findings]})
    path.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
