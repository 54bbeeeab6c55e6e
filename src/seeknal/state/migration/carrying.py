"""What goes along with a state and is no part of it: the change log, and the counters that fencing tokens come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from seeknal.state.batch import Batch
from seeknal.state.capabilities import Capability
from seeknal.state.record_backend import RecordStateBackend

PAGE = 500
"""Entries of one commit."""

T = TypeVar("T")


def carry(source: RecordStateBackend, target: RecordStateBackend, mark: str | None) -> None:
    """Unite the log of the target with the source's, and raise its counters to the source's; safe to repeat.

    A lock's next token is then higher than any that was granted in either store, so that what is fenced by tokens
    outside, a bucket or a table, keeps refusing those who held the lock before. Where one of the two keeps neither,
    nothing is carried.

    Args:
        source: Where from.
        target: Where to.
        mark: What the target bears; see `seeknal.state.batch.Batch`.

    Raises:
        SeeknalError: As `RecordStateBackend.commit`; a part may have been carried.
    """
    if not (keeps_log(source) and keeps_log(target)):
        return
    for tokens in _pages(source.read_tokens()):
        target.commit(Batch(tokens=tokens, successor=mark))
    after = ""
    while entries := source.read_log(after, PAGE):
        target.commit(Batch(log=entries, successor=mark))
        after = entries[-1].change_id


def keeps_log(store: RecordStateBackend) -> bool:
    """Return whether a store keeps a log, and token counters that can be carried."""
    return Capability.LOG in store.capabilities


def _pages(each: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(each)
    while page := list(islice(rest, PAGE)):
        yield page
