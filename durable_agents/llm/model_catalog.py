"""Read litellm's list of models, prices and abilities from its data file, because importing litellm takes seconds."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TypedDict

from durable_agents.llm.types import provider_of

PRICE_LIST = "model_prices_and_context_window_backup.json"
"""The name of the file with the price list, in the installed litellm package."""


class ListedModel(TypedDict, total=False):
    """The entry of a model in the list. Only some of the fields are declared here."""

    litellm_provider: str
    input_cost_per_token: float
    output_cost_per_token: float
    cache_read_input_token_cost: float


def estimated_cost(model: str, *, input_tokens: int, output_tokens: int) -> Decimal | None:
    """Return the price in US dollars of these tokens, or None for a model that is not in litellm's list.

    litellm is not imported, because the import takes seconds. This function must be fast, because it is also called
    when the rows of a dead worker are recovered.
    """
    found = listed(model)
    prices = (found.get("input_cost_per_token") or 0, found.get("output_cost_per_token") or 0)
    return dollars(input_tokens * float(prices[0]) + output_tokens * float(prices[1]))


def dollars(amount: float) -> Decimal | None:
    """Return the amount rounded to eight decimal places, as it is stored. 0 means an unknown price and becomes None."""
    return Decimal(str(amount)).quantize(Decimal("0.00000001")) if amount else None


def listed(model: str) -> ListedModel:
    """Return litellm's entry for the model, or an empty dict if there is none.

    If the full name has no entry, look up the name without the provider. Use that entry only if it belongs to the same
    provider.
    """
    # If litellm is imported, its own list also has the prices that the project has registered with litellm.
    models: Mapping[str, ListedModel] = getattr(sys.modules.get("litellm"), "model_cost", None) or installed()
    if model in models:
        return models[model]
    found = models.get(model.partition("/")[2], ListedModel())
    return found if found.get("litellm_provider", "").startswith(provider_of(model)) else {}


@cache
def installed() -> Mapping[str, ListedModel]:
    """Return the list that is installed with litellm, or an empty dict if litellm is not installed."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        models: Mapping[str, ListedModel] = json.loads(Path(spec.origin).with_name(PRICE_LIST).read_text())
    except (OSError, ValueError):
        return {}
    return models
