"""How long to wait before a node is tried again."""

from __future__ import annotations

import random

MOST_DELAY_SECONDS = 300.0


def retry_delay(first_seconds: float, attempt: int, seed: str) -> float:
    """Return how many seconds to wait after an attempt failed.

    It doubles with each attempt, up to `MOST_DELAY_SECONDS` or the first delay if that is longer. Between a half and
    the whole of that is waited, so that nodes that failed together are not tried again together.

    Source: "equal jitter" of M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.

    Args:
        first_seconds: The longest delay after the first attempt.
        attempt: The one that failed, counted from 1.
        seed: Chooses within the range; the same seed and attempt give the same delay.
    """
    longest = min(first_seconds * 2.0 ** min(attempt - 1, 64), max(first_seconds, MOST_DELAY_SECONDS))
    return longest * (0.5 + random.Random(f"{seed} {attempt}").random() / 2)  # noqa: S311 - nothing secret
