"""What a server costs: transitions against the raw driver, growth, whole transactions, and processes side by side.

    SEEKNAL_TEST_POSTGRES_URL=... python -m benchmarks.servers [--rounds 11] [--commits 200] [--seconds 3]

Measures each server whose variable is set (also SEEKNAL_TEST_MYSQL_URL, SEEKNAL_TEST_LIBSQL_URL), in a place of its
own that is removed at the end. The raw driver updates and commits the same columns of the same row on a connection
of its own; both are measured in turns within one run, so that a noisy machine hurts both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.servers.process import ServerUnavailableError
from tests.servers.stores import SERVERS, fresh_store

from seeknal.state.backend import StateBackend, create_state_backend

PROCESSES = (1, 2, 4, 8)
COLUMNS = ("status", "row_count", "metadata", "version", "sequence")


def seconds(work: Callable[[int], object], times: int) -> float:
    begin = time.perf_counter()
    for number in range(times):
        work(number)
    return (time.perf_counter() - begin) / times


def raw_update(kind: str, url: str, table: str) -> Callable[[int], object]:
    """Return what updates one row and commits, with nothing but the driver."""
    sets = ", ".join(f"{name} = {{}}" for name in COLUMNS)
    key = "run_id = {} AND node_id = {}"

    def values(number: int) -> tuple[Any, ...]:
        return ("running", number, "{}", number + 2, number, "run", "raw")

    if kind == "postgresql":
        import psycopg

        connection = psycopg.connect(url, autocommit=True)
        sql = f"UPDATE {table} SET {sets} WHERE {key}".format(*["%s"] * 7)
        return lambda number: connection.execute(sql, values(number))
    if kind == "mysql":
        import pymysql

        from seeknal.state.sql.address import address_of

        cursor = pymysql.connect(**address_of(None, url).options, autocommit=True, ssl_disabled=True).cursor()
        sql = f"UPDATE {table} SET {sets} WHERE {key}".format(*["%s"] * 7)
        return lambda number: cursor.execute(sql, values(number))
    from seeknal.state.sql.libsql import dbapi
    from seeknal.state.sql.libsql.endpoint import endpoint

    sql = f"UPDATE {table} SET {sets} WHERE {key}".format(*["?"] * 7)
    connection = dbapi.connect(endpoint(url))
    return lambda number: connection.cursor().execute(sql, values(number))


def opened(options: dict[str, Any], run_id: str, nodes: int) -> StateBackend:
    backend = create_state_backend("database", **options)
    backend.initialize()
    backend.create_run(run_id)
    for first in range(0, nodes, 1000):
        with backend.transaction():
            for number in range(first, first + min(nodes, 1000)):
                backend.set_node_state(run_id, f"node {number}", status="running")
    return backend


def hammer(options: dict[str, Any], name: str, limit_s: float, begin: Any, results: Any) -> None:
    """Write transitions of nodes of one's own for a while."""
    with create_state_backend("database", **options) as backend:
        backend.initialize()
        backend.set_node_state("run", name, status="running")
        begin.wait()
        took, end = [], time.perf_counter() + limit_s
        while (now := time.perf_counter()) < end:
            backend.set_node_state("run", name, row_count=len(took))
            took.append(time.perf_counter() - now)
    results.put(took)


def throughput(options: dict[str, Any], processes: int, limit_s: float) -> tuple[float, list[float], float]:
    """Return transitions per second, how long each took, and the share of the slowest process."""
    context = multiprocessing.get_context("spawn")
    begin, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=hammer, args=(options, f"w{number}", limit_s, begin, results))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    took = [results.get(timeout=limit_s + 60) for _ in workers]
    for worker in workers:
        worker.join()
    total = sum(map(len, took))
    return total / limit_s, sorted(each for one in took for each in one), min(map(len, took)) * processes / total


def spread(values: list[float], unit: str = "") -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f}{unit} ({low:.2f} to {high:.2f})"


def measure(kind: str, rounds: int, commits: int, limit_s: float) -> None:
    with fresh_store(SERVERS[kind].from_environment()) as store:
        small, large = opened(store.options, "run", 100), opened(store.options, "large", 10_000)
        small.set_node_state("run", "raw", status="running")
        raw = raw_update(kind, store.url, store.table("node_states"))
        of_raw, growth, ours_us, locks_us, latest_us, thousand_ms = [], [], [], [], [], []

        def thousand(number: int) -> None:
            with small.transaction():
                for node in range(1000):
                    small.set_node_state("run", f"many {node}", row_count=number)

        thousand(0)
        for _ in range(rounds):
            bare = seconds(raw, commits)
            ours = seconds(lambda number: small.set_node_state("run", "node 5", row_count=number), commits)
            beside = seconds(lambda number: large.set_node_state("large", "node 5", row_count=number), commits)
            of_raw.append(ours / bare)
            growth.append(beside / ours)
            ours_us.append(ours * 1e6)
            locks_us.append(seconds(lambda _: small.acquire_lock("run", timeout_ms=0), commits // 4) * 1e6)
            latest_us.append(seconds(lambda _: small.get_latest_node_state("node 5"), commits // 4) * 1e6)
        for number in range(3):
            thousand_ms.append(seconds(thousand, 1 + number % 1) * 1e3)
        small.close()
        large.close()
        print(f"{kind}")
        print(f"  transition / raw update and commit      {spread(of_raw)}, {statistics.median(ours_us):.0f} us")
        print(f"  10,000 nodes in the run / 100           {spread(growth)}")
        print(f"  a lock attempt (held), a latest state   {statistics.median(locks_us):.0f} us, "
              f"{statistics.median(latest_us):.0f} us")  # fmt: skip
        print(f"  1,000 nodes read and written in one transaction  {statistics.median(thousand_ms):.0f} ms")
        for processes in PROCESSES:
            rate, took, share = throughput(store.options, processes, limit_s)
            p50, p99 = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
            print(f"  {processes} processes: {rate:6.0f} transitions/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
                  f"max {took[-1] * 1e3:.0f} ms, slowest process {share:.2f} of its share")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    for kind in SERVERS:
        try:
            measure(kind, arguments.rounds, arguments.commits, arguments.seconds)
        except ServerUnavailableError as error:
            print(f"{kind}: not measured: {error}")


if __name__ == "__main__":
    main()
