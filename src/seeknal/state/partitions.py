"""The part of the contract about which partitions are expected of a node, which are missing, and how each stands.

What is expected is given with the question, as a list or a definition (`seeknal.model.partitions`), or the store keeps
it: keys that are found while pipelines run, such as the customers of today, are told to the store once. How a partition
stands is not written down but follows: it is completed, or somebody who lives has claimed it, or the last attempt
failed. So nothing says "running" for ever of a worker that was killed. The clauses are part of the law in
`seeknal.state.contract`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import ClassVar

from seeknal.clock import Clock, SystemClock
from seeknal.errors import CapabilityError, InvalidFieldError
from seeknal.model.changes import check_limit
from seeknal.model.ids import check_id
from seeknal.model.partitions import PartitionDefinition, missing_partitions
from seeknal.model.records import Claim, PartitionReport, PartitionState
from seeknal.model.status import ClaimStatus, PartitionStatus, as_status
from seeknal.state.capabilities import Capability
from seeknal.state.claims import ClaimVerbs

PAGE_PARTITIONS = 1000
"""How many are read at once where those that are wanted have to be picked out."""


class PartitionVerbs(ClaimVerbs):
    """What is asked of partitions, completed or not."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    clock: Clock = SystemClock()

    @abstractmethod
    def restate_partition(self, node_id: str, partition: str, *, reason: str | None = None) -> bool:
        """Un-complete a partition; return whether it was completed. [PART-4] Logged as `restate_partitions` is."""

    def restate_partitions(self, node_id: str, partitions: Iterable[str], *, reason: str | None = None) -> list[str]:
        """Un-complete partitions; return the keys of those that were completed, each once. [PART-8].

        [PART-9] With a reason, be it an empty one, a store that keeps a log has it there, as ``restate``, with the
        keys, in the same commit; nothing is logged if none was completed.

        Args:
            node_id: The node.
            partitions: Their keys.
            reason: Why; ``None`` leaves it out of the log.

        Raises:
            InvalidIdError, InvalidFieldError: Naming the field; nothing changed.
        """
        return [key for key in check_keys(partitions) if self.restate_partition(node_id, key, reason=reason)]

    def expect_partitions(self, node_id: str, partitions: Iterable[str]) -> list[str]:
        """Tell the store which partitions are expected of a node; return the keys that are new, each once. [EXP-1].

        [EXP-2] What is expected belongs to the node, and stays when its partitions are completed and restated; to
        expect what is completed changes nothing of that.

        Raises:
            InvalidIdError: [EXP-3] A key is none; nothing changed.
            CapabilityError: The backend does not declare `Capability.EXPECTED`.
        """
        raise no_expected(self)

    def drop_expected_partitions(self, node_id: str, partitions: Iterable[str]) -> list[str]:
        """Expect these partitions no longer; return the keys that were expected. [EXP-4] What is completed stays so.

        Raises:
            InvalidIdError, CapabilityError: As `expect_partitions`.
        """
        raise no_expected(self)

    def list_expected_partitions(
        self, node_id: str, *, after: str | None = None, limit: int | None = None
    ) -> list[str]:
        """Return the keys that the store was told to expect, sorted by their bytes. [EXP-5] In pages, as [PART-6].

        Raises:
            CapabilityError: As `expect_partitions`.
        """
        raise no_expected(self)

    def get_missing_partitions(
        self,
        node_id: str,
        expected: PartitionDefinition | Iterable[str] | None = None,
        *,
        now: datetime | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Return the keys that are expected and not completed, in the order of what is expected, each once. [MISS-1].

        Also those that somebody works on, or whose last attempt failed: `claim_partitions` passes over what is taken.
        [MISS-2] Without ``expected``, of what the store was told to expect (`expect_partitions`). No more keys of
        ``expected`` are asked for than are needed.

        Args:
            node_id: The node.
            expected: A definition, or keys in any iterable.
            now: Up to when partitions by time are expected; the present when ``None``.
            limit: At most so many; 0 is none at all.

        Raises:
            InvalidFieldError, InvalidIdError: Naming the field; a key is none.
            CapabilityError: Nothing is given, and the backend does not declare `Capability.EXPECTED`.
        """
        check_id(node_id, "node_id")
        check_limit(limit)
        wanted = self.list_expected_partitions(node_id) if expected is None else expected
        if not isinstance(wanted, Iterable | PartitionDefinition):
            raise InvalidFieldError(
                f"expected is a {type(wanted).__name__}", hint="Pass a definition, or a list of keys.", field="expected"
            )
        until = self.clock.now() if now is None else now
        return list(islice(missing_partitions(wanted, self._completed_keys(node_id), until), limit))

    def _completed_keys(self, node_id: str) -> Container[str]:
        return {state.partition for state in self.list_partitions(node_id)}

    def list_partition_statuses(
        self, node_id: str, *, status: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[PartitionReport]:
        """Return how the partitions of a node stand, sorted by the bytes of their keys. [STAT-1].

        They are those that are completed, claimed, failed, or expected by the store. [STAT-2] ``running`` is what
        somebody who lives has claimed, ``failed`` what failed last or whose worker is gone, and ``missing`` what is
        expected and nothing else. [STAT-3] In pages, as [PART-6]; but each reads the claims of the node, and one of
        ``missing`` ones all keys.

        Args:
            node_id: The node.
            status: Only those that are ``completed``, ``running``, ``failed`` or ``missing``.
            after: Only those whose keys come behind this one.
            limit: At most so many; 0 is none at all.

        Raises:
            InvalidIdError, InvalidFieldError: Naming the field.
        """
        wanted = None if status is None else as_status(PartitionStatus, status)
        check_limit(limit)
        check_id(node_id, "node_id")
        if after is not None:
            check_id(after, "after")
        if wanted is PartitionStatus.COMPLETED:
            return [_of_completed(state) for state in self.list_partitions(node_id, after=after, limit=limit)]
        tried = {claim.partition: claim for claim in self._claims_now(node_id) if claim.partition is not None}
        if wanted is not None:
            found = self._missing(node_id, tried, after) if wanted is _MISSING else self._tried(tried, after, wanted)
            return list(islice(found, limit))
        reports: list[PartitionReport] = []
        while limit is None or len(reports) < limit:
            page = self._page(node_id, tried, after, PAGE_PARTITIONS if limit is None else limit)
            reports += page
            if not page:
                break
            after = page[-1].partition
        return reports[:limit]

    def _tried(
        self, claims: Mapping[str, Claim], after: str | None, status: PartitionStatus
    ) -> Iterator[PartitionReport]:
        """Yield the reports of this status of what is claimed, unless it is completed."""
        for key in _behind(claims, after):
            report = _of_claim(claims[key], key)
            if report.status is status and self.get_partition(report.node_id, key) is None:
                yield report

    def _missing(self, node_id: str, claims: Mapping[str, Claim], after: str | None) -> Iterator[PartitionReport]:
        """Yield the reports of what is expected, or was given back undone, and is not completed."""
        keys = {key for key, claim in claims.items() if claim.error_message is None}
        if Capability.EXPECTED in self.capabilities:
            keys.update(self.list_expected_partitions(node_id, after=after))
        done = self._completed_keys(node_id) if keys else ()
        for key in _behind(keys, after):
            report = _of_claim(claims[key], key) if key in claims else _of_expected(node_id, key)
            if report.status is _MISSING and key not in done:
                yield report

    def _claims_now(self, node_id: str) -> list[Claim]:
        """Return the claims of a node as they stand, also of what is completed; without reading that, where it can."""
        return self.list_claims(node_id) if Capability.CLAIMS in self.capabilities else []

    def _page(self, node_id: str, claims: Mapping[str, Claim], after: str | None, limit: int) -> list[PartitionReport]:
        """Return the next reports, whatever they say."""
        expected: list[str] = []
        if Capability.EXPECTED in self.capabilities:
            expected = self.list_expected_partitions(node_id, after=after, limit=limit)
        # Last, so that what is completed meanwhile is seen as that, and not as nothing at all.
        completed = self.list_partitions(node_id, after=after, limit=limit)
        reports = {key: _of_expected(node_id, key) for key in expected}
        reports |= {key: _of_claim(claim, key) for key, claim in claims.items()}
        reports |= {state.partition: _of_completed(state) for state in completed}
        # What lies behind the last of a full page is not known yet.
        ends = [page[-1] for page in (expected, [each.partition for each in completed]) if page and len(page) == limit]
        end = min(ends, default=None)
        return [reports[key] for key in _behind(reports, after) if end is None or key <= end][:limit]


_MISSING = PartitionStatus.MISSING


def _behind(keys: Iterable[str], after: str | None) -> list[str]:
    """Return the keys that come behind one, in the order of their bytes, which is that of the texts."""
    return sorted(key for key in keys if after is None or key > after)


def _of_expected(node_id: str, key: str) -> PartitionReport:
    return PartitionReport(node_id=node_id, partition=key, status=PartitionStatus.MISSING)


def _of_completed(state: PartitionState) -> PartitionReport:
    return PartitionReport(
        node_id=state.node_id,
        partition=state.partition,
        status=PartitionStatus.COMPLETED,
        run_id=state.run_id,
        row_count=state.row_count,
        at=state.completed_at,
    )


def _of_claim(claim: Claim, key: str) -> PartitionReport:
    """Return how a claimed partition stands; one that was given back undone, or may be tried again, has not failed."""
    ended = PartitionStatus.FAILED if claim.error_message is not None else PartitionStatus.MISSING
    return PartitionReport(
        node_id=claim.node_id,
        partition=key,
        status=PartitionStatus.RUNNING if claim.status is ClaimStatus.CLAIMED else ended,
        run_id=claim.run_id,
        at=claim.since,
        attempt=claim.attempt,
        is_parked=claim.status is ClaimStatus.PARKED,
        error_message=claim.error_message,
    )


def check_keys(partitions: Iterable[str]) -> list[str]:
    """Return keys, checked, each once.

    Raises:
        InvalidIdError, InvalidFieldError: Naming the field.
    """
    if isinstance(partitions, str | bytes) or not isinstance(partitions, Iterable):
        raise InvalidFieldError(
            f"partitions is a {type(partitions).__name__}", hint="Pass a list of keys.", field="partitions"
        )
    return list(dict.fromkeys(check_id(key, "partition") for key in partitions))


def no_expected(store: object) -> CapabilityError:
    """Return the error of expected partitions that are asked of a store which keeps none."""
    return CapabilityError(
        f"a {type(store).__name__} does not keep which partitions are expected",
        hint="Use a backend that declares Capability.EXPECTED; file and database do.",
    )
