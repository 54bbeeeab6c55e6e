"""diskcache: one key of a cache for each node.

python diskcache_transitions.py FOLDER default|full
"""

from __future__ import annotations

import sys

import diskcache
from records import NOTE, node_of
from settings import of_sqlite, opened_by
from turns import serve

FULL = 2

folder, level = sys.argv[1:]
chosen = {"sqlite_synchronous": FULL} if level == "full" else {}
caches: list[diskcache.Cache] = []
connections = opened_by(lambda: caches.append(diskcache.Cache(folder, **chosen)))
(cache,) = caches


def complete(number: int) -> None:
    cache.set(f"run/{node_of(number)}", {"status": "success", "row_count": number, "note": NOTE})


complete(0)
serve(
    complete,
    {"version": diskcache.__version__, "durability": of_sqlite(connections[-1]), "work": "Cache.set of a dictionary"},
)
