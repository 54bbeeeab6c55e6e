"""Receipts: how a commit whose answer was lost is settled.

Each commit to a shared store puts a row into ``receipts``, in the same transaction, with an id that was drawn for this
attempt. When the answer is lost, the writer tries to put a *void* row with that id. The database lets only one of
the two stand: if the void one does, the commit was not applied and never will be, even if the request is
still waiting somewhere; if it does not, the commit was applied. Either way the outcome is certain and final.

Source: the idempotency keys of J. Helland, "Idempotence Is Not a Medical Condition", ACM Queue 10(4), 2012, with the
void row as the negative acknowledgement.
"""

from __future__ import annotations

import secrets
import threading
from typing import Any

from sqlalchemy import BigInteger, bindparam, delete, func, literal_column, or_, select

from seeknal.state.sql.statements import Statement, Step, Target

KEPT = 256
"""Receipts that an instance leaves lying before it removes them: their answers arrived, nobody will ask for them."""

HORIZON = 1_000_000
"""Receipts that so many later ones followed are removed whosever they are: those of processes that died."""

_OP = bindparam("op_id", type_=BigInteger)
_ACKNOWLEDGED = [f"op_{number}" for number in range(KEPT)]

LEAVE = Statement(lambda on: on.dialect.insert(on.tables.receipts).values(op_id=_OP, is_void=literal_column("0")))
VOID = Statement(
    lambda on: on.dialect.leaving(on.dialect.insert(on.tables.receipts).values(op_id=_OP, is_void=literal_column("1")))
)
GET = Statement(
    lambda on: select(on.tables.receipts.c.number, on.tables.receipts.c.is_void).where(
        on.tables.receipts.c.op_id == _OP
    )
)


def _removed(on: Target) -> Any:
    table = on.tables.receipts
    # Wrapped once more, since MySQL reads the table that it changes only through a derived one.
    last = select(func.max(table.alias("other").c.number).label("last")).subquery("found")
    horizon = select(last.c.last - literal_column(str(HORIZON))).scalar_subquery()
    named = table.c.op_id.in_([bindparam(name, type_=BigInteger) for name in _ACKNOWLEDGED])
    return delete(table).where(or_(named, table.c.number < horizon))


REMOVE = Statement(_removed)


def new_op_id() -> int:
    """Return an id for one attempt to commit; never 0, in 62 bits."""
    return secrets.randbits(62) | 1


def leave_step(op_id: int) -> Step:
    """Return the step that leaves a receipt; it breaks a constraint if the id was voided."""
    return Step(LEAVE, {"op_id": op_id})


def settle_steps(op_id: int) -> list[Step]:
    """Return the steps that void an attempt if it was not applied; the last one is asked for its receipt."""
    return [Step(VOID, {"op_id": op_id}), Step(GET, {"op_id": op_id}, is_asked=True)]


class Acknowledged:
    """The receipts of one instance whose answers arrived. Safe from threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ids: list[int] = []

    def add(self, op_id: int) -> list[Step]:
        """Note one; return the steps that remove what has gathered, if it is enough."""
        with self._mutex:
            self._ids.append(op_id)
            if len(self._ids) < KEPT:
                return []
        return self.take()

    def take(self) -> list[Step]:
        """Return the steps that remove what has gathered; it is forgotten here."""
        with self._mutex:
            taken, self._ids = self._ids, []
        parts = [taken[first : first + KEPT] for first in range(0, len(taken), KEPT)]
        return [Step(REMOVE, dict(zip(_ACKNOWLEDGED, [*ids, *ids[:1] * KEPT], strict=False))) for ids in parts]
