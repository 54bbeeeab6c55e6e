"""Run by a peer in its own environment, with the standard library alone: do as many as a line of the input says.

The first line out is a JSON object that describes the peer; the answer to each line in is the seconds it took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping

_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the peer prints is no answer


def serve(work: Callable[[int], object], about: Mapping[str, object]) -> None:
    """Describe the peer, then take turns until the input ends.

    Args:
        work: Does one piece of work; it is called with 0, 1, 2, ... over all turns.
        about: ``version``; ``durability``: what it says of its own settings, as read back from what it uses; and
            ``work``: what it does.
    """

    def turn(numbers: range) -> None:
        for number in numbers:
            work(number)

    serve_turns(turn, about)


def serve_turns(turn: Callable[[range], object], about: Mapping[str, object]) -> None:
    """Do the same with a peer that does the pieces of a turn together.

    Args:
        turn: Does the work for some numbers; it is called with those of each turn.
        about: As for `serve`.
    """
    _tell(json.dumps(dict(about)))
    done = 0
    for line in sys.stdin:
        times = int(line)
        begin = time.perf_counter()
        turn(range(done, done + times))
        _tell(str(time.perf_counter() - begin))
        done += times


def _tell(line: str) -> None:
    print(line, file=_ANSWERS, flush=True)
