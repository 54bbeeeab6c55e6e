"""Count what short pieces of work do, and fail where one does over a tenth more than it was committed to do.

    python -m benchmarks.guard            compare with benchmarks/guard/counts.json; exit 1 on a regression
    python -m benchmarks.guard --update   write what is counted now into that file

No seconds are measured, so neither a slow machine nor a busy one changes the verdict. Stores on servers are counted
where their variable is set (see `benchmarks`); of those, the round trips count. What cannot be compared is told.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.guard.counters import Counts, SqliteCounter, counted
from benchmarks.guard.pieces import pieces
from benchmarks.places import Place, places
from tests.servers.proxy import Proxy
from tests.servers.round_trips import waits

from seeknal.state.backend import StateBackend, create_state_backend

COMMITTED = Path(__file__).parent / "counts.json"
MOST = 1.1
OF = {"python": ("instructions", "calls", "modules"), "sqlite": ("steps",)}
"""Which counts are those of a version."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="commit to what is counted now")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set decides what is looked at first
        return subprocess.call([sys.executable, "-m", "benchmarks.guard", *sys.argv[1:]], env=os.environ | _STEADY)
    found = everything()
    if arguments.update:
        COMMITTED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(f"{sum(map(len, found['counts'].values()))} counts written to {COMMITTED.name}")
        return 0
    return compared(json.loads(COMMITTED.read_text()), found)


_STEADY = {"PYTHONHASHSEED": "0"}


def everything() -> dict[str, Any]:
    """Return all counts, with the versions that they are of."""
    counts = {"start": {"seeknal --version": modules("--version"), "seeknal state --help": modules("state", "--help")}}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        watched = stack.enter_context(SqliteCounter().watching())
        for place in places(["file", "sqlite", "servers"], Path(name), stack):
            if place.is_server:
                counts[place.kind] = on_server(place)
            else:
                counts[place.kind] = in_place(place, watched if place.kind == "sqlite" else None)
    return {
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "sqlite": sqlite3.sqlite_version,
        "counts": counts,
    }


def in_place(place: Place, sqlite: SqliteCounter | None) -> dict[str, Counts]:
    """Return what each piece of work does in one store of this machine.

    How often a commit to a file store writes ``run_state.json`` as well depends on the time that it takes, so here none
    does: it is left to the thread that does it otherwise.
    """
    with ExitStack() as stack, mock.patch("seeknal.state.file.view.MOST_SAVED_S", -1.0):
        return {name: counted(warm(work), sqlite) for name, work in pieces(place, stack)}


def on_server(place: Place) -> dict[str, Counts]:
    """Return how often each piece of work asks a server."""
    assert place.url is not None
    found = {}
    with ExitStack() as stack:
        place.opened("guard").close()
        proxy = stack.enter_context(Proxy.before(place.url("guard")))
        for name, work in pieces(place._replace(opened=lambda store: through(proxy, place, store)), stack):
            warm(work)
            with waits(proxy, place.kind) as count:
                work()
            found[name] = {"round_trips": count()}
    return found


def through(proxy: Proxy, place: Place, store: str) -> StateBackend:
    """Return a store on a server behind a proxy."""
    assert place.options is not None
    kind, options = place.options(store)
    return create_state_backend(kind, **{**options, "url": proxy.url_for(options["url"])})


def warm(work: Callable[[], object]) -> Callable[[], object]:
    """Do a piece of work until nobody has anything to prepare for it any more, and return it."""
    for _ in range(8):
        work()
    return work


def modules(*arguments: str) -> Counts:
    """Return how many modules a command loads."""
    program = "from seeknal.cli.app import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", program, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {"modules": sum(line.startswith("import time:") for line in told.splitlines()) - 1}


def compared(committed: dict[str, Any], found: dict[str, Any]) -> int:
    """Tell what differs from what was committed, and return the exit code."""
    other = {name for name in ("python", "sqlite") if committed[name] != found[name]}
    for name in sorted(other):
        print(f"{name} is {found[name]}, and was {committed[name]}: its counts are not compared")
    unlike = {each for name, of in OF.items() if name in other for each in of}
    wrong = compared_pieces = 0
    for store, pieces_of_store in committed["counts"].items():
        if store not in found["counts"]:
            print(f"{store}: not at hand, not compared")
            continue
        for piece, counts in pieces_of_store.items():
            for name, was in counts.items():
                if name in unlike:
                    continue
                now = found["counts"][store].get(piece, {}).get(name)
                compared_pieces += 1
                wrong += told(f"{store}: {piece}: {name}", was, now)
    new = [
        f"{store}: {piece}"
        for store, pieces_of_store in found["counts"].items()
        for piece in pieces_of_store
        if piece not in committed["counts"].get(store, {})
    ]
    for each in new:
        print(f"{each}: counted, but not committed: python -m benchmarks.guard --update")
    print(f"{compared_pieces} counts compared, {wrong} of them more than a tenth above what was committed")
    return 1 if wrong or new else 0


def told(what: str, was: int, now: int | None) -> bool:
    """Tell where a count has changed much; return whether it is a regression."""
    if now is None:
        print(f"{what}: {was:,}, and now it is not counted")
        return True
    if now > was * MOST:
        print(f"{what}: {was:,}, now {now:,}: {now / was - 1 if was else 1:+.0%}")
        return True
    if now * MOST < was:
        print(f"{what}: {was:,}, now {now:,}: {now / was - 1:+.0%}; keep the gain with --update")
    return False


if __name__ == "__main__":
    sys.exit(main())
