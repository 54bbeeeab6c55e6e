"""What several processes did to one store at once, and what must be true of it.

Each worker writes down every operation that the store acknowledged, with the machine's ticks before and
after it. The checker then knows nothing but these histories and what the store says at the end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import msgspec

from seeknal.clock import SystemClock
from seeknal.errors import LeaseLostError, LockHeldError, StaleVersionError
from seeknal.state.backend import StateBackend, create_state_backend

RUN = "stress"
SHARED = ["a", "b", "c"]
TTL_MS = 300


class Event(msgspec.Struct, kw_only=True):
    """One acknowledged operation."""

    kind: str
    key: str
    before_us: int
    after_us: int
    version: int = 0
    token: int = 0
    mark: str = ""


def work(kind: str, options: dict[str, Any], folder: Path, name: str, seed: int, seconds: float) -> None:
    """Hammer the store for a while, then close it; the history goes to ``folder``."""
    clock, chance = SystemClock(), random.Random(seed)
    end = clock.ticks_us() + int(seconds * 1_000_000)
    with create_state_backend(kind, **options) as backend, (folder / name).open("w") as history:
        backend.initialize()
        number = 0
        while clock.ticks_us() < end:
            number += 1
            mark = f"{name}-{number}"
            operation = chance.choice([_patch, _patch, _compare_and_set, _move, _guarded])
            for event in operation(backend, clock, chance, mark):
                history.write(json.dumps(msgspec.to_builtins(event)) + "\n")
                history.flush()


def _patch(backend: StateBackend, clock: SystemClock, chance: random.Random, mark: str) -> Iterable[Event]:
    key, before = chance.choice(SHARED), clock.ticks_us()
    state = backend.set_node_state(RUN, key, metadata={mark: True})
    yield Event(kind="write", key=key, before_us=before, after_us=clock.ticks_us(), version=state.version, mark=mark)


def _compare_and_set(backend: StateBackend, clock: SystemClock, chance: random.Random, mark: str) -> Iterable[Event]:
    key, before = chance.choice(SHARED), clock.ticks_us()
    seen = backend.get_node_state(RUN, key)
    try:
        state = backend.set_node_state(RUN, key, expected_version=seen.version if seen else 0, metadata={mark: True})
    except StaleVersionError:
        return
    yield Event(kind="write", key=key, before_us=before, after_us=clock.ticks_us(), version=state.version, mark=mark)


def _move(backend: StateBackend, clock: SystemClock, chance: random.Random, mark: str) -> Iterable[Event]:
    """Move one unit between two accounts in a transaction: their sum never changes."""
    source, target = chance.sample(["account 1", "account 2", "account 3"], 2)
    before = clock.ticks_us()

    def transfer() -> None:
        for node_id, amount in ((source, -1), (target, 1)):
            state = backend.get_node_state(RUN, node_id)
            assert state is not None
            backend.set_node_state(RUN, node_id, metadata={"balance": state.metadata["balance"] + amount})

    backend.run_transaction(transfer, timeout_ms=60_000)
    yield Event(kind="move", key=f"{source}>{target}", before_us=before, after_us=clock.ticks_us(), mark=mark)


def _guarded(backend: StateBackend, clock: SystemClock, chance: random.Random, mark: str) -> Iterable[Event]:
    """Write twice under a lease; a holder that was frozen in between must be refused."""
    try:
        with backend.lock(RUN, "guarded", timeout_ms=chance.choice([0, 50, 500]), ttl_ms=TTL_MS) as lease:
            granted = clock.ticks_us()
            yield Event(kind="grant", key="guarded", before_us=granted, after_us=granted, token=lease.token, mark=mark)
            for _ in range(chance.randint(1, 4)):
                with backend.transaction(lease=lease):
                    state = backend.set_node_state(RUN, "guarded", row_count=lease.token)
                written = clock.ticks_us()
                yield Event(
                    kind="guarded", key="guarded", before_us=granted, after_us=written,
                    version=state.version, token=lease.token, mark=mark,
                )  # fmt: skip
            held_until = clock.ticks_us()
            if backend.release_lock(RUN, "guarded"):
                yield Event(
                    kind="held", key="guarded", before_us=granted, after_us=held_until, token=lease.token, mark=mark
                )
    except (LockHeldError, LeaseLostError, StaleVersionError):
        return


def prepare(backend: StateBackend) -> None:
    """Fill a store for the workers."""
    backend.create_run(RUN)
    for number in (1, 2, 3):
        backend.set_node_state(RUN, f"account {number}", metadata={"balance": 1000})


def read_histories(folder: Path) -> list[Event]:
    """Return all events of all workers; a last line that a killed worker did not finish is left out."""
    events = []
    for path in sorted(folder.iterdir()):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                events.append(msgspec.convert(json.loads(line), Event))
    return events


def check(events: list[Event], backend: StateBackend) -> dict[str, int]:
    """Raise `AssertionError` if the histories contradict the store or each other; return what was counted."""
    for key in SHARED:
        writes = [event for event in events if event.kind == "write" and event.key == key]
        state = backend.get_node_state(RUN, key)
        marks = set(state.metadata) if state else set()
        assert {event.mark for event in writes} <= marks, f"an acknowledged patch of {key} was lost"
        versions = [event.version for event in writes]
        assert len(set(versions)) == len(versions), f"two writes of {key} were given the same version"
        finished = iter(sorted(writes, key=lambda event: event.after_us))
        done, highest = next(finished, None), 0
        for write in sorted(writes, key=lambda event: event.before_us):
            while done is not None and done.after_us < write.before_us:
                highest, done = max(highest, done.version), next(finished, None)
            assert write.version > highest, f"versions of {key} went back"
    balance = sum(backend.get_node_state(RUN, f"account {n}").metadata["balance"] for n in (1, 2, 3))  # type: ignore[union-attr]
    assert balance == 3000, "a transaction was torn, or an update was lost"

    tokens = [event.token for event in events if event.kind == "grant"]
    assert len(set(tokens)) == len(tokens), "a token was given out twice"
    by_worker = groupby((event for event in events if event.kind == "grant"), lambda event: event.mark.split("-")[0])
    for _, of_one in by_worker:
        in_its_order = [event.token for event in of_one]
        assert in_its_order == sorted(in_its_order), "a token went back"
    held = sorted((event for event in events if event.kind == "held"), key=lambda event: event.before_us)
    for earlier, later in pairwise(held):
        assert earlier.after_us <= later.before_us, "a lock was held twice at once"
    guarded = sorted((event for event in events if event.kind == "guarded"), key=lambda event: event.version)
    written = [event.token for event in guarded]
    assert written == sorted(written), "a write was accepted from a lease after its successor's"
    return {kind: sum(event.kind == kind for event in events) for kind in ("write", "move", "grant", "guarded", "held")}
