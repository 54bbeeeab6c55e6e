"""Ours: the state of one node after the other, in a run of a hundred.

python ours_transitions.py KIND OPTIONS

KIND and OPTIONS, a JSON object, are what `create_state_backend` is given.
"""

from __future__ import annotations

import json
import sys

from records import NODES, NOTE, node_of
from settings import of_postgresql, of_sqlite, opened_by, through_sqlalchemy
from turns import serve

import seeknal
from seeknal.state.backend import create_state_backend

kind, options = sys.argv[1], json.loads(sys.argv[2])


def complete(number: int) -> None:
    backend.set_node_state("run", node_of(number), status="success", row_count=number, metadata={"note": NOTE})


def begin() -> None:
    backend.initialize()
    backend.create_run("run")
    with backend.transaction():
        for number in range(NODES):
            complete(number)


def durability() -> str:
    """Begin, and return how durable a commit is; what is written with is the connection to SQLite opened last."""
    if kind == "file":
        begin()
        return "a journal, fsync after each commit"
    if "db_path" in options:
        return of_sqlite(opened_by(begin)[-1])
    return through_sqlalchemy(begin, of_postgresql)


with create_state_backend(kind, **options) as backend:
    about = {"version": seeknal.__version__, "durability": durability(), "work": "set_node_state"}
    serve(complete, about)
