"""Processes that change the completed intervals of one node, and one that looks on; see `interval_history`.

They go on until the file ``stop`` is in their folder: they share nothing that one who is killed could leave locked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from tests.stress.interval_history import Change, History, Line, Op, Pen, Read, applied, now_ns, pairs_of, ticks_of

from seeknal.state.backend import StateBackend, create_state_backend

HOT = 12
"""So many ticks each owner changes again and again; each that follows, once and for all."""

WIDTH = 60
"""So many ticks everybody changes where nobody owns any."""


class Scene(msgspec.Struct, frozen=True):
    """A node of a store, a folder for what is told of it, and how many change it."""

    kind: str
    options: dict[str, Any]
    folder: Path
    node: str
    count: int

    @contextmanager
    def opened(self) -> Iterator[StateBackend]:
        """Open an instance of its own."""
        with create_state_backend(self.kind, **self.options) as backend:
            backend.initialize()
            yield backend

    def history(self, number: int) -> Path:
        return self.folder / f"history-{number}"

    def run(self, number: int) -> str:
        """Return the run in which a worker completes."""
        return f"run {number}"

    @property
    def is_over(self) -> bool:
        return (self.folder / "stop").exists()

    def stop(self) -> None:
        (self.folder / "stop").touch()

    def complaints(self) -> str:
        """Return what processes found wrong, or failed with."""
        return "; ".join(path.read_text() for path in sorted(self.folder.glob("complaint-*")))

    @contextmanager
    def complaining(self, who: str) -> Iterator[None]:
        """Leave the error that ends a process for its parent."""
        try:
            yield
        except BaseException as error:
            (self.folder / f"complaint-{who}").write_text(f"{who}: {type(error).__name__}: {error}")
            raise


# ---- those that change ----


def stripe(scene: Scene, number: int, seed: int, begin: Callable[[], object]) -> None:
    """Complete and restate single ticks, those with ``t % count == number``, and look at them now and then."""
    program = _Stripe(number, scene.count, seed)
    with (
        scene.complaining(f"worker {number}"),
        scene.opened() as backend,
        scene.history(number).open("wb") as lines,
    ):
        pen = Pen(lines)

        def look(expected: set[int], when: str) -> None:
            done = ticks_of(pairs_of(backend.get_completed_intervals(scene.node)))
            wrong = {tick for tick in done if tick % scene.count == number} ^ expected
            assert not wrong, f"{when} its owner was shown these ticks as they never were: {sorted(wrong)[:9]}"

        begin()
        while not scene.is_over:
            op = program.next_op()
            before, after = program.done, program.after(op)
            looks = program.chance.random() < 0.4
            pen.write(Line(began=op))
            carry_out(backend, scene, number, op, (lambda: look(after, "in a transaction")) if looks else None)  # noqa: B023
            pen.write(Line(ended_ns=now_ns()))
            program.done = after
            if looks:
                look(program.done, f"after a change of {sorted(before ^ after)}")


class _Stripe:
    """What the owner of a stripe does, made from a seed."""

    def __init__(self, number: int, count: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.done: set[int] = set()
        self._number = number
        self._count = count
        self._next = HOT

    def next_op(self) -> Op:
        chance = self.chance
        if chance.random() < 0.3:
            self._next += 1
            values = chance.choice([[True], [True], [True], [True, False], [False, True]])
            return Op(changes=[self._change(self._next, value) for value in values], is_last=True, before_ns=now_ns())
        changes = [self._hot() for _ in range(chance.choice([1, 1, 1, 2, 4]))]
        undone = [self._hot() for _ in range(chance.choice([0, 0, 0, 0, 1, 3]))]
        if undone and chance.random() < 0.3:
            changes = []
        return Op(changes=changes, undone=undone, before_ns=now_ns())

    def after(self, op: Op) -> set[int]:
        """Return its own ticks that are completed after an operation."""
        return applied([Op(changes=[Change(True, tick, tick + 1) for tick in self.done]), op])

    def _hot(self) -> Change:
        return self._change(self.chance.randrange(HOT), self.chance.random() < 0.6)

    def _change(self, nth: int, completes: bool) -> Change:
        tick = nth * self._count + self._number
        return Change(completes, tick, tick + 1)


def overlap(scene: Scene, number: int, seed: int, begin: Callable[[], object]) -> None:
    """Complete and restate ranges of ticks that everybody changes; look at them now and then."""
    chance = random.Random(seed)

    def any_range() -> Change:
        first = chance.randrange(WIDTH)
        return Change(chance.random() < 0.5, first, min(WIDTH, first + chance.choice([1, 1, 2, 5, 12])))

    with (
        scene.complaining(f"worker {number}"),
        scene.opened() as backend,
        scene.history(number).open("wb") as lines,
    ):
        pen = Pen(lines)
        begin()
        while not scene.is_over:
            changes = [any_range() for _ in range(chance.choice([1, 1, 1, 2, 3]))]
            undone = [any_range() for _ in range(chance.choice([0, 0, 0, 1]))]
            op = Op(changes=changes, undone=undone, before_ns=now_ns())
            pen.write(Line(began=op))
            carry_out(backend, scene, number, op)
            pen.write(Line(ended_ns=now_ns()))
            if chance.random() < 0.3:
                pen.write(Line(saw=seen(backend, scene.node)))


class _UndoneError(Exception):
    """Rolls a transaction back."""


def carry_out(
    backend: StateBackend, scene: Scene, number: int, op: Op, look: Callable[[], object] | None = None
) -> None:
    """Do what an operation of a worker says; ``look`` is called in its transaction, once all that stays is done."""

    def change(each: Change) -> None:
        if each.completes:
            backend.add_completed_interval(scene.run(number), scene.node, each.start, each.end)
        else:
            backend.restate_intervals(scene.node, each.start, each.end)

    if len(op.changes) == 1 and not op.undone:
        change(op.changes[0])
        return
    with suppress(_UndoneError), backend.transaction():
        half = len(op.changes) // 2
        for each in op.changes[:half]:
            change(each)
        if op.undone:
            with suppress(_UndoneError), backend.transaction():
                for each in op.undone:
                    change(each)
                raise _UndoneError
        for each in op.changes[half:]:
            change(each)
        if look is not None:
            look()
        if not op.changes:
            for each in op.undone:
                change(each)
            raise _UndoneError


# ---- the one that looks on ----


def seen(backend: StateBackend, node: str) -> Read:
    """Return what the store shows, and when."""
    before_ns = now_ns()
    completed = backend.get_completed_intervals(node)
    after_ns = now_ns()
    return Read(spans=pairs_of(completed), before_ns=before_ns, after_ns=after_ns)


def watch(scene: Scene, begin: Callable[[], object]) -> None:
    """Read as long as others work: each read is canonical, and shows all that was settled before it began."""
    histories = [History(scene.history(number)) for number in range(scene.count)]
    values: dict[bool, set[int]] = {True: set(), False: set()}
    reads = 0
    with scene.complaining("reader"), scene.opened() as backend:
        begin()
        is_over = False
        while not is_over:
            is_over = scene.is_over  # and then once more
            for history in histories:
                for op in history.read_on():
                    if op.is_last:
                        last = op.changes[-1]
                        values[last.completes].add(last.first)
            done = ticks_of(pairs_of(backend.get_completed_intervals(scene.node)))
            lost, revived = values[True] - done, values[False] & done
            assert not lost, f"these ticks were completed for good, and are not: {sorted(lost)[:9]}"
            assert not revived, f"these ticks were restated for good, and are completed: {sorted(revived)[:9]}"
            reads += 1
            backend.clock.sleep(0.003)  # leaves the processors to those who work
    (scene.folder / "reads").write_text(f"{reads} {sum(map(len, values.values()))}")
