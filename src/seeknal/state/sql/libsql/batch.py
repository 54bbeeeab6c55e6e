"""A whole transaction as one batch of Hrana: composed before it is sent, and read when its answer is there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from seeknal.state.sql.libsql import classify
from seeknal.state.sql.libsql.classify import Lost
from seeknal.state.sql.libsql.errors import (
    OperationalError,
    OutcomeUnknownError,
    ProgrammingError,
    TransactionLostError,
    UnavailableError,
    UnmetDemandError,
)
from seeknal.state.sql.libsql.hrana import IN_TRANSACTION, Answer, Cell, Result, Statement, Step, after, cell, text
from seeknal.state.sql.libsql.verbs import READS, is_read, verb

_FAIL_UNLESS = "SELECT abs(CASE WHEN {} THEN 0 ELSE -9223372036854775808 END)"
"""SQLite has no statement that fails on a condition. The absolute value of the least integer is one that it cannot
give, and it is not asked for it before the condition has been looked at.
Source: https://www.sqlite.org/lang_corefunc.html#abs."""

_FAILED = "integer overflow"


def statement(sql: str, parameters: Sequence[Any]) -> Statement:
    """Return a statement as it travels.

    Raises:
        DataError: As `hrana.cell`.
        ProgrammingError: As `hrana.cell`, or the parameters are not in a sequence.
    """
    if not isinstance(parameters, Sequence) or isinstance(parameters, (str, bytes)):
        raise ProgrammingError("parameters go with question marks, in a list or a tuple")
    return Statement(text(sql), [cell(value) for value in parameters])


class Batch:
    """One transaction: what is sent for it, and which step stands for which statement.

    Args:
        statements: SQL and parameters, in order; each runs if the one before it did.
        demands: The statements that must touch or return a row.
        read_only: It keeps nothing, whatever it does; the statements see one state of the database.
        before: What is sent ahead of the transaction.
    """

    def __init__(
        self,
        statements: Sequence[tuple[str, Sequence[Any]]],
        *,
        demands: Collection[int] = (),
        read_only: bool = False,
        before: Sequence[Step] = (),
    ) -> None:
        if read_only and not all(is_read(sql) for sql, _ in statements):
            raise ProgrammingError("a statement of a batch that only reads would write")
        is_read_only = read_only or all(verb(sql) in READS for sql, _ in statements)
        self.steps: list[Step] = list(before)
        self.lost: Lost = UnavailableError if is_read_only else OutcomeUnknownError
        self._commit: int | None = None
        self._places: list[int] = []
        self._checks: dict[int, int] = {}
        self._add(Statement("BEGIN" if is_read_only else "BEGIN IMMEDIATE"))
        for index, (sql, parameters) in enumerate(statements):
            self._places.append(self._add(statement(sql, parameters)))
            if index in demands:
                self._checks[self._add(_check(sql, self.steps[-1].stmt.args))] = index
        # What only reads is left open, and rolled back when the stream is closed behind it: a replica answers a
        # finished transaction without writes by itself, from what it has, and asks its primary for an open one.
        if not is_read_only:
            self._commit = self._add(Statement("COMMIT"))
            self.steps.append(Step(Statement("ROLLBACK"), IN_TRANSACTION))

    def results(self, answer: Answer) -> list[Result]:
        """Return the results of the statements.

        Raises:
            UnmetDemandError: A statement had to touch or return a row and did not.
            DatabaseError: Another of them failed. Nothing of the batch was kept, unless it is `OutcomeUnknownError`.
        """
        for place, error in enumerate(answer.errors):
            if error is None:
                continue
            if place in self._checks and _FAILED in error.message:
                unmet = self._checks[place]
                raise UnmetDemandError(f"statement {unmet} of the batch found no row", step=unmet)
            failed = self._places.index(place) if place in self._places else None
            raise classify.of_server(error, self.lost if place == self._commit else OperationalError, step=failed)
        found = [result for result in map(answer.results.__getitem__, self._places) if result is not None]
        if len(found) < len(self._places) or (self._commit is not None and answer.results[self._commit] is None):
            raise TransactionLostError("the server ended the transaction before its last statement")
        return found

    def _add(self, stmt: Statement) -> int:
        self.steps.append(Step(stmt, after(len(self.steps) - 1) if self.steps else None))
        return len(self.steps) - 1


def _check(sql: str, args: list[Cell]) -> Statement:
    """Return the statement that fails unless this one, which ran just before, touched or returned a row."""
    if verb(sql) in READS:
        return Statement(_FAIL_UNLESS.format(f"EXISTS ({sql.rstrip().rstrip(';')}\n)"), args)
    return Statement(_FAIL_UNLESS.format("changes() > 0"))
