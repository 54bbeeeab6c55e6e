"""The verbs of claims, over the reads and the commit of a store.

What is read comes in this order: the claims, the leases that are held, what is completed. So a claim whose lease is not
held is dead for good, and one that was completed in between is seen alive, or as completed. Whoever takes ranges guards
the version of the node's claims, and with it that nobody else took any meanwhile. Whoever ends a claim guards that very
claim and its lease, and keeps nobody waiting who takes others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, tee
from typing import Any, TypeVar

import msgspec

from seeknal.errors import ClaimEndedError, InvalidFieldError, TransactionError
from seeknal.model import claims as rules
from seeknal.model.changes import new_partition, optional_text
from seeknal.model.ids import check_id
from seeknal.model.intervals import Interval
from seeknal.model.records import Claim, CompletedInterval
from seeknal.model.status import ClaimStatus, as_status
from seeknal.state.batch import IntervalCompleted, PartitionCompleted, Sequences
from seeknal.state.capabilities import Capability
from seeknal.state.change_log import new_change
from seeknal.state.claims import no_claims
from seeknal.state.lease import Lease, lost
from seeknal.state.record_store import RecordStore
from seeknal.state.transaction import LONGEST_PAUSE
from seeknal.state.unit import UnitOfWork

T = TypeVar("T")

CROWD_PAUSE = 0.01
"""The longest pause of a worker that others were faster than: one of them has got on, and the next is as fast."""

Free = Callable[[Iterable[Any], Iterable[Claim], Any], Iterator[rules.Range]]


class RecordedClaims(RecordStore):
    """Claims of a store that keeps them."""

    @abstractmethod
    def _write(self, change: Callable[[UnitOfWork], T], *, longest_pause: float = LONGEST_PAUSE) -> tuple[T, Sequences]:
        """Run ``change`` in the open transaction, or alone until it commits without a conflict."""

    def claim_intervals(
        self,
        run_id: str,
        node_id: str,
        wanted: Iterable[Interval],
        *,
        lease: Lease,
        limit: int = 1,
        max_attempts: int = rules.DEFAULT_MAX_ATTEMPTS,
    ) -> list[Claim]:
        """Take the next of the wanted intervals that are missing and free, and return their claims."""
        new = self._new_claim(run_id, node_id, lease, limit, max_attempts)
        return self._claim(new, wanted, limit, rules.free_intervals, lambda: self.read_intervals(node_id))

    def claim_partitions(
        self,
        run_id: str,
        node_id: str,
        wanted: Iterable[str],
        *,
        lease: Lease,
        limit: int = 1,
        max_attempts: int = rules.DEFAULT_MAX_ATTEMPTS,
    ) -> list[Claim]:
        """Take the next of the wanted partitions that are missing and free, and return their claims."""
        new = self._new_claim(run_id, node_id, lease, limit, max_attempts)
        return self._claim(new, wanted, limit, rules.free_partitions, lambda: self.read_partition_keys(node_id))

    def _new_claim(self, run_id: str, node_id: str, lease: Lease, limit: int, max_attempts: int) -> Claim:
        """Return who takes what, when, and until when, once all of it was checked."""
        check_id(run_id, "run_id")
        check_id(node_id, "node_id")
        if not isinstance(lease, Lease):
            raise InvalidFieldError(
                f"lease is a {type(lease).__name__}",
                hint="Pass what `with backend.lock(...) as lease:` gives.",
                field="lease",
            )
        rules.check_number(limit, "limit", 0)
        rules.check_number(max_attempts, "max_attempts", 1)
        self._check_open()
        self._check_claims_alone()
        return Claim(
            node_id=node_id,
            run_id=run_id,
            max_attempts=max_attempts,
            since=self.clock.now(),
            lease_run_id=lease.run_id,
            lease_node_id=lease.node_id,
            lease_token=lease.token,
            lease_owner=lease.owner,
        )

    def _claim(
        self, new: Claim, wanted: Iterable[Any], limit: int, free: Free, completed: Callable[[], Any]
    ) -> list[Claim]:
        rest = iter(wanted)

        def take(unit: UnitOfWork) -> list[Claim]:
            nonlocal rest
            rest, ahead = tee(rest)  # another attempt begins where this one does
            version, stored = self.read_claims(new.node_id)
            living = self._living()
            if new.lease_owner not in living:
                raise lost(_lease(new))
            standing = {claim.range_key: rules.as_it_stands(claim, living) for claim in stored}
            found = islice(free(ahead, standing.values(), completed()), limit)
            before = {claim.range_key: claim for claim in stored}
            claims = []
            numbered = msgspec.structs.replace(new, sequence=version + 1)
            for each in found:
                key = rules.taken(new, each, None).range_key
                claims.append(rules.taken(numbered, each, standing.get(key)))
                if key in before:
                    unit.end_claim(before[key])  # which fails if it was completed at the last moment
            if claims:
                unit.put_claims(claims, new.node_id, version)
                unit.require_run(new.run_id)
                unit.demand(_lease(new))
            return claims

        while True:
            try:
                return self._write(take, longest_pause=CROWD_PAUSE)[0]
            except ClaimEndedError:
                continue  # somebody ended it between our read and our commit, so there is less to take now

    def complete_claim(
        self, claim: Claim, *, row_count: int | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Complete what was claimed, and end the claim, in one commit."""
        self._check_claim(claim)
        work: IntervalCompleted | PartitionCompleted
        if claim.partition is not None:
            given = {"row_count": row_count, "metadata": metadata}
            work = PartitionCompleted(
                new_partition(claim.run_id, claim.node_id, claim.partition, self.clock.now(), **given)
            )
        else:
            for field, value in (("row_count", row_count), ("metadata", metadata)):
                if value is not None:
                    raise InvalidFieldError(
                        f"{field} is given for an interval, which keeps none",
                        hint="Write it into the state of the node.",
                        field=field,
                    )
            assert claim.start is not None
            assert claim.end is not None
            work = IntervalCompleted(claim.node_id, claim.start, claim.end, claim.run_id)

        def complete(unit: UnitOfWork) -> None:
            unit.push()
            try:
                unit.require_run(claim.run_id)
                unit.end_claim(claim)
                unit.demand(_lease(claim))
                unit.do(work)
            except BaseException:
                unit.discard()  # a refused call leaves nothing in the transaction that goes on
                raise
            unit.keep()

        self._write(complete)

    def fail_claim(self, claim: Claim, error_message: str) -> Claim:
        """End an attempt that failed, and return how the range stands."""
        if optional_text(error_message, "error_message") is None:
            raise InvalidFieldError("error_message is missing", hint="Say what went wrong.", field="error_message")
        self._check_claim(claim)
        new = rules.failed(claim, error_message, self.clock.now())
        self._end(claim, new)
        return new

    def release_claim(self, claim: Claim) -> None:
        """Give a range back undone."""
        self._check_claim(claim)
        now, before = self.clock.now(), claim.attempt - 1
        new = msgspec.structs.replace(claim, status=ClaimStatus.OPEN, attempt=before, since=now)
        self._end(claim, new if before or claim.error_message is not None else None)

    def _end(self, claim: Claim, new: Claim | None) -> None:
        def end(unit: UnitOfWork) -> None:
            unit.end_claim(claim, new)
            unit.demand(_lease(claim))

        self._write(end)

    def list_claims(self, node_id: str, *, status: str | None = None) -> list[Claim]:
        """Return the claims of a node as they stand now: intervals by their start, then partitions."""
        check_id(node_id, "node_id")
        wanted = None if status is None else as_status(ClaimStatus, status)
        self._check_open()
        self._check_keeps_claims()
        found = self._standing(node_id, self._stored(node_id))
        return sorted((claim for claim in found if wanted in (None, claim.status)), key=_in_order)

    def list_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes that have claims as they stand now, sorted by their bytes."""
        self._check_open()
        self._check_keeps_claims()
        # A transaction only ends claims, so no node has one there that had none before.
        return [node_id for node_id in self.read_claimed_nodes() if self._standing(node_id, self._stored(node_id))]

    def retry_parked(self, node_id: str, *, reason: str = "") -> list[Claim]:
        """Open the parked ranges of a node again, and return them."""
        check_id(node_id, "node_id")
        self._check_open()
        self._check_claims_alone()
        logged = new_change(self.clock, "retry", node_id=node_id, reason=reason)

        def retry(unit: UnitOfWork) -> list[Claim]:
            version, stored = self.read_claims(node_id)
            parked = [each for each in self._standing(node_id, stored) if each.status is ClaimStatus.PARKED]
            opened = [
                msgspec.structs.replace(each, status=ClaimStatus.OPEN, attempt=0, since=self.clock.now())
                for each in parked
            ]
            if opened:
                unit.put_claims(opened, node_id, version)
                if Capability.LOG in self.capabilities:
                    unit.log(msgspec.structs.replace(logged, detail={"ranges": len(opened)}))
            return sorted(opened, key=_in_order)

        return self._write(retry)[0]

    def _claims_now(self, node_id: str) -> list[Claim]:
        if Capability.CLAIMS not in self.capabilities:
            return []
        return self._as_they_stand(self._stored(node_id))

    def _stored(self, node_id: str) -> list[Claim]:
        unit = self._local.unit
        return unit.claims(node_id) if unit is not None else self.read_claims(node_id)[1]

    def _as_they_stand(self, stored: list[Claim]) -> list[Claim]:
        living = self._living() if stored else set()
        return [rules.as_it_stands(claim, living) for claim in stored]

    def _standing(self, node_id: str, stored: list[Claim]) -> list[Claim]:
        """Return claims as they stand, but for those whose range is completed."""
        found = self._as_they_stand(stored)
        if not found:
            return []
        intervals: list[CompletedInterval]
        unit = self._local.unit
        if unit is not None:
            intervals, keys = unit.intervals(node_id), {state.partition for state in unit.partitions(node_id)}
        else:
            intervals, keys = self.read_intervals(node_id), self.read_partition_keys(node_id)
        return [
            claim for claim in found if claim.status is ClaimStatus.CLAIMED or not rules.is_done(claim, intervals, keys)
        ]

    def _living(self) -> set[str]:
        return {lock.owner for lock in self.read_locks()}

    def _check_claim(self, claim: Claim) -> None:
        self._check_open()
        self._check_keeps_claims()
        if not isinstance(claim, Claim):
            raise InvalidFieldError(
                f"claim is a {type(claim).__name__}", hint="Pass what claim_intervals() returned.", field="claim"
            )
        if claim.status is not ClaimStatus.CLAIMED:
            raise rules.over(claim)

    def _check_claims_alone(self) -> None:
        self._check_keeps_claims()
        if self.in_transaction:
            raise TransactionError(
                "claims are not taken within a transaction, since others have to see them at once",
                hint="Claim before the transaction begins; complete_claim() may be a part of it.",
            )

    def _check_keeps_claims(self) -> None:
        if Capability.CLAIMS not in self.capabilities:
            raise no_claims(self)


def _lease(claim: Claim) -> Lease:
    """Return the lease that a claim lives by."""
    return Lease(claim.lease_run_id, claim.lease_node_id, claim.lease_token, claim.lease_owner)


def _in_order(claim: Claim) -> tuple[bool, float, bytes]:
    start = claim.start.timestamp() if claim.start is not None else 0.0
    return claim.partition is not None, start, (claim.partition or "").encode()
