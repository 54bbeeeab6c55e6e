"""Which ranges of a node's work may be taken, and what becomes of a claim that ends without being completed.

Pure: what is completed, what is claimed and whose leases are held are given. A lease that has ended is never held
again, so whoever finds that the lease of a claim is gone may act on it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from seeknal.errors import ClaimEndedError, IntervalError, InvalidFieldError
from seeknal.model.changes import MAX_COUNT
from seeknal.model.ids import check_id
from seeknal.model.intervals import Interval, as_interval, union
from seeknal.model.records import Claim, CompletedInterval
from seeknal.model.status import ClaimStatus

DEFAULT_MAX_ATTEMPTS = 3

GONE = "whoever worked on it is gone: its lease ended before it was completed"

Range: TypeAlias = Interval | str
"""What can be claimed: an interval, or the key of a partition."""


def as_it_stands(claim: Claim, living: Container[str]) -> Claim:
    """Return a stored claim as it stands, given the owners of the leases that are held."""
    if claim.status is not ClaimStatus.CLAIMED or claim.lease_owner in living:
        return claim
    return failed(claim, GONE, claim.since)


def failed(claim: Claim, error_message: str, since: datetime) -> Claim:
    """Return a claim whose attempt failed: open, or parked if it was the last one."""
    is_last = claim.attempt >= claim.max_attempts
    status = ClaimStatus.PARKED if is_last else ClaimStatus.OPEN
    return msgspec.structs.replace(claim, status=status, error_message=error_message, since=since)


def taken(new: Claim, wanted: Range, before: Claim | None) -> Claim:
    """Return the claim of a range, counting on from the one before.

    Args:
        new: Who takes it, and when.
        wanted: The range.
        before: What stands of an earlier attempt.
    """
    named = {"start": wanted.start, "end": wanted.end} if isinstance(wanted, Interval) else {"partition": wanted}
    attempt, error_message = (before.attempt, before.error_message) if before else (0, None)
    return msgspec.structs.replace(new, **named, attempt=attempt + 1, error_message=error_message)


def is_done(claim: Claim, intervals: Sequence[CompletedInterval], partitions: Container[str]) -> bool:
    """Return whether the range of a claim is completed as a whole; ``intervals`` are canonical."""
    if claim.start is not None and claim.end is not None:
        return _is_covered(Interval(claim.start, claim.end), intervals)
    return claim.partition in partitions


def free_intervals(
    wanted: Iterable[Interval], claims: Iterable[Claim], done: Sequence[CompletedInterval]
) -> Iterator[Interval]:
    """Yield the wanted intervals that may be taken, in their order; no more of them are asked for than are needed.

    One that is completed as a whole is passed over, and so is one that overlaps with what somebody works on, with
    what is parked, or with one that was yielded before. The cost of each grows with the logarithm of what there is.

    Args:
        wanted: In the order in which they shall be done.
        claims: As they stand, those of partitions too.
        done: What is completed, canonical.

    Raises:
        IntervalError: One of them is no interval.
    """
    spans = ((claim.status, Interval(claim.start, claim.end)) for claim in claims if claim.start and claim.end)
    # What is parked was completed by somebody else if it is completed: then there is nothing left to look at.
    busy = union(
        span
        for status, span in spans
        if status is ClaimStatus.CLAIMED or (status is ClaimStatus.PARKED and not _is_covered(span, done))
    )
    for each in wanted:
        if not isinstance(each, Interval):
            raise IntervalError(
                f"a {type(each).__name__} is wanted, which is no Interval",
                hint="Pass what get_missing_intervals() returns, or Interval(start, end).",
            )
        span = as_interval(each.start, each.end)
        # What is busy never overlaps, so the first that ends behind the start is the only one to look at.
        behind = bisect_right(busy, span.start, key=lambda one: one.end)
        if _is_covered(span, done) or (behind < len(busy) and busy[behind].start < span.end):
            continue
        insort(busy, span)
        yield span


def free_partitions(wanted: Iterable[str], claims: Iterable[Claim], done: Container[str]) -> Iterator[str]:
    """Yield the wanted partitions that may be taken, in their order, as `free_intervals` does.

    Raises:
        InvalidIdError: One of them is no key.
    """
    busy = {claim.partition for claim in claims if claim.status is not ClaimStatus.OPEN}
    for each in wanted:
        key = check_id(each, "partition")
        if key not in busy and key not in done:
            busy.add(key)
            yield key


def check_number(value: object, field: str, least: int) -> None:
    """Raise `InvalidFieldError` unless a value is a whole number of at least so many."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_COUNT:
        raise InvalidFieldError(
            f"{field} is {value!r}; it must be a whole number, {least} or more, of 63 bits",
            hint=f"Pass {field} as an int.",
            field=field,
        )


def in_words(claim: Claim) -> str:
    """Return what is claimed, in words."""
    if claim.start is not None and claim.end is not None:
        what = f"[{claim.start.isoformat()}, {claim.end.isoformat()})"
    else:
        what = f"partition {claim.partition!a}"
    return f"{what} of node {claim.node_id!a}"


def over(claim: Claim) -> ClaimEndedError:
    """Return the error of a claim that was to be ended, and is over."""
    return ClaimEndedError(
        f"the claim of {in_words(claim)} is over; nothing was written",
        hint="It was completed, failed or given back already: claim again, and do what you are given.",
    )


def _is_covered(span: Interval, done: Sequence[CompletedInterval]) -> bool:
    before = bisect_right(done, span.start, key=lambda one: one.start)
    return before > 0 and done[before - 1].end >= span.end
