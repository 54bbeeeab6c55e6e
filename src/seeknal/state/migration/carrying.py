"""What goes along with a state and is no part of it: the change log, the counters of fencing tokens, and claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from seeknal.model.claims import as_it_stands
from seeknal.model.status import ClaimStatus
from seeknal.state.batch import Batch
from seeknal.state.capabilities import Capability
from seeknal.state.record_backend import RecordStateBackend

PAGE = 500
"""Entries of one commit."""

T = TypeVar("T")


def carry(source: RecordStateBackend, target: RecordStateBackend, mark: str | None) -> None:
    """Unite the log of the target with the source's, raise its counters to the source's, and take over claims.

    It is safe to repeat. Nobody works on a claim of the source, since a move begins when no lock of it is held: what is
    carried are the attempts that were made, and the ranges that are parked.

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
    _carry_claims(source, target, mark)
    if not (keeps_log(source) and keeps_log(target)):
        return
    for tokens in _pages(source.read_tokens()):
        target.commit(Batch(tokens=tokens, successor=mark))
    after = ""
    while entries := source.read_log(after, PAGE):
        target.commit(Batch(log=entries, successor=mark))
        after = entries[-1].change_id


def _carry_claims(source: RecordStateBackend, target: RecordStateBackend, mark: str | None) -> None:
    """Put the claims of the source into the target, but for ranges that somebody works on there, who knows better."""
    if not (Capability.CLAIMS in source.capabilities and Capability.CLAIMS in target.capabilities):
        return
    for node_id in source.read_claimed_nodes():
        version, theirs = target.read_claims(node_id)
        busy = {claim.range_key for claim in theirs if claim.status is ClaimStatus.CLAIMED}
        found = [as_it_stands(claim, ()) for claim in source.read_claims(node_id)[1] if claim.range_key not in busy]
        target.commit(Batch(claims=found, claim_versions={node_id: version}, successor=mark))


def keeps_log(store: RecordStateBackend) -> bool:
    """Return whether a store keeps a log, and token counters that can be carried."""
    return Capability.LOG in store.capabilities


def _pages(each: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(each)
    while page := list(islice(rest, PAGE)):
        yield page
