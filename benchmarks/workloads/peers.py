"""One node transition beside what others do to record that a piece of work is done, each in a process of its own.

Peers are installed by `make bench-peers`. All take turns in one run, and store alike: which node, that it succeeded,
its rows, and 200 characters. Ours, the published `seeknal` and diskcache keep the last state of each of 100 nodes;
DBOS Transact, LangGraph, Dagster and SQLMesh keep each as a record of its own. How often a process makes the disk
write is seen from outside, whatever it says of itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Finding, shown
from benchmarks.peers.process import OURS, Peer, PeerError, syncs
from benchmarks.peers.records import NOTE, node_of
from benchmarks.rounds import fitted, ratios, take_turns
from tests.servers.process import ServerUnavailableError
from tests.servers.stores import SERVERS, ServerStore, fresh_store

from seeknal.state.backend import create_state_backend

NAME = "peers"
RAW = "raw"
AS_IT_COMES = "as it comes"
LEAST = 20
"""How many steps a workflow of DBOS has at least, so that its begin and end do not count for much."""
OBSERVED = 100
"""How many transitions of each process, at most, are watched for what they make durable."""
ONE = 0.99
"""Below so many times that the disk writes for each, some are not on it when the call returns."""


@dataclass
class Contender:
    """What takes part on one store.

    Attributes:
        label: Its name in the figures.
        environment: Of `Peer`.
        arguments: Of the script of `benchmarks.peers` that is named for the environment; of ours for the label.
        caveat: What a reader has to know about how it was set up.
        failure: Why it is not measured, as soon as this is known.
        syncs: How often it made the disk write for each transition; `None` if this was not seen.
    """

    label: str
    environment: str
    arguments: tuple[str, ...]
    caveat: str = ""
    failure: str | None = None
    syncs: float | None = None
    peer: Peer | None = field(default=None, repr=False)

    @property
    def is_peer(self) -> bool:
        return self.environment != OURS

    @property
    def script(self) -> str:
        return f"{self.environment if self.is_peer else self.label}_transitions.py"

    @property
    def name(self) -> str:
        """The label, with the version that a peer told."""
        return self.label.replace(" {}", "") if self.peer is None else self.label.format(self.peer.about["version"])

    def begin(self, stack: ExitStack) -> None:
        """Start it; a peer that does not start is one that failed.

        Raises:
            PeerError: Ours did not start, or what it is held against.
        """
        try:
            self.peer = stack.enter_context(Peer(self.environment, self.script, self.arguments))
        except PeerError as error:
            self._fail(error)

    def work(self, times: int) -> float:
        """Take a turn; return the seconds, or no number if it is a peer that failed.

        Raises:
            PeerError: Ours failed, or what it is held against.
        """
        if self.failure is None and self.peer is not None:
            try:
                return self.peer.work(times)
            except PeerError as error:
                self._fail(error)
        return math.nan

    def watch(self, times: int) -> None:
        """See how often it makes the disk write while it does its work so many times."""
        assert self.peer is not None
        self.syncs = syncs(self.peer.pid, self.work, times)

    @property
    def mark(self) -> str:
        """What stands beside the name of one that answers before the disk has what it was told."""
        return ", not durable" if self.syncs is not None and self.syncs < ONE else ""

    def described(self, count: int, *, is_local: bool) -> str:
        """Return what it did, how durable it says that was, and how often the disk had to write.

        Args:
            count: How often it did its work in a turn.
            is_local: Whether its process itself writes to the disk.
        """
        assert self.peer is not None
        about = self.peer.about
        parts = [f"{self.name}{self.mark}: {about['work']}, {count} in a turn", about["durability"]]
        if is_local:
            seen = "unknown, strace saw nothing" if self.syncs is None else f"{shown(self.syncs)} each"
            parts.append(f"fsyncs: {seen}")
        return "; ".join([*parts, self.caveat] if self.caveat else parts)

    def _fail(self, error: PeerError) -> None:
        if not self.is_peer:
            raise error
        self.failure = str(error).splitlines()[-1]


def measure(folder: Path, rounds: int, times: int) -> Iterator[Finding]:
    """Measure each store with its peers.

    Args:
        folder: Empty, on the disk that is measured. The published `seeknal` refuses one that all may write to, such
            as those under ``/tmp``.
        rounds: How often everyone has a turn.
        times: How many transitions of ours make a turn; the turns of the others take about as long.
    """
    folder = folder.resolve()
    yield compared("sqlite", on_sqlite(folder / "sqlite"), rounds, times)
    yield compared("file", on_file(folder / "file"), rounds, times)
    with ExitStack() as stack:
        try:
            contenders = on_postgresql(folder / "postgresql", stack)
        except ServerUnavailableError as error:
            yield Finding(NAME, "postgresql", notes=[f"not measured: {error}"])
        else:
            yield compared("postgresql", contenders, rounds, times)


def on_sqlite(folder: Path) -> list[Contender]:
    """Return who stores in SQLite, or in another database that is a file."""
    folder.mkdir(parents=True)
    at = {name: str(folder / name) for name in ("diskcache", "diskcache-default", "dagster", "sqlmesh")}
    no_option = "it has no option for WAL; the file was put into that mode before"
    ours = json.dumps({"db_path": str(folder / "ours.db")})
    return [
        Contender(RAW, OURS, ("sqlite", str(folder / "raw.db"))),
        Contender(OURS, OURS, ("database", ours)),
        Contender("diskcache {}", "diskcache", (at["diskcache"], "full")),
        Contender("diskcache {}, default", "diskcache", (at["diskcache-default"], "default"), AS_IT_COMES),
        Contender("LangGraph saver {}, put", "langgraph", (str(folder / "put.db"), "put"), AS_IT_COMES),
        Contender("LangGraph saver {}, node", "langgraph", (str(folder / "node.db"), "node"), AS_IT_COMES),
        Contender(
            "published seeknal {}",
            "seeknal",
            ("database", str(folder / "published.db"), "wal"),
            no_option,
        ),
        Contender(
            "published seeknal {}, default",
            "seeknal",
            ("database", str(folder / "published-default.db"), "default"),
            AS_IT_COMES,
        ),
        Contender("DBOS {}", "dbos", (str(folder / "dbos.db"), "wal"), no_option),
        Contender("DBOS {}, default", "dbos", (str(folder / "dbos-default.db"), "default"), AS_IT_COMES),
        Contender(
            "Dagster {}",
            "dagster",
            (at["dagster"],),
            f"{AS_IT_COMES}: a connection for each write, to two databases, is opened and closed again",
        ),
        Contender(
            "SQLMesh {} on DuckDB",
            "sqlmesh",
            (at["sqlmesh"],),
            f"{AS_IT_COMES}, though it advises against DuckDB where it matters; it stores no rows and no note",
        ),
    ]


def on_file(folder: Path) -> list[Contender]:
    """Return who stores in files of its own form."""
    folder.mkdir(parents=True)
    ours = json.dumps({"base_path": str(folder / "ours")})
    length = str(bytes_of_a_transition(folder / "measured"))
    return [
        Contender(RAW, OURS, ("file", str(folder / "raw.log"), length)),
        Contender(
            OURS,
            OURS,
            ("file", ours),
            "in each turn, as after any pause, the first commits also write run_state.json, for 20 ms in all",
        ),
        Contender(
            "published seeknal {}",
            "seeknal",
            ("file", str(folder / "published")),
            f"{AS_IT_COMES}; it cannot be made durable",
        ),
    ]


def on_postgresql(folder: Path, stack: ExitStack) -> list[Contender]:
    """Return who stores in PostgreSQL, each in a schema that is dropped with the stack.

    Raises:
        ServerUnavailableError: The environment names no server.
    """
    server = SERVERS["postgresql"].from_environment()

    def schema(*, is_made: bool = False) -> ServerStore:
        store = stack.enter_context(fresh_store(server))
        if is_made:
            store.run(f"CREATE SCHEMA {store.schema}")
        return store

    def searched() -> str:
        """Return the address of a schema that somebody finds who names none."""
        mark = "&" if "?" in server.url else "?"
        return f"{server.url}{mark}options=-csearch_path%3D{schema(is_made=True).schema}"

    table = schema(is_made=True).table("transitions")
    return [
        Contender(RAW, OURS, ("postgresql", server.url, table)),
        Contender(OURS, OURS, ("database", json.dumps(schema().options))),
        Contender("LangGraph saver {}, put", "langgraph", (searched(), "put")),
        Contender("LangGraph saver {}, node", "langgraph", (searched(), "node")),
        Contender("DBOS {}", "dbos", (server.url, schema().schema)),
        Contender(
            "SQLMesh {}",
            "sqlmesh",
            (str(folder), server.url, schema().schema),
            "it stores no rows and no note",
        ),
    ]


def bytes_of_a_transition(folder: Path) -> int:
    """Return how long the journal's record is of what `ours_transitions.py` does."""
    with create_state_backend("file", base_path=folder) as backend:
        backend.initialize()
        backend.create_run("run")
        lengths = []
        for number in range(2):
            backend.set_node_state("run", node_of(0), status="success", row_count=number, metadata={"note": NOTE})
            (journal,) = (folder / "run_state").glob("journal-*.log")
            lengths.append(journal.stat().st_size)
    return lengths[1] - lengths[0]


def compared(store: str, contenders: list[Contender], rounds: int, times: int) -> Finding:
    """Let all of a store take turns, and tell what came out."""
    finding = Finding(NAME, store)
    is_local = store != "postgresql"  # otherwise the server writes to the disk
    with ExitStack() as stack:
        for each in contenders:
            each.begin(stack)
        works: dict[str, Callable[[int], float]] = {each.label: each.work for each in contenders if not each.failure}
        counts = fitted(works, like=OURS, times=times, least=LEAST)
        took = take_turns(works, rounds=rounds, times=counts)
        measured = [each for each in contenders if not each.failure]
        for each in measured if is_local else ():
            each.watch(min(OBSERVED, counts[each.label]))
    finding.add("ours / raw", ratios(took, OURS, RAW))
    for each in measured:
        if each.is_peer:
            finding.add(f"{each.name}{each.mark} / ours", ratios(took, each.label, OURS))
    for each in measured:
        finding.add(f"{each.name}{each.mark}", took[each.label], "us")
    finding.notes.extend(each.described(counts[each.label], is_local=is_local) for each in measured)
    finding.notes.extend(f"{each.name}: not measured: {each.failure}" for each in contenders if each.failure)
    return finding
