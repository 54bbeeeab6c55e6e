"""What a transaction is to its caller, and how attempts are spaced."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from seeknal.errors import TransactionError

LONGEST_PAUSE = 0.1
"""Seconds between two attempts, before jitter."""


class Transaction(Protocol):
    """A transaction that was begun; `StateBackend.transaction` yields it."""

    @property
    def is_active(self) -> bool:
        """Whether it can still take writes."""


class _RolledBackError(Exception):
    """Thrown into a transaction's block to make it roll back; never leaves this module."""


class BegunTransaction:
    """A transaction block that was entered by `begin_transaction` and is left by commit or rollback."""

    def __init__(self, block: AbstractContextManager[Transaction]) -> None:
        self._block = block
        self._inner = block.__enter__()

    @property
    def is_active(self) -> bool:
        """Whether it can still take writes."""
        return self._inner.is_active

    def commit(self) -> None:
        """Commit it."""
        self._check_active()
        self._block.__exit__(None, None, None)

    def rollback(self) -> None:
        """Undo it."""
        self._check_active()
        wanted = _RolledBackError()
        try:
            self._block.__exit__(_RolledBackError, wanted, None)
        except _RolledBackError:
            return

    def _check_active(self) -> None:
        if not self.is_active:
            raise ended()


def begun(transaction: Transaction) -> BegunTransaction:
    """Return ``transaction`` if `begin_transaction` made it.

    Raises:
        TransactionError: It is something else.
    """
    if not isinstance(transaction, BegunTransaction):
        raise TransactionError(
            f"a {type(transaction).__name__} was not begun with begin_transaction",
            hint="Pass what begin_transaction returned; a `with` block ends by itself.",
        )
    return transaction


def ended() -> TransactionError:
    """Return the error of a transaction that is used after its end."""
    return TransactionError("the transaction has ended", hint="Begin another one.")


def backoff(first: float = 0.001, most: float = LONGEST_PAUSE) -> Iterator[float]:
    """Yield pauses in seconds without end: doubling from ``first`` to ``most``, each jittered by half."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
        pause = min(pause * 2, most)
