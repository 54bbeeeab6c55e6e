"""What to say to somebody who wrote a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

MOST_TOLD = 10
"""More names than these are counted, and not told: those that are near the one that was meant are found at a glance."""

NEAR = 3


def nearest(name: str, known: Collection[str], others: Mapping[str, str] | None = None, *, of: str = "nodes") -> str:
    """Return a hint: the names that are most like one, and all that there are, or how many.

    Args:
        name: What nothing has.
        known: The names that there are.
        others: Further names that may have been meant, each with the one of ``known`` that it stands for.
        of: What has these names.
    """
    others = others or {}
    near = difflib.get_close_matches(name, [*known, *others], n=2 * NEAR)
    if len(known) <= MOST_TOLD:
        meant = f"Did you mean {near[0]}? " if near else ""
        return f"{meant}Known: {', '.join(sorted(known)) or 'none'}."
    first = list(dict.fromkeys(others.get(each, each) for each in near))[:NEAR]
    return f"{'Nearest: ' if first else ''}{', '.join(first)}{'. ' if first else ''}There are {len(known)} {of}."
