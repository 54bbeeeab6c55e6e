"""The processes that tests start: children of one server, which has imported what they need.

There is one such server in a process of pytest. What it imports is settled at its start, so it is said here for all
tests: a child that imports its test's module by itself takes four times as long to begin.
"""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["pytest", "tests.conftest", "tests.servers.stores", "seeknal.state.testing.crashes"]
    + ["seeknal.state.file.backend", "seeknal.state.sql.backend", "seeknal.state.backup.restoring"]
    + [f"seeknal.state.sql.dialects.{name}" for name in ("sqlite", "postgresql", "mysql", "libsql")]
    + ["alembic.command", "psycopg", "pymysql", "httpx"]
)
