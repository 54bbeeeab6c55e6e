"""The published `seeknal`: the state of one node after the other, with its own backends.

python seeknal_transitions.py file FOLDER
python seeknal_transitions.py database FILE.db default|wal

Its file backend has no transaction of its own: each call writes a file and renames it. Its database backend commits
nothing outside of a transaction, because it takes the one that its own statement began for the caller's; so each call
stands in one.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from records import NODES, NOTE, node_of
from seeknal.workflow.state import NodeState
from settings import of_sqlite, opened_by, use_wal
from turns import serve

import seeknal
from seeknal.state import StateBackend, create_state_backend

if not Path(seeknal.__file__).is_relative_to(sys.prefix):
    sys.exit(f"{seeknal.__file__} is not the published package")
kind, where = sys.argv[1:3]
made: list[StateBackend] = []


def state(number: int) -> NodeState:
    now = datetime.now(UTC).isoformat()
    return NodeState(hash="f" * 64, last_run=now, status="success", row_count=number, metadata={"note": NOTE})


def write(number: int) -> None:
    made[0].set_node_state("run", node_of(number), state(number))


def commit(number: int) -> None:
    with made[0].transaction():
        write(number)


if kind == "file":
    made.append(create_state_backend("file", base_path=Path(where)))
    complete, durability, work = write, "none: a file is written and renamed without fsync", "set_node_state"
else:
    if sys.argv[3] == "wal":  # it has no option for this, but leaves the file as it is
        use_wal(Path(where))
    connections = opened_by(lambda: made.append(create_state_backend("database", db_path=Path(where))))
    complete, durability, work = commit, of_sqlite(connections[-1]), "set_node_state in a transaction"
for number in range(NODES):
    complete(number)
serve(complete, {"version": version("seeknal"), "durability": durability, "work": work})
