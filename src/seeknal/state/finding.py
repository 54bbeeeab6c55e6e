"""What an examination of a store finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from seeknal.errors import AccessDeniedError, CorruptStateError, SchemaVersionError, SeeknalError


class Severity(StrEnum):
    """How bad a finding is: an error means that the store is, or answers, wrong; a warning that it may become so."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        check: The stable short name of what was looked at, such as ``intervals-overlap``.
        severity: How bad it is.
        what: What is wrong, in one sentence.
        where: The file, the table or the record, without secrets.
        fix: The next step for a person.
        mend: Does that step, where a program can do it safely; opens the store if it has to. May raise `SeeknalError`.
    """

    check: str
    severity: Severity
    what: str
    where: str
    fix: str
    mend: Callable[[], object] | None = field(default=None, repr=False, compare=False)

    @property
    def is_fixable(self) -> bool:
        """Whether a program can mend it."""
        return self.mend is not None


def error(check: str, what: str, *, where: str, fix: str, mend: Callable[[], object] | None = None) -> Finding:
    """Return a finding that is an error."""
    return Finding(check=check, severity=Severity.ERROR, what=what, where=where, fix=fix, mend=mend)


def warning(check: str, what: str, *, where: str, fix: str, mend: Callable[[], object] | None = None) -> Finding:
    """Return a finding that is a warning."""
    return Finding(check=check, severity=Severity.WARNING, what=what, where=where, fix=fix, mend=mend)


def refusal(raised: SeeknalError, where: str) -> Finding:
    """Return the finding that a store cannot be opened, or looked at."""
    if isinstance(raised, CorruptStateError):
        return error("store-damaged", str(raised), where=raised.location or where, fix=raised.hint)
    if isinstance(raised, SchemaVersionError):
        return error("schema-newer", str(raised), where=where, fix=raised.hint)
    if isinstance(raised, AccessDeniedError):
        return error("access-denied", str(raised), where=where, fix=raised.hint)
    return error("store-unreachable", str(raised), where=where, fix=raised.hint)


def no_store(where: str) -> Finding:
    """Return the finding that nothing was ever stored here."""
    return warning(
        "store-missing",
        "there is no store here yet",
        where=where,
        fix="Nothing is wrong if the project is new: the first run makes it. If not, check the settings.",
    )


def older_schema(where: str, found: int, wanted: int) -> Finding:
    """Return the finding that a store is older than this program."""
    return warning(
        "schema-older",
        f"the store has schema {found}, and this program writes {wanted}",
        where=where,
        fix="Back it up; any command that opens the store then brings it up to date.",
    )
