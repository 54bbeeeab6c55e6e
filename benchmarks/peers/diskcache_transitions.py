"""diskcache: one key of a cache for each node, at the durability of ours."""

from __future__ import annotations

import sys

import diskcache
from turns import serve

cache = diskcache.Cache(sys.argv[1], sqlite_synchronous=2)
cache.reset("sqlite_synchronous", 2)
((mode,),) = cache._sql("PRAGMA journal_mode").fetchall()
((level,),) = cache._sql("PRAGMA synchronous").fetchall()
serve(
    lambda number: cache.set("run/node 5", {"status": "running", "row_count": number, "metadata": "x" * 200}),
    {"version": diskcache.__version__, "durability": f"SQLite, journal_mode={mode}, synchronous={level}"},
)
