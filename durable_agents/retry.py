"""Retry policy: decides whether and when a failed attempt runs again. It uses neither a clock nor the database."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from durable_agents.exceptions import ErrorKind

MAX_RETRY_AFTER_SECONDS = 300.0
"""The upper limit for a provider's ``Retry-After``. With a longer wait, the thread would seem to hang."""


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

    ``max_attempts`` counts all attempts, including the first. If an agent has a list of models, each model has
    ``max_attempts`` attempts. The delay after the n-th attempt is ``initial_delay_seconds``, multiplied by
    ``multiplier`` to the power n-1 (``exponential``), by n (``linear``) or by nothing (``constant``). It is at most
    ``max_delay_seconds``. ``jitter`` shortens it at random, by up to a half.

    ``retry_if(error, ctx, args)`` decides for tools which errors are retried, and ``classify(error)`` for model calls.
    """

    max_attempts: int = 4
    backoff: Literal["exponential", "linear", "constant"] = "exponential"
    initial_delay_seconds: float = 1.0
    multiplier: float = 2.0
    max_delay_seconds: float = 30.0
    jitter: bool = True
    retry_if: Callable[..., object] | None = None
    classify: Callable[[Exception], RetryIn | Fail | None] | None = None

    @property
    def attempts_per_model(self) -> int:
        """The number of attempts at a model call before the next model is used: at least one."""
        return max(self.max_attempts, 1)

    def delay_seconds(self, attempt: int, *, retry_after_seconds: float | None = None) -> float:
        """Return the seconds to wait after failed attempt number ``attempt``, counted from 1. The delay that a provider
        asks for is the minimum.
        """
        delay = self.initial_delay_seconds
        if self.backoff == "linear":
            delay *= attempt
        elif self.backoff == "exponential":
            # The exponent is limited, because a large power would raise OverflowError.
            delay *= self.multiplier ** min(attempt - 1, 60)
        delay = min(delay, self.max_delay_seconds)
        if self.jitter:
            delay *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        if retry_after_seconds is None:
            return delay
        asked = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        # Wait up to 20 % longer than the provider asks, at random, so that waiting runs do not all retry at the same
        # time.
        return max(delay, asked * (random.uniform(1.0, 1.2) if self.jitter else 1.0))  # noqa: S311


ONCE = Retry(max_attempts=1)
"""A single attempt: the default for tools."""
