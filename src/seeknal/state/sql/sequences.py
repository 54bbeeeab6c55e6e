"""Sequences: how a store orders what it is given.

A store of one machine has one writer at a time, so the next sequence is the highest one plus one. On a server
writers commit side by side, and the highest one of two of them may be the same. There each commit draws a number,
which its receipt keeps, and the n-th record of a commit has the sequence ``number * SPAN + n``: distinct, never used
again, and higher than that of every commit that ended before this one began.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, ScalarSelect, bindparam, case, literal_column, select

from seeknal.state.sql.statements import Target

SPAN = 2**20
"""How many records one commit can order; 2**43 commits are left, which is a thousand a second for 278 years."""


def drawn(on: Target) -> ScalarSelect[Any]:
    """Return the number that the receipt of ``:op_id`` holds."""
    receipts = on.tables.receipts
    return select(receipts.c.number).where(receipts.c.op_id == bindparam("op_id", type_=BigInteger)).scalar_subquery()


def given_or_next(on: Target, last: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return ``:given`` unless it is 0, else the next sequence.

    Args:
        on: The store.
        last: The highest sequence so far, for a store of one machine.
    """
    given = bindparam("given", type_=BigInteger)
    if on.dialect.is_shared:
        following = drawn(on) * literal_column(str(SPAN)) + bindparam("nth", type_=BigInteger)
    else:
        following = last + literal_column("1")
    return case((given > literal_column("0"), given), else_=following)
