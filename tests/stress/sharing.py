"""Workers that share the intervals and partitions of a node, and what must be true of it in the end.

Each writes down what it was about to do and what the store acknowledged, and nothing else of it is known when it is
killed. The ranges lie apart, so that what is completed shows each of them.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from seeknal.errors import LeaseLostError
from seeknal.model.intervals import Interval
from seeknal.model.records import Claim
from seeknal.state.backend import StateBackend, create_state_backend

RUN, NODE = "backfill", "load"
TTL_MS = 500
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

DIES, SLEEPS = "dies", "sleeps"


def wanted_intervals(count: int) -> list[Interval]:
    """Return every other hour."""
    return [Interval(BEGIN + 2 * number * HOUR, BEGIN + (2 * number + 1) * HOUR) for number in range(count)]


def wanted_partitions(count: int) -> list[str]:
    return [f"part {number}" for number in range(count)]


def share(
    kind: str, options: dict[str, Any], history: Path, count: int, seed: int, role: str, begin: Callable[[], object]
) -> None:
    """Do what is free until everything is done; with a role, kill or stop oneself in the middle of the first claims."""
    chance = random.Random(seed)
    with create_state_backend(kind, **options) as backend, history.open("a", buffering=1) as lines:
        backend.initialize()
        begin()
        is_done = False
        while not is_done:
            with backend.lock(RUN, history.name, 30_000, ttl_ms=TTL_MS) as lease:
                try:
                    while claims := [
                        *backend.claim_intervals(
                            RUN, NODE, wanted_intervals(count), lease=lease, limit=2, max_attempts=99
                        ),
                        *backend.claim_partitions(RUN, NODE, wanted_partitions(count), lease=lease, max_attempts=99),
                    ]:
                        for claim in claims:
                            backend.clock.sleep(chance.uniform(0, 0.003))  # the work
                            if role:
                                lines.write(f"{role} {claim.range_key}\n")
                                os.kill(os.getpid(), signal.SIGKILL if role == DIES else signal.SIGSTOP)
                                role = ""
                            _end(backend, claim, chance, lines)
                    is_done = not backend.list_claims(NODE)
                    backend.clock.sleep(0 if is_done else 0.02)
                except LeaseLostError:
                    lines.write("lost -\n")


def _end(backend: StateBackend, claim: Claim, chance: random.Random, lines: Any) -> None:
    ways: dict[str, Callable[[], object]] = {
        "completed": lambda: backend.complete_claim(claim),
        "failed": lambda: backend.fail_claim(claim, "it rains"),
        "released": lambda: backend.release_claim(claim),
    }
    (word,) = chance.choices(list(ways), [20, 1, 1])
    try:
        ways[word]()
    except LeaseLostError:
        lines.write(f"refused {claim.range_key}\n")
        raise
    lines.write(f"{word} {claim.range_key}\n")


def read(history: Path) -> list[tuple[str, str]]:
    """Return the words and ranges of a worker; a line that it was killed in is none."""
    whole = history.read_text().rpartition("\n")[0].splitlines() if history.exists() else []
    return [(word, what) for word, _, what in (line.partition(" ") for line in whole)]


def check(histories: list[list[tuple[str, str]]], backend: StateBackend, count: int) -> dict[str, int]:
    """Demand that every range is completed, none was twice, and nobody completed what he had slept over."""
    completed = [what for lines in histories for word, what in lines if word == "completed"]
    assert len(completed) == len(set(completed)), "a range was completed twice"
    done = backend.get_completed_intervals(NODE)
    assert [Interval(each.start, each.end) for each in done] == wanted_intervals(count)
    assert {each.partition for each in backend.list_partitions(NODE)} == set(wanted_partitions(count))
    assert backend.list_claims(NODE) == []
    late = 0
    for lines in histories:
        for number, (word, what) in enumerate(lines):
            if word == SLEEPS:
                outcome = next((then for then, which in lines[number + 1 :] if which == what), None)
                assert outcome == "refused", f"a worker that slept {outcome} {what}"
                late += 1
    died = sum(word == DIES for lines in histories for word, _ in lines)
    return {"acknowledged": len(completed), "late": late, "died": died}
