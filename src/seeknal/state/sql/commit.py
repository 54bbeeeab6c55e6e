"""A batch as the steps of one transaction: guards, writes, and last of all that the state is still here.

The order keeps writers who lock rows from waiting for each other in a ring, as far as that can be: leases before runs
before nodes; before all of them the nodes whose intervals change, and then those of which ranges are taken, each in the
order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from seeknal.clock import Clock
from seeknal.state.batch import Batch, Sequences
from seeknal.state.sql import change_log, claims, intervals, leases, nodes, receipts, runs, work
from seeknal.state.sql.dialects.base import Rows
from seeknal.state.sql.sequences import SPAN
from seeknal.state.sql.statements import Step, Target, statement_of
from seeknal.state.sql.store import current_step


def is_one_transition(batch: Batch) -> bool:
    """Return whether a batch writes one node state and nothing else, which can be a single statement."""
    if len(batch.nodes) != 1 or len(batch.node_versions) != 1:
        return False
    state = batch.nodes[0]
    others = (batch.runs, batch.deleted_runs, batch.deleted_nodes, batch.work, batch.freed_runs, batch.leases)
    return (
        not any((*others, batch.log, batch.tokens, batch.ended_claims, batch.claims, batch.claim_versions))
        and not batch.run_versions
        and state.sequence == 0
        and batch.successor is None
        and (state.run_id, state.node_id) in batch.node_versions
        and batch.runs_needed <= {state.run_id}
    )


def first_of(number: int) -> int:
    """Return the first sequence of the commit that drew a number."""
    return number * SPAN + 1


class Plan:
    """What a commit sends.

    Args:
        batch: What is to be committed.
        target: The store.
        location: The store, in words.
        clock: What a store of one machine measures leases by.
    """

    def __init__(self, batch: Batch, target: Target, location: str, clock: Clock) -> None:
        self._batch = batch
        self._target = target
        self._location = location
        self._clock = clock
        new_runs = [run for run in batch.runs if run.sequence == 0]
        new_nodes = [state for state in batch.nodes if state.sequence == 0]
        self._asking = (new_runs, new_nodes) if len(new_runs) + len(new_nodes) == 1 else ([], [])

    def steps(self, op_id: int) -> list[Step]:
        """Return the steps, the same ones each time, for one attempt."""
        batch = self._batch
        steps: list[Step] = []
        if self._target.dialect.is_shared:
            steps += [*self._raised_numbers(), receipts.leave_step(op_id)]
        if self._target.dialect.locks_rows:
            steps += intervals.hold_steps(batch.work)
        steps += claims.hold_steps(batch.claim_versions)
        steps += [leases.hold_step(lease, self._clock) for lease in batch.leases]
        steps += [leases.free_run_step(run_id) for run_id in batch.freed_runs]
        steps += leases.count_steps(batch.tokens)
        steps += self._run_steps(op_id)
        steps += self._node_steps(op_id)
        steps += claims.write_steps(batch.ended_claims, batch.claims)
        for change in work.in_order(batch.work):
            steps += work.change_steps(change)
        steps += [change_log.write_step(change) for change in batch.log]
        steps.append(current_step(self._location, batch.successor))
        runs_asking, nodes_asking = self._asking
        steps += [Step(runs.SEQUENCE, {"key": run.run_id}, is_asked=True) for run in runs_asking]
        keys = [{"key": state.run_id, "node_key": state.node_id} for state in nodes_asking]
        return steps + [Step(nodes.SEQUENCE, key, is_asked=True) for key in keys]

    def given(self, asked: list[Rows]) -> Sequences:
        """Return the sequence that was asked for; of several records, nobody asks."""
        sequence = asked[0][0][0] if asked else 0
        return self._sequences(sequence)

    def given_by_number(self, number: int) -> Sequences:
        """Return the same, by the number of the receipt."""
        return self._sequences(first_of(number))

    def _sequences(self, sequence: int) -> Sequences:
        runs_asking, nodes_asking = self._asking
        return Sequences(
            runs={run.run_id: sequence for run in runs_asking},
            nodes={(state.run_id, state.node_id): sequence for state in nodes_asking},
        )

    def _run_steps(self, op_id: int) -> list[Step]:
        batch = self._batch
        deleted = set(batch.deleted_runs)
        written = {run.run_id for run in batch.runs}
        guarded_by_write = {*batch.deleted_nodes, *((state.run_id, state.node_id) for state in batch.nodes)}
        steps = [runs.need_step(run_id) for run_id in sorted(batch.runs_needed - written)]
        for run_id, expected in sorted(batch.run_versions.items()):
            if expected and (run_id in deleted or run_id not in written):
                steps.append(runs.guard_step(run_id, expected))
        for key, expected in sorted(batch.node_versions.items()):
            if key[0] in deleted or key not in guarded_by_write:
                steps.append(nodes.guard_step(key, expected, batch.node_sequences.get(key, 0)))
        steps += [nodes.count_step(run_id, count) for run_id, count in sorted(batch.node_counts.items())]
        steps += [leases.unlocked_step(run_id, self._clock) for run_id in sorted(batch.runs_unlocked)]
        for run_id in batch.deleted_runs:
            steps += [Step(nodes.DELETE_OF_RUN, {"key": run_id}), Step(runs.DELETE, {"key": run_id})]
        for nth, run in enumerate(batch.runs, 1):
            expected = 0 if run.run_id in deleted else batch.run_versions.get(run.run_id, 0)
            steps.append(runs.write_step(run, expected, op_id, nth))
        return steps

    def _node_steps(self, op_id: int) -> list[Step]:
        batch = self._batch
        deleted = set(batch.deleted_runs)
        steps = []
        for run_id, node_id in batch.deleted_nodes:
            key = (run_id, node_id)
            if key in batch.node_versions:
                seen = batch.node_sequences.get(key, 0)
                steps.append(nodes.guard_step(key, batch.node_versions[key], seen))
            steps.append(Step(nodes.DELETE, {"key": run_id, "node_key": node_id}))
        if self._is_copy:
            return [*steps, nodes.put_step(batch.nodes)]
        for nth, state in enumerate(batch.nodes, 1 + len(batch.runs)):
            key = (state.run_id, state.node_id)
            expected = 0 if state.run_id in deleted else batch.node_versions.get(key)
            steps.append(nodes.write_step(state, expected, batch.node_sequences.get(key, 0), op_id, nth))
        return steps

    @property
    def _is_copy(self) -> bool:
        """Whether it writes many states as they are, as a move does, and one statement can take them all."""
        batch = self._batch
        guarded = batch.node_versions or batch.deleted_runs
        is_many = self._target.dialect.runs_many and len(batch.nodes) > 1
        return is_many and not guarded and all(state.sequence for state in batch.nodes)

    def _raised_numbers(self) -> Sequence[Step]:
        """Return the steps of a migration, which brings its own sequences: those that follow must be higher."""
        created = [run for run in self._batch.runs if not self._batch.run_versions.get(run.run_id)]
        given = [*(run.sequence for run in created), *(state.sequence for state in self._batch.nodes)]
        highest = max(given, default=0)
        if not highest:
            return []
        target = self._target
        raising = target.dialect.raise_number(target.tables.receipts)
        return [Step(statement_of(each), {"least": highest // SPAN + 1}) for each in raising]
