"""What is wrong with a store in a database, as far as it can be read; nothing is written, no writer waits."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from functools import partial
from heapq import merge as merge_sorted
from itertools import chain, groupby

from seeknal.errors import SeeknalError
from seeknal.model.records import CompletedInterval, IntervalProvenance, RunState
from seeknal.state.checks import (
    abandoned_findings,
    attribute_parts,
    coverage_findings,
    duplicate_finding,
    expected_findings,
    file_findings,
    lease_finding,
    merge_intervals,
    node_findings,
    orphan_finding,
    run_findings,
    work_findings,
)
from seeknal.state.finding import Finding, error, no_store, older_schema, refusal, warning
from seeknal.state.record_store import RecordStore
from seeknal.state.sql import leases, scan, schema, whole
from seeknal.state.sql.drift import drift_findings, drift_of
from seeknal.state.sql.engine import Database
from seeknal.state.sql.health import health_findings
from seeknal.state.sql.statements import Params, Session, Statement, Step
from seeknal.state.sql.tables import SCHEMA_VERSION


def findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    """Yield what is wrong with a store; what one check cannot look at hides nothing of the others."""
    where, path = database.location, database.address.path
    if path is not None:
        yield from file_findings([path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))], where)
        if not path.exists() or (stat.S_ISREG(path.stat().st_mode) and path.stat().st_size == 0):
            yield no_store(where)
            return
    try:
        found = schema.found_version(database)
        has_tables = bool(found) or _holds_something(database)
    except SeeknalError as problem:
        yield refusal(problem, where)
        return
    if not found:
        yield _foreign(where) if has_tables else no_store(where)
        return
    if found < SCHEMA_VERSION:
        yield older_schema(where, found, SCHEMA_VERSION)
        return
    yield from _told(where, lambda: _right_findings(database))
    yield from _told(where, lambda: health_findings(database, store))
    try:
        drift = drift_of(database)
    except SeeknalError as problem:
        yield refusal(problem, where)
        return
    yield from drift_findings(database, drift)
    if drift.can_be_read:
        for check in (_run_and_node_findings, _work_findings, _lock_findings, _kept_findings, _side_findings):
            yield from _told(where, lambda check=check: check(database, store))  # type: ignore[misc]


def peek(database: Database) -> bool:
    """Return whether there is a store that can be read without making or changing it."""
    path = database.address.path
    is_there = path is None or (path.exists() and path.stat().st_size > 0)
    return is_there and schema.found_version(database) > 0


def _told(where: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds, and as a finding why it could not go on."""
    try:
        yield from check()
    except SeeknalError as problem:
        yield refusal(problem, where)


def _holds_something(database: Database) -> bool:
    """Return whether a SQLite file without a store has tables of something else in it."""
    if database.dialect.is_shared or database.target.tables.prefix:
        return False

    def ask(session: Session) -> bool:
        session.cursor.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
        return bool(session.cursor.fetchone()[0])

    return database.read(ask)


def _foreign(where: str) -> Finding:
    return error(
        "store-damaged",
        "this is a database of something else: it has tables, but no store",
        where=where,
        fix="Name another file; if it was a store, restore a backup.",
    )


def _side_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    """Check that no restore was killed; one that goes on holds a lease."""
    if whole.has_side(database) and not database.read(lambda session: leases.read_held(session, store.clock)):
        yield warning(
            "restore-leftover",
            "tables of a restore that was interrupted stand beside those of the store",
            where=database.location,
            fix=f"The next restore removes them; nothing reads them. Their names begin with {whole.SIDE}.",
            mend=lambda: whole.remove_side(database, store.clock),
        )


def _right_findings(database: Database) -> Iterator[Finding]:
    missing = schema.missing_rights(database)
    if missing:
        yield error(
            "missing-rights",
            f"this user is not granted {', '.join(missing)}",
            where=database.location,
            fix="Have these granted, or use another user.",
        )


def _run_and_node_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    where, reader = database.location, scan.Scan(database)
    running: list[RunState] = []
    for run in reader.runs():
        yield from run_findings(run, where)
        running += [run] if run.status == "running" else []
    for state in reader.nodes():
        yield from node_findings(state, where)
    yield from reader.unreadable
    for sequence, count in reader.rows(scan.SAME_RUNS):
        yield duplicate_finding("runs", sequence, count, where)
    for node_id, sequence, count in reader.rows(scan.SAME_STATES):
        yield duplicate_finding(f"states of node {node_id!a}", sequence, count, where)
    orphans = [(row[0], row[1]) for row in reader.rows(scan.ORPHANS)]
    if orphans:
        yield orphan_finding(orphans, where, lambda: _changed(database, store, scan.DELETE_ORPHANS))
    held = database.read(lambda session: leases.read_held(session, store.clock))
    yield from abandoned_findings(running, held, where)


def _work_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    where, reader = database.location, scan.Scan(database)
    for node_id, done, parts in _of_nodes(reader):
        merge, attribute = (partial(mend, store, node_id) for mend in (merge_intervals, attribute_parts))
        yield from coverage_findings(node_id, done, parts, where, merge=merge, attribute=attribute)
        for span in chain[CompletedInterval | IntervalProvenance](done, parts):
            yield from work_findings(span, where)
    for wanted in reader.expected():
        yield from expected_findings(wanted, where)
    for partition in reader.partitions():
        yield from work_findings(partition, where)
    yield from reader.unreadable


def _of_nodes(reader: scan.Scan) -> Iterator[tuple[str, list[CompletedInterval], list[IntervalProvenance]]]:
    """Yield each node that has either, with its intervals and their parts; both are read in the order of the nodes."""
    streams: list[Iterator[CompletedInterval | IntervalProvenance]] = [reader.intervals(), reader.provenance()]
    both = merge_sorted(*streams, key=lambda each: each.node_id.encode())
    for node_id, found in groupby(both, lambda each: each.node_id):
        records = list(found)
        yield (
            node_id,
            [each for each in records if isinstance(each, CompletedInterval)],
            [each for each in records if isinstance(each, IntervalProvenance)],
        )


def _lock_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    expired = scan.Scan(database).expired(leases.measured(store.clock))
    if expired:
        yield lease_finding(
            expired,
            database.location,
            lambda: _changed(database, store, scan.FREE_EXPIRED, leases.measured(store.clock)),
        )


def _kept_findings(database: Database, store: RecordStore) -> Iterator[Finding]:
    reader = scan.Scan(database)
    for _ in chain(reader.changes(), reader.claims()):
        pass  # reading them is the check
    yield from reader.unreadable


def _changed(database: Database, store: RecordStore, statement: Statement, params: Params | None = None) -> None:
    store.initialize()
    database.repeat(lambda: [Step(statement, params or {})])
