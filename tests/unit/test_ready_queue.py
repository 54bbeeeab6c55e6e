"""The order in which nodes are taken up, and how long a retry waits."""

from __future__ import annotations

from seeknal.runner.ready import ReadyQueue
from seeknal.runner.retries import MOST_DELAY_SECONDS, retry_delay

DIAMOND = {"a": (), "b": (), "left": ("a",), "right": ("a", "b"), "end": ("left", "right")}


def drained(queue: ReadyQueue) -> list[str]:
    found = []
    while queue:
        found.append(queue.take())
    return found


def test_what_needs_nothing_is_ready_in_the_order_of_the_project():
    assert drained(ReadyQueue(DIAMOND)) == ["a", "b"]


def test_a_node_is_ready_when_the_last_of_its_inputs_is_done_and_not_before():
    queue = ReadyQueue(DIAMOND)
    drained(queue)
    queue.done("b")
    assert drained(queue) == []
    queue.done("a")
    assert drained(queue) == ["left", "right"]
    queue.done("right")
    assert drained(queue) == []
    queue.done("left")
    assert drained(queue) == ["end"]


def test_taking_one_after_the_other_gives_the_order_of_the_project():
    queue, found = ReadyQueue(DIAMOND), []
    while queue:
        found.append(queue.take())
        queue.done(found[-1])
    assert found == list(DIAMOND)


def test_what_is_put_back_comes_before_what_stands_behind_it():
    queue = ReadyQueue(DIAMOND)
    queue.take()
    queue.put_back("a")
    assert drained(queue) == ["a", "b"]


def test_a_delay_doubles_up_to_the_longest_and_keeps_at_least_half_of_it():
    for seed in map(str, range(50)):
        for attempt, longest in ((1, 2), (2, 4), (3, 8), (20, MOST_DELAY_SECONDS), (5000, MOST_DELAY_SECONDS)):
            assert longest / 2 <= retry_delay(2, attempt, seed) <= longest


def test_a_first_delay_over_the_longest_stays_and_does_not_grow():
    assert 500 <= retry_delay(1000, 1, "x") <= 1000
    assert 500 <= retry_delay(1000, 9, "x") <= 1000


def test_delays_are_those_of_their_seed_and_attempt():
    assert retry_delay(2, 1, "one") == retry_delay(2, 1, "one")
    assert len({retry_delay(2, 1, seed) for seed in ("one", "two", "three")}) == 3
