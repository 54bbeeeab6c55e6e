"""Where random programs run: stores of this machine, and of the servers that there are.

A place is given for one program: how to open an instance on its store, and how its leases age.
"""

import os
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from seeknal.state.backend import create_state_backend
from seeknal.state.memory import MemoryStateBackend, MemoryStore

COST = {"postgresql": 10, "mysql": 12, "libsql": 25}
"""How many times as long a program takes on a server as on a store of this machine: so many fewer are run."""

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
PATIENCE_S = 0 if IS_LONG else 120


@contextmanager
def in_a_directory(opened, clock, **options):
    """Give a store of this machine, whose leases the clock itself ages."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        yield partial(opened(directory), clock=clock, **options), lambda seconds: None


@contextmanager
def on_a_server(stores, clock, **options):
    """Give one of the emptied stores of a server, whose clock goes its own way."""
    with stores.one() as store:
        yield partial(create_state_backend, "database", clock=clock, **store.options, **options), store.age_leases


def open_memory(directory):
    return partial(MemoryStateBackend, MemoryStore())


def open_file(directory):
    return partial(create_state_backend, "file", base_path=f"{directory}/target")


def open_file_that_checkpoints_often(directory):
    return partial(open_file(directory), checkpoint_bytes=200)


def open_sqlite(directory):
    return partial(create_state_backend, "database", db_path=f"{directory}/state.db")


OPENED = [open_memory, open_file, open_file_that_checkpoints_often, open_sqlite]
"""Ways to a store of this machine: given a directory, they return what opens an instance."""
