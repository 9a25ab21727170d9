"""Limit the rate of the frames that one client sends, or of the characters that one caller is sent."""

from __future__ import annotations

import time


class TokenBucket:
    """A rate limit. It allows ``burst`` tokens at once, and after that ``per_second`` tokens in each second. A token
    stands for one frame or one character.
    """

    def __init__(self, *, burst: int, per_second: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens: float = burst
        self._refilled_at = time.monotonic()

    def take(self) -> bool:
        """Take one token. Return False if none is left."""
        self._refill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def charge(self, tokens: int) -> None:
        """Take this many tokens. The number of tokens that are left may become negative."""
        self._refill()
        self._tokens -= tokens

    @property
    def seconds_in_debt(self) -> float:
        """Seconds until the number of tokens is at least zero."""
        self._refill()
        return max(0.0, -self._tokens / self._per_second)

    @property
    def is_full(self) -> bool:
        """Whether the bucket contains all its tokens, because none were taken lately."""
        self._refill()
        return self._tokens == self._burst

    def _refill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._per_second)
        self._refilled_at = now
