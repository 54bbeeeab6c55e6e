"""The store's own row: its identity, and whether its state is still here."""

from __future__ import annotations

from sqlalchemy import ColumnElement, bindparam, exists, literal_column, or_, select, update

from seeknal.errors import CorruptStateError, SchemaVersionError, StateBackendError
from seeknal.state.sql.statements import Session, Statement, Step, Target
from seeknal.state.sql.tables import SCHEMA_VERSION
from seeknal.state.store_info import ANY_SUCCESSOR, StoreInfo, just_ended, misplaced

NEWEST: ColumnElement[int] = literal_column(str(SCHEMA_VERSION))


def is_current(on: Target) -> ColumnElement[bool]:
    """Return that the state did not move away, and that no newer program has brought the schema further."""
    store = on.tables.store
    return ~exists(select(store.c.one).where(or_(store.c.superseded_by.is_not(None), store.c.schema_version > NEWEST)))


GET = Statement(
    lambda on: select(
        on.tables.store.c.store_id, on.tables.store.c.schema_version, on.tables.store.c.superseded_by
    ).where(on.tables.store.c.one == literal_column("1"))
)
MOVE = Statement(
    lambda on: (
        update(on.tables.store)
        .where(on.tables.store.c.one == literal_column("1"))
        .values(store_id=bindparam("id"), superseded_by=bindparam("successor"))
    )
)
HOLD_CURRENT = Statement(
    lambda on: on.dialect.held(
        select(on.tables.store.c.one).where(
            on.tables.store.c.one == literal_column("1"),
            on.tables.store.c.superseded_by.is_(None),
            on.tables.store.c.schema_version <= NEWEST,
        )
    )
)
HOLD_MARKED = Statement(
    lambda on: on.dialect.held(
        select(on.tables.store.c.one).where(
            on.tables.store.c.one == literal_column("1"),
            on.tables.store.c.superseded_by == bindparam("successor"),
            on.tables.store.c.schema_version <= NEWEST,
        )
    )
)


def too_new(version: int, location: str) -> SchemaVersionError:
    """Return the error of a store that a newer program has brought up to date, perhaps while this one had it open."""
    return SchemaVersionError(
        f"{location} has schema {version}; this version reads up to {SCHEMA_VERSION}: a newer program wrote it",
        hint="Upgrade seeknal-state to the version that wrote it.",
        found=str(version),
        wanted=str(SCHEMA_VERSION),
    )


def read_store(session: Session, location: str) -> StoreInfo:
    """Return what the store says of itself.

    Raises:
        CorruptStateError: It has lost the row.
    """
    row = session.one(GET)
    if row is None:
        raise CorruptStateError(
            f"{location} has lost the row that names it", hint="Restore it from a backup.", location=location
        )
    return StoreInfo(store_id=row[0], schema_version=str(row[1]), superseded_by=row[2])


def move_steps(store_id: str, successor: str | None, expected: str | None, location: str) -> list[Step]:
    """Return the steps that set the store's identity and mark, if it bears the one that is expected."""
    moved = Step(MOVE, {"id": store_id, "successor": successor})
    return [moved] if expected == ANY_SUCCESSOR else [current_step(location, expected), moved]


def current_step(location: str, successor: str | None = None) -> Step:
    """Return the step that demands, until the end of the transaction, that the state is here, or went where it says."""

    def refusal(session: Session) -> StateBackendError:
        info = read_store(session, location)
        if int(info.schema_version) > SCHEMA_VERSION:
            return too_new(int(info.schema_version), location)
        found = info.superseded_by
        return just_ended() if found is None and successor is None else misplaced(found, successor)

    return (
        Step(HOLD_CURRENT, {}, refusal) if successor is None else Step(HOLD_MARKED, {"successor": successor}, refusal)
    )
