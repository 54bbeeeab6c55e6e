"""Run by a peer in its own environment, with the standard library alone: do as many as a line of the input says.

The first line out is a JSON object that describes the peer; the answer to each line in is the seconds it took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping


def serve(work: Callable[[int], object], about: Mapping[str, object]) -> None:
    """Describe the peer, then take turns until the input ends.

    Args:
        work: Does one piece of work; it is called with 0, 1, 2, ... over all turns.
        about: ``version``, and ``durability``: what it says of its own settings, as read back from what it uses.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # what the peer prints is no answer
    print(json.dumps(dict(about)), file=out, flush=True)
    done = 0
    for line in sys.stdin:
        times = int(line)
        begin = time.perf_counter()
        for number in range(done, done + times):
            work(number)
        print(time.perf_counter() - begin, file=out, flush=True)
        done += times
