"""A node that is under way: the record of it, and what it still has to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from seeknal.errors import NodeFailedError
from seeknal.model.claims import DEFAULT_MAX_ATTEMPTS
from seeknal.model.intervals import Interval
from seeknal.model.records import Claim
from seeknal.pipeline.nodes import PYTHON, Node
from seeknal.runner.compute import Outcome
from seeknal.runner.held import Held, Read
from seeknal.runner.outputs import Unit, unit_name
from seeknal.runner.plan import Observed, Planned
from seeknal.runner.publish import publish_part
from seeknal.runner.ranges import Ranges, holds, meets
from seeknal.tracking import NodeRecorder, RunRecorder

MOST_ATTEMPTS = 1_000_000
"""So many that a range is never parked."""

LOOK_SECONDS = 1.0
"""How often it is looked whether a range that somebody else works on is done or free."""


class Taken(NamedTuple):
    """A range that is computed by this run, with the claim that keeps others off it; an empty one has none."""

    unit: Unit
    claim: Claim | None


class Work:
    """A node that has begun and is not over. Belongs to the thread that runs the project.

    Attributes:
        node: The node.
        observed: What was known before.
        planned: What was decided.
        block: Ends the record of it, when it is left.
        recorder: The record.
        log: The file for what it says, relative to the project; or empty.
    """

    def __init__(self, node: Node, observed: Observed, planned: Planned, recorder: NodeRecorder, log: str) -> None:
        self.node = node
        self.observed = observed
        self.planned = planned
        self.recorder = recorder
        self.log = log
        self.block = ExitStack()
        self.block.enter_context(recorder)

    def fail(self, error: NodeFailedError) -> None:
        """End the record of it as failed."""
        try:
            with self.block:
                raise error
        except NodeFailedError as raised:
            if raised is not error:
                raise


class RangedWork(Work):
    """A node of which ranges are computed, each under a claim, so that nobody else computes it, too.

    Attributes:
        done: How many ranges this run has completed.
        failures: Why ranges are given up by this run, by their names.
        in_flight: How many are being computed.
        look_at_us: When it is worth while to ask for claims again, in ticks of the store's clock.
        looked_at_us: The same, as it was when it was looked what others have done last.
    """

    def __init__(
        self,
        node: Node,
        observed: Observed,
        planned: Planned,
        recorder: NodeRecorder,
        log: str,
        *,
        run: RunRecorder,
        inputs: Mapping[str, Held],
        is_shared: bool,
    ) -> None:
        super().__init__(node, observed, planned, recorder, log)
        self.done = 0
        self.failures: dict[str, str] = {}
        self.in_flight = 0
        self.look_at_us = 0
        self.looked_at_us = 0
        self._run = run
        self._is_shared = is_shared
        self._units: list[Unit] = list(planned.ranges.batches)
        self._shape = _shape(node) if not self._units and not planned.ranges.live else None
        self._completed: dict[str, Unit] = {}
        self._attempts: dict[str, int] = {}
        self._not_before: dict[str, int] = {}
        self._read = Read(inputs.values())

    @property
    def total(self) -> int:
        """How many ranges there are to do."""
        return len(self.planned.ranges.batches)

    @property
    def definition(self) -> str:
        """What all of its ranges are made of."""
        assert self.planned.made_of is not None
        return self.planned.made_of.fingerprint

    def made(self, unit: Unit) -> str:
        """Return what the part of a range is made of."""
        return self._read.made(self.definition, unit)

    def attempt_at(self, unit: Unit) -> int:
        """Count one more attempt at a range, and return which one it is in this run."""
        name = unit_name(unit)
        self._attempts[name] = self._attempts.get(name, 0) + 1
        return self._attempts[name]

    def take(self, now_us: int) -> Taken | None:
        """Return a range to compute now; ``None`` if none is free."""
        if now_us < self.look_at_us:
            return None
        if self._shape is not None and self._not_before.get(unit_name(self._shape), 0) <= now_us:
            shape, self._shape = self._shape, None
            self.in_flight += 1
            return Taken(shape, None)
        claims = self._claimed(self._open(now_us)) if self._units else []
        if not claims:
            self.look_at_us = now_us + int(LOOK_SECONDS * 1_000_000)
            waiting = [at for at in self._not_before.values() if at > now_us]
            self.look_at_us = min([self.look_at_us, *waiting])
            return None
        self.in_flight += 1
        return Taken(_unit_of(claims[0]), claims[0])

    def _claimed(self, units: Iterator[Unit]) -> list[Claim]:
        backend, run_id, node_id = self._run.backend, self._run.run_id, self.node.node_id
        # Alone, a run counts for itself, and a new run is a new try. Together, a range of a worker that was killed is
        # to be taken over, so there are more attempts than retries; but not for ever.
        most = max(DEFAULT_MAX_ATTEMPTS, self.node.retries + 1) if self._is_shared else MOST_ATTEMPTS
        if self.node.partitions is not None:
            keys = (unit for unit in units if isinstance(unit, str))
            return backend.claim_partitions(run_id, node_id, keys, lease=self._run.lease, max_attempts=most)
        spans = (unit for unit in units if isinstance(unit, Interval))
        return backend.claim_intervals(run_id, node_id, spans, lease=self._run.lease, max_attempts=most)

    def _open(self, now_us: int) -> Iterator[Unit]:
        for unit in self._units:
            name = unit_name(unit)
            if name not in self.failures and self._not_before.get(name, 0) <= now_us:
                yield unit

    def complete(self, project_path: Path, taken: Taken, made: str, outcome: Outcome) -> None:
        """Put what was computed in its place, and complete the range together with its claim.

        Raises:
            NodeFailedError: It cannot be written.
            LeaseLostError: This run is taken for dead; nothing was recorded.
        """
        unit, claim = taken
        if self.node.has_output:
            publish_part(project_path, self.node.node_id, unit, made, self._run.run_id, outcome)
        if claim is not None:
            rows = outcome.rows if claim.partition is not None else None
            self._run.write(lambda: self._run.backend.complete_claim(claim, row_count=rows))
            self._units.remove(unit)
            self._completed[unit_name(unit)] = unit
            self.done += 1
        self._ended(unit)

    def give_back(self, taken: Taken, why: str, again_us: int | None, *, is_counted: bool) -> bool:
        """End an attempt that failed, and return whether there is to be another one.

        Args:
            taken: The range.
            why: What went wrong.
            again_us: When it is to be tried again; ``None`` if this run gives it up.
            is_counted: Whether it counts as an attempt; not if the run was stopped.
        """
        unit, claim = taken
        backend = self._run.backend
        is_parked = False
        if claim is not None and is_counted:
            is_parked = self._run.write(lambda: backend.fail_claim(claim, why)).status == "parked"
        elif claim is not None:
            self._run.write(lambda: backend.release_claim(claim))
        self._ended(unit)
        if again_us is None or is_parked:
            self.failures[unit_name(unit)] = f"{told(unit)}: {why}"
            return False
        self._not_before[unit_name(unit)] = again_us
        self._shape = unit if claim is None and isinstance(unit, Interval) else self._shape
        return True

    def _ended(self, unit: Unit) -> None:
        self.in_flight -= 1
        self.look_at_us = 0
        self._not_before.pop(unit_name(unit), None)

    def is_waiting(self) -> bool:
        """Whether a range waits for its next attempt."""
        return bool(self._not_before)

    def settle(self, ranges: Ranges) -> str:
        """Take up what is done by now, whoever did it; return why the node has failed, or nothing if it has not.

        Args:
            ranges: What is done and lost as the store and the files have it now.
        """
        self._units = [
            unit for unit in self._units if unit_name(unit) not in self.failures and not _is_within(unit, ranges)
        ]
        mine = [*self._units, *self._completed.values()]
        lost = next((unit for unit in mine if _meets(unit, ranges.lost)), None)
        if lost is not None:
            return (
                f"{told(lost)} counts as completed, but what was computed is not in target/, or of another definition: "
                "runs that share a backfill need the same code and the same files"
            )
        if not self._units and self.failures:
            first = next(iter(self.failures.values()))
            return first + (f", and {len(self.failures) - 1} more" if len(self.failures) > 1 else "")
        parked = (
            [claim for claim in self._claims("parked") if _meets(_unit_of(claim), self._units)] if self._units else []
        )
        if parked:
            hint = f"seeknal intervals claims {self.node.node_id} --retry-parked"
            return f"{told(_unit_of(parked[0]))} failed too often: {parked[0].error_message} ({hint})"
        return ""

    @property
    def is_left(self) -> bool:
        """Whether there are ranges that are neither done nor given up."""
        return bool(self._units) or self._shape is not None

    def _claims(self, status: str) -> list[Claim]:
        return self._run.backend.list_claims(self.node.node_id, status=status)


def told(unit: Unit) -> str:
    """Return a range for people."""
    if isinstance(unit, str):
        return unit
    first, last = (f"{at:%Y-%m-%dT%H:%M:%SZ}".removesuffix("T00:00:00Z") for at in (unit.start, unit.end))
    return f"{first} to {last}"


def _shape(node: Node) -> Interval | None:
    """Return an empty range, of which a query tells the columns of a node that has no rows yet."""
    if node.schedule is None or node.start is None or node.kind != "transform" or node.format == PYTHON:
        return None
    return Interval(node.start, node.start)


def _unit_of(claim: Claim) -> Unit:
    if claim.partition is not None:
        return claim.partition
    assert claim.start is not None
    assert claim.end is not None
    return Interval(claim.start, claim.end)


def _is_within(unit: Unit, ranges: Ranges) -> bool:
    return unit in ranges.keys if isinstance(unit, str) else holds(ranges.valid, unit)


def _meets(unit: Unit, units: Sequence[Any]) -> bool:
    """Return whether a range is one of some, or has an instant of one; spans are sorted and do not overlap."""
    return unit in units if isinstance(unit, str) else meets(units, unit)
