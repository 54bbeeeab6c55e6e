"""Run a command beside new servers: ``python -m tests.servers COMMAND...``.

Each kind that the environment does not name is started for this command alone, and named to it in
``SEEKNAL_TEST_POSTGRES_URL``, ``SEEKNAL_TEST_MYSQL_URL`` and ``SEEKNAL_TEST_LIBSQL_URL``. Their data is where temporary
files are, and gone in the end. So neither what somebody left on a server of this machine, nor who else uses it, has
to do with the outcome.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack

from tests.servers.private import PROCESSES
from tests.servers.process import ServerUnavailableError
from tests.servers.stores import SERVERS


def main(command: list[str]) -> int:
    """Run a command beside the servers that are not there, and return its exit code."""
    if not command:
        print("usage: python -m tests.servers COMMAND...", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    environment = dict(os.environ)
    with ExitStack() as stack:
        for kind, server in SERVERS.items():
            if not environment.get(server.variable):
                try:
                    process = PROCESSES[kind]()
                except ServerUnavailableError as error:
                    print(f"no {kind} server: {error}; or name one in {server.variable}", file=sys.stderr)
                    return 1
                stack.callback(process.discard)
                process.start()
                environment[server.variable] = process.url
        return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
