"""Hides when a failed attempt is tried again: pure decisions, no clock, no database."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from durable_agents.exceptions import ErrorKind

MAX_RETRY_AFTER_SECONDS = 300.0
"""A provider's Retry-After is believed up to here; a longer one would look like a thread that hangs."""


@dataclass(frozen=True)
class RetryIn:
    """``Retry.classify`` returns it: try again after ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """``Retry.classify`` returns it: do not try again; ``kind`` becomes the error code."""

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
    retry_if: Callable[..., Any] | None = None
    classify: Callable[[Exception], RetryIn | Fail | None] | None = None

    def delay_seconds(self, attempt: int, *, retry_after_seconds: float | None = None) -> float:
        """Seconds to wait after failed attempt number ``attempt`` (from 1); a provider's own wish is a lower bound."""
        delay = min(self._raw_delay(attempt), self.max_delay_seconds)
        if self.jitter:
            delay *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        if retry_after_seconds is None:
            return delay
        wish = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        return max(delay, wish * (random.uniform(1.0, 1.2) if self.jitter else 1.0))  # noqa: S311

    def _raw_delay(self, attempt: int) -> float:
        if self.backoff == "constant":
            return self.initial_delay_seconds
        if self.backoff == "linear":
            return self.initial_delay_seconds * attempt
        return self.initial_delay_seconds * self.multiplier ** min(attempt - 1, 60)


ONCE = Retry(max_attempts=1)
"""No second try: what a tool without ``retry`` gets."""
