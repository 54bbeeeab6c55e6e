"""The part of the contract about claims: how workers share the intervals and partitions of a node.

A worker holds a lock of its own: of a run that only it works in, or of a name such as ``worker-3`` in a run that is
shared. Under that lease it claims ranges, does them, and completes them. A claim needs no renewal: it lives exactly as
long as the lease. When that ends, because the worker was killed, or frozen for too long, others may take the range, and
what the worker writes later under that lease is refused. The clauses are part of the law in `seeknal.state.contract`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from seeknal.errors import CapabilityError
from seeknal.model.claims import DEFAULT_MAX_ATTEMPTS
from seeknal.model.intervals import Interval
from seeknal.model.records import Claim
from seeknal.state.lease import Lease
from seeknal.state.reader import StateReader


class ClaimVerbs(StateReader):
    """What a backend with `Capability.CLAIMS` offers; the others raise `CapabilityError`."""

    def claim_intervals(
        self,
        run_id: str,
        node_id: str,
        wanted: Iterable[Interval],
        *,
        lease: Lease,
        limit: int = 1,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    ) -> list[Claim]:
        """Take the next of the wanted intervals that are missing and free, and return their claims.

        [CLAIM-1] Of all workers on the store one gets a range, until it ends the claim or its lease ends. [CLAIM-2]
        What is completed as a whole, and what overlaps with a living claim or a parked range, is passed over; what is
        completed in part is taken as a whole. [CLAIM-3] A range whose last attempt failed, or whose worker is gone,
        is taken again, and the attempts are counted. The answer is empty if nothing is free, which does not mean that
        all is done: `list_claims` tells what others are working on.

        Args:
            run_id: The run that will have completed them.
            node_id: The node.
            wanted: In the order in which they shall be taken, such as `get_missing_intervals` returns them; no more of
                them are asked for than are needed.
            lease: What keeps the claims alive; any lock that this worker holds.
            limit: At most so many; 0 is none at all.
            max_attempts: [CLAIM-4] A range whose attempt fails is parked if it was the so-many-th.

        Raises:
            LeaseLostError: [CLAIM-5] The lease is not held any more; nothing was taken.
            RunNotFoundError: [CLAIM-6] There is something to take, and no such run; nothing was taken.
            IntervalError: [CLAIM-6] What is wanted is no interval.
            InvalidIdError, InvalidFieldError: [CLAIM-6] Naming the field.
            StaleVersionError: Others were faster until the budget for waiting was used up; nothing was taken.
            TransactionError: [CLAIM-7] This thread has a transaction open: what others may not take has to be
                committed at once.
            CapabilityError: The backend does not declare `Capability.CLAIMS`.
        """
        raise no_claims(self)

    def claim_partitions(
        self,
        run_id: str,
        node_id: str,
        wanted: Iterable[str],
        *,
        lease: Lease,
        limit: int = 1,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    ) -> list[Claim]:
        """Take the next of the wanted partitions that are missing and free. [CLAIM-8] As `claim_intervals`.

        Raises:
            InvalidIdError: A key is none; nothing was taken.
            SeeknalError: As `claim_intervals`.
        """
        raise no_claims(self)

    def complete_claim(
        self, claim: Claim, *, row_count: int | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Complete what was claimed, and end the claim, in one commit. [CLAIM-9] Under the lease, or not at all.

        [CLAIM-10] In a transaction it is a part of that.

        Args:
            claim: As it was returned.
            row_count: How many rows the partition has; of an interval nobody keeps it.
            metadata: What else there is to know of the partition.

        Raises:
            LeaseLostError: [CLAIM-9] The lease is not held any more, and somebody else may have the range. Nothing was
                written.
            ClaimEndedError: [CLAIM-11] It is over already. Nothing was written.
            RunNotFoundError: Its run is gone.
            InvalidFieldError: It is no claim, or a field cannot be kept.
        """
        raise no_claims(self)

    def fail_claim(self, claim: Claim, error_message: str) -> Claim:
        """End an attempt that failed, and return how the range stands. [CLAIM-12] It is open, or [CLAIM-4] parked.

        Raises:
            LeaseLostError, ClaimEndedError, InvalidFieldError: As `complete_claim`.
        """
        raise no_claims(self)

    def release_claim(self, claim: Claim) -> None:
        """Give a range back undone. [CLAIM-13] This attempt is not counted.

        Raises:
            LeaseLostError, ClaimEndedError, InvalidFieldError: As `complete_claim`.
        """
        raise no_claims(self)

    def list_claims(self, node_id: str, *, status: str | None = None) -> list[Claim]:
        """Return the claims of a node as they stand now: intervals by their start, then partitions. [CLAIM-14].

        One whose lease has ended is open or parked. One that is, and whose range is completed, is none any more.

        Args:
            node_id: The node.
            status: Only those that are ``claimed``, ``open`` or ``parked``.

        Raises:
            InvalidIdError, InvalidFieldError: Naming the field.
        """
        raise no_claims(self)

    def list_claimed_nodes(self) -> list[str]:
        """Return the ids of the nodes of which `list_claims` has a claim, sorted by their bytes. [CLAIM-16].

        What was claimed and is completed does not count. It reads the claims of each node that has any.
        """
        raise no_claims(self)

    def retry_parked(self, node_id: str, *, reason: str = "") -> list[Claim]:
        """Open the parked ranges of a node again, and return them. [CLAIM-15] Their attempts are counted anew.

        A store that keeps a log has it there, as ``retry``.

        Raises:
            InvalidIdError, InvalidFieldError: Naming the field.
            TransactionError: As `claim_intervals`.
        """
        raise no_claims(self)


def no_claims(store: object) -> CapabilityError:
    """Return the error of claims that are asked of a store which keeps none."""
    return CapabilityError(
        f"a {type(store).__name__} keeps no claims",
        hint="Use a backend that declares Capability.CLAIMS; file and database do.",
    )
