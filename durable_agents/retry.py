"""Retry policy: decides whether and when a failed attempt runs again; no clock, no database."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from durable_agents.exceptions import ErrorKind

MAX_RETRY_AFTER_SECONDS = 300.0
"""Limit for a provider's Retry-After; a longer wait would look like a thread that hangs."""


@dataclass(frozen=True)
class RetryIn:
    """Returned by ``Retry.classify``: try again after ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """Returned by ``Retry.classify``: do not try again; ``kind`` becomes the error code."""

    kind: ErrorKind | str = ErrorKind.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and when to try again.

    ``max_attempts`` counts all tries, the first included. The n-th wait is ``initial_delay_seconds`` times
    ``multiplier`` to the power n-1 (``exponential``), times n (``linear``) or as it is (``constant``), at most
    ``max_delay_seconds``, and with ``jitter`` shortened at random by up to a half.
    """

    max_attempts: int = 4
    backoff: Literal["exponential", "linear", "constant"] = "exponential"
    initial_delay_seconds: float = 1.0
    multiplier: float = 2.0
    max_delay_seconds: float = 30.0
    jitter: bool = True
    retry_if: Callable[..., object] | None = None
    classify: Callable[[Exception], RetryIn | Fail | None] | None = None

    def delay_seconds(self, attempt: int, *, retry_after_seconds: float | None = None) -> float:
        """Return the seconds to wait after failed attempt number ``attempt`` (from 1); the delay that a provider asks
        for is a lower bound.
        """
        delay = self.initial_delay_seconds
        if self.backoff == "linear":
            delay *= attempt
        elif self.backoff == "exponential":
            delay *= self.multiplier ** min(attempt - 1, 60)  # a much larger power would overflow
        delay = min(delay, self.max_delay_seconds)
        if self.jitter:
            delay *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        if retry_after_seconds is None:
            return delay
        asked = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        # Never sooner than the provider asks, but spread: every waiting run was given the same delay.
        return max(delay, asked * (random.uniform(1.0, 1.2) if self.jitter else 1.0))  # noqa: S311


ONCE = Retry(max_attempts=1)
"""No retry: the default of tools."""
