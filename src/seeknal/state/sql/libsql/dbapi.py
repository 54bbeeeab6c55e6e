"""A DB-API 2.0 module for a remote libSQL database, with the transactions of `sqlite3` and ``isolation_level=None``.

What differs from `sqlite3`: when the server refuses a statement inside a transaction, the transaction is over, and
everything but ``ROLLBACK`` is refused; a savepoint needs a transaction; parameters go with question marks only.
Nothing is repeated here.

Source: PEP 249.
"""

from __future__ import annotations

from seeknal.state.sql.libsql.connection import Connection
from seeknal.state.sql.libsql.cursor import Cursor
from seeknal.state.sql.libsql.endpoint import Endpoint
from seeknal.state.sql.libsql.errors import (
    AuthenticationError,
    BusyError,
    DatabaseError,
    DataError,
    EndpointError,
    Error,
    ForbiddenError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    OutcomeUnknownError,
    ProgrammingError,
    TlsError,
    TransactionLostError,
    UnavailableError,
    UnmetDemandError,
    Warning,  # noqa: A004 - the name is given by PEP 249
)
from seeknal.state.sql.libsql.hrana import DEFAULT_TIMEOUT_S, Result

__all__ = [
    "PARSE_COLNAMES",
    "PARSE_DECLTYPES",
    "AuthenticationError",
    "Binary",
    "BusyError",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "EndpointError",
    "Error",
    "ForbiddenError",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "OutcomeUnknownError",
    "ProgrammingError",
    "Result",
    "TlsError",
    "TransactionLostError",
    "UnavailableError",
    "UnmetDemandError",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "sqlite_version_info",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"
Binary = bytes
sqlite_version_info = (3, 45, 1)
"""What libSQL's server 0.24 is built on; SQLAlchemy asks for it without a connection."""
PARSE_DECLTYPES = 1
PARSE_COLNAMES = 2


def connect(endpoint: Endpoint, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Connection:
    """Return a connection. Nothing is sent before its first statement."""
    return Connection(endpoint, timeout_s)
