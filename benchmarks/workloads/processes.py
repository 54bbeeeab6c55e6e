"""Processes, or threads, that write one store at once: what all do together, how long one waits, and what is lost.

    python -m benchmarks.workloads.processes --store sqlite --seconds 2 [--rounds 3] [--processes 1 2 4 8 16]
    python -m benchmarks.workloads.processes --store file --threads

Each writer is a process with an instance of its own. In each round all of them begin at a barrier and write for so
many seconds, once in each of four forms, which take turns: transitions of a node of one's own in a run that all share;
the raw commit of such a row; a transaction that reads a counter which all share and writes it, repeated until it
commits; and the raw update of one row. A store is read back at the end: each commit that was acknowledged must be in
it, once.
"""

from __future__ import annotations

import argparse
import fcntl
import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Finding
from benchmarks.places import RUN, Place, bare_driver, created, places

from seeknal.state.backend import StateBackend

PROCESSES = (1, 2, 4, 8, 16)
THREADS = (1, 2, 4, 8)
OWN, RAW_OWN, SHARED, RAW_SHARED = "own nodes", "raw, own rows", "one counter", "raw, one row"
FORMS = (OWN, RAW_OWN, SHARED, RAW_SHARED)
RAW_OF = {OWN: RAW_OWN, SHARED: RAW_SHARED}
COUNTER = "counter"
RETRY_MS = 60_000
"""How long a transaction on the counter is repeated: longer than any turn, so that no conflict ends as an error."""

PATIENCE_S = 60
WARM_UP = 0.25
"""Of a turn, what everybody does first; it is verified like the rest and not measured."""

Commit = Callable[[int], object]
"""Commits once; it is given how many commits it makes with this one."""


class Turn(NamedTuple):
    """What one writer did in a turn.

    Attributes:
        took: The seconds of each commit that was acknowledged.
        spent: The seconds of the turn, until the last one was.
        errors: What the others raised.
    """

    took: list[float]
    spent: float
    errors: list[str]


class Raw(NamedTuple):
    """What a process needs to make the raw commit.

    Attributes:
        kind: Of the store.
        location: The file, or the address of the server.
        table: As SQL names it; empty for a file.
        frame_bytes: As long as a transition in the journal; 0 for a database.
    """

    kind: str
    location: str
    table: str
    frame_bytes: int


def hammer(commit: Commit, done: int, limit_s: float) -> Turn:
    """Commit again and again for so many seconds."""
    took: list[float] = []
    errors: list[str] = []
    begin = now = time.perf_counter()
    while now < begin + limit_s:
        try:
            commit(done + len(took) + 1)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and told
            errors.append(f"{type(error).__name__}: {error}")
            now = time.perf_counter()
        else:
            after = time.perf_counter()
            took.append(after - now)
            now = after
    return Turn(took, now - begin, errors)


# ---- what is committed ----


def transition(backend: StateBackend, node_id: str) -> Commit:
    """Return what writes a node of one's own."""
    return lambda number: backend.set_node_state(RUN, node_id, row_count=number)


def counting(backend: StateBackend) -> Commit:
    """Return what reads the counter and writes it, in a transaction that is repeated after a conflict."""

    def raised() -> None:
        found = backend.get_node_state(RUN, COUNTER)
        assert found is not None
        backend.set_node_state(RUN, COUNTER, row_count=(found.row_count or 0) + 1)

    return lambda _: backend.run_transaction(raised, timeout_ms=RETRY_MS)


def raw_commit(raw: Raw, node_id: str, stack: ExitStack) -> Commit:
    """Return what a commit cannot be faster than, on a file or connection of its own."""
    if raw.kind == "file":
        return raw_append(raw, stack)
    mark = "?" if raw.kind in ("sqlite", "libsql") else "%s"
    sets = ", ".join(f"{name} = {mark}" for name in ("status", "row_count", "metadata", "version", "sequence"))
    sql = f"UPDATE {raw.table} SET {sets} WHERE run_id = {mark} AND node_id = {mark}"
    if raw.kind == "sqlite":
        connection = sqlite3.connect(raw.location, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False)
        stack.callback(connection.close)
        connection.execute("PRAGMA synchronous = FULL")
        execute: Callable[..., object] = connection.execute
    else:
        execute = bare_driver(raw.kind, raw.location, stack).execute
    return lambda number: execute(sql, ("running", number, "{}", number + 1, number, RUN, node_id))


def raw_append(raw: Raw, stack: ExitStack) -> Commit:
    """Return what appends a frame to a file under an exclusive lock and syncs it."""
    file = stack.enter_context(Path(raw.location).open("ab", buffering=0))  # noqa: SIM115 - closed with the stack
    frame = b"x" * raw.frame_bytes

    def append(_: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(frame)
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_UN)

    return append


# ---- writers ----


class Writers:
    """So many writers of one store, which write when they are told. Use it as a context."""

    def __init__(self, count: int) -> None:
        self.count = count

    def turn(self, form: str, limit_s: float) -> list[Turn]:
        """Let all of them begin at once; return what each did."""
        raise NotImplementedError

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""


class ProcessWriters(Writers):
    """Writers that are processes."""

    def __init__(self, count: int, options: tuple[str, dict[str, Any]], raw: Raw) -> None:
        super().__init__(count)
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(count)
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=write_as_told, args=(number, options, raw, theirs, barrier), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def turn(self, form: str, limit_s: float) -> list[Turn]:
        for pipe in self._pipes:
            pipe.send((form, limit_s))
        return [pipe.recv() for pipe in self._pipes]

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def write_as_told(
    number: int, options: tuple[str, dict[str, Any]], raw: Raw, pipe: Connection, barrier: threading.Barrier
) -> None:
    """Be a writer that is a process."""
    with ExitStack() as stack:
        backend = stack.enter_context(created(options))
        backend.initialize()
        commits = commits_of(number, backend, raw, stack)
        done = dict.fromkeys(FORMS, 0)
        pipe.send(None)
        while (order := pipe.recv()) is not None:
            form, limit_s = order
            barrier.wait()
            told = hammer(commits[form], done[form], limit_s)
            done[form] += len(told.took)
            pipe.send(told)


class ThreadWriters(Writers):
    """Writers that are threads of this process, on one instance or each on its own."""

    def __init__(self, count: int, options: tuple[str, dict[str, Any]], raw: Raw, *, is_shared: bool) -> None:
        super().__init__(count)
        self._stack = ExitStack()
        backends = [self._stack.enter_context(created(options)) for _ in range(1 if is_shared else count)]
        for backend in backends:
            backend.initialize()
        self._commits = [
            commits_of(number, backends[number % len(backends)], raw, self._stack) for number in range(count)
        ]
        self._done = [dict.fromkeys(FORMS, 0) for _ in range(count)]

    def turn(self, form: str, limit_s: float) -> list[Turn]:
        barrier, told = threading.Barrier(self.count), [Turn([], 0, [])] * self.count

        def write(number: int) -> None:
            barrier.wait()
            told[number] = hammer(self._commits[number][form], self._done[number][form], limit_s)
            self._done[number][form] += len(told[number].took)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return told

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def commits_of(number: int, backend: StateBackend, raw: Raw, stack: ExitStack) -> dict[str, Commit]:
    """Return what one writer does in each form."""
    return {
        OWN: transition(backend, node_of(number)),
        RAW_OWN: raw_commit(raw, node_of(number), stack),
        SHARED: counting(backend),
        RAW_SHARED: raw_commit(raw, COUNTER, stack),
    }


def node_of(number: int) -> str:
    return f"node {number}"


# ---- measuring ----


def measure(place: Place, seconds: float, rounds: int, counts: Sequence[int] = PROCESSES) -> Iterator[Finding]:
    """Measure processes; one finding for each number of them.

    Args:
        place: Where.
        seconds: Of a turn.
        rounds: How often each form has a turn.
        counts: How many processes.
    """
    for count in counts:
        options, raw = prepared(place, f"processes-{count}", count)
        yield found(place, f"processes: {count}", ProcessWriters(count, options, raw), seconds, rounds, options)


def measure_threads(place: Place, seconds: float, rounds: int, counts: Sequence[int] = THREADS) -> Iterator[Finding]:
    """Measure threads of one process: on one instance that they share, and each on one of its own."""
    for count in counts:
        for is_shared in (True, False):
            which = "one instance" if is_shared else "an instance each"
            options, raw = prepared(place, f"threads-{count}-{is_shared:d}", count)
            writers = ThreadWriters(count, options, raw, is_shared=is_shared)
            yield found(place, f"threads, {which}: {count}", writers, seconds, rounds, options)


def prepared(place: Place, name: str, count: int) -> tuple[tuple[str, dict[str, Any]], Raw]:
    """Make a store with a node for each writer and the counter, and another one for the raw commits."""
    assert place.options is not None
    given, beside = place.options(name), place.options(f"{name}-raw")
    for options in (given, beside):
        with created(options) as backend:
            backend.initialize()
            backend.create_run(RUN)
            for node_id in (*map(node_of, range(count)), COUNTER):
                backend.set_node_state(RUN, node_id, status="running", row_count=0)
    if place.kind == "file":
        folder = Path(beside[1]["base_path"])
        return given, Raw(place.kind, str(folder / "raw.log"), "", frame_bytes(folder, beside))
    if place.kind == "sqlite":
        return given, Raw(place.kind, str(beside[1]["db_path"]), "node_states", 0)
    assert place.driver is not None
    return given, Raw(place.kind, beside[1]["url"], place.driver(f"{name}-raw")[1]("node_states"), 0)


def frame_bytes(folder: Path, options: tuple[str, dict[str, Any]]) -> int:
    """Return how much a transition appends to the journal."""
    with created(options) as backend:
        backend.initialize()
        (journal,) = (folder / "run_state").glob("journal-*.log")
        before = journal.stat().st_size
        transition(backend, node_of(0))(0)
        return journal.stat().st_size - before


def found(
    place: Place,
    who: str,
    writers: Writers,
    seconds: float,
    rounds: int,
    options: tuple[str, dict[str, Any]],
) -> Finding:
    """Let writers take their turns, and say what came of it and what is in the store."""
    with writers:
        warm_up = {form: writers.turn(form, seconds * WARM_UP) for form in FORMS}
        turns: dict[str, list[list[Turn]]] = {form: [] for form in FORMS}
        for number in range(rounds):
            first = number % len(FORMS)
            for form in FORMS[first:] + FORMS[:first]:
                turns[form].append(writers.turn(form, seconds))
    finding = Finding("processes", f"{place.kind}, {who}")
    for form, raw in RAW_OF.items():
        add_speed(finding, form, turns[form], turns[raw])
        add_waiting(finding, form, turns[form])
        add_waiting(finding, raw, turns[raw])
        everything = [warm_up[form], *turns[form]]
        errors = [error for told in everything for turn in told for error in turn.errors]
        finding.add(f"{form}: errors", [len(errors)], "", most=0)
        finding.notes += [f"{form}: {error}" for error in sorted(set(errors))[:3]]
        failed = [error for told in turns[raw] for turn in told for error in turn.errors]
        if failed:
            finding.notes.append(f"{raw}: {len(failed)} errors, such as {failed[0]}")
    for form, count in missing(options, {form: [warm_up[form], *turns[form]] for form in RAW_OF}).items():
        finding.add(f"{form}: commits lost, or applied twice", [count], "", most=0)
    return finding


def add_speed(finding: Finding, form: str, ours: list[list[Turn]], raw: list[list[Turn]]) -> None:
    mine, limit = [rate(each) for each in ours], [rate(each) for each in raw]
    finding.add(f"{form}: time of a commit, ours / raw", [b / a for a, b in zip(mine, limit, strict=True)])
    finding.add(f"{form}: all together", mine, "/s")
    finding.add(f"{RAW_OF[form]}: all together", limit, "/s")


def add_waiting(finding: Finding, form: str, rounds: list[list[Turn]]) -> None:
    """Add how long a commit takes, and the share of the writer that came through least; 1 is fair."""
    sorted_ms = [sorted(each * 1e3 for turn in told for each in turn.took) or [float("nan")] for told in rounds]
    finding.add(f"{form}: p50", map(statistics.median, sorted_ms), "ms")
    finding.add(f"{form}: p99", [ms[len(ms) * 99 // 100] for ms in sorted_ms], "ms")
    finding.add(f"{form}: longest", [ms[-1] for ms in sorted_ms], "ms")
    finding.add(f"{form}: share of the slowest", map(fairness, rounds), "of equal")


def rate(told: list[Turn]) -> float:
    """Return the commits of all in a second."""
    return max(1, sum(len(turn.took) for turn in told)) / max(turn.spent for turn in told)


def fairness(told: list[Turn]) -> float:
    counts = [len(turn.took) for turn in told]
    return min(counts) * len(counts) / max(1, sum(counts))


def missing(options: tuple[str, dict[str, Any]], turns: Mapping[str, list[list[Turn]]]) -> dict[str, int]:
    """Return, for each form, by how many commits the store differs from what was acknowledged."""
    with created(options) as backend:
        backend.initialize()
        states = backend.get_all_node_states(RUN)
    acknowledged = {
        form: [sum(len(told[number].took) for told in turns[form]) for number in range(len(turns[form][0]))]
        for form in turns
    }
    counter, total = states[COUNTER], sum(acknowledged[SHARED])
    return {
        OWN: sum(
            max(abs(states[node_of(n)].version - 1 - count), abs((states[node_of(n)].row_count or 0) - count))
            for n, count in enumerate(acknowledged[OWN])
        ),
        SHARED: max(abs(counter.version - 1 - total), abs((counter.row_count or 0) - total)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", choices=("file", "sqlite", "postgresql", "mysql", "libsql"))
    parser.add_argument("--seconds", type=float, default=2, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES)
    parser.add_argument("--threads", type=int, nargs="*", help="measure so many threads instead")
    given = parser.parse_args()
    wanted = given.store or ["file", "sqlite", "servers"]
    kinds = {kind if kind in ("file", "sqlite") else "servers" for kind in wanted}
    with tempfile.TemporaryDirectory(dir=".") as folder, ExitStack() as stack:
        for place in places(sorted(kinds), Path(folder).absolute(), stack):
            if place.kind not in wanted and "servers" not in wanted:
                continue
            if given.threads is None:
                findings = measure(place, given.seconds, given.rounds, given.processes)
            else:
                findings = measure_threads(place, given.seconds, given.rounds, given.threads or THREADS)
            for finding in findings:
                print(finding.text(), flush=True)


if __name__ == "__main__":
    main()
