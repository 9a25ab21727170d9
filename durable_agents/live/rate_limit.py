"""Limit the rate of the frames that one client sends."""

from __future__ import annotations

import time


class TokenBucket:
    """A rate limit. It allows a burst of ``burst`` frames, and after that ``per_second`` frames in each second."""

    def __init__(self, *, burst: int, per_second: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens: float = burst
        self._refilled_at = time.monotonic()

    def take(self) -> bool:
        """Take one token. Return False if none is left."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._per_second)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
