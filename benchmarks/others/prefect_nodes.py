"""Nodes that do nothing as tasks of a Prefect flow on its temporary server; run by `benchmarks/runner.py`.

    python prefect_nodes.py NODES WORKERS

Prints the microseconds a node of a first run, and of one in which results of an earlier one are taken, as JSON. The
server is started before, by a flow of one task.
"""

import json
import os
import sys
import time

os.environ |= {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.task_runners import ThreadPoolTaskRunner

WIDTH = 100
NODES, WORKERS = int(sys.argv[1]), int(sys.argv[2])


@task(cache_policy=INPUTS, persist_result=True)
def step(number: int) -> int:
    return number


@flow(task_runner=ThreadPoolTaskRunner(max_workers=WORKERS))
def steps(first: int, last: int) -> None:
    futures = []
    for number in range(first, last):
        needed = [futures[len(futures) - WIDTH]] if len(futures) >= WIDTH else []
        futures.append(step.submit(number, wait_for=needed))
    for future in futures:
        future.result()


def measured() -> float:
    begin = time.perf_counter()
    steps(0, NODES)
    return (time.perf_counter() - begin) * 1e6 / NODES


if __name__ == "__main__":
    steps(NODES, NODES + 1)
    print(json.dumps({"first": measured(), "unchanged": measured()}))
