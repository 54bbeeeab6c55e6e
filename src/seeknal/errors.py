"""Every error this package raises, in one tree.

::

    SeeknalError                          .hint  .retriable
      ConfigurationError (ValueError)       a setting, a project file, a command line
        UnknownBackendError                 .name .known
        MissingDriverError                  the hint names the extra to install
        InvalidStateUrlError
      InvalidIdError (ValueError)           .field
      InvalidFieldError (ValueError)        .field
      IntervalError (ValueError)
      GraphError (ValueError)
        CycleError                          .path
      StateBackendError
        NotFoundError (LookupError)
          RunNotFoundError                  .run_id
          NodeNotFoundError                 .run_id .node_id
        ConcurrencyError                    somebody else wrote first
          StaleVersionError                 .expected .found
          LockHeldError                     .holder
          LeaseLostError
          ClaimEndedError
        TransactionError                    nested wrongly, ended, or used from another thread
          CommitUnknownError                the answer to a commit was lost; never retried
        BackendUnavailableError             busy, unreachable, full
        AccessDeniedError                   the server knows the user or the token not, or grants it too little
        CorruptStateError                   .location .offset
        SchemaVersionError                  .found .wanted
        CapabilityError                     this backend does not offer the operation
        SupersededError                     .successor: the state lives in another store now
            MoveInProgressError             it is on its way to another store, or from one, right now
      TransferError                         source and target differ after a copy
      NodeFailedError                       a node of a pipeline failed

Every error says what happened in its message and what to do next in ``hint``; it carries its
facts as attributes and survives pickling, so that it can cross a process pool. No message ever
holds a secret: URLs are redacted before they reach this module.
"""

from __future__ import annotations

from typing import Any


class SeeknalError(Exception):
    """The root of the tree.

    Attributes:
        hint: The next step for the person who reads it; empty when the message says all.
        retriable: Whether the very same call may succeed later.
    """

    retriable: bool = False

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(SeeknalError, ValueError):
    """A setting, a project file or a command line that cannot be used as it is."""


class UnknownBackendError(ConfigurationError):
    """No backend is registered under this name."""

    def __init__(self, message: str = "", *, hint: str = "", name: str = "", known: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.known = known


class MissingDriverError(ConfigurationError):
    """The backend needs a package that is not installed; the hint names the extra."""


class InvalidStateUrlError(ConfigurationError):
    """A state URL that cannot be read. The message never holds its secrets."""


class InvalidIdError(SeeknalError, ValueError):
    """An id that no store may hold."""

    def __init__(self, message: str = "", *, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class InvalidFieldError(SeeknalError, ValueError):
    """A field that does not exist, or a value that its field cannot hold."""

    def __init__(self, message: str = "", *, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class IntervalError(SeeknalError, ValueError):
    """An interval that is empty or runs backwards, or a schedule that cannot be read."""


class GraphError(SeeknalError, ValueError):
    """A pipeline whose nodes do not form a graph: a name twice, or an input that does not exist."""


class CycleError(GraphError):
    """Nodes that depend on one another in a circle.

    Attributes:
        path: The node ids along the circle; the first one stands again at the end.
    """

    def __init__(self, message: str = "", *, hint: str = "", path: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class StateBackendError(SeeknalError):
    """Anything that went wrong in a store.

    Attributes:
        outcome: What became of the call's writes: ``not applied``, which is certain and final, or ``unknown``.
    """

    outcome: str = "not applied"


class NotFoundError(StateBackendError, LookupError):
    """A write named something that does not exist."""


class RunNotFoundError(NotFoundError):
    """A write named a run that does not exist."""

    def __init__(self, message: str = "", *, hint: str = "", run_id: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class NodeNotFoundError(NotFoundError):
    """A write named a node state that does not exist."""

    def __init__(self, message: str = "", *, hint: str = "", run_id: str = "", node_id: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id
        self.node_id = node_id


class ConcurrencyError(StateBackendError):
    """Somebody else wrote first, or the record exists already. Nothing was changed."""


class StaleVersionError(ConcurrencyError):
    """A record is not at the version that the writer saw.

    Attributes:
        expected: The version the writer saw; 0 means "no record".
        found: The version that is stored; 0 means "no record", ``None`` that it was not asked for.
    """

    retriable = True

    def __init__(
        self, message: str = "", *, hint: str = "", expected: int | None = None, found: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.found = found


class LockHeldError(ConcurrencyError):
    """Somebody else holds the lock.

    Attributes:
        holder: The ``LockInfo`` of who holds it, or ``None`` if it was freed meanwhile.
    """

    retriable = True

    def __init__(self, message: str = "", *, hint: str = "", holder: Any = None) -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


class LeaseLostError(ConcurrencyError):
    """The lease under which a transaction was to commit is no longer held. Nothing was written."""


class ClaimEndedError(ConcurrencyError):
    """A claim that was to be ended is over already: completed, failed or given back. Nothing was written."""


class TransactionError(StateBackendError):
    """A transaction used after its end, out of order, or from another thread."""


class CommitUnknownError(TransactionError):
    """The store was asked to commit and its answer was lost: the outcome must be read back."""

    outcome = "unknown"


class BackendUnavailableError(StateBackendError):
    """The store cannot be reached or used now. Nothing was written."""

    retriable = True


class AccessDeniedError(StateBackendError):
    """The server does not let this user or token in, or does not grant it what a call needs. Nothing was written."""


class CorruptStateError(StateBackendError):
    """A store whose bytes are not what was written. Never repaired silently.

    Attributes:
        location: The file (or table) that is damaged.
        offset: The first byte that cannot be trusted, where the store knows it.
    """

    def __init__(self, message: str = "", *, hint: str = "", location: str = "", offset: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.location = location
        self.offset = offset


class SchemaVersionError(StateBackendError):
    """The store was written by another version of this package.

    Attributes:
        found: The version the store has.
        wanted: The version this program reads and writes.
    """

    def __init__(self, message: str = "", *, hint: str = "", found: str = "", wanted: str = "") -> None:
        super().__init__(message, hint=hint)
        self.found = found
        self.wanted = wanted


class CapabilityError(StateBackendError):
    """This backend does not offer the operation."""


class SupersededError(StateBackendError):
    """The state moved to another store; this one no longer takes writes.

    Attributes:
        successor: Where the state lives now, with secrets masked.
    """

    def __init__(self, message: str = "", *, hint: str = "", successor: str = "") -> None:
        super().__init__(message, hint=hint)
        self.successor = successor


class MoveInProgressError(SupersededError):
    """The state is being moved into this store or out of it; until that has ended it takes no writes."""


class TransferError(SeeknalError):
    """A copy between stores that was refused, or whose two sides differ."""


class NodeFailedError(SeeknalError):
    """A node of a pipeline failed; the message is the node's own."""
