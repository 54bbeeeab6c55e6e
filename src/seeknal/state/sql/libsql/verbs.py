"""What a statement is, read from its first words: as much of SQL as a connection must understand."""

from __future__ import annotations

import re
from functools import lru_cache

READS = frozenset({"SELECT", "VALUES", "EXPLAIN"})

_BLANK = r"(?:\s|--[^\n]*|/\*.*?(?:\*/|\Z))*+"
_FIRST_WORD = re.compile(_BLANK + r"([A-Za-z]+)", re.DOTALL)
_ROLLBACK_TO = re.compile(
    _BLANK + r"ROLLBACK\b" + _BLANK + r"(?:TRANSACTION\b" + _BLANK + r")?TO\b", re.DOTALL | re.IGNORECASE
)
_SETTING = re.compile(r"\s*PRAGMA\s+foreign_keys\s*=", re.IGNORECASE)
_PIECE = re.compile(
    r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)|[()]|[A-Za-z_]\w*""",
    re.DOTALL,
)
_BEHIND_WITH = frozenset({"SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE"})


@lru_cache(maxsize=512)
def verb(sql: str) -> str:
    """Return the first word of a statement in capitals, or empty.

    That of ``WITH`` is the verb behind its tables; that of ``ROLLBACK TO`` is ``RELEASE``, since it too leaves the
    transaction open, and that of ``END`` is ``COMMIT``.
    """
    match = _FIRST_WORD.match(sql)
    word = match[1].upper() if match else ""
    if word == "WITH":
        return _verb_behind_with(sql)
    if word == "ROLLBACK" and _ROLLBACK_TO.match(sql):
        return "RELEASE"
    return "COMMIT" if word == "END" else word


def is_read(sql: str) -> bool:
    """Return whether a statement can change nothing."""
    found = verb(sql)
    return found in READS or (found == "PRAGMA" and "=" not in sql)


def is_setting(sql: str) -> bool:
    """Return whether a statement changes something that a stream forgets, and that its user may rely upon."""
    return _SETTING.match(sql) is not None


def _verb_behind_with(sql: str) -> str:
    depth = 0
    for piece in _PIECE.findall(sql):
        if piece in ("(", ")"):
            depth += 1 if piece == "(" else -1
        elif depth == 0 and piece.upper() in _BEHIND_WITH:
            return str(piece).upper()
    return "WITH"
