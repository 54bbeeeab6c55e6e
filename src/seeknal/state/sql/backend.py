"""The database backend: one store in SQLite, PostgreSQL, MySQL or libSQL, with one transaction for one commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import msgspec

from seeknal.clock import Clock
from seeknal.errors import BackendUnavailableError, ConfigurationError
from seeknal.model.changes import stale
from seeknal.model.records import (
    LockInfo,
    NodeState,
    RunState,
)
from seeknal.state.ahead import Page
from seeknal.state.batch import Batch, NodeKey, Sequences
from seeknal.state.capabilities import Capability
from seeknal.state.change_log import unlocked
from seeknal.state.finding import Finding
from seeknal.state.lease import Lease, LockKey
from seeknal.state.record_store import DEFAULT_BUSY_TIMEOUT_MS
from seeknal.state.retention import Retirement
from seeknal.state.sql import (
    change_log,
    examine,
    leases,
    nodes,
    receipts,
    retention,
    schema,
    space,
    store,
)
from seeknal.state.sql.address import address_of, table_names
from seeknal.state.sql.commit import Plan, first_of, is_one_transition
from seeknal.state.sql.dialects import dialect_of
from seeknal.state.sql.dialects.base import RefusedError
from seeknal.state.sql.engine import Database
from seeknal.state.sql.reading import ReadDatabase
from seeknal.state.sql.schema import SchemaReport
from seeknal.state.sql.statements import Step, statement_of, target_of
from seeknal.state.sql.tables import SCHEMA_VERSION
from seeknal.state.store_info import ANY_SUCCESSOR, StoreInfo
from seeknal.state.transaction import LONGEST_PAUSE
from seeknal.state.unit import UnitOfWork

T = TypeVar("T")

HEALTH_MS = 2000
"""How long a server may take to show that it answers."""

MOST_REMEMBERED = 1000
"""Node states that an instance remembers having written."""


class DatabaseStateBackend(ReadDatabase):
    """State in a database: a SQLite file for the processes of one machine, or a server for many machines.

    Args:
        db_path: A SQLite file; ``target/state.db`` if no URL is given either.
        url: ``sqlite:///path``, ``postgresql://``, ``mysql://``, ``libsql://`` or ``http(s)://`` of a libSQL server.
        schema: Keeps several stores of one database apart: a schema of that name in PostgreSQL, elsewhere what the
            names of the tables begin with.
        token: Of a libSQL server, if the URL has none.
        clock: Where time comes from; leases on a server are measured by the server's.
        busy_timeout_ms: The one budget for waiting on other writers and on the network, per call.
        synchronous: Of SQLite. ``FULL``: a commit survives a power cut. ``NORMAL``: it survives the end of its process.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.PERSISTENT,
            Capability.PROCESSES,
            Capability.LOG,
            Capability.CLAIMS,
            Capability.PROVENANCE,
            Capability.EXPECTED,
        }
    )
    current_schema: ClassVar[str] = str(SCHEMA_VERSION)

    def __init__(
        self,
        db_path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        *,
        schema: str | None = None,
        token: str | None = None,
        clock: Clock | None = None,
        busy_timeout_ms: int = DEFAULT_BUSY_TIMEOUT_MS,
        synchronous: str = "FULL",
    ) -> None:
        address = address_of(db_path, url, token)
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f"synchronous is {synchronous!r}", hint="Pass FULL or NORMAL.")
        if address.kind == "sqlite":
            address = address._replace(options={"synchronous": synchronous})
        dialect = dialect_of(address.kind)
        target = target_of(dialect, *table_names(schema, has_schemas=dialect.has_schemas))
        super().__init__(clock=clock, busy_timeout_ms=busy_timeout_ms)
        if dialect.is_shared:
            self.capabilities = self.capabilities | {Capability.MACHINES}  # type: ignore[misc]
        self._database = Database(address, target, self.clock, budget_ms=busy_timeout_ms)
        self._is_ready = False
        self._written: dict[NodeKey, NodeState] = {}

    # ---- life ----

    def initialize(self) -> None:
        """Make the store, or bring its schema up to date.

        Raises:
            AccessDeniedError: The server does not let this user in, or grants it too little; the message says what.
            BackendUnavailableError, CorruptStateError, SchemaVersionError: As the contract says.
        """
        self._check_open()
        if not self._is_ready:
            try:
                with self._database.one_budget():
                    schema.prepare(self._database)
            except BaseException:
                self._database.drop_connections()
                raise
            self._is_ready = True

    def schema_report(self) -> SchemaReport:
        """Return how the schema of the store stands, without changing it; before `initialize` or after.

        Raises:
            SeeknalError: The store cannot be looked at.
        """
        self._check_open()
        return schema.report(self._database)

    def schema_sql(self) -> str:
        """Return the SQL that makes a new store here, or brings an older one up to date, for somebody to run who may.

        Nothing is changed. Where a store stands that is up to date, it is the SQL of a new one.

        Raises:
            SeeknalError: The store cannot be looked at.
        """
        self._check_open()
        database = self._database
        found = schema.version_there(database)
        older = found if found < SCHEMA_VERSION else 0
        return schema.sql_text(database.target, schema.text_collation(database), found=older)

    def examine(self) -> Iterator[Finding]:
        """Yield what is wrong with this store, whether it is open or can be opened or not."""
        self._check_open()
        yield from examine.findings(self._database, self)

    def peek_store(self) -> StoreInfo | None:
        """Return what the store says of itself, without making or changing it."""
        self._check_open()
        database = self._database
        if not examine.peek(database):
            return None
        return database.read(lambda session: store.read_store(session, database.location))

    def close(self) -> None:
        """Free this instance's locks and release its resources; a server that is away is not waited for long."""
        self._database.hasten()
        super().close()

    def close_store(self) -> None:
        """Close the connections."""
        self._is_ready = False
        self._database.dispose(close=True)

    def prepare_fork(self) -> None:
        """Let nobody be inside a call, so that a child inherits nothing half done."""
        self._database.prepare_fork()

    def resume_after_fork(self) -> None:
        """Go on in the parent."""
        self._database.resume_after_fork()

    def reset_after_fork(self) -> None:
        """Leave the parent's connections alone and open new ones."""
        self._database.dispose(close=False)

    @property
    def _open(self) -> Database:
        if not self._is_ready:
            raise BackendUnavailableError(
                f"{self._database.location} is not open", hint="Call initialize() first, and nothing after close()."
            )
        return self._database

    # ---- reading ----

    def health_check(self) -> bool:
        """Return whether the store answers, within a few seconds."""
        with self._database.one_budget(HEALTH_MS):
            return super().health_check()

    def guessing(self) -> Callable[[str, str], NodeState | None] | None:
        """Return, for a server, what this instance wrote last; that saves a round trip of a transition."""
        return self._guess_node if self._database.dialect.is_shared else None

    @property
    def copied_rows(self) -> int:
        """How many rows a copy of another store commits at once: of a server fewer, which limits what it is sent."""
        return 2_000 if self._database.dialect.is_shared else super().copied_rows

    def paging(self) -> Page | None:
        """Return, for a server, what reads several node states in one round trip."""
        return self.read_nodes_from if self._database.dialect.is_shared else None

    def _guess_node(self, run_id: str, node_id: str) -> NodeState | None:
        return self._written.get((run_id, node_id))

    # ---- writing ----

    def _write(self, change: Callable[[UnitOfWork], T], *, longest_pause: float = LONGEST_PAUSE) -> tuple[T, Sequences]:
        with self._database.one_budget():  # for what it reads and what it commits, however often
            return super()._write(change, longest_pause=longest_pause)

    def commit(self, batch: Batch) -> Sequences:
        """Apply a batch in one transaction if its guards hold."""
        with self._database.one_budget():
            return self._commit(batch)

    def _commit(self, batch: Batch) -> Sequences:
        database = self._open
        for state in batch.nodes:
            self._written.pop((state.run_id, state.node_id), None)
        if database.dialect.writes_alone and is_one_transition(batch):
            given = self._write_alone(batch)
            if given is not None:
                return given
            # A guard does not hold: the long way finds out which one, and says so.
            if batch.is_guess:
                raise stale("a node", 0, None)
        plan = Plan(batch, database.target, database.location, self.clock)
        try:
            given = database.commit(
                lambda raw, op_id: plan.given(database.run(raw, plan.steps(op_id))), plan.given_by_number
            )
        except RefusedError as refused:
            if batch.is_guess:
                raise stale("a node", 0, None) from None
            refusal = plan.steps(0)[refused.at].refusal
            # A step that demands nothing is refused by a constraint: somebody else's record came in between.
            raise database.read(refusal) if refusal else stale("a record of the batch", 0, None) from None
        self._remember(batch, given)
        return given

    def _write_alone(self, batch: Batch) -> Sequences | None:
        """Write one node state in one statement, or return ``None`` if a guard does not hold."""
        database, state = self._open, batch.nodes[0]
        key = (state.run_id, state.node_id)
        expected, seen = batch.node_versions[key], batch.node_sequences.get(key, 0)

        def attempt(raw: Any, op_id: int) -> int | None:
            return database.alone(raw, lambda session: nodes.transition(session, state, expected, seen, op_id))

        sequence = database.commit(attempt, first_of)
        if sequence is None:
            return None
        given = Sequences(nodes={key: sequence})
        self._remember(batch, given)
        return given

    def _remember(self, batch: Batch, given: Sequences) -> None:
        """Keep what was written, to guess from; the commit that rests on a wrong guess finds out."""
        if not self._database.dialect.is_shared or len(batch.nodes) != 1:
            return
        state = batch.nodes[0]
        sequence = given.nodes.get((state.run_id, state.node_id))
        if sequence and nodes.is_small(state):
            if len(self._written) >= MOST_REMEMBERED:
                self._written.clear()
            self._written[state.run_id, state.node_id] = msgspec.structs.replace(state, sequence=sequence)

    def write_successor(self, store_id: str, successor: str | None, *, expected: str | None = ANY_SUCCESSOR) -> None:
        """Set the store's identity and where its state moved to."""
        database = self._open
        fencing = database.dialect.fence(schema.used_tables(database.target))
        steps = [Step(statement_of(each), {}) for each in fencing]
        steps += store.move_steps(store_id, successor, expected, database.location)
        try:
            database.repeat(lambda: steps)
        except RefusedError as refused:
            refusal = steps[refused.at].refusal
            assert refusal is not None
            error = database.read(refusal)
            if database.read(lambda session: store.read_store(session, database.location)).superseded_by == successor:
                return  # the answer of an earlier attempt was lost: it is written
            raise error from None

    def _retire(
        self, runs: Sequence[RunState], *, dry_run: bool, marks: Mapping[str, bytes] | None = None
    ) -> Retirement:
        """Delete those of the first runs that nothing needs, in a few statements each."""
        if marks is not None or self.in_transaction:
            return super()._retire(runs, dry_run=dry_run, marks=marks)
        with self._database.one_budget():
            return retention.retire(self._open, self.clock, runs, dry_run=dry_run, budget_ms=self.busy_timeout_ms)

    def give_back_space(self, deadline: int | None = None) -> str:
        """Give the free pages of a SQLite file back, in small steps; a server looks after its own space."""
        return space.give_back(self._open, self.clock, deadline)

    # ---- locks ----

    def grant_lock(self, key: LockKey, owner: str, ttl_ms: int) -> LockInfo:
        """Grant a lock that nobody holds."""
        database = self._open

        def steps() -> list[Step]:
            return [*leases.grant_steps(key, owner, ttl_ms, self.clock), store.current_step(database.location)]

        try:
            (rows,) = database.repeat(steps)
        except RefusedError as refused:
            refusal = steps()[refused.at].refusal
            assert refusal is not None
            raise database.read(refusal) from None
        return leases.holder(rows[0])

    def renew_lock(self, lease: Lease, ttl_ms: int) -> bool:
        """Extend a lease that is still held; the next one's turn comes in time, also where a server is away."""
        with self._database.one_budget(ttl_ms // 3):
            (rows,) = self._open.repeat(lambda: leases.renew_steps(lease, ttl_ms, self.clock))
        return bool(rows)

    def free_lock(self, lease: Lease) -> bool:
        """End a lease."""
        return self._end_lease(lease, "")

    def seize_lock(self, key: LockKey, reason: str) -> LockInfo | None:
        """End whatever lease holds a key: the one that was found, even if the request should come late."""
        database = self._open
        with database.one_budget():
            while holder := database.read(lambda session: leases.read_holder(session, key, self.clock)):
                logging = [change_log.write_step(unlocked(holder, reason, self.clock))]
                if self._end_lease(Lease(*key, holder.token, holder.owner), reason, logging):
                    break
        return holder

    def _end_lease(self, lease: Lease, reason: str, logging: Sequence[Step] = ()) -> bool:
        """End a lease once; return whether it was held."""
        database = self._open
        steps = [*leases.end_steps(lease, reason, self.clock), *logging]

        def attempt(raw: Any, op_id: int) -> None:
            database.run(raw, [*([receipts.leave_step(op_id)] if op_id else []), *steps])

        try:
            database.commit(attempt, lambda _: None)
        except RefusedError:
            return False
        return True
