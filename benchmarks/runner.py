"""What the runner adds to nodes that do nothing, as a ratio to what it cannot be faster than, in turns within one run.

    python -m benchmarks.runner [--nodes 1000] [--rounds 3] [--full] [--json]
                                [--luigi PYTHON] [--prefect PYTHON] [--others-nodes 300]

The project is `examples/many_nodes`: layers of 100 nodes, each of which needs one of the layer before. In each round it
is run by the seeknal runner in this process, on the file store and on SQLite, with one worker and with four: the first
run, and the one after it, which finds nothing to do. Beside it stand

- `futures`: a loop over a `concurrent.futures.ThreadPoolExecutor` that submits what is ready, and records nothing;
- `file limit`, `sqlite limit`: the same loop, which also writes twice for each node to what the store is made of, an
  append and fsync of 400 bytes or an upsert and commit at `synchronous=FULL`: what any record costs that survives a
  power cut and says of each node when it began.

Prints for each the microseconds a node, the median over the rounds, and of the runner its ratio to its limit in the
same round (of a run that finds nothing to do, to `futures`), and to itself at a tenth of the nodes: with `--full`, at
10,000 nodes against 1,000. Planning is in it, reading the project's file is not.

`--luigi` and `--prefect` name a Python that has the other tool; they run fewer nodes, in a process of their own that
measures itself, without its start. Luigi has a file as the target of each task, without fsync, which is all that it
remembers. Prefect runs tasks in threads against its own temporary server on SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import spread
from benchmarks.limits import raw_append, raw_sqlite

from seeknal.pipeline.load import load_project
from seeknal.pipeline.nodes import Project
from seeknal.runner.execute import run_project
from seeknal.runner.ready import ReadyQueue
from seeknal.state.backend import create_state_backend

EXAMPLE = Path(__file__).parent.parent / "examples/many_nodes"
OTHERS = Path(__file__).parent / "others"
WORKERS = (1, 4)
STORES = ("file", "sqlite")


class Spent(NamedTuple):
    """Microseconds a node: how long it took, and of that in processors; the latter is not known of other tools."""

    wall: float
    processor: float | None = None


Times = dict[str, Spent]
"""What was spent, by what ran the nodes."""


def project_of(nodes: int, folder: Path) -> Project:
    """Return the example with so many nodes."""
    path = shutil.copytree(EXAMPLE, folder / f"many_{nodes}", ignore=shutil.ignore_patterns("target", "__pycache__"))
    os.environ["MANY_NODES"] = str(nodes)
    return load_project(path)


@contextmanager
def timed(times: Times, name: str, nodes: int) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    spent = (time.perf_counter() - wall, time.process_time() - processor)
    times[name] = Spent(*(seconds * 1e6 / nodes for seconds in spent))


def nothing() -> None:
    """Do what a node of the example does."""


def run_in_futures(inputs: Mapping[str, tuple[str, ...]], workers: int, record: Callable[[int], object]) -> None:
    """Run a graph with nothing but futures."""
    queue, running = ReadyQueue(inputs), {}
    with ThreadPoolExecutor(workers) as pool:
        while queue or running:
            while queue and len(running) < workers:
                node_id = queue.take()
                record(0)
                future: Future[None] = pool.submit(nothing)
                running[future] = node_id
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                record(1)
                queue.done(running.pop(future))


def futures_times(project: Project, folder: Path) -> Times:
    """Measure the loop over futures, without a record and with one."""
    times: Times = {}
    inputs = {node_id: node.inputs for node_id, node in project.nodes.items()}
    with ExitStack() as stack:
        limits: dict[str, Callable[[int], object]] = {
            "futures": lambda _: None,
            "file limit": raw_append(stack, folder / "raw.log"),
            "sqlite limit": raw_sqlite(stack, folder / "raw.db"),
        }
        for name, record in limits.items():
            for workers in WORKERS:
                with timed(times, f"{name}, {workers} at once", len(inputs)):
                    run_in_futures(inputs, workers, record)
    return times


def seeknal_times(project: Project, folder: Path) -> Times:
    """Measure the runner, each time on a new store."""
    times: Times = {}
    for store in STORES:
        for workers in WORKERS:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                place = {"base_path": Path(name)} if store == "file" else {"db_path": Path(name) / "state.db"}
                with create_state_backend(store, **place) as backend:
                    backend.initialize()
                    for which, status in (("first", "success"), ("unchanged", "cached")):
                        with timed(times, f"{store} {which}, {workers} at once", len(project.nodes)):
                            report = run_project(project, backend, parallel=workers)
                        assert set(report.nodes.values()) == {status}
    return times


def other_times(tool: str, python: str, nodes: int, folder: Path) -> Times:
    """Measure another tool, by a script that its own Python runs."""
    times: Times = {}
    for workers in WORKERS:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            command = [python, str(OTHERS / f"{tool}_nodes.py"), str(nodes), str(workers)]
            environment = os.environ | {"HOME": name, "PREFECT_HOME": f"{name}/prefect"}
            done = subprocess.run(command, cwd=name, env=environment, check=True, capture_output=True, text=True)
        for which, microseconds in json.loads(done.stdout.splitlines()[-1]).items():
            times[f"{tool} {which}, {workers} at once ({nodes} nodes)"] = Spent(microseconds)
    return times


def ratios(rounds: list[Times], small: list[Times]) -> dict[str, dict[str, list[float]]]:
    """Return what is measured of the runner against what it is measured by, round by round."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in rounds[0]:
        store, _, rest = name.partition(" ")
        which, _, workers = rest.partition(", ")
        if store not in STORES or which == "limit":
            continue
        limit = f"{store} limit, {workers}" if which == "first" else f"futures, {workers}"
        found[name] = {
            f"of {limit.partition(',')[0]}": [each[name].wall / each[limit].wall for each in rounds],
            "growth": [large[name].wall / each[name].wall for large, each in zip(rounds, small, strict=True)],
        }
    return found


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure in turns, and print."""
    large_folder, small_folder = folder / "large", folder / "small"
    large_folder.mkdir()
    small_folder.mkdir()
    large = project_of(arguments.nodes, large_folder)
    small = project_of(arguments.nodes // 10, small_folder)
    rounds: list[Times] = []
    small_rounds: list[Times] = []
    for number in range(arguments.rounds):
        place = folder / str(number)
        place.mkdir()
        times = futures_times(large, place) | seeknal_times(large, folder)
        for tool in ("luigi", "prefect"):
            if python := getattr(arguments, tool):
                times |= other_times(tool, python, arguments.others_nodes, folder)
        rounds.append(times)
        small_rounds.append(seeknal_times(small, folder))
    against = ratios(rounds, small_rounds)
    if arguments.json:
        print(
            json.dumps(
                {
                    "nodes": arguments.nodes,
                    "microseconds": [{name: spent._asdict() for name, spent in each.items()} for each in rounds],
                    "ratios": against,
                }
            )
        )
        return
    for name in rounds[0]:
        told = "".join(f"   {what} {spread(found)}" for what, found in against.get(name, {}).items())
        processor = [each[name].processor or 0.0 for each in rounds]
        busy = f"{statistics.median(processor):6.0f} us of a processor" if any(processor) else " " * 24
        print(f"{name:42} {statistics.median(each[name].wall for each in rounds):7.0f} us {busy}{told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="at least 2, for the quartiles")
    parser.add_argument("--full", action="store_true", help="10,000 nodes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--luigi", metavar="PYTHON")
    parser.add_argument("--prefect", metavar="PYTHON")
    parser.add_argument("--others-nodes", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.full:
        arguments.nodes = 10_000
    with tempfile.TemporaryDirectory(dir=".") as name:
        measure(arguments, Path(name).absolute())  # so that the file is run once


if __name__ == "__main__":
    main()
