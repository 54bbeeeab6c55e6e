"""Where things stand under a base path, and which file belongs to an id.

::

    run_state.json          the latest run, for people and tools
    run_state/
      store.json            the store's identity and the number of its current journal
      journal-<n>.log       every commit since checkpoint n
      index-<n>.json        all runs, and the history of every node, as of checkpoint n
      runs/<id>.json        one run with its nodes
      nodes/<id>.json       what one node has completed: intervals and partitions
      log.json              what people and commands did to the store
      lock, view.lock       locked while a commit, or run_state.json, is written
      snapshot-*.tmp/       links to the files that a backup or an export reads, with a lock of its own
      restored.log.tmp      what a restore writes, and keeps locked, until it becomes the journal
"""

from __future__ import annotations

import hashlib
from pathlib import Path

MAX_NAME_BYTES = 120
"""Well under the 255 bytes that file systems allow, with room for suffixes."""


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")


class Layout:
    """The paths of one file store."""

    def __init__(self, base_path: Path) -> None:
        self.base = base_path
        self.view = base_path / "run_state.json"
        self.backup = base_path / "run_state.json.bak"
        self.directory = base_path / "run_state"
        self.store = self.directory / "store.json"
        self.lock = self.directory / "lock"
        self.view_lock = self.directory / "view.lock"
        self.runs = self.directory / "runs"
        self.nodes = self.directory / "nodes"
        self.log = self.directory / "log.json"
        self.restored = self.directory / "restored.log.tmp"

    def snapshots(self) -> list[Path]:
        """Return the copies that are being read, or were when their process was killed; each is laid out as a store."""
        return list(self.directory.glob("snapshot-*.tmp"))

    def journal(self, generation: int) -> Path:
        """Return the journal that follows a checkpoint."""
        return self.directory / f"journal-{generation:08}.log"

    def index(self, generation: int) -> Path:
        """Return the index of a checkpoint."""
        return self.directory / f"index-{generation:08}.json"

    def run(self, run_id: str) -> Path:
        """Return the file of a run."""
        return self.runs / f"{file_name(run_id)}.json"

    def node(self, node_id: str) -> Path:
        """Return the file of what a node has completed."""
        return self.nodes / f"{file_name(node_id)}.json"


def file_name(an_id: str) -> str:
    """Return a file name for an id: readable, harmless, and another one for every other id.

    Lower-case letters, digits, ``_`` and ``-`` stand for themselves and everything else is percent-encoded,
    capitals too, since some file systems fold case. A long name is cut and gets the SHA-256 of the id.
    """
    quoted = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in an_id.encode())
    if len(quoted) <= MAX_NAME_BYTES:
        return quoted
    return f"{quoted[:40]}~{hashlib.sha256(an_id.encode()).hexdigest()}"
