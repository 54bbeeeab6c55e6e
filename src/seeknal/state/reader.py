"""The reading half of the contract: what a dashboard or a report needs of a store.

The clauses are part of the law in `seeknal.state.contract`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import Any

from seeknal.errors import CapabilityError, IntervalError, SeeknalError
from seeknal.model.changes import missing_run
from seeknal.model.ids import check_id
from seeknal.model.intervals import Interval, as_interval, gaps
from seeknal.model.pending import NOT_LATE, pending_intervals
from seeknal.model.records import (
    CompletedInterval,
    IntervalProvenance,
    LockInfo,
    LoggedChange,
    NodeState,
    PartitionState,
    RunState,
)
from seeknal.model.schedule import as_schedule
from seeknal.model.status import NodeStatus, as_status


class StateReader(ABC):
    """Everything that can be asked of a store. Safe from threads; never takes a lock that a writer waits for."""

    def health_check(self) -> bool:
        """Return whether the store answers; never raises a `SeeknalError`. [INIT-3]."""
        try:
            self.list_runs(limit=1)
        except SeeknalError:
            return False
        return True

    @abstractmethod
    def get_run(self, run_id: str) -> RunState | None:
        """Return a run, or ``None``. [RUN-9]."""

    @abstractmethod
    def list_runs(
        self, *, status: str | None = None, newest_first: bool = False, limit: int | None = None
    ) -> list[str]:
        """Return run ids in the order of their creation. [RUN-10] Unique; empty if there are none.

        Args:
            status: Only runs of this status.
            newest_first: Turn the order around.
            limit: At most so many; 0 is none at all.
        """

    def exists(self, run_id: str) -> bool:
        """Return whether there is such a run. [RUN-13]."""
        return self.get_run(run_id) is not None

    def get_metadata(self, run_id: str) -> dict[str, Any]:
        """Return the metadata of a run; empty if it has none. [RUN-14].

        Raises:
            RunNotFoundError: There is no such run.
        """
        run = self.get_run(run_id)
        if run is None:
            raise missing_run(run_id)
        return run.metadata

    @abstractmethod
    def get_node_state(self, run_id: str, node_id: str) -> NodeState | None:
        """Return the state of a node in a run, or ``None``. [NODE-10]."""

    @abstractmethod
    def list_nodes(self, run_id: str) -> list[str]:
        """Return the ids of the nodes of a run, sorted by their bytes. [NODE-11] Empty for a missing run."""

    def node_exists(self, run_id: str, node_id: str) -> bool:
        """Return whether the node has a state in this run. [NODE-13]."""
        return self.get_node_state(run_id, node_id) is not None

    def get_all_node_states(self, run_id: str) -> dict[str, NodeState]:
        """Return the states of all nodes of a run by node id, in the order of `list_nodes`. [NODE-14]."""
        found = {node_id: self.get_node_state(run_id, node_id) for node_id in self.list_nodes(run_id)}
        return {node_id: state for node_id, state in found.items() if state is not None}

    def get_latest_node_state(self, node_id: str, status: str | None = None) -> NodeState | None:
        """Return the state of a node that was written last across all runs, or ``None``.

        [LATEST-1] The store's own sequence decides, never a clock. [LATEST-2] With ``status``, the one
        written last among those of that status. [LATEST-3] Deleting its run uncovers the one before.
        """
        wanted = None if status is None else as_status(NodeStatus, status)
        found = (self.get_node_state(run_id, node_id) for run_id in self.list_runs())
        states = [state for state in found if state is not None and wanted in (None, state.status)]
        return max(states, key=lambda state: state.sequence, default=None)

    @abstractmethod
    def get_completed_intervals(self, node_id: str) -> list[CompletedInterval]:
        """Return what a node has completed: sorted, without overlaps, touching ones merged. [INT-5]."""

    def get_missing_intervals(
        self,
        node_id: str,
        start: datetime,
        end: datetime,
        schedule: str | None = None,
        timezone: str | None = None,
        *,
        lookback: int = 0,
        lateness: timedelta = NOT_LATE,
        max_intervals: int | None = None,
        newest_first: bool = False,
    ) -> list[Interval]:
        """Return what a node has not completed of ``[start, end)``, in order.

        [INT-7] Without a schedule: the gaps. [INT-8] With one (a five-field cron expression or a
        shorthand): each whole tick within the span that is not fully completed.

        [INT-11] With a schedule, ``end`` may be the instant at which one asks. Then the last ``lookback`` ticks
        before it are to be done again, a tick is due when its end is ``lateness`` ago, and at most ``max_intervals``
        are returned, the oldest or the newest first, as in `seeknal.model.pending.pending_intervals`.

        Raises:
            IntervalError: [INT-9] ``end <= start``; a schedule or time zone that cannot be read; a
                time zone, or anything of [INT-11], without a schedule.
            InvalidFieldError: [INT-11] A count or a lateness that is none.
        """
        span = as_interval(start, end)
        rule = None if schedule is None and timezone is None else as_schedule(schedule, timezone)
        done = [Interval(each.start, each.end) for each in self.get_completed_intervals(node_id)]
        if rule is not None:
            left = pending_intervals(
                done,
                rule,
                now=span.end,
                start=span.start,
                lookback=lookback,
                lateness=lateness,
                max_intervals=max_intervals,
                newest_first=newest_first,
            )
            return list(left)
        if (lookback, lateness, max_intervals, newest_first) != (0, NOT_LATE, None, False):
            raise IntervalError(
                "lookback, lateness, max_intervals and newest_first are about ticks, and there is no schedule",
                hint="Pass a schedule such as '@daily', or leave them out.",
            )
        return gaps(done, span.start, span.end)

    def get_interval_provenance(self, node_id: str) -> list[IntervalProvenance]:
        """Return which run was the last to complete each part of what a node has completed, in order.

        [PROV-1] Together they cover what `get_completed_intervals` covers, whatever was merged there, and do not
        overlap. Touching parts of one run are one part, those of two runs stay two. [PROV-2] Completing a span again
        gives it to the run that did, and leaves the rest; restating takes it away. [PROV-3] A run that was deleted is
        still named.

        Raises:
            CapabilityError: The backend does not declare `Capability.PROVENANCE`.
        """
        raise CapabilityError(
            f"a {type(self).__name__} does not keep which run completed which part of an interval",
            hint="Use a backend that declares Capability.PROVENANCE; file and database do.",
        )

    @abstractmethod
    def list_partitions(
        self, node_id: str, *, after: str | None = None, limit: int | None = None, descending: bool = False
    ) -> list[PartitionState]:
        """Return the partitions a node has completed, sorted by the bytes of their keys. [PART-3].

        [PART-6] A page of them: the key of the last one is what the next page comes after, so each partition that
        stands all the time is in exactly one page, whatever others add and restate meanwhile. A page costs as much as
        there is in it.

        Args:
            node_id: The node.
            after: Only those whose keys come behind this one, which need not exist; in the order of the answer.
            limit: At most so many; 0 is none at all.
            descending: From the last key down.
        """

    def get_partition(self, node_id: str, partition: str) -> PartitionState | None:
        """Return a completed partition, or ``None``. [PART-7]."""
        check_id(partition, "partition")
        return next((each for each in self.list_partitions(node_id) if each.partition == partition), None)

    def count_partitions(self, node_id: str) -> int:
        """Return how many partitions a node has completed. [PART-7]."""
        return len(self.list_partitions(node_id))

    def list_worked_nodes(self) -> list[str]:
        """Return the ids of the nodes that have completed intervals or partitions, sorted by their bytes. [INT-10].

        Those of which partitions are expected are among them, and also those that have no state in any run, or whose
        runs are gone. Whoever copies a whole store needs it.

        Raises:
            CapabilityError: The backend cannot tell; then its state cannot be moved to another store.
        """
        raise CapabilityError(
            f"a {type(self).__name__} does not tell which nodes have completed work",
            hint="Whoever maintains that backend has to write its list_worked_nodes().",
        )

    @abstractmethod
    def list_locks(self) -> list[LockInfo]:
        """Return the locks that are held now, by run id, then node id. [LOCK-9]."""

    def list_changes(
        self,
        *,
        run_id: str | None = None,
        node_id: str | None = None,
        action: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[LoggedChange]:
        """Return what people and commands did to the store, in the order of time. [LOG-4].

        Args:
            run_id: Only what was done to this run.
            node_id: Only what was done to this node.
            action: Only what this word names.
            newest_first: Turn the order around.
            limit: At most so many; 0 is none at all.

        Raises:
            CapabilityError: The backend does not declare `Capability.LOG`.
        """
        raise no_log(self)


def no_log(store: object) -> CapabilityError:
    """Return the error of a log that is asked of a store which keeps none."""
    return CapabilityError(
        f"a {type(store).__name__} keeps no log of changes",
        hint="Use a backend that declares Capability.LOG; file and database do.",
    )
