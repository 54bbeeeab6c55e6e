"""Which ranges of a node are left: as functions of what the store and the names of files say."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.model.intervals import Interval, covers, intersect, subtract, union
from seeknal.model.pending import pending_intervals
from seeknal.model.schedule import as_schedule
from seeknal.pipeline.nodes import Node
from seeknal.runner.held import Held, Read, held_parts
from seeknal.runner.outputs import as_part, list_parts, part_file, unit_name
from seeknal.runner.ranges import Done, Ranges, Window, foreseen, holds, meets, owned_parts, plan_ranges

BEGIN, HOUR = datetime(2024, 1, 1, tzinfo=UTC), timedelta(hours=1)
TICKS = 10
NOW = BEGIN + TICKS * HOUR
MADE = "0123456789abcdef"


def hours(first: int, last: int) -> Interval:
    return Interval(BEGIN + first * HOUR, BEGIN + last * HOUR)


def told(spans) -> list[tuple[int, int]]:
    """Return spans as hours since the beginning."""
    return [((each.start - BEGIN) // HOUR, (each.end - BEGIN) // HOUR) for each in spans]


def hourly(**fields) -> Node:
    known = {"kind": "transform", "name": "n", "schedule": "@hourly", "start": BEGIN}
    return Node(file="n.yml", content="SELECT 1", **known | fields)


def part_of(unit, run: str, definition: str = "d", inputs=(), **fields):
    made = Read(inputs).made(definition, unit)
    return as_part(part_file(unit, made, run, **{"rows": 1, "size": 10} | fields))


def completed(*batches, definition: str = "d", inputs=()) -> Done:
    """Return what is known once runs have computed batches: ``(run, first hour, last hour)``."""
    units = [(run, hours(first, last)) for run, first, last in batches]
    return Done(
        spans=tuple((unit, run) for run, unit in units),
        parts=tuple(part_of(unit, run, definition, inputs) for run, unit in units),
    )


def planned(node: Node, done: Done = Done(), inputs=(), definition: str = "d", now=NOW, **asked) -> Ranges:  # noqa: B008
    return plan_ranges(node, done, definition, list(inputs), now=now, **asked)


def left(*arguments, **asked) -> list[tuple[int, int]]:
    return told(planned(*arguments, **asked).batches)


# ---- the names of parts ----

IDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=47)  # 190 bytes at most
INSTANTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC))
SPANS = st.tuples(INSTANTS, INSTANTS).map(lambda pair: Interval(min(pair), max(pair) + timedelta(microseconds=1)))


@given(unit=IDS | SPANS, rows=st.integers(0, 2**63), size=st.integers(0, 2**63))
def test_the_name_of_a_part_says_what_it_is(unit, rows, size):
    name = part_file(unit, MADE, "run_20240110_120000_ab12cd34", rows, size)
    part = as_part(name)
    assert part is not None
    assert (part.file, part.unit, part.made, part.rows, part.size) == (name, unit_name(unit), MADE, rows, size)
    assert part.span == (unit if isinstance(unit, Interval) else None)
    assert part.run_id == "run_20240110_120000_ab12cd34"
    assert len(name.encode()) <= 255
    assert not {"/", "\\", "\0", ":"} & set(name)


@given(one=IDS | SPANS, other=IDS | SPANS)
def test_two_ranges_never_have_one_name(one, other):
    assert (unit_name(one).casefold() == unit_name(other).casefold()) is (one == other)


@pytest.mark.parametrize("key", ["..", "a/b", "a.b.parquet", "=", "20240101T000000Z-20240102T000000Z", "x" * 190])
@pytest.mark.parametrize("run", ["r", "a.b", "../run", "R/1"])
def test_odd_keys_and_odd_runs_are_told_apart(key, run):
    part = as_part(part_file(key, MADE, run, 3, 4))
    assert (part.span, part.rows, part.size) == (None, 3, 4)
    done = Done(keys=((key, run),), parts=(part,))
    assert owned_parts(done) == (part,)
    assert owned_parts(Done(keys=((key, run + "x"),), parts=(part,))) == ()
    assert owned_parts(Done(keys=((key + "x", run),), parts=(part,))) == ()


@pytest.mark.parametrize(
    "name",
    [
        "transform%2en.parquet",
        ".n.123.abc.tmp",
        f"=a.{MADE}.1.10.r.parquet.tmp",
        f"=a.{MADE}.1.r.parquet",
        f"=a.{MADE[:15]}.1.10.r.parquet",
        f"20240101T00Z-20240102T00Z.{MADE}.1.10.r.parquet",
        "",
    ],
)
def test_what_is_no_part_is_none(name):
    assert as_part(name) is None


def test_only_parts_of_which_every_byte_is_there_are_listed(tmp_path):
    folder = tmp_path / "n"
    assert list_parts(folder) == []
    folder.mkdir()
    for unit, size, there in ((hours(2, 3), 5, 5), (hours(1, 2), 5, 5), (hours(3, 4), 5, 4), (hours(4, 5), 5, 6)):
        (folder / part_file(unit, MADE, "r", 1, size)).write_bytes(b"x" * there)
    (folder / part_file(hours(5, 5), MADE, "r", 0, 0)).touch()
    (folder / "notes.txt").write_text("mine")
    assert told(part.span for part in list_parts(folder)) == [(1, 2), (2, 3), (5, 5)]


# ---- spans ----

FEW = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=6).map(
    lambda pairs: union(hours(first, first + length) for first, length in pairs)
)


@given(spans=FEW, first=st.integers(0, 20), length=st.integers(1, 8))
def test_spans_meet_and_hold_as_the_algebra_of_intervals_says(spans, first, length):
    wanted = hours(first, first + length)
    assert meets(spans, wanted) is bool(intersect(spans, [wanted]))
    assert holds(spans, wanted) is covers(spans, wanted)


# ---- ticks ----


def test_what_touches_is_one_batch_and_what_is_done_is_left_out():
    node = hourly()
    assert left(node) == [(0, 10)]
    assert left(node, completed(("r1", 2, 3), ("r2", 6, 8))) == [(0, 2), (3, 6), (8, 10)]
    assert left(node, completed(("r1", 0, 10))) == []
    assert told(planned(node, completed(("r1", 2, 3))).valid) == [(2, 3)]


@pytest.mark.parametrize(
    ("size", "batches"),
    [(1, [(0, 1), (1, 2), (4, 5), (5, 6), (6, 7)]), (2, [(0, 2), (4, 6), (6, 7)]), (7, [(0, 2), (4, 7)])],
)
def test_a_batch_has_so_many_ticks_at_most_and_none_from_beyond_a_gap(size, batches):
    assert left(hourly(batch_size=size), completed(("r1", 2, 4), ("r1", 7, 10))) == batches


def test_processes_that_share_take_tick_by_tick_unless_the_node_says_otherwise():
    assert left(hourly(end=BEGIN + 3 * HOUR), is_shared=True) == [(0, 1), (1, 2), (2, 3)]
    assert left(hourly(end=BEGIN + 3 * HOUR, batch_size=2), is_shared=True) == [(0, 2), (2, 3)]


def test_the_ticks_that_a_lookback_does_again_are_computed_each_alone():
    node = hourly(lookback=2)
    assert left(node) == [(0, 8), (8, 9), (9, 10)]
    done = completed(("r1", 0, 8), ("r1", 8, 9), ("r1", 9, 10))
    assert left(node, done) == []
    plan = planned(node, done, now=NOW + HOUR)
    assert told(plan.batches) == [(9, 10), (10, 11)]
    assert (told(plan.lost), told(part.span for part in plan.live)) == ([(9, 10)], [(0, 8), (8, 9)])


def test_what_was_computed_together_with_a_tick_of_the_lookback_is_done_again_with_it():
    plan = planned(hourly(lookback=1), completed(("r1", 0, 6), ("r1", 6, 10)), now=NOW)
    assert plan.batches == ()
    plan = planned(hourly(lookback=2), completed(("r1", 0, 6), ("r1", 6, 10)), now=NOW + HOUR)
    assert told(part.span for part in plan.live) == [(0, 6)]
    assert told(plan.batches) == [(6, 9), (9, 10), (10, 11)], "the rows of hours 6 to 9 are not lost"
    assert told(plan.lost) == [(6, 10)]


def test_processes_that_share_do_nothing_again_for_a_lookback():
    done = completed(("r1", 0, 10))
    assert left(hourly(lookback=2), done, now=NOW + HOUR, is_shared=True) == [(10, 11)]


def test_a_day_is_as_long_as_the_clocks_of_its_time_zone_make_it():
    begin = datetime(2024, 3, 29, 23, tzinfo=UTC)  # a midnight of Berlin, two days before the clocks go forward
    node = hourly(schedule="@daily", timezone="Europe/Berlin", start=begin, batch_size=1)
    batches = planned(node, now=begin + timedelta(days=3)).batches
    assert [(each.end - each.start) // HOUR for each in batches] == [24, 23, 24]
    parts = tuple(part_of(unit, "r1") for unit in batches)
    done = Done(spans=tuple((unit, "r1") for unit in batches), parts=parts)
    assert planned(node, done, now=begin + timedelta(days=3)).batches == ()


def test_a_tick_is_due_when_its_rows_had_time_to_arrive():
    assert left(hourly(lateness_seconds=5400.0)) == [(0, 8)]


# ---- windows ----


def test_a_window_leaves_out_what_is_not_in_it():
    node = hourly()
    assert left(node, window=Window(start=BEGIN + 3 * HOUR, end=BEGIN + 5 * HOUR)) == [(3, 5)]
    assert left(node, window=Window(start=BEGIN + 3 * HOUR)) == [(3, 10)]
    assert left(node, window=Window(end=BEGIN + 5 * HOUR)) == [(0, 5)]
    assert left(node, window=Window(end=BEGIN)) == []
    assert left(node, window=Window(start=BEGIN - HOUR, end=BEGIN + HOUR)) == [(0, 1)]
    assert left(node, window=Window(start=BEGIN + 8 * HOUR, end=BEGIN + 50 * HOUR)) == [(8, 10)]


def test_a_window_that_cuts_a_tick_leaves_it_out():
    done = completed(("r1", 0, 1), ("r1", 1, 2), ("r1", 2, 10))
    half = timedelta(minutes=30)
    window = Window(start=BEGIN + half, end=BEGIN + 2 * HOUR + half, restates=True)
    plan = planned(hourly(), done, window=window)
    assert (told(plan.batches), told(plan.lost)) == ([(1, 2)], [(1, 2)])


def test_a_window_takes_back_nothing_outside_of_it():
    done = completed(*(("r1", hour, hour + 1) for hour in range(10)))
    plan = planned(hourly(), done, definition="e", window=Window(start=BEGIN + 3 * HOUR, end=BEGIN + 5 * HOUR))
    assert (told(plan.batches), told(plan.lost)) == ([(3, 5)], [(3, 5)])


def test_a_window_takes_with_it_what_was_computed_together():
    done = completed(("r1", 0, 4), ("r1", 4, 8), ("r1", 8, 10))
    plan = planned(hourly(), done, definition="e", window=Window(start=BEGIN + 3 * HOUR, end=BEGIN + 5 * HOUR))
    assert (told(plan.batches), told(plan.lost)) == ([(0, 8)], [(0, 8)])


def test_a_restated_window_is_done_again_with_all_that_was_computed_with_it():
    done = completed(("r1", 0, 4), ("r2", 4, 8), ("r2", 8, 10))
    plan = planned(hourly(), done, window=Window(start=BEGIN + 5 * HOUR, end=BEGIN + 6 * HOUR, restates=True))
    assert (told(plan.batches), told(plan.lost)) == ([(4, 8)], [(4, 8)])
    assert told(part.span for part in plan.live) == [(0, 4), (8, 10)]
    assert told(plan.valid) == [(0, 4), (8, 10)]


def test_a_forced_node_is_done_again_from_its_start_to_its_end():
    done = completed(("r1", 0, 4), ("r1", 8, 10))
    plan = planned(hourly(end=BEGIN + 6 * HOUR), done, is_forced=True)
    assert (told(plan.batches), told(plan.valid)) == ([(0, 6)], [(8, 10)])


def test_partitions_that_are_named_restate_no_ticks():
    window = Window(partitions=("a",), restates=True)
    assert planned(hourly(), completed(("r1", 0, 10)), window=window).batches == ()


# ---- parts that count ----


def test_a_part_that_is_gone_is_lost_alone():
    done = completed(("r1", 0, 4), ("r1", 4, 6), ("r1", 6, 10))
    done = Done(spans=done.spans, parts=(done.parts[0], done.parts[2]))
    plan = planned(hourly(), done)
    assert (told(plan.batches), told(plan.lost)) == ([(4, 6)], [(4, 6)])
    assert not plan.is_stale


def test_a_part_of_a_run_that_did_not_complete_its_range_does_not_count():
    done = completed(("r1", 0, 5), ("r1", 5, 10))
    done = Done(spans=((hours(0, 5), "r1"), (hours(5, 10), "r2")), parts=done.parts)
    plan = planned(hourly(), done)
    assert told(part.span for part in plan.live) == [(0, 5)]
    assert (told(plan.batches), told(plan.lost)) == ([(5, 10)], [(5, 10)])


def test_a_part_of_which_a_tick_was_restated_is_done_again_as_a_whole():
    done = Done(spans=((hours(0, 3), "r1"), (hours(4, 6), "r1")), parts=completed(("r1", 0, 6)).parts)
    plan = planned(hourly(end=BEGIN + 6 * HOUR), done)
    assert (plan.live, told(plan.batches), told(plan.lost)) == ((), [(0, 6)], [(0, 3), (4, 6)])


def test_after_another_definition_everything_is_lost():
    plan = planned(hourly(), completed(("r1", 0, 10)), definition="e")
    assert (told(plan.batches), told(plan.lost), plan.live, plan.is_stale) == ([(0, 10)], [(0, 10)], (), True)


def test_what_was_rebuilt_under_the_present_definition_is_not_done_again():
    old, new = completed(("r1", 4, 10)), completed(("r2", 0, 4), definition="e")
    done = Done(spans=old.spans + new.spans, parts=old.parts + new.parts)
    assert left(hourly(), done, definition="e") == [(4, 10)]


# ---- what it reads ----


def parent(*batches, covered=((0, 10),), **fields) -> Held:
    """Return an hourly input that holds parts: ``(run, first hour, last hour)``."""
    node = hourly(name="parent", **fields)
    return held_parts(
        node,
        "p",
        [part_of(hours(first, last), run, "p") for run, first, last in batches],
        [hours(*each) for each in covered],
    )


def test_only_the_ranges_that_read_another_part_are_stale():
    before = parent(("r1", 0, 5), ("r1", 5, 10))
    done = completed(("r1", 0, 5), ("r1", 5, 7), ("r1", 7, 10), inputs=[before])
    assert left(hourly(), done, [before]) == []
    plan = planned(hourly(), done, [parent(("r1", 0, 5), ("r2", 5, 7), ("r1", 7, 10))])
    assert (told(plan.batches), plan.is_stale) == ([(5, 10)], True)


def test_a_tick_waits_until_a_scheduled_input_has_its_rows():
    held = parent(("r1", 0, 4), ("r1", 6, 7), covered=[(0, 4), (6, 7)])
    assert left(hourly(), Done(), [held]) == [(0, 4), (6, 7)]
    assert left(hourly(), Done(), [held, parent(("r1", 1, 10), covered=[(1, 10)])]) == [(1, 4), (6, 7)]


def test_a_tick_does_not_wait_for_what_an_input_will_never_have():
    held = parent(("r1", 3, 6), covered=[(3, 6)], start=BEGIN + 3 * HOUR, end=BEGIN + 6 * HOUR)
    assert left(hourly(), Done(), [held]) == [(0, 10)]
    ended = parent(covered=[], start=BEGIN + 3 * HOUR, end=BEGIN + 3 * HOUR)
    assert left(hourly(), Done(), [ended]) == [(0, 10)]


def test_a_daily_node_behind_an_hourly_one_waits_for_the_whole_day():
    daily = hourly(name="daily", schedule="@daily")
    now = BEGIN + 50 * HOUR
    assert left(daily, Done(), [parent(("r1", 0, 47), covered=[(0, 47)])], now=now) == [(0, 24)]
    assert left(daily, Done(), [parent(("r1", 0, 48), covered=[(0, 48)])], now=now) == [(0, 48)]


def test_a_range_reads_all_partitions_and_a_partition_its_own_and_all_ranges():
    keyed = Held(text="k", definition="k", parts=(part_of("a", "r1"), part_of("b", "r1")))
    other = Held(text="k", definition="k", parts=(part_of("a", "r1"), part_of("b", "r2")))
    assert Read([keyed]).made("d", "a") == Read([other]).made("d", "a")
    assert Read([keyed]).made("d", "b") != Read([other]).made("d", "b")
    assert Read([keyed]).made("d", hours(0, 1)) != Read([other]).made("d", hours(0, 1))
    assert Read([parent(("r1", 0, 1))]).made("d", "a") != Read([parent(("r2", 0, 1))]).made("d", "a")


# ---- commands ----


def test_what_a_command_did_counts_under_the_fingerprint_of_its_run():
    node = hourly(kind="command")
    spans = ((hours(0, 3), "r1"), (hours(3, 6), "r2"), (hours(6, 10), "forgotten"))
    done = Done(spans=spans, fingerprints={"r1": "d", "r2": "e", "forgotten": None})
    plan = planned(node, done, newest="d")
    assert (told(plan.valid), told(plan.batches), told(plan.lost)) == ([(0, 3), (6, 10)], [(3, 6)], [(3, 6)])
    assert left(node, done, newest="e") == [(3, 10)]
    assert left(node, done, definition="e", newest="e") == [(0, 3)]
    assert left(node, done, newest=None) == [(3, 6)], "what was completed by hand before the first run is done"


def test_a_command_does_again_what_is_asked_for_and_no_more():
    done = Done(spans=((hours(0, 10), "r1"),), fingerprints={"r1": "d"})
    window = Window(start=BEGIN + 5 * HOUR, end=BEGIN + 6 * HOUR, restates=True)
    plan = planned(hourly(kind="command"), done, newest="d", window=window)
    assert (told(plan.batches), told(plan.lost)) == ([(5, 6)], [(5, 6)])


# ---- partitions ----


def keyed(**fields) -> Node:
    return hourly(schedule=None, start=None, partitions=("a", "b", "c/d"), **fields)


def of_keys(*pairs, expected=("a", "b", "c/d"), **fields) -> Done:
    return Done(keys=pairs, parts=tuple(part_of(key, run) for key, run in pairs), expected=expected, **fields)


def test_partitions_that_are_missing_are_computed_in_their_order():
    assert planned(keyed(), of_keys()).batches == ("a", "b", "c/d")
    plan = planned(keyed(), of_keys(("b", "r1")))
    assert (plan.batches, plan.keys, plan.lost) == (("a", "c/d"), {"b"}, ())
    assert planned(keyed(), of_keys(), window=Window(partitions=("c/d", "zz"))).batches == ("c/d",)


def test_partitions_are_done_again_as_ticks_are():
    done = of_keys(("a", "r1"), ("b", "r1"), ("c/d", "r1"))
    assert planned(keyed(), done).batches == ()
    plan = planned(keyed(), done, window=Window(partitions=("b",), restates=True))
    assert (plan.batches, plan.lost, plan.keys) == (("b",), ("b",), {"a", "c/d"})
    assert planned(keyed(), done, is_forced=True).lost == ("a", "b", "c/d")
    assert planned(keyed(), done, definition="e").lost == ("a", "b", "c/d")
    gone = Done(keys=done.keys, parts=done.parts[1:], expected=done.expected)
    assert planned(keyed(), gone).batches == ("a",)
    by_other = Done(keys=(("a", "r2"), *done.keys[1:]), parts=done.parts, expected=done.expected)
    assert planned(keyed(), by_other).batches == ("a",)
    start = Window(start=BEGIN, restates=True)
    assert planned(keyed(), done, window=start).batches == ()


def test_a_partition_that_is_expected_no_more_keeps_its_part():
    done = of_keys(("a", "r1"), ("b", "r1"), expected=("b",))
    plan = planned(keyed(), done)
    assert (plan.batches, plan.keys, len(plan.live)) == ((), {"a", "b"}, 2)


def test_partitions_of_a_command_count_under_the_fingerprint_of_their_run():
    done = of_keys(("a", "r1"), ("b", "r2"), ("c/d", "r3"), fingerprints={"r1": "d", "r2": "e", "r3": None})
    assert planned(keyed(kind="command"), done, newest="d").batches == ("b",)


# ---- what a node will hold ----


def test_what_a_node_will_hold_has_another_text_as_long_as_something_is_left():
    node = hourly()
    done = completed(("r1", 0, 4))
    plan = planned(node, done)
    coming = foreseen(node, "d", plan)
    assert coming.covered == (hours(0, 10),)
    assert coming.text != held_parts(node, "d", plan.live, plan.valid).text
    complete = planned(node, completed(("r1", 0, 10)))
    now = held_parts(node, "d", complete.live, complete.valid)
    assert foreseen(node, "d", complete) == now
    assert now.text != held_parts(node, "d", completed(("r2", 0, 10)).parts, complete.valid).text


# ---- against a model that looks at each tick by itself ----


class Naive:
    """The ticks of an hourly node one by one: who completed each, and the parts that are there."""

    def __init__(self) -> None:
        self.owners: dict[int, str] = {}
        self.parts: list[tuple[int, int, str, str]] = []

    def complete(self, first: int, length: int, definition: str) -> None:
        run, last = f"r{len(self.parts)}", min(first + length, TICKS)
        self.owners |= dict.fromkeys(range(first, last), run)
        self.parts.append((first, last, run, definition))

    def restate(self, first: int, length: int) -> None:
        for tick in range(first, first + length):
            self.owners.pop(tick, None)

    def delete(self, number: int) -> None:
        if self.parts:
            self.parts[number % len(self.parts)] = (0, 0, f"r{number}", "")

    def done(self) -> Done:
        parts = [part_of(hours(first, last), run, made) for first, last, run, made in self.parts if first < last]
        spans = tuple((hours(tick, tick + 1), run) for tick, run in sorted(self.owners.items()))
        return Done(spans=spans, parts=tuple(sorted(parts, key=lambda part: part.file)))

    def live(self) -> list[range]:
        return [
            range(first, last)
            for first, last, run, definition in self.parts
            if first < last and definition == "d" and all(self.owners.get(each) == run for each in range(first, last))
        ]


TICK, LENGTH = st.integers(0, TICKS - 1), st.integers(1, 5)
OPERATIONS = st.lists(
    st.tuples(st.just("complete"), TICK, LENGTH, st.sampled_from("ddde"))
    | st.tuples(st.just("restate"), TICK, st.integers(1, 2))
    | st.tuples(st.just("delete"), TICK),
    max_size=12,
)


def after(operations) -> Naive:
    naive = Naive()
    for name, *arguments in operations:
        getattr(naive, name)(*arguments)
    return naive


def ticks_of(spans) -> set[int]:
    return {tick for first, last in told(spans) for tick in range(first, last)}


@given(operations=OPERATIONS, size=st.none() | st.integers(1, 4), lookback=st.integers(0, 3))
def test_what_is_left_is_what_a_look_at_each_tick_finds(operations, size, lookback):
    naive = after(operations)
    plan = planned(hourly(batch_size=size, lookback=lookback), naive.done())
    live = naive.live()
    missing = set(range(TICKS)) - {tick for each in live for tick in each}
    again = set(range(TICKS - lookback, TICKS)) if missing else set()
    together = {tick for each in live if again & set(each) for tick in each}
    batches = told(plan.batches)
    assert ticks_of(plan.batches) == missing | again | together
    assert len(ticks_of(plan.batches)) == sum(last - first for first, last in batches), "none is in two batches"
    assert all(size is None or last - first <= size for first, last in batches)
    assert {range(*each) for each in told(part.span for part in plan.live)} == {
        each for each in live if not again & set(each)
    }
    assert ticks_of(plan.lost) == naive.owners.keys() & ticks_of(plan.batches)
    if lookback and missing:
        assert all((tick, tick + 1) in batches for tick in again)


@given(operations=OPERATIONS, first=TICK, length=LENGTH, restates=st.booleans())
def test_a_window_is_about_its_ticks_and_what_was_computed_with_them(operations, first, length, restates):
    naive = after(operations)
    inside = set(range(first, min(first + length, TICKS)))
    window = Window(start=BEGIN + first * HOUR, end=BEGIN + (first + length) * HOUR, restates=restates)
    plan = planned(hourly(), naive.done(), window=window)
    live = naive.live()
    kept = [each for each in live if not (restates and inside & set(each))]
    reached = [
        set(range(start, end))
        for start, end, run, _ in naive.parts
        if start < end
        and all(naive.owners.get(each) == run for each in range(start, end))
        and range(start, end) not in kept
        and inside & set(range(start, end))
    ]
    expected = inside.union(*reached) - {tick for each in kept for tick in each}
    assert ticks_of(plan.batches) == expected
    assert ticks_of(plan.lost) == naive.owners.keys() & expected


@given(operations=OPERATIONS, size=st.none() | st.integers(1, 4), lookback=st.integers(0, 3))
def test_once_all_that_was_left_is_done_nothing_is(operations, size, lookback):
    naive = after(operations)
    node = hourly(batch_size=size, lookback=lookback)
    for first, last in told(planned(node, naive.done()).batches):
        naive.complete(first, last - first, "d")
    plan = planned(node, naive.done())
    assert (plan.batches, plan.lost, told(plan.valid)) == ((), (), [(0, TICKS)])


# ---- cost ----


def lines_run(work) -> int:
    """Return how many lines of Python are executed: what a call costs, whatever the machine."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def of_three_runs(count: int) -> tuple[Done, Held]:
    """Return what is known when three processes have shared so many hours, of which every 50th is restated."""
    units = [hours(hour, hour + 1) for hour in range(count)]
    inputs = [part_of(unit, f"r{number % 3}", "p") for number, unit in enumerate(units)]
    held = held_parts(hourly(), "p", inputs, [unit for number, unit in enumerate(units) if number % 100])
    read = Read([held])
    parts = tuple(
        as_part(part_file(unit, read.made("d", unit), f"r{number % 3}", 1, 10)) for number, unit in enumerate(units)
    )
    spans = tuple((unit, f"r{number % 3}") for number, unit in enumerate(units) if number % 50)
    return Done(spans=spans, parts=parts), held


@pytest.mark.parametrize("window", [Window(), Window(start=BEGIN, end=BEGIN + 400 * HOUR, restates=True)])
def test_the_cost_of_a_plan_grows_with_the_number_of_parts_and_not_with_its_square(window):
    costs = []
    for count in (1000, 8000):
        done, held = of_three_runs(count)
        now = BEGIN + count * HOUR
        work = lambda: planned(hourly(lookback=3), done, [held], now=now, window=window)  # noqa: B023, E731
        work()  # what is read once of a calendar
        costs.append(lines_run(work))
    assert costs[1] <= 8 * costs[0] * 1.3, costs


def test_the_ticks_of_the_model_are_those_of_the_schedule():
    found = list(pending_intervals([], as_schedule("@hourly", None), now=NOW, start=BEGIN))
    assert told(found) == [(hour, hour + 1) for hour in range(TICKS)]
    assert told(subtract([hours(0, TICKS)], found)) == []
