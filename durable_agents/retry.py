"""Retry policy: decides whether and when a failed attempt runs again. It uses neither a clock nor the database."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from durable_agents.exceptions import ErrorKind

MAX_RETRY_AFTER_SECONDS = 300.0
"""The upper limit for a provider's ``Retry-After``. With a longer wait, the run would seem to hang."""


@dataclass(frozen=True)
class RetryIn:
    """Return this from ``Retry.classify`` to try again after ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """Return this from ``Retry.classify`` to give up. ``kind`` becomes the error code."""

    kind: ErrorKind | str = ErrorKind.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and when to try again.

    ``max_attempts`` includes the first attempt. If an agent has several models, each has ``max_attempts`` attempts.

    ``initial_delay_seconds`` is the delay after the first attempt. The delay after the n-th attempt is
    ``initial_delay_seconds``, multiplied according to the backoff:

    - ``exponential``: by ``multiplier`` to the power of n-1.
    - ``linear``: by n.
    - ``constant``: by 1.

    The delay never exceeds ``max_delay_seconds``. With ``jitter``, it is shortened at random, by up to a half.

    For tools, ``retry_if(error, ctx, args)`` decides whether an error is retried. For model calls, ``classify(error)``
    does.
    """

    max_attempts: int = 4
    backoff: Literal["exponential", "linear", "constant"] = "exponential"
    initial_delay_seconds: float = 1.0
    multiplier: float = 2.0
    max_delay_seconds: float = 30.0
    jitter: bool = True
    retry_if: Callable[[Exception, Any, dict[str, Any]], object] | None = None
    classify: Callable[[Exception], RetryIn | Fail | Awaitable[RetryIn | Fail | None] | None] | None = None

    @property
    def attempts_per_model(self) -> int:
        """The number of attempts at a model call before the next model is used. It is at least 1."""
        return max(self.max_attempts, 1)

    def delay_seconds(self, attempt: int, *, retry_after_seconds: float | None = None) -> float:
        """Return how many seconds to wait after attempt number ``attempt``, counted from 1. If a provider asks for a
        delay, the result is at least as long, up to ``MAX_RETRY_AFTER_SECONDS``.
        """
        delay = self.initial_delay_seconds
        if self.backoff == "linear":
            delay *= attempt
        elif self.backoff == "exponential":
            # Limit the exponent, because a very large power raises OverflowError.
            delay *= self.multiplier ** min(attempt - 1, 60)
        delay = min(delay, self.max_delay_seconds)
        if self.jitter:
            delay *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        if retry_after_seconds is None:
            return delay
        asked = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        # Wait up to 20 % longer than the provider asks. The extra time is random, so that runs do not all retry at the
        # same moment.
        return max(delay, asked * (random.uniform(1.0, 1.2) if self.jitter else 1.0))  # noqa: S311


ONCE = Retry(max_attempts=1)
"""A single attempt: the default for tools."""
