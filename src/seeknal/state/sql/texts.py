"""Text as every database can hold it."""

from __future__ import annotations

_MARK = "\x1bnul:"
"""What begins a text that is stored in other characters: an escape character, which hardly begins any other."""

_ESCAPE, _NUL = "\x1b1", "\x1b0"
"""For an escape character and U+0000 in such a text. Two for one: the longest text that is allowed stays short enough
for what servers take at once."""


def stored(text: str | None) -> str | None:
    """Return a text without the character U+0000, which PostgreSQL cannot hold.

    Source: https://www.postgresql.org/docs/current/datatype-character.html
    """
    if text is None or ("\x00" not in text and not text.startswith(_MARK)):
        return text
    return _MARK + text.replace("\x1b", _ESCAPE).replace("\x00", _NUL)


def restored(text: str | None) -> str | None:
    """Return what `stored` was given."""
    if text is None or not text.startswith(_MARK):
        return text
    return text.removeprefix(_MARK).replace(_NUL, "\x00").replace(_ESCAPE, "\x1b")
