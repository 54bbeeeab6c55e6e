"""Claims: rows and records, and the steps that take ranges and end claims.

A commit that takes ranges raises the version of the node's claims, at which it demands to find it; it waits there for
others who do the same. One that ends a claim demands to find that very row, and waits for nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import BigInteger, bindparam, delete, literal_column, select, update

from seeknal.errors import StateBackendError
from seeknal.model.changes import stale
from seeknal.model.claims import over
from seeknal.model.instants import from_us, to_us
from seeknal.model.records import Claim
from seeknal.model.status import ClaimStatus
from seeknal.state.sql.statements import Row, Session, Statement, Step, Target
from seeknal.state.sql.texts import restored, stored


def _of_node(on: Target) -> Any:
    """Return the version and the claims together, so that they belong to each other."""
    sets, claims = on.tables.claim_sets, on.tables.claims
    both = sets.outerjoin(claims, claims.c.node_id == sets.c.node_id)
    return select(sets.c.version, *claims.c).select_from(both).where(sets.c.node_id == bindparam("node_key"))


def _put(on: Target) -> Any:
    claims = on.tables.claims
    row = {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in claims.c}
    return on.dialect.overwriting(
        on.dialect.insert(claims).values(row),
        ["node_id", "range_key"],
        lambda new: {column.name: new[column.name] for column in claims.c if not column.primary_key},
    )


def _ended(on: Target) -> Any:
    claims = on.tables.claims
    return delete(claims).where(
        claims.c.node_id == bindparam("node_key"),
        claims.c.range_key == bindparam("of_range"),
        claims.c.status == bindparam("of_status"),
        claims.c.lease_owner == bindparam("of_owner"),
        claims.c.sequence == bindparam("of_sequence"),
    )


def _begun(on: Target) -> Any:
    row: dict[str, Any] = {"node_id": bindparam("node_key"), "version": literal_column("0")}
    return on.dialect.leaving(on.dialect.insert(on.tables.claim_sets).values(row))


def _raised(on: Target) -> Any:
    sets = on.tables.claim_sets
    stands = sets.c.version == bindparam("expected", type_=BigInteger)
    at = sets.c.node_id == bindparam("node_key")
    return update(sets).where(at, stands).values(version=sets.c.version + literal_column("1"))


OF_NODE = Statement(_of_node)
NODES = Statement(lambda on: select(on.tables.claims.c.node_id).distinct())
PUT = Statement(_put)
END = Statement(_ended)
BEGIN = Statement(_begun)
RAISE = Statement(_raised)


def read_claims(session: Session, node_id: str) -> tuple[int, list[Claim]]:
    """Return the claims of a node and the version they stand at."""
    rows = session.all(OF_NODE, {"node_key": node_id})
    return (rows[0][0] if rows else 0), [record(row[1:]) for row in rows if row[1] is not None]


def read_claimed_nodes(session: Session) -> list[str]:
    """Return the ids of the nodes that have claims, sorted by their bytes."""
    return sorted((row[0] for row in session.all(NODES)), key=str.encode)


def hold_steps(versions: Mapping[str, int]) -> list[Step]:
    """Return the steps that demand the versions and raise them, in order, so that nobody waits in a ring."""
    steps: list[Step] = []
    for node_id, expected in sorted(versions.items()):
        if not expected:
            steps.append(Step(BEGIN, {"node_key": node_id}))

        def refusal(session: Session, node_id: str = node_id, expected: int = expected) -> StateBackendError:
            found, _ = read_claims(session, node_id)
            return stale(f"the claims of node {node_id!a}", expected, found)

        steps.append(Step(RAISE, {"node_key": node_id, "expected": expected}, refusal))
    return steps


def write_steps(ended: Iterable[Claim], claims: Iterable[Claim]) -> list[Step]:
    """Return the steps that remove claims, which have to stand as they are given, and then write others."""
    return [*(_end_step(claim) for claim in ended), *(_put_step(claim) for claim in claims)]


def _end_step(claim: Claim) -> Step:
    params = {
        "node_key": claim.node_id,
        "of_range": claim.range_key,
        "of_status": claim.status.value,
        "of_owner": claim.lease_owner,
        "of_sequence": claim.sequence,
    }
    return Step(END, params, lambda session: over(claim))


def _put_step(claim: Claim) -> Step:
    params = {
        "new_node_id": claim.node_id,
        "new_range_key": claim.range_key,
        "new_start_us": None if claim.start is None else to_us(claim.start),
        "new_end_us": None if claim.end is None else to_us(claim.end),
        "new_partition": claim.partition,
        "new_run_id": claim.run_id,
        "new_status": claim.status.value,
        "new_attempt": claim.attempt,
        "new_max_attempts": claim.max_attempts,
        "new_error_message": stored(claim.error_message),
        "new_since_us": to_us(claim.since),
        "new_lease_run_id": claim.lease_run_id,
        "new_lease_node_id": claim.lease_node_id or "",
        "new_lease_token": claim.lease_token,
        "new_lease_owner": claim.lease_owner,
        "new_sequence": claim.sequence,
    }
    return Step(PUT, params)


def record(row: Row) -> Claim:
    """Return the claim of a row."""
    return Claim(
        node_id=row[0],
        start=None if row[2] is None else from_us(row[2]),
        end=None if row[3] is None else from_us(row[3]),
        partition=row[4],
        run_id=row[5],
        status=ClaimStatus(row[6]),
        attempt=row[7],
        max_attempts=row[8],
        error_message=restored(row[9]),
        since=from_us(row[10]),
        lease_run_id=row[11],
        lease_node_id=row[12] or None,
        lease_token=row[13],
        lease_owner=row[14],
        sequence=row[15],
    )
