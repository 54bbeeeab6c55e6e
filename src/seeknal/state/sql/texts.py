"""Text as every database can hold it."""

from __future__ import annotations

import json

_ESCAPED = "\x1bjson:"
"""What begins a text that is stored as JSON: an escape character, which hardly begins any other."""


def stored(text: str | None) -> str | None:
    """Return a text without the character U+0000, which PostgreSQL cannot hold.

    Source: https://www.postgresql.org/docs/current/datatype-character.html
    """
    if text is None or ("\x00" not in text and not text.startswith(_ESCAPED)):
        return text
    return _ESCAPED + json.dumps(text)


def restored(text: str | None) -> str | None:
    """Return what `stored` was given."""
    if text is None or not text.startswith(_ESCAPED):
        return text
    found: str = json.loads(text.removeprefix(_ESCAPED))
    return found
