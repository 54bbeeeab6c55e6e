"""The exceptions of the DB-API module.

::

    Warning, and Error                  .code  .http_status  .step
      InterfaceError
      DatabaseError
        DataError                         a value that cannot be sent or kept
        IntegrityError                    a constraint
        InternalError
        ProgrammingError                  wrong SQL, a table that does not exist, a closed connection
        NotSupportedError
        UnmetDemandError                  a statement of a batch touched or returned nothing; rolled back
        OperationalError
          BusyError                       rolled back, or not begun: repeat the whole transaction
          TransactionLostError            the server rolled it back: repeat the whole transaction
          UnavailableError                nothing was changed: not reached, or an answer to a mere read was lost
          OutcomeUnknownError             sent, and the answer lost: applied, not applied, or applied later
          EndpointError                   the address or the settings, not the moment: no libSQL server there
            TlsError                      a certificate that is not trusted, or no TLS on the other side
          AuthenticationError             no token, an expired one, or that of another server
          ForbiddenError                  a token that may only read

The first nine are those of PEP 249. None of them retries, none holds a token.
"""

from __future__ import annotations


class Warning(Exception):  # noqa: A001 - the names are given by PEP 249
    """Never raised; PEP 249 asks for the name."""


class Error(Exception):
    """The root of the tree.

    Attributes:
        code: What the server calls the error, or empty.
        http_status: The status of an answer that was not 200, or 0.
        step: Which of the statements that were sent together failed, from 0, or ``None``.
    """

    def __init__(self, message: str = "", *, code: str = "", http_status: int = 0, step: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
        self.step = step


class InterfaceError(Error):
    """The module was used in a way that it does not have."""


class DatabaseError(Error):
    """Anything that the database or the way to it refused."""


class DataError(DatabaseError):
    """A value or an answer that is too big, or a value that has no form in the database."""


class IntegrityError(DatabaseError):
    """A constraint would be broken. Nothing was changed."""


class InternalError(DatabaseError):
    """Never raised; PEP 249 asks for the name."""


class ProgrammingError(DatabaseError):
    """Wrong SQL, a table or column that does not exist, wrong parameters, or a closed connection."""


class NotSupportedError(DatabaseError):
    """Something of SQLite that a remote database cannot give."""


class UnmetDemandError(DatabaseError):
    """A statement that had to touch or return a row did not; the whole batch was rolled back."""


class OperationalError(DatabaseError):
    """The database cannot do it now, for a reason that is not the statement's."""


class BusyError(OperationalError):
    """Another writer has the lock. Nothing was changed: the whole transaction may be repeated."""


class TransactionLostError(OperationalError):
    """The transaction is rolled back: its lock was taken away, its stream expired, or its server restarted."""


class UnavailableError(OperationalError):
    """The database was not reached, or its answer to a mere read was lost. Nothing was changed."""


class OutcomeUnknownError(OperationalError):
    """The request was sent and its answer lost: it may have been applied, and may still be applied later."""


class EndpointError(OperationalError):
    """What answers at this address is not a libSQL server, or the settings that lead there are wrong."""


class TlsError(EndpointError):
    """The certificate is not trusted, or the other side does not speak TLS."""


class AuthenticationError(OperationalError):
    """The token is missing, has expired, or is not this server's."""


class ForbiddenError(OperationalError):
    """The token may only read."""
