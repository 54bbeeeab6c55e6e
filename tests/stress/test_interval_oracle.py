"""Many processes complete and restate ticks of one node: in the end it is exactly the union and difference of sets."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import KINDS
from tests.processes import PROCESSES
from tests.stress.interval_history import History, check_overlaps, check_provenance, check_stripes
from tests.stress.interval_workers import WIDTH, Scene, overlap, seen, stripe, watch

PATIENCE_S = 50
"""For what a process does at last, after it was told to stop, or without anybody in its way."""

FREEZE_S = 0.05
LEAST_FREEZES = 3


class Crowd:
    """Processes that change one node; some are killed in the middle of it, and some are frozen for a while.

    Args:
        scene: Where.
        work: What each of them does.
        reader: What one more does, that changes nothing.
    """

    def __init__(self, scene: Scene, work: Callable[..., None], reader: Callable[..., None] | None = None) -> None:
        scene.folder.mkdir()
        with scene.opened() as backend:
            for number in range(scene.count):
                if not backend.exists(scene.run(number)):
                    backend.create_run(scene.run(number))
        self._barrier = PROCESSES.Barrier(scene.count + (reader is not None))  # lives as long as somebody may take it
        begin = self._barrier.wait
        self.scene = scene
        self.histories = [History(scene.history(number)) for number in range(scene.count)]
        self.workers = [
            PROCESSES.Process(target=work, args=(scene, number, random.getrandbits(32), begin))
            for number in range(scene.count)
        ]
        self.others = [] if reader is None else [PROCESSES.Process(target=reader, args=(scene, begin))]
        self.killed: set[int] = set()
        self.freezes = 0

    def run(self, *, least: int, seconds: float = 0, victims: int = 0, freezes: bool = False) -> None:
        """Let them work for so long, and until each has had so many acknowledged and everything else has happened.

        Args:
            least: How many acknowledgements each of them waits for.
            seconds: How long they work at least.
            victims: How many are killed.
            freezes: Whether some are frozen.

        Raises:
            AssertionError, pytest.fail.Exception: One of them failed, found something wrong, or hangs.
        """
        everybody = [*self.workers, *self.others]
        for process in everybody:
            process.start()
        try:
            deaths = {number: random.randrange(5, least) for number in range(victims)}
            begun = time.monotonic()
            while (
                time.monotonic() < begun + seconds
                or deaths
                or (freezes and self.freezes < LEAST_FREEZES)
                or not self._have_done(least)
            ):
                assert time.monotonic() < begun + seconds + PATIENCE_S, "the workers do not get on"
                for number in [number for number, after in deaths.items() if self._acknowledged(number) >= after]:
                    del deaths[number]
                    self.workers[number].kill()
                    self.killed.add(number)
                if freezes and random.random() < 0.3:
                    self._freeze()
                self.workers[-1].join(0.01)
                self._demand_that_they_live()
        finally:
            self.scene.stop()
            for process in everybody:
                process.join(PATIENCE_S)
        self._demand_that_nobody_complains()
        for number, process in enumerate(everybody):
            expected = -signal.SIGKILL if number in self.killed else 0
            assert process.exitcode == expected, f"process {number} ended with {process.exitcode}"
        for history in self.histories:
            history.read_on()

    def _demand_that_they_live(self) -> None:
        self._demand_that_nobody_complains()
        for number, process in enumerate([*self.workers, *self.others]):
            assert number in self.killed or process.exitcode is None, f"process {number} ended with {process.exitcode}"

    def _demand_that_nobody_complains(self) -> None:
        if complaints := self.scene.complaints():
            pytest.fail(complaints, pytrace=False)

    def _have_done(self, least: int) -> bool:
        """Return whether all who live have done so much."""
        return all(number in self.killed or self._acknowledged(number) >= least for number in range(self.scene.count))

    def _acknowledged(self, number: int) -> int:
        self.histories[number].read_on()
        return len(self.histories[number].acknowledged)

    def _freeze(self) -> None:
        """Stop a worker for a moment, wherever it is; the others may have to wait for it."""
        number = random.choice([number for number in range(self.scene.count) if number not in self.killed])
        victim = self.workers[number]
        if victim.is_alive() and victim.pid is not None:
            os.kill(victim.pid, signal.SIGSTOP)
            victim.join(FREEZE_S)
            os.kill(victim.pid, signal.SIGCONT)
            self.freezes += 1


@pytest.fixture(params=("file", "sqlite", *KINDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """Return what opens a new store of each kind; that of the file store writes a checkpoint every moment."""
    if request.param == "file":
        return "file", {"base_path": tmp_path / "t", "checkpoint_bytes": 10_000}
    if request.param == "sqlite":
        return "database", {"db_path": tmp_path / "s.db"}
    return "database", request.getfixturevalue("emptied_store")(request.param).options


def stripes(
    store: tuple[str, dict[str, Any]], folder: Path, *, count: int, node: str = "load", **how: Any
) -> dict[str, int]:
    """Let the owners of striped ticks work, with a reader beside them; return what was counted."""
    scene = Scene(*store, folder / node, node, count)
    crowd = Crowd(scene, stripe, watch)
    crowd.run(**how)
    with scene.opened() as backend:
        counted = check_stripes(backend.get_completed_intervals(node), crowd.histories)
        check_provenance(backend.get_interval_provenance(node), crowd.histories, scene.run)
    reads, settled = map(int, (scene.folder / "reads").read_text().split())
    return counted | {"reads": reads, "settled": settled, "died": len(crowd.killed), "freezes": crowd.freezes}


def overlaps(store: tuple[str, dict[str, Any]], folder: Path, *, count: int, **how: Any) -> dict[str, int]:
    """Let processes change the same ticks; return what was counted."""
    scene = Scene(*store, folder / "load", "load", count)
    crowd = Crowd(scene, overlap)
    crowd.run(**how)
    with scene.opened() as backend:
        last = seen(backend, scene.node)
    ops = [op for history in crowd.histories for op in history.acknowledged]
    reads = [read for history in crowd.histories for read in history.reads]
    counted = check_overlaps([last], ops, range(WIDTH))
    return check_overlaps([*reads, last], ops, range(WIDTH)) | {"determined at last": counted["determined"]}


def test_ticks_whose_neighbours_belong_to_others_end_as_owners_left_them_who_are_frozen_and_killed(
    store, tmp_path: Path
) -> None:
    counted = stripes(store, tmp_path, count=4, least=25, victims=1, freezes=True)
    assert counted["died"] == 1, counted
    assert all(counted[what] for what in ("completed", "reads", "settled", "freezes")), counted


def test_ranges_that_everybody_changes_show_no_write_that_was_overwritten(store, tmp_path: Path) -> None:
    counted = overlaps(store, tmp_path, count=4, least=25)
    assert all(counted.values()), counted


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_eight_owners_of_striped_ticks_for_a_minute(store, tmp_path: Path, capsys) -> None:
    counted = stripes(store, tmp_path, count=8, least=100, seconds=60, freezes=True)
    with capsys.disabled():
        print(f"\n{store[1]}: {counted}")


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_eight_processes_change_the_same_ranges_for_a_minute(store, tmp_path: Path, capsys) -> None:
    counted = overlaps(store, tmp_path, count=8, least=100, seconds=60, freezes=True)
    with capsys.disabled():
        print(f"\n{store[1]}: {counted}")


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_owners_are_killed_again_and_again_for_a_minute(store, tmp_path: Path, capsys) -> None:
    in_flight = rounds = 0
    begun = time.monotonic()
    while time.monotonic() < begun + 60:
        rounds += 1
        counted = stripes(store, tmp_path, count=8, node=f"load {rounds}", least=30, victims=6, freezes=True)
        in_flight += counted["in flight"]
    with capsys.disabled():
        print(f"\n{store[1]}: {in_flight} operations were in flight in {6 * rounds} processes that were killed")
    assert in_flight, "nobody was killed in the middle of anything"
