"""What a store of 10,000,000 node states costs, to one of 100,000; and its cleanup beside writers.

    python -m benchmarks.workloads.scale --store sqlite|postgresql [--states 10000000] [--rounds 40] [--url URL]

Runs are chosen at random over the whole store, and nodes for each piece of work. Nothing is cold: what is measured was
read once before, so what does not fit the database's own cache comes from the memory of the system.
Without a URL, PostgreSQL is a server of its own with the settings that it comes with. A store is measured once the
server has looked at its new rows, as it does by itself; the SQLite store is as the product leaves it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Finding
from benchmarks.rounds import clocked, ratios, take_turns
from benchmarks.workloads.filling import NODES, Options, fill, past, place, store_at
from benchmarks.workloads.scale_cleanup import cleanups

from seeknal.state.sql.backend import DatabaseStateBackend

NAME = "scale"
SMALL, MIDDLE, LARGE = 100_000, 1_000_000, 10_000_000
GROWTH = 1.2
ROUNDS = 40
LOADED = 60
"""Random runs of which one is loaded each time: more than what the cache of a connection holds."""
FIRST_PAGE = 20
"""Runs that `seeknal state list` shows."""
PATIENCE_S = 900
"""How long a server may take to look at its new rows."""

Works = dict[str, tuple[int, Callable[[int], object]]]
"""By name: how often in a turn, and what is done for 0, 1, 2, ..."""


def measure(folder: Path, url: str | None, states: int = LARGE, rounds: int = ROUNDS) -> Iterator[Finding]:
    """Yield what the store costs in turns with the small one, and then what their cleanups cost.

    Args:
        folder: Where SQLite files are made.
        url: Of a PostgreSQL server; SQLite if ``None``.
        states: Of the large store.
        rounds: In which each piece of work has its turn on both.
    """
    sizes = sorted({SMALL, min(MIDDLE, states), states})
    with ExitStack() as stack:
        places = {size: place(folder, url, size, stack) for size in sizes}
        for size, options in places.items():
            fill(options, size)
        notes = [wait_for_statistics(options) for options in places.values()]
        finding = growth(places[SMALL], places[states], states, rounds)
        finding.notes += dict.fromkeys(filter(None, notes))
        yield finding
        yield cleanups(places)


def growth(small: Options, large: Options, states: int, rounds: int) -> Finding:
    """Return what each piece of work costs in the large store, to the small one."""
    kind = "postgresql" if "url" in small else "sqlite"
    finding = Finding(NAME, kind)
    with store_at(small) as ours, store_at(large) as theirs:
        ours_works, theirs_works = works(ours, SMALL // NODES), works(theirs, states // NODES)
        for what, (times, work) in ours_works.items():
            both = {"small": clocked(work), "large": clocked(theirs_works[what][1])}
            took = take_turns(both, rounds=rounds, times=times)
            finding.add(f"{what}: {states:,} / {SMALL:,}", ratios(took, "large", "small"), most=GROWTH)
            finding.add(f"{what}: {states:,}", took["large"], "us")
    finding.notes.append(f"{NODES} nodes in each run; random runs and nodes; what is read was read once before")
    return finding


def works(store: DatabaseStateBackend, runs: int) -> Works:
    """Return what is done to a store; what is read stays the same size, however many runs there are."""
    chosen = random.Random(runs)
    names = [state.node_id for state in past(0, NODES)[1]]
    newest = past(runs - 1, 0)[0].run_id
    going: dict[str, bool] = {}

    def transition(_: int) -> None:
        name = chosen.choice(names)
        going[name] = not going.get(name, False)
        store.set_node_state(newest, name, status="running" if going[name] else "success")

    def first_page(_: int) -> None:
        ids = store.list_runs(newest_first=True, limit=FIRST_PAGE)
        assert len([store.get_run(run_id) for run_id in ids]) == FIRST_PAGE

    loaded = [past(chosen.randrange(runs), 0)[0].run_id for _ in range(LOADED)]
    for run_id in loaded:
        store.get_all_node_states(run_id)  # from the disk, if it is not in the memory of the system

    def load(_: int) -> None:
        assert len(store.get_all_node_states(chosen.choice(loaded))) == NODES

    def latest(status: str | None) -> Callable[[int], object]:
        return lambda _: store.get_latest_node_state(chosen.choice(names), status=status)

    return {
        "transition": (40, transition),
        "latest state": (200, latest(None)),
        "latest success": (300, latest("success")),
        "latest failure": (300, latest("failed")),
        "list_runs, newest first": (300, lambda _: store.list_runs(newest_first=True, limit=FIRST_PAGE)),
        "first page of state list": (10, first_page),
        "load of a run": (5, load),
    }


def wait_for_statistics(options: Options) -> str:
    """Wait until a server has looked at the rows, as it does by itself; where that is turned off, tell it to.

    Returns:
        What a reader has to know of it, or nothing.
    """
    if "url" not in options:
        return ""
    import psycopg

    schema = options["schema"]
    tables = "SELECT relname, autoanalyze_count FROM pg_stat_user_tables WHERE schemaname = %s"
    deadline = time.monotonic() + PATIENCE_S
    with psycopg.connect(options["url"], autocommit=True) as connection:
        (is_on,) = connection.execute("SELECT current_setting('autovacuum')").fetchone() or ("off",)
        if is_on == "off":
            for name, _ in connection.execute(tables, (schema,)).fetchall():
                connection.execute(f"ANALYZE {schema}.{name}")
            return "autovacuum is off on this server: in its place, each table was analyzed once it was filled"
        while time.monotonic() < deadline:
            if any(name == "node_states" and count for name, count in connection.execute(tables, (schema,))):
                return ""
            time.sleep(1)
    return f"without statistics: autovacuum has not seen {schema} in {PATIENCE_S} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--states", type=int, default=LARGE)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--url", help="a PostgreSQL server that is there already")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seeknal-scale-")))
        url = given.url
        if given.store == "postgresql" and url is None:
            from tests.servers.private import PrivatePostgres

            server = PrivatePostgres()
            stack.callback(server.discard)
            server.start()
            url = server.url
        for finding in measure(folder, url if given.store == "postgresql" else None, given.states, given.rounds):
            print(finding.text(), flush=True)


if __name__ == "__main__":
    main()
