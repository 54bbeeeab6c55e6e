"""What a run id, a node id or a partition key may be.

Any non-empty string of at most 190 UTF-8 bytes without control characters. Ids are compared byte
for byte: case, accents and trailing spaces count, and no Unicode normalisation is applied. An id is
a name, never a path: ``../x``, ``a/b`` and ``ab`` are three different, harmless ids.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from seeknal.errors import InvalidIdError

MAX_ID_BYTES = 190
"""A key of two such ids fits MySQL's 3072-byte index limit at four bytes a character.

Source: https://dev.mysql.com/doc/refman/8.4/en/innodb-limits.html
"""


def check_id(value: object, field: str) -> str:
    """Return ``value`` if it can name something, else raise.

    Args:
        value: What the caller passed.
        field: The parameter's name, for the message.

    Raises:
        InvalidIdError: Not a string, empty, too long, with a control character (Unicode category
            Cc), or not encodable as UTF-8 (a lone surrogate).
    """
    if type(value) is not str:
        if not isinstance(value, str):
            raise InvalidIdError(
                f"{field} must be a string, not {type(value).__name__}",
                hint=f"Pass {field} as a string.",
                field=field,
            )
        value = str.__str__(value)
    problem = _problem(value)
    if problem:
        raise InvalidIdError(
            f"{field} {_shown(value)} {problem}",
            hint=f"Use 1 to {MAX_ID_BYTES} bytes of UTF-8 text without control characters.",
            field=field,
        )
    return value


@lru_cache(maxsize=4096)
def _problem(value: str) -> str:
    if not value:
        return "is empty"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode text (it holds a lone surrogate)"
    if size > MAX_ID_BYTES:
        return f"is {size} bytes long; at most {MAX_ID_BYTES} are allowed"
    if any(unicodedata.category(char) == "Cc" for char in value):
        return "holds a control character"
    return ""


def _shown(value: str) -> str:
    """Return the id as a short ASCII literal that is safe in any terminal."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
