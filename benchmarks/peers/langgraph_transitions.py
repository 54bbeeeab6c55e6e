"""LangGraph: what its savers store of a graph in which one node after the other is completed.

python langgraph_transitions.py FILE.db put|node
python langgraph_transitions.py URL put|node

``put`` is the checkpoint alone; ``node`` is what a graph that waits for its saver (``durability="sync"``) stores when
a node has ended: its writes, then the checkpoint that follows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from records import NOTE, node_of
from settings import of_postgresql, of_sqlite
from turns import serve

where, how = sys.argv[1:]
config: Any = {"configurable": {"thread_id": "run", "checkpoint_ns": ""}}


def completing(saver: Any) -> Callable[[int], None]:
    """Return what stores that a node is completed."""

    def complete(number: int) -> None:
        global config
        done = {"node": node_of(number), "status": "success", "row_count": number, "note": NOTE}
        if how == "node" and number > 0:
            saver.put_writes(config, [("state", done)], f"task-{number}")
        changed = {"state": f"{number:032}.0"}
        checkpoint = empty_checkpoint() | {"channel_values": {"state": done}, "channel_versions": changed}
        config = saver.put(config, checkpoint, {"source": "loop", "step": number, "parents": {}}, changed)

    return complete


if "://" in where:
    from langgraph.checkpoint.postgres import PostgresSaver as Saver

    package, asked = "langgraph-checkpoint-postgres", of_postgresql
else:
    from langgraph.checkpoint.sqlite import SqliteSaver as Saver

    package, asked = "langgraph-checkpoint-sqlite", of_sqlite
with Saver.from_conn_string(where) as saver:
    saver.setup()
    serve(
        completing(saver),
        {
            "version": version(package),
            "durability": asked(saver.conn),
            "work": "put" if how == "put" else "put_writes, then put",
        },
    )
