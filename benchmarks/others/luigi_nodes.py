"""Nodes that do nothing as tasks of Luigi, each with a file as its target; run by `benchmarks/runner.py`.

    python luigi_nodes.py NODES WORKERS

Prints the microseconds a node of a first run and of one after it, as JSON.
"""

import json
import logging
import sys
import time
from pathlib import Path

import luigi

WIDTH = 100
NODES, WORKERS = int(sys.argv[1]), int(sys.argv[2])


class Step(luigi.Task):
    number = luigi.IntParameter()

    def requires(self):
        return [Step(number=self.number - WIDTH)] if self.number >= WIDTH else []

    def output(self):
        return luigi.LocalTarget(f"done/{self.number}")

    def run(self):
        self.output().open("w").close()


def measured() -> float:
    begin = time.perf_counter()
    steps = [Step(number=number) for number in range(NODES)]
    assert luigi.build(steps, local_scheduler=True, workers=WORKERS, log_level="ERROR")
    return (time.perf_counter() - begin) * 1e6 / NODES


logging.disable(logging.WARNING)
found = {"first": measured()}
assert len(list(Path("done").iterdir())) == NODES
found["unchanged"] = measured()
print(json.dumps(found))
