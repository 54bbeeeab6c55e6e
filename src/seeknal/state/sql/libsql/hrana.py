"""Hrana over HTTP: one batch of statements, one request, one answer.

Source: the specification of Hrana 3 in the repository of libSQL. What is observed only: numbers travel as decimal
strings, binary text comes back without padding, an infinity comes back as a null without its sign, and
``is_autocommit`` in a condition is known to ``/v3`` only.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from seeknal.state.sql.libsql import classify
from seeknal.state.sql.libsql.classify import Lost, ServerError
from seeknal.state.sql.libsql.endpoint import Endpoint
from seeknal.state.sql.libsql.errors import DatabaseError, DataError, EndpointError, ProgrammingError, UnavailableError

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
DEFAULT_TIMEOUT_S = 15.0
"""Longer than the 5 s after which the server takes the lock from a writer that died with it."""

IN_TRANSACTION: Mapping[str, Any] = {"type": "not", "cond": {"type": "is_autocommit"}}
"""The condition without which a statement would commit itself after the server ended its transaction."""

_inherited: list[httpx.Client] = []
"""Clients of a parent process. They are not closed here: one of its threads may have held their locks at the fork."""


def after(step: int) -> Mapping[str, Any]:
    """Return the condition that an earlier step of the batch has succeeded."""
    return {"type": "ok", "step": step}


class Cell(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value, as it travels."""

    type: str
    value: str | float | None = None
    base64: str | None = None


class Statement(msgspec.Struct, frozen=True):
    """SQL with question marks, and the values for them."""

    sql: str
    args: list[Cell] = []


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """A statement of a batch, and the condition under which it runs."""

    stmt: Statement
    condition: Mapping[str, Any] | None = None


class Result(msgspec.Struct, frozen=True):
    """What a statement gave.

    Attributes:
        rows: In the order of the statement; empty if it returns none.
        rowcount: How many rows it inserted, updated or deleted, or returned.
        lastrowid: Of an INSERT, or ``None``.
        columns: The names of what it returns; empty if it returns nothing.
    """

    rows: list[tuple[Any, ...]] = []
    rowcount: int = 0
    lastrowid: int | None = None
    columns: tuple[str, ...] = ()


class Stream(msgspec.Struct, frozen=True):
    """A session on the server that waits for its next request; used once, the answer brings the next."""

    baton: str
    url: str


class Answer(msgspec.Struct, frozen=True):
    """What became of a batch: for each step a result, an error, or neither if its condition did not hold."""

    results: list[Result | None]
    errors: list[ServerError | None]
    stream: Stream | None


class _Column(msgspec.Struct):
    name: str | None = None


class _StatementResult(msgspec.Struct):
    cols: list[_Column]
    rows: list[list[Cell]]
    affected_row_count: int = 0
    last_insert_rowid: str | None = None


class _BatchResult(msgspec.Struct):
    step_results: list[_StatementResult | None]
    step_errors: list[ServerError | None]


class _Response(msgspec.Struct):
    type: str
    result: _BatchResult | None = None


class _Outcome(msgspec.Struct):
    type: str
    response: _Response | None = None
    error: ServerError | None = None


class _Pipeline(msgspec.Struct):
    results: list[_Outcome]
    baton: str | None = None
    base_url: str | None = None


_decoder = msgspec.json.Decoder(_Pipeline)


class HranaClient:
    """The HTTP side of one connection.

    It shares nothing with other connections but the TLS settings: one that is collected as garbage may roll back in
    the midst of a request of another, whose locks are not reentrant. A child process gets an HTTP client of its own.

    Concurrency: one thread at a time.

    Attributes:
        timeout_s: How long each wait for the server may last; may be set before every call. Connecting may take
            5 seconds of it at most.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self._endpoint = endpoint
        self._http: httpx.Client | None = None
        self._pid = 0

    def run(
        self, steps: Sequence[Step], lost: Lost, *, stream: Stream | None = None, keep_open: bool = False
    ) -> Answer:
        """Send one batch, and have the stream closed behind it unless it is kept.

        Args:
            steps: In order; each runs if its condition holds, whatever became of the one before.
            lost: What it means if the answer is lost.
            stream: The one to go on with; a new one when ``None``.
            keep_open: Leave the transaction that the batch began, and return its stream.

        Raises:
            DatabaseError: No answer, or one for the batch as a whole, which then has not run. What became of
                each step is in the answer.
        """
        requests: list[object] = [{"type": "batch", "batch": {"steps": steps}}]
        pipeline = self._post(requests if keep_open else [*requests, {"type": "close"}], stream, lost)
        kept = self._next(pipeline, stream)
        try:
            results, errors = _read(pipeline, len(steps), lost)
        except DatabaseError:
            if kept is not None:
                self.abandon(kept)
            raise
        return Answer(results, errors, kept)

    def abandon(self, stream: Stream) -> None:
        """Have a stream closed and its transaction rolled back; if nobody answers, the server does so by itself."""
        try:
            self._post([{"type": "close"}], stream, UnavailableError)
        except DatabaseError as error:
            _log.debug("a stream was left to expire: %s", error)

    def close(self) -> None:
        """Close the connection to the server. It opens again if it is used again."""
        http, self._http = self._http, None
        if http is not None and self._pid == os.getpid():
            http.close()
        elif http is not None:
            _inherited.append(http)

    def _post(self, requests: list[object], stream: Stream | None, lost: Lost) -> _Pipeline:
        url = self._endpoint.url if stream is None else stream.url
        body = msgspec.json.encode({"baton": None if stream is None else stream.baton, "requests": requests})
        timeout = httpx.Timeout(self.timeout_s, connect=min(CONNECT_TIMEOUT_S, self.timeout_s))
        try:
            answer = self._client().post(f"{url}/v3/pipeline", content=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise classify.of_transport(error, lost) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise EndpointError("the host is not the name of one") from error
        if answer.status_code != 200:
            raise classify.of_status(answer.status_code, self._without_token(answer.content), lost)
        try:
            return _decoder.decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise classify.of_unreadable(lost) from error

    def _client(self) -> httpx.Client:
        if self._http is None or self._pid != os.getpid():
            self.close()
            self._http = self._new_client()
            self._pid = os.getpid()
        return self._http

    def _new_client(self) -> httpx.Client:
        headers = {"Content-Type": "application/json"}
        if self._endpoint.token is not None:
            headers["Authorization"] = f"Bearer {self._endpoint.token}"
        local = self._endpoint.is_loopback
        without_tls = local and self._endpoint.url.startswith("http:")
        try:
            return httpx.Client(
                headers=headers,
                verify=not without_tls and _tls_settings(),  # to read certificates that nobody asks for takes 37 ms
                follow_redirects=False,  # the token would follow them
                trust_env=not local,  # which is about proxies; the certificates of the environment are always trusted
            )
        except (ImportError, OSError, ValueError) as error:
            raise EndpointError(f"the proxy or the certificates of the environment cannot be used: {error}") from error

    def _without_token(self, body: bytes) -> bytes:
        token = self._endpoint.token
        return body if token is None else body.replace(token.encode(), b"***")

    def _next(self, pipeline: _Pipeline, stream: Stream | None) -> Stream | None:
        """Return the stream to go on with: where the server says, if that is the host that we gave the token to."""
        if pipeline.baton is None:
            return None
        url = self._endpoint.url if stream is None else stream.url
        known = urlsplit(url)
        with contextlib.suppress(ValueError):  # not a URL, or no port
            named = urlsplit(pipeline.base_url or "")
            if (named.scheme, named.hostname) == (known.scheme, known.hostname) and (named.port or 1) > 0:
                url = f"{named.scheme}://{named.netloc.rpartition('@')[2]}{named.path.rstrip('/')}"
        return Stream(pipeline.baton, url)


def text(value: str) -> str:
    """Return a text that can be sent, of the plain type.

    Raises:
        DataError: It holds half a surrogate pair.
    """
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        raise DataError("a text has half a surrogate pair, which is not Unicode") from None
    return str.__str__(value)


def cell(value: object) -> Cell:
    """Return a parameter as it travels.

    Raises:
        DataError: An integer beyond 64 bits, an infinity, NaN, or half a surrogate pair.
        ProgrammingError: A type that SQLite does not have.
    """
    if value is None:
        return _NULL
    if isinstance(value, str):
        return Cell("text", text(value))
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DataError("an integer does not fit in 64 bits")
        return Cell("integer", str(int(value)))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError("an infinity or NaN cannot be sent")
        return Cell("float", float(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Cell("blob", base64=b64encode(value).decode("ascii"))
    raise ProgrammingError(f"a parameter of type {type(value).__name__} cannot be sent")


_NULL = Cell("null")


def _read(pipeline: _Pipeline, steps: int, lost: Lost) -> tuple[list[Result | None], list[ServerError | None]]:
    outcome = pipeline.results[0] if pipeline.results else None
    if outcome is not None and outcome.error is not None:
        raise classify.of_server(outcome.error, lost)
    batch = outcome.response.result if outcome is not None and outcome.response is not None else None
    if batch is None or len(batch.step_results) != steps or len(batch.step_errors) != steps:
        raise classify.of_unreadable(lost)
    try:
        results = [None if result is None else _result(result) for result in batch.step_results]
    except ValueError as error:
        raise classify.of_unreadable(lost) from error
    return results, batch.step_errors


def _value(cell: Cell) -> Any:
    match cell:
        case Cell(type="text", value=str(content)):
            return content
        case Cell(type="integer", value=str(digits)):
            return int(digits)
        case Cell(type="null"):
            return None
        case Cell(type="float", value=number):
            return math.inf if number is None else float(number)
        case Cell(type="blob", base64=str(content)):
            return b64decode(content + "=" * (-len(content) % 4), validate=True)
    raise ValueError("a value of a type that Hrana does not have")


def _result(found: _StatementResult) -> Result:
    rows = [tuple(map(_value, row)) for row in found.rows]
    return Result(
        rows,
        found.affected_row_count or len(rows),
        None if found.last_insert_rowid is None else int(found.last_insert_rowid),
        tuple(column.name or "" for column in found.cols),
    )


def _tls_settings() -> SSLContext:
    return _made_tls_settings(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _made_tls_settings(*_environment: str | None) -> SSLContext:
    """Made once: to read all certificates takes 37 ms."""
    return httpx.create_ssl_context()
