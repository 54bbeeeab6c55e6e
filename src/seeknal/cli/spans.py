"""Spans of time in words."""

from __future__ import annotations


def span_text(milliseconds: float) -> str:
    """Return how long something took in few words: ``0.3 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = milliseconds / 1000
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
