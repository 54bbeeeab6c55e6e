"""Record what any Python code does: a run, its nodes, and what is done.

>>> from seeknal.state.backend import create_state_backend
>>> from seeknal.tracking import track_run
>>> with create_state_backend("memory") as backend:
...     with track_run(backend) as run, run.node("clean") as node:
...         node.row_count = 3
...     backend.get_latest_node_state("clean").row_count
3
"""

from seeknal.tracking.node import NodeRecorder
from seeknal.tracking.recovery import recover_dead_runs
from seeknal.tracking.run import RunRecorder, track_run
from seeknal.tracking.task import end_run, track_node

__all__ = ["NodeRecorder", "RunRecorder", "end_run", "recover_dead_runs", "track_node", "track_run"]
