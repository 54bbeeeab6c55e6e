"""What several processes did to the completed intervals of one node, and what must be true of it.

Time is cut into ticks of five minutes, and a set of ticks is a plain set of numbers: the oracle merges and splits
nothing. Each worker writes down what it was about to do, and then that the store acknowledged it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import IO

import msgspec

from seeknal.model.intervals import Interval
from seeknal.model.records import CompletedInterval, IntervalProvenance

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(minutes=5)


class Change(msgspec.Struct, frozen=True, array_like=True):
    """The ticks from ``first`` to before ``behind`` are completed, or restated."""

    completes: bool
    first: int
    behind: int

    @property
    def start(self) -> datetime:
        return BEGIN + self.first * TICK

    @property
    def end(self) -> datetime:
        return BEGIN + self.behind * TICK


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """What takes effect at once: a change, or a transaction of several.

    Attributes:
        changes: What stays, in order.
        undone: What is done in between and rolled back again: to a savepoint, or as the whole transaction.
        is_last: Nobody touches these ticks ever after.
    """

    changes: list[Change]
    undone: list[Change] = []
    is_last: bool = False
    before_ns: int = 0
    after_ns: int = 0


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody was shown; ``spans`` are pairs of ticks like those of a change."""

    spans: list[tuple[int, int]]
    before_ns: int
    after_ns: int


class Line(msgspec.Struct, omit_defaults=True):
    """A line of a history: an operation began, the last one has ended, or something was seen."""

    began: Op | None = None
    ended_ns: int = 0
    saw: Read | None = None


# ---- histories ----


class Pen:
    """Writes a history so that nothing of it is lost with its process."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._lines = lines

    def write(self, line: Line) -> None:
        self._lines.write(msgspec.json.encode(line) + b"\n")
        self._lines.flush()


class History:
    """Reads a history, also while it is written; the line in which its process was killed is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acknowledged: list[Op] = []
        self.reads: list[Read] = []
        self.in_flight: Op | None = None
        self._at = 0

    def read_on(self) -> list[Op]:
        """Return the operations that were acknowledged since."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._at)
            whole, end, _ = file.read().rpartition(b"\n")
        self._at += len(whole + end)
        known = len(self.acknowledged)
        for text in whole.splitlines():
            line = msgspec.json.decode(text, type=Line)
            if line.began is not None:
                self.in_flight = line.began
            elif line.saw is not None:
                self.reads.append(line.saw)
            else:
                assert self.in_flight is not None
                self.acknowledged.append(msgspec.structs.replace(self.in_flight, after_ns=line.ended_ns))
                self.in_flight = None
        return self.acknowledged[known:]


# ---- sets of ticks ----


def spans_of(ticks: Iterable[int]) -> list[Interval]:
    """Return the only canonical list of these ticks."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(ticks)), lambda pair: pair[1] - pair[0])]
    return [Interval(BEGIN + run[0][1] * TICK, BEGIN + (run[-1][1] + 1) * TICK) for run in runs]


def pairs_of(completed: Sequence[CompletedInterval | Interval]) -> list[tuple[int, int]]:
    """Return completed intervals as pairs of ticks, the second behind the last.

    Raises:
        AssertionError: They are not canonical (sorted, apart, not empty), or a bound is none of a tick.
    """
    for each in completed:
        for bound in (each.start, each.end):
            assert not (bound - BEGIN) % TICK, f"no tick ever began there: {each}"
    pairs = [((each.start - BEGIN) // TICK, (each.end - BEGIN) // TICK) for each in completed]
    for first, behind in pairs:
        assert first < behind, f"an interval is empty: ticks {first} to {behind}"
    for left, right in pairwise(pairs):
        assert left[1] < right[0], f"intervals are not sorted and apart: ticks {left}, {right}"
    return pairs


def ticks_of(pairs: Iterable[tuple[int, int]]) -> set[int]:
    return {tick for first, behind in pairs for tick in range(first, behind)}


def applied(ops: Iterable[Op]) -> set[int]:
    """Return the ticks that are completed after operations which ran one after the other."""
    done: set[int] = set()
    for op in ops:
        for change in op.changes:
            ticks = range(change.first, change.behind)
            done = done | {*ticks} if change.completes else done - {*ticks}
    return done


# ---- what must be true ----


def check_stripes(completed: Sequence[CompletedInterval | Interval], histories: Sequence[History]) -> dict[str, int]:
    """Demand exactly what the owners of the ticks left there; tick t belongs to history ``t % len(histories)``.

    Nobody else changes a tick, so its owner's acknowledged operations decide, in their order. The one that an owner was
    killed in either took effect, all of it, or did not.
    """
    stored = ticks_of(pairs_of(completed))
    left: set[int] = set()
    for number, history in enumerate(histories):
        own = {tick for tick in stored if tick % len(histories) == number}
        outcomes = [applied(history.acknowledged)]
        if history.in_flight is not None:
            outcomes.append(applied([*history.acknowledged, history.in_flight]))
        wrong = min((own ^ outcome for outcome in outcomes), key=len)
        assert not wrong, f"worker {number} did not leave these of its ticks as they are: {sorted(wrong)[:9]}"
        left |= own
    assert [Interval(each.start, each.end) for each in completed] == spans_of(left)
    return {
        "acknowledged": sum(len(history.acknowledged) for history in histories),
        "in flight": sum(history.in_flight is not None for history in histories),
        "completed": len(left),
    }


def check_provenance(
    parts: Sequence[IntervalProvenance], histories: Sequence[History], run_of: Callable[[int], str]
) -> None:
    """Demand that each completed tick is a part by itself, of its owner's run: its neighbours are of other runs."""
    ticks = [(part.start - BEGIN) // TICK for part in parts]
    for tick, part in zip(ticks, parts, strict=True):
        assert (part.start, part.end) == (BEGIN + tick * TICK, BEGIN + (tick + 1) * TICK), f"no tick is {part}"
        assert part.run_id == run_of(tick % len(histories)), f"tick {tick} is said to be of {part.run_id}"
    assert all(left < right for left, right in pairwise(ticks)), "the parts are not sorted and apart"
    check_stripes(spans_of(ticks), histories)


def check_overlaps(reads: Sequence[Read], ops: Sequence[Op], ticks: range) -> dict[str, int]:
    """Demand of each tick that each read shows what it may have held; return what was counted.

    Operation A precedes B if A had ended before B began. If the store is linearizable, all operations have an order
    that keeps this, in which each takes effect at once and a read shows what those before it made. Leave out what does
    not touch a tick, and the rest is still such an order: each tick by itself is a linearizable register of completed
    or not. There, a read shows the last write before it, which is one that precedes no other write that precedes the
    read. If all of those complete the tick, it must be completed; if all restate it, it must not be; else it may be
    either. So this is necessary. It is not sufficient: the ticks of one operation are looked at one by one.

    Source: M. Herlihy, J. Wing, "Linearizability: A Correctness Condition for Concurrent Objects", ACM Transactions on
    Programming Languages and Systems 12(3), 1990.
    """
    determined = 0
    shown = [ticks_of(read.spans) for read in reads]
    for tick in ticks:
        register = _Register(_writes_of(tick, ops))
        for read, done in zip(reads, shown, strict=True):
            assert register.may_show(tick in done, read), (
                f"tick {tick} was {'' if tick in done else 'not '}completed in a read that ended at {read.after_ns}; "
                f"the last writes of it were {register.last(5)}"
            )
            determined += not register.may_show(tick not in done, read)
    return {"operations": len(ops), "reads": len(reads), "determined": determined}


def _writes_of(tick: int, ops: Iterable[Op]) -> Iterator[tuple[int, int, bool]]:
    """Yield when writes of a tick ended and began, and whether they completed it; at first it is not."""
    yield 0, 0, False
    for op in ops:
        values = [change.completes for change in op.changes if change.first <= tick < change.behind]
        if values:
            yield op.after_ns, op.before_ns, values[-1]


class _Register:
    """The writes of one tick, in the order of their ends."""

    def __init__(self, writes: Iterable[tuple[int, int, bool]]) -> None:
        self._writes = sorted(writes)
        self._ends = [after for after, _, _ in self._writes]
        self._latest_begin = list(accumulate((before for _, before, _ in self._writes), max))
        self._of = {value: [write for write in self._writes if write[2] is value] for value in (True, False)}
        self._ends_of = {value: [after for after, _, _ in writes] for value, writes in self._of.items()}
        self._earliest_begin_from = {
            value: list(accumulate((before for _, before, _ in reversed(writes)), min))[::-1]
            for value, writes in self._of.items()
        }

    def may_show(self, value: bool, read: Read) -> bool:
        """Return whether a write of this value is among those of which a read may show one."""
        over = bisect_left(self._ends, read.before_ns)
        # Whatever ended before the last of those began that precede the read, was overwritten.
        place = bisect_left(self._ends_of[value], self._latest_begin[over - 1])
        begins = self._earliest_begin_from[value]
        return place < len(begins) and begins[place] <= read.after_ns

    def last(self, count: int) -> list[tuple[int, int, bool]]:
        return self._writes[-count:]


def now_ns() -> int:
    """Return nanoseconds that only grow, the same count in every process of this machine."""
    return time.monotonic_ns()
