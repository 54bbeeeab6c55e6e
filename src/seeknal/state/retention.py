"""Which finished runs may go, and letting them go: for any backend, through its contract.

A run is judged by its own record first, then by what else the store holds: locks and newer successes. The second
judgement and the deletion are one transaction, so a run that became needed meanwhile is kept.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from seeknal.clock import Clock, SystemClock
from seeknal.errors import BackendUnavailableError, InvalidFieldError, SeeknalError
from seeknal.model.codec import encode
from seeknal.model.records import CleanedRun, CleanupReport, NodeState, RunState
from seeknal.model.status import NodeStatus, RunStatus, as_status
from seeknal.state.lease import Lease
from seeknal.state.pins import is_pinned, reason_of
from seeknal.state.reader import StateReader

T = TypeVar("T")

MOST_ROWS = 1000
"""Records deleted in one transaction, but for those of a single run: writers beside it hardly wait."""

RUNS_AT_ONCE = 200
"""Runs that are kept in memory between being read and being deleted."""

UNFINISHED = "unfinished"
OTHER_STATUS = "another status"
TOO_YOUNG = "too young"
PINNED = "pinned"
AMONG_LAST = "among the last"
LOCKED = "locked"
NEWEST_SUCCESS = "newest success"
WRITTEN = "written meanwhile"
NOT_ARCHIVED = "not archived"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many runs of it are done, and of how many."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a run must be to go.

    Attributes:
        cutoff: It finished before.
        keep_last: Newer ones there must be, of any status, in the order of creation.
        status: It has this status; any final one if ``None``.
    """

    cutoff: datetime
    keep_last: int = 0
    status: RunStatus | None = None


class Retirement(NamedTuple):
    """What became of the first runs of several.

    Attributes:
        judged: How many were looked at.
        gone: Those that went.
        kept: Those that are needed, and why.
    """

    judged: int
    gone: list[CleanedRun]
    kept: dict[str, str]


def rules_of(now: datetime, older_than: object, keep_last: object, status: object) -> Rules:
    """Return the rules that a caller names.

    Raises:
        InvalidFieldError: Naming the field.
    """
    if not isinstance(older_than, timedelta) or older_than < timedelta():
        raise InvalidFieldError(
            "older_than must be a timedelta that is not negative",
            hint="Pass timedelta(days=30).",
            field="older_than",
        )
    if not isinstance(keep_last, int) or isinstance(keep_last, bool) or keep_last < 0:
        raise InvalidFieldError(
            f"keep_last is {keep_last!r}; it must be a whole number, 0 or more",
            hint="Pass how many of the newest runs stay.",
            field="keep_last",
        )
    wanted = None if status is None else as_status(RunStatus, status)
    if wanted is not None and not wanted.is_final:
        raise InvalidFieldError(
            f"status is {wanted.value}, and a run that is not finished never goes",
            hint="Pass success, failed or cancelled.",
            field="status",
        )
    try:
        return Rules(cutoff=now - older_than, keep_last=keep_last, status=wanted)
    except OverflowError:
        raise InvalidFieldError(
            f"older_than of {older_than.days} days reaches back before the year 1",
            hint="Pass a shorter time.",
            field="older_than",
        ) from None


def deadline_of(backend: RetentionVerbs, budget: object) -> int | None:
    """Return the tick at which a budget is used up, ``None`` without one.

    Raises:
        InvalidFieldError: It is not a length of time.
    """
    if budget is None:
        return None
    if not isinstance(budget, timedelta) or budget < timedelta():
        raise InvalidFieldError(
            "budget must be a timedelta that is not negative", hint="Pass timedelta(seconds=60).", field="budget"
        )
    return backend.clock.ticks_us() + budget // timedelta(microseconds=1)


def why_kept(run: RunState, rules: Rules, *, is_among_last: bool) -> str:
    """Return why a run stays, as far as its record says, or nothing."""
    if not run.status.is_final or run.finished_at is None:
        return UNFINISHED
    if rules.status not in (None, run.status):
        return OTHER_STATUS
    if run.finished_at >= rules.cutoff:
        return TOO_YOUNG
    if is_pinned(run):
        return because(PINNED, reason_of(run))
    return because(AMONG_LAST, str(rules.keep_last)) if is_among_last else ""


def because(reason: str, detail: str) -> str:
    """Return a reason with what it is about."""
    return f"{reason}: {detail}" if detail else reason


class RetentionVerbs(StateReader):
    """The part of the contract about cleaning up. The clauses are part of the law in `seeknal.state.contract`."""

    clock: Clock = SystemClock()

    @abstractmethod
    def delete_run(self, run_id: str) -> bool:
        """Delete a run; as the contract says."""

    @abstractmethod
    def run_transaction(self, function: Callable[[], T], *, lease: Lease | None = None, timeout_ms: int = 10_000) -> T:
        """Call ``function`` in a transaction; as the contract says."""

    def cleanup(
        self,
        *,
        older_than: timedelta,
        keep_last: int = 0,
        status: str | None = None,
        dry_run: bool = False,
        budget: timedelta | None = None,
        on_progress: Progress | None = None,
    ) -> CleanupReport:
        """Delete finished runs whose ``finished_at`` lies further back than ``older_than``; oldest first.

        [CLEAN-1] Never a run that is not finished. [CLEAN-2] Never a run that holds the newest successful
        state of a node. [CLEAN-3] Never an interval or a partition. [CLEAN-4] Never a pinned run
        (`seeknal.state.pins`). [CLEAN-5] Never one of the newest ``keep_last`` runs. [CLEAN-6] Never a run of another
        status than ``status``. [CLEAN-7] Never a run of which somebody holds a lock, its own or one of a
        node in it; no lock is taken away. [CLEAN-8] The report says of every run what became of it. [CLEAN-9] In short
        transactions, none of which begins after ``budget``; safe to interrupt, to repeat and beside others.

        Args:
            older_than: Not negative.
            keep_last: So many runs, of any status, as were created last when it begins.
            status: ``success``, ``failed`` or ``cancelled``.
            dry_run: Only report what would go.
            budget: How long it may take; the report says whether that was enough.
            on_progress: Called now and then.

        Raises:
            InvalidFieldError: Naming the field.
            StateBackendError: As the verbs; notes of it say what was deleted before, which is logged if that can be.
        """
        rules = rules_of(self.clock.now(), older_than, keep_last, status)
        return clean_runs(self, rules, dry_run=dry_run, budget=budget, on_progress=on_progress)

    def give_back_space(self, deadline: int | None = None) -> str:
        """Return what was deleted to the system, where that is ours to do; `cleanup` ends with it.

        Args:
            deadline: The tick of ``clock`` after which it is left for the next time.

        Returns:
            What is left to do by hand; empty if nothing.
        """
        return ""

    def _runs_of(self, known: Container[str]) -> Iterator[RunState]:
        """Yield the known runs in creation order, but for those that are gone."""
        return (run for run in map(self.get_run, self.list_runs()) if run is not None and run.run_id in known)

    def _retire(
        self, runs: Sequence[RunState], *, dry_run: bool, marks: Mapping[str, bytes] | None = None
    ) -> Retirement:
        """Delete those of the first runs that nothing needs; a store that can do so in fewer steps does."""
        return retire(self, runs, dry_run=dry_run, marks=marks)

    def _log_cleanup(self, detail: Mapping[str, Any]) -> None:
        """Write down that runs were deleted; nothing where no log is kept."""

    def _let_go(self, run_id: str) -> None:
        """Delete a run of which nobody holds a lock."""
        self.delete_run(run_id)


def clean_runs(
    backend: RetentionVerbs,
    rules: Rules,
    *,
    dry_run: bool = False,
    budget: timedelta | None = None,
    marks: Mapping[str, bytes] | None = None,
    on_progress: Progress | None = None,
) -> CleanupReport:
    """Delete the runs that the rules let go, and give back their space; see `RetentionVerbs.cleanup`.

    Args:
        backend: The store.
        rules: Which.
        dry_run: Only report what would go.
        budget: How long it may take.
        marks: Only these runs, and only if they still have these marks (`mark_of`).
        on_progress: Called after each transaction.

    Raises:
        InvalidFieldError: The budget is not a length of time.
    """
    deadline = deadline_of(backend, budget)
    report = _swept(backend, rules, dry_run, deadline, marks, on_progress)
    if dry_run:
        return report
    try:
        hint = backend.give_back_space(deadline)
    except BackendUnavailableError as error:  # the runs are gone all the same, and the report must say so
        hint = f"their space was not given back, the next cleanup tries again: {error}"
    return msgspec.structs.replace(report, hint="; ".join(filter(None, (report.hint, hint))))


def _swept(
    backend: RetentionVerbs,
    rules: Rules,
    dry_run: bool,
    deadline: int | None,
    marks: Mapping[str, bytes] | None,
    on_progress: Progress | None,
) -> CleanupReport:
    ids = backend.list_runs()
    place = {run_id: number for number, run_id in enumerate(ids)}
    first_of_last = len(ids) - rules.keep_last
    gone: list[CleanedRun] = []
    kept: dict[str, str] = {}
    waiting: list[RunState] = []
    runs, seen, is_done = backend._runs_of(place), 0, False

    def is_late() -> bool:
        return deadline is not None and backend.clock.ticks_us() >= deadline

    try:
        while not (waiting or is_done or is_late()):
            page = list(islice(runs, RUNS_AT_ONCE))
            seen, is_done = seen + len(page), not page
            for run in page:
                reason = why_kept(run, rules, is_among_last=place[run.run_id] >= first_of_last)
                if reason:
                    kept[run.run_id] = reason
                elif marks is not None and run.run_id not in marks:
                    kept[run.run_id] = NOT_ARCHIVED
                else:
                    waiting.append(run)
            while waiting and not is_late():
                found = backend._retire(waiting, dry_run=dry_run, marks=marks)
                del waiting[: found.judged]
                gone += found.gone
                kept |= found.kept
                if on_progress is not None:
                    on_progress("looking at runs" if dry_run else "cleaning runs", seen - len(waiting), len(ids))
    except BaseException as error:
        if gone and not dry_run:
            error.add_note(f"{len(gone)} runs with {sum(run.nodes for run in gone)} node states were deleted before")
            error.add_note(_log(backend, rules, gone) or "the change log tells of them")
        raise
    unlogged = _log(backend, rules, gone) if gone and not dry_run else ""
    remaining = 0 if is_done else len(ids) - seen + len(waiting)
    return CleanupReport(
        cutoff=rules.cutoff,
        deleted=[run.run_id for run in gone],
        kept=dict(sorted(kept.items(), key=lambda item: place[item[0]])),
        runs=gone,
        is_complete=not remaining,
        remaining=remaining,
        hint=unlogged,
    )


def _log(backend: RetentionVerbs, rules: Rules, gone: list[CleanedRun]) -> str:
    """Log what is gone; return why it could not be logged, for it is gone all the same."""
    counts = {"runs": len(gone), "node_states": sum(run.nodes for run in gone)}
    named = {"cutoff": rules.cutoff.isoformat(), "keep_last": rules.keep_last, "status": rules.status}
    try:
        backend._log_cleanup({**named, **counts})
    except SeeknalError as error:
        return f"the change log does not tell of what was deleted: {error}"
    return ""


def retire(
    backend: RetentionVerbs,
    runs: Sequence[RunState],
    *,
    dry_run: bool,
    marks: Mapping[str, bytes] | None = None,
) -> Retirement:
    """Delete those of the first runs that nothing needs, in one short transaction through the verbs of the contract."""

    def decide() -> Retirement:
        held = {lock.run_id for lock in backend.list_locks()}
        newest: dict[str, str] = {}
        gone: list[CleanedRun] = []
        kept: dict[str, str] = {}
        judged = rows = 0
        for run in runs:
            if rows >= MOST_ROWS:
                break
            judged += 1
            nodes = backend.get_all_node_states(run.run_id)
            found = backend.get_run(run.run_id)
            rows += 1 + len(nodes)
            if found is None:
                continue  # somebody else deleted it
            if found != run or (marks is not None and marks[run.run_id] != mark_of(found, nodes)):
                kept[run.run_id] = WRITTEN
            elif run.run_id in held:
                kept[run.run_id] = LOCKED
            elif node_id := _newest_success(backend, nodes, newest):
                kept[run.run_id] = because(NEWEST_SUCCESS, node_id)
            else:
                gone.append(cleaned(run, len(nodes)))
        if not dry_run:
            for each in gone:
                backend._let_go(each.run_id)
        return Retirement(judged, gone, kept)

    return decide() if dry_run else backend.run_transaction(decide)


def cleaned(run: RunState, nodes: int) -> CleanedRun:
    """Return what is told of a run that goes."""
    return CleanedRun(run_id=run.run_id, status=run.status, finished_at=run.finished_at, nodes=nodes)


def mark_of(run: RunState, nodes: Mapping[str, NodeState]) -> bytes:
    """Return a digest of a run and its nodes: equal exactly if nothing was written to them."""
    digest = hashlib.sha256(encode(run))
    for state in nodes.values():
        digest.update(encode(state))
    return digest.digest()


def _newest_success(backend: RetentionVerbs, nodes: Mapping[str, NodeState], newest: dict[str, str]) -> str:
    """Return the first node whose newest successful state is among these, or nothing.

    Where the newest one belongs to no run, as the doctor tells, it may be any of them that is the next one.

    Args:
        backend: The store.
        nodes: Those of one run.
        newest: By node, the run that holds its newest success, as far as it is known; empty for a run that does not
            exist. More is added.
    """
    for node_id, state in nodes.items():
        if state.status is NodeStatus.SUCCESS:
            if node_id not in newest:
                latest = backend.get_latest_node_state(node_id, status="success")
                newest[node_id] = latest.run_id if latest and backend.get_run(latest.run_id) else ""
            if newest[node_id] in ("", state.run_id):
                return node_id
    return ""
