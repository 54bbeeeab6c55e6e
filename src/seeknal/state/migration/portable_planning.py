"""What a move from or to a store with plain verbs would do, and what has to be said of it; nothing is written."""

from __future__ import annotations

from seeknal.errors import CapabilityError
from seeknal.state.contract import StateBackend
from seeknal.state.migration.copying import Ledger, Told
from seeknal.state.migration.planning import READINGS, ROWS_PER_SECOND, MovePlan, source_problem, work_going_on
from seeknal.state.migration.portable import (
    check_keeps_expected,
    check_offers,
    is_done,
    is_plain,
    record_target_problem,
    view_of,
)
from seeknal.state.record_backend import RecordStateBackend
from seeknal.state.transfer import records


def plan_portably(
    source: StateBackend,
    target: RecordStateBackend | None,
    *,
    target_class: type[StateBackend],
    source_where: str,
    target_where: str,
    told: Told = lambda _: None,
) -> MovePlan:
    """Read all of a store, and find what forbids moving it.

    Args:
        source: The store to move, open.
        target: Where to, open; ``None`` for a store that does not exist yet, or that only tells by being opened.
        target_class: What the target is.
        source_where: The source in words, without secrets.
        target_where: The target in words, without secrets.
        told: Called now and then with how many records were read.

    Raises:
        CapabilityError: The source does not offer what a move needs.
    """
    began = source.clock.ticks_us()
    ledger = Ledger(told)
    for record in records(view_of(source, target_class)):
        ledger.add(record)
    seconds = READINGS * (source.clock.ticks_us() - began) / 1_000_000
    seconds += ledger.counts.total / min(ROWS_PER_SECOND.values())
    was_done = target is not None and is_done(source, target, target_where)
    busy = work_going_on(source, None if was_done else target)
    refused = [*busy]
    if isinstance(source, RecordStateBackend) and source.read_store().superseded_by != target_where:
        problem = source_problem(source, None, target_where)
        refused += [str(problem)] if problem else []
    if target is not None and not was_done:
        theirs = record_target_problem(target, target.read_store(), source_where)
        refused += [theirs] if theirs else []
    if is_plain(target_class):
        try:
            check_offers(target_class)
            check_keeps_expected(source, target_class)
        except CapabilityError as error:
            refused.append(str(error))
    return MovePlan(
        counts=ledger.counts,
        bytes=ledger.bytes,
        seconds=seconds,
        refused=refused,
        is_held=bool(busy),
        is_done=was_done,
    )


def cautions(
    source: type[StateBackend], target: type[StateBackend], *, source_where: str, target_where: str
) -> list[str]:
    """Return what a person has to know of a move between stores of these classes, as sentences."""
    told = []
    if is_plain(source):
        told.append(f"{source_where} cannot refuse writes: stop its writers first, and let none write there again")
    if is_plain(target):
        told.append(
            f"{target_where} counts for itself: versions, lock tokens, the change log and which run "
            "completed each part of an interval are not carried over"
        )
    return told
