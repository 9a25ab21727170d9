"""Compute the price of a call from litellm's price list and the token counts that the provider reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from durable_agents.llm.model_catalog import dollars, listed
from durable_agents.llm.types import ModelUsage

_TIERS = (
    (512_000, "_above_512k_tokens"),
    (272_000, "_above_272k_tokens"),
    (256_000, "_above_256k_tokens"),
    (200_000, "_above_200k_tokens"),
    (128_000, "_above_128k_tokens"),
)
"""The price tiers of long requests. Each tier has a threshold in input tokens, and the suffix of the tier's price names
in litellm's list. The tier's prices apply to all tokens of a call with more input tokens than the threshold.
"""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The token counts of one call. ``input`` includes ``cached`` and ``cache_write``; ``output`` includes
    ``reasoning``.
    """

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    """How many of the ``cache_write`` tokens are cached for an hour, which costs more."""
    reasoning: int = 0


def priced(model: str, tokens: Tokens) -> ModelUsage:
    """Return the usage of a call of this model, with the price."""
    return ModelUsage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cached_input_tokens=tokens.cached,
        cache_write_tokens=tokens.cache_write,
        reasoning_tokens=tokens.reasoning,
        cost=_cost(listed(model), tokens),
    )


def _cost(prices: Mapping[str, Any], tokens: Tokens) -> Decimal | None:
    if not prices:
        return None
    end = next((end for above, end in _TIERS if tokens.input > above and f"input_cost_per_token{end}" in prices), "")

    def price(name: str, default: float) -> float:
        found = prices.get(name + end)
        found = prices.get(name) if found is None else found
        return default if found is None else float(found)

    read = price("input_cost_per_token", 0.0)
    written = price("output_cost_per_token", 0.0)
    cache_write = price("cache_creation_input_token_cost", read)
    hourly = price("cache_creation_input_token_cost_above_1hr", cache_write)
    amount = (tokens.input - tokens.cached - tokens.cache_write) * read
    amount += tokens.cached * price("cache_read_input_token_cost", read)
    amount += (tokens.cache_write - tokens.cache_write_1h) * cache_write + tokens.cache_write_1h * hourly
    amount += (tokens.output - tokens.reasoning) * written
    amount += tokens.reasoning * price("output_cost_per_reasoning_token", written)
    return dollars(amount)
