"""A session with a remote libSQL database: statements by themselves, transactions, and whole batches.

A statement outside a transaction is one request, and commits itself. ``BEGIN`` is sent together with the statement
behind it, ``COMMIT`` together with the end of the stream.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from seeknal.state.sql.libsql import classify
from seeknal.state.sql.libsql.batch import Batch, statement
from seeknal.state.sql.libsql.classify import Lost
from seeknal.state.sql.libsql.cursor import Cursor
from seeknal.state.sql.libsql.endpoint import Endpoint
from seeknal.state.sql.libsql.errors import (
    DataError,
    NotSupportedError,
    OperationalError,
    OutcomeUnknownError,
    ProgrammingError,
    TransactionLostError,
    UnavailableError,
)
from seeknal.state.sql.libsql.hrana import (
    DEFAULT_TIMEOUT_S,
    IN_TRANSACTION,
    HranaClient,
    Result,
    Statement,
    Step,
    Stream,
    after,
)
from seeknal.state.sql.libsql.verbs import is_read, is_setting, verb

MOST_SETS = 1000
"""How many sets of parameters go in one request."""

_NOTHING = Result()


class _Transaction:
    """One that was begun: not yet sent (no stream), open, or lost."""

    def __init__(self, begin: str) -> None:
        self.begin = begin
        self.stream: Stream | None = None
        self.is_lost = False
        self.pid = os.getpid()


class Connection:
    """A session with the database.

    In a child process it has connections of its own to the server; a transaction of the parent is lost to it, and
    goes on in the parent.

    Concurrency: one thread at a time.

    Attributes:
        autocommit: For the dialect, whose ``do_begin`` heeds it; nothing else does.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.autocommit = False
        self._client = HranaClient(endpoint, timeout_s)
        self._transaction: _Transaction | None = None
        self._before: list[Step] = []
        self._is_closed = False

    @property
    def timeout_s(self) -> float:
        """How long each wait for the server may last, in seconds; may be set before every call."""
        return self._client.timeout_s

    @timeout_s.setter
    def timeout_s(self, value: float) -> None:
        self._client.timeout_s = value

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was begun and neither committed nor rolled back, even if it is lost."""
        return self._transaction is not None

    def cursor(self) -> Cursor:
        """Return a new cursor."""
        self.require_open()
        return Cursor(self)

    def batch(
        self,
        statements: Sequence[tuple[str, Sequence[Any]]],
        *,
        demands: Collection[int] = (),
        read_only: bool = False,
    ) -> list[Result]:
        """Run a whole transaction in one request, and return what each statement gave.

        Args:
            statements: SQL and parameters, in order; none begins or ends a transaction.
            demands: The statements that must touch a row, or return one if they are a SELECT.
            read_only: Take no lock, as if all statements were SELECTs. They see one state of the database, and
                it is that of the primary, even if a replica is asked.

        Raises:
            UnmetDemandError: A demand was not met. Nothing was changed; ``step`` names the statement.
            OutcomeUnknownError: The answer was lost.
            DatabaseError: A statement failed, which ``step`` names, or the transaction. Nothing was changed.
        """
        self.require_open()
        if self.in_transaction:
            raise ProgrammingError("a batch is a transaction of its own, but another one is open")
        if not statements:
            return []
        batch = Batch(statements, demands=demands, read_only=read_only, before=self._before)
        return batch.results(self._client.run(batch.steps, batch.lost))

    def commit(self) -> None:
        """Commit the transaction, if there is one.

        Raises:
            TransactionLostError: It was rolled back before.
            OutcomeUnknownError: The answer was lost.
            DatabaseError: It was refused, and is rolled back.
        """
        self.require_open()
        transaction = self._transaction
        if transaction is None:
            return
        self._require_alive(transaction)
        if transaction.stream is not None:
            self._send(transaction, [Statement("COMMIT")], OutcomeUnknownError, keep_open=False)
        self._transaction = None

    def rollback(self) -> None:
        """Roll the transaction back, if there is one. Never fails: nobody can commit it from here on."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.stream is not None and transaction.pid == os.getpid():
            self._client.abandon(transaction.stream)

    def close(self) -> None:
        """Roll back what is open, and close the connection to the server. Does nothing the second time."""
        self.rollback()
        self._client.close()
        self._is_closed = True

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> Result:
        """Run one statement, in the open transaction or by itself.

        By itself, a statement that reads may be answered by a replica from what it has; `batch` asks the primary.

        Raises:
            TransactionLostError: The transaction is over, by this statement or an earlier one.
            OutcomeUnknownError: The statement commits itself, and its answer was lost, or is too large to be sent.
            DatabaseError: The statement was refused; a transaction is rolled back with it.
        """
        self.require_open()
        word = verb(sql)
        if self._transaction is None:
            return self._run_alone(word, sql, parameters)
        if word == "ROLLBACK":
            self.rollback()
            return _NOTHING
        self._require_alive(self._transaction)
        if word == "BEGIN":
            raise OperationalError("cannot start a transaction within a transaction")
        if word == "COMMIT":
            self.commit()
            return _NOTHING
        return self._send(self._transaction, [statement(sql, parameters)], TransactionLostError)[0]

    def run_many(self, sql: str, sets: Sequence[Sequence[Any]]) -> int:
        """Run one statement with many sets of parameters, all or none of them, and return how many rows it changed.

        Raises:
            DatabaseError: As `run`; ``step`` names the set.
        """
        self.require_open()
        if is_read(sql):
            raise ProgrammingError("executemany is for statements that write")
        if self._transaction is None and len(sets) <= MOST_SETS:
            return sum(result.rowcount for result in self.batch([(sql, each) for each in sets]))
        if self._transaction is None:
            self.run("BEGIN IMMEDIATE")
            try:
                total = self.run_many(sql, sets)
                self.commit()
            except BaseException:
                self.rollback()
                raise
            return total
        self._require_alive(self._transaction)
        total = 0
        for start in range(0, len(sets), MOST_SETS):
            chunk = [statement(sql, each) for each in sets[start : start + MOST_SETS]]
            results = self._send(self._transaction, chunk, TransactionLostError, first=start)
            total += sum(result.rowcount for result in results)
        return total

    def _run_alone(self, word: str, sql: str, parameters: Sequence[Any]) -> Result:
        if word == "BEGIN":
            self._transaction = _Transaction(sql)
            return _NOTHING
        if word in ("SAVEPOINT", "RELEASE"):
            raise NotSupportedError("a savepoint needs a transaction: BEGIN it first")
        lost: Lost = UnavailableError if is_read(sql) else OutcomeUnknownError
        steps = [*self._before, Step(statement(sql, parameters))]
        try:
            answer = self._client.run(steps, lost)
        except DataError as error:
            if error.code == "RESPONSE_TOO_LARGE" and lost is OutcomeUnknownError:
                raise OutcomeUnknownError(f"{error}: what it tells of is done", code=error.code) from error
            raise
        for refused in answer.errors:
            if refused is not None:
                raise classify.of_server(refused, lost, step=0)
        if is_setting(sql):  # of the stream, which ends here
            self._before = [Step(Statement(sql))]
        return answer.results[-1] or _NOTHING

    def _send(
        self,
        transaction: _Transaction,
        statements: list[Statement],
        lost: Lost,
        *,
        keep_open: bool = True,
        first: int = 0,
    ) -> list[Result]:
        """Send statements of a transaction; unless all of them succeed, it is lost."""
        steps: list[Step] = []
        if transaction.stream is None:
            steps = [*self._before, Step(Statement(transaction.begin))]
        offset = len(steps)
        for index, each in enumerate(statements):
            # The first condition is what keeps a statement from committing itself once the server has taken the
            # lock away, the second one spares the server the statements behind a failed one.
            conditions = [IN_TRANSACTION, *([after(offset + index - 1)] if index else [])]
            steps.append(Step(each, {"type": "and", "conds": conditions}))
        transaction.is_lost = True
        stream, transaction.stream = transaction.stream, None
        answer = self._client.run(steps, lost, stream=stream, keep_open=keep_open)
        failed = next(((place, error) for place, error in enumerate(answer.errors) if error is not None), None)
        results = [result for result in answer.results[offset:] if result is not None]
        if failed is None and len(results) == len(statements) and (answer.stream is not None) is keep_open:
            transaction.stream = answer.stream
            transaction.is_lost = False
            return results
        if answer.stream is not None:
            self._client.abandon(answer.stream)
        if failed is None:
            raise TransactionLostError("the server ended the transaction before this statement, which did not run")
        place, error = failed
        raise classify.of_server(error, lost, step=first + place - offset if place >= offset else None)

    def require_open(self) -> None:
        """Raise `ProgrammingError` once the connection is closed."""
        if self._is_closed:
            raise ProgrammingError("the connection is closed")

    def _require_alive(self, transaction: _Transaction) -> None:
        if transaction.is_lost or transaction.pid != os.getpid():
            raise TransactionLostError("the transaction is over; nothing but ROLLBACK is left to do")
