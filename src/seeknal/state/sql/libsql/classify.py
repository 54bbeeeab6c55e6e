"""From what a server or the way to it says to a typed exception.

Every function is told ``lost``: what it means when the answer to the request never comes. That is
`OutcomeUnknownError` if the request can commit, `TransactionLostError` if it is a part of a transaction, and
`UnavailableError` if it only reads.

Source: the codes are those of ``StmtError`` and ``StreamError`` of libSQL's server 0.24; the texts and what each of
them means for the transaction were observed on it.
"""

from __future__ import annotations

import re

import httpx
import msgspec

from seeknal.state.sql.libsql.errors import (
    AuthenticationError,
    BusyError,
    DatabaseError,
    DataError,
    EndpointError,
    ForbiddenError,
    IntegrityError,
    OperationalError,
    OutcomeUnknownError,
    ProgrammingError,
    TlsError,
    TransactionLostError,
    UnavailableError,
)

Lost = type[OperationalError]

_CODES: dict[str, type[DatabaseError]] = {
    "SQLITE_BUSY": BusyError,
    "SQLITE_LOCKED": BusyError,
    "TRANSACTION_BUSY": BusyError,
    "TRANSACTION_TIMEOUT": TransactionLostError,
    "STREAM_EXPIRED": TransactionLostError,
    "SQLITE_CONSTRAINT": IntegrityError,
    "SQL_PARSE_ERROR": ProgrammingError,
    "SQL_INPUT_ERROR": ProgrammingError,
    "SQL_NO_STATEMENT": ProgrammingError,
    "SQL_MANY_STATEMENTS": ProgrammingError,
    "ARGS_BOTH_POSITIONAL_AND_NAMED": ProgrammingError,
    "SQLITE_TOOBIG": DataError,
    "SQLITE_MISMATCH": DataError,
    "RESPONSE_TOO_LARGE": DataError,
}
"""Every other code is an `OperationalError`: a full, damaged or blocked database, and what is not known yet."""

_TEXTS: tuple[tuple[re.Pattern[str], type[DatabaseError]], ...] = (
    (re.compile("constraint failed"), IntegrityError),
    (
        re.compile("no such (table|column|index|view|savepoint|function)|has no column|has \\d+ columns"),
        ProgrammingError,
    ),
    (re.compile("syntax error|incomplete input|could not be parsed"), ProgrammingError),
    (re.compile("too big"), DataError),
    (re.compile("database (table )?is locked|cannot handle additional|can't handle additional"), BusyError),
    (re.compile("Transaction timed[ -]out|no transaction is active|\\bbaton\\b"), TransactionLostError),
    (re.compile("Authorization forbidden"), ForbiddenError),
    (re.compile("Namespace .* doesn't exist|Invalid (namespace|host header)"), EndpointError),
)
"""For answers whose code says nothing: a replica passes on the error of its primary as text alone, and that a token
may only read with HTTP 400."""

_NAMESPACE = re.compile("Namespace .* doesn't exist")
_VAGUE = frozenset({"", "PROXY_ERROR", "SQLITE_UNKNOWN", "ARGS_INVALID"})

_STATUSES: dict[int, type[DatabaseError]] = {
    401: AuthenticationError,
    403: ForbiddenError,
    404: EndpointError,
    408: UnavailableError,
    413: DataError,
    429: UnavailableError,
}

_TLS = re.compile("CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|UNSUPPORTED_PROTOCOL")
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

_AFTERMATH: dict[Lost, str] = {
    OutcomeUnknownError: "what was sent may have been applied, or may still be",
    TransactionLostError: "the transaction is rolled back",
    UnavailableError: "nothing was changed",
}


class ServerError(msgspec.Struct, frozen=True):
    """An error as the server writes it."""

    message: str = ""
    code: str | None = None


def of_server(error: ServerError, lost: Lost, *, http_status: int = 0, step: int | None = None) -> DatabaseError:
    """Return the exception for an error that the database reported."""
    kind = _known(error, lost) or OperationalError
    return kind(error.message, code=error.code or "", http_status=http_status, step=step)


def of_status(status: int, body: bytes, lost: Lost) -> DatabaseError:
    """Return the exception for an answer whose status is not 200."""
    error = _read(body)
    message = f"HTTP {status}: {error.message}" if error.message else f"HTTP {status}"
    kind = _STATUSES.get(status)
    if status == 404 and _NAMESPACE.search(error.message):
        kind = UnavailableError  # a server that starts says so for a moment, of a database that it has
    if kind is None and status < 500:
        kind = _known(error, lost) or (ProgrammingError if status == 400 else EndpointError)
    elif kind is None:  # a gateway may say anything: only a code of ours means what it says
        kind = _CODES.get(error.code or "", lost)
    if kind is lost:
        message += f"; {_AFTERMATH[lost]}"
    return kind(message, code=error.code or "", http_status=status)


def of_transport(error: httpx.HTTPError, lost: Lost) -> DatabaseError:
    """Return the exception for a request that ended without an answer."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, _UNSENT):
        if _TLS.search(text):
            return TlsError(text)
        return UnavailableError(f"the database was not reached: {text}")
    return lost(f"the answer was lost ({text}); {_AFTERMATH[lost]}")


def of_unreadable(lost: Lost) -> DatabaseError:
    """Return the exception for an answer with status 200 that is not one of Hrana."""
    kind = EndpointError if lost is UnavailableError else lost
    return kind(f"the answer is not one of a libSQL server; {_AFTERMATH[lost]}")


def _known(error: ServerError, lost: Lost) -> type[DatabaseError] | None:
    code = error.code or ""
    if lost is OutcomeUnknownError and (code == "SQLITE_IOERR" or (code in _VAGUE and "disk I/O" in error.message)):
        return lost  # a commit whose last write failed may be found whole when the log is read again
    if code not in _VAGUE:
        return _CODES.get(code)
    for text, kind in _TEXTS:
        if text.search(error.message):
            return kind
    return ProgrammingError if code == "ARGS_INVALID" else None


def _read(body: bytes) -> ServerError:
    """Return the error in a body: of Hrana, of the server's HTTP layer, or of whatever stands in front of it."""
    try:
        found = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ServerError(body[:200].decode("utf-8", "replace").strip())
    message = found.get("message") or found.get("error") or ""
    code = found.get("code")
    return ServerError(str(message), code if isinstance(code, str) else None)
