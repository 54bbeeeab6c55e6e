"""Which file systems a journal must not live on.

Locks and the order of writes do not hold between the clients of a network file system: two of them can
append to one journal at once. Such a path is refused before anything is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from seeknal.errors import BackendUnavailableError

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs",
     "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs"}
)  # fmt: skip
"""Types, as mounts name them, of file systems that machines share. Source: mount(8)."""

_ESCAPE = re.compile(r"\\([0-7]{3})")
"""Blanks, tabs, newlines and backslashes stand as octal escapes; everything else as it is."""

MOUNTS = Path("/proc/self/mountinfo")


def file_system_type(path: Path, mountinfo: str) -> str | None:
    """Return the type of the file system that holds ``path``, or ``None`` if no mount matches.

    Args:
        path: Absolute and resolved.
        mountinfo: The text of ``/proc/self/mountinfo``; its format is in proc_pid_mountinfo(5).
    """
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = Path(_ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        if path == point or point in path.parents:
            depth = len(point.parts)
            if best is None or depth >= best[0]:
                best = (depth, right.split(" ")[0])
    return best[1] if best else None


def refuse_network_file_system(path: Path) -> None:
    """Raise if ``path`` lies on a network file system; where the system does not tell, do nothing.

    Raises:
        BackendUnavailableError: It does.
    """
    try:
        mountinfo = MOUNTS.read_text()
    except OSError:
        return  # not Linux: there is nothing to ask, and a local disk is the rule
    kind = file_system_type(Path(os.path.realpath(path)), mountinfo)
    if kind in NETWORK_FILE_SYSTEMS:
        raise BackendUnavailableError(
            f"{path} lies on a network file system ({kind}), where file locks do not hold between machines",
            hint="Keep the file store on a local disk, or use the database backend to share state between machines.",
        )
