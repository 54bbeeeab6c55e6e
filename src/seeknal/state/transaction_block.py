"""The ``with`` block of a transaction, and of a savepoint inside one."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from seeknal.errors import TransactionError
from seeknal.state.lease import Lease
from seeknal.state.transaction import ended
from seeknal.state.unit import UnitOfWork

if TYPE_CHECKING:
    from seeknal.state.record_store import RecordStore


class TransactionBlock:
    """Entered once, by one thread; the outermost commits, an inner one is a savepoint.

    Args:
        store: Where it commits.
        lease: What it demands of the commit.
        in_order: Whether it may be ended again after it was refused because an inner one is open, as
            the verbs without a block can. A ``with`` block is left once: there the inner ones end
            with it, and nothing is written.

    Raises:
        TransactionError: Entered twice, or left by another thread or out of order.
    """

    def __init__(self, store: RecordStore, lease: Lease | None, *, in_order: bool = False) -> None:
        self._store = store
        self._lease = lease
        self._in_order = in_order
        self._thread: int | None = None
        self.is_active = False

    def __enter__(self) -> TransactionBlock:
        if self._thread is not None:
            raise TransactionError("a transaction block is entered once", hint="Call transaction() again.")
        store, local = self._store, self._store._local
        store._check_open()
        if local.unit is None:
            local.unit = UnitOfWork(store, page=store.paging())
        else:
            local.unit.push()
        if self._lease is not None:
            local.unit.demand(self._lease)
        local.blocks.append(self)
        self._thread = threading.get_ident()
        self.is_active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._check_may_end()
        local = self._store._local
        left_open = local.blocks[-1] is not self
        while local.blocks[-1] is not self:
            local.blocks.pop().is_active = False
            if local.unit is not None:
                local.unit.discard()
        if left_open and error is None:
            try:
                raise _inner_open()
            except TransactionError as refusal:
                self.__exit__(type(refusal), refusal, refusal.__traceback__)
                raise
        local.blocks.pop()
        self.is_active = False
        unit = local.unit
        assert unit is not None
        if local.blocks:
            if error is None:
                unit.keep()
            else:
                unit.discard()
            return
        local.unit = None
        if error is None:
            batch = unit.batch()
            if not batch.is_empty:
                self._store._check_open()
                self._store.commit(batch)
                for run_id in batch.freed_runs:
                    self._store._forget_leases(run_id)

    def _check_may_end(self) -> None:
        if not self.is_active:
            raise ended()
        if self._thread != threading.get_ident():
            raise TransactionError("a transaction belongs to the thread that opened it", hint="End it in that thread.")
        if self not in self._store._local.blocks:  # a child process was forked inside it: it is the parent's
            raise ended()
        if self._in_order and self._store._local.blocks[-1] is not self:
            raise _inner_open()


def _inner_open() -> TransactionError:
    return TransactionError("an inner transaction is still open", hint="End the inner one first.")
