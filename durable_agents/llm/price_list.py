"""Read litellm's list of models with prices and abilities as data: importing litellm would take seconds."""

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
"""The list as it is installed with litellm."""


class ListedModel(TypedDict, total=False):
    """What is used of a model in the list."""

    litellm_provider: str
    input_cost_per_token: float
    output_cost_per_token: float


def estimated_cost(model: str, *, input_tokens: int, output_tokens: int) -> Decimal | None:
    """Return the list price of this many tokens; None for a model that is not in the list.

    litellm is not imported for it: that would take seconds, while the rows of a dead worker have to be recovered.
    """
    found = listed(model)
    prices = (found.get("input_cost_per_token") or 0, found.get("output_cost_per_token") or 0)
    return dollars(input_tokens * float(prices[0]) + output_tokens * float(prices[1]))


def dollars(amount: float) -> Decimal | None:
    """Return the amount as it is stored; None for zero, since an unknown price is 0 in the list."""
    return Decimal(str(amount)).quantize(Decimal("0.00000001")) if amount else None


def listed(model: str) -> ListedModel:
    """Return litellm's entry for the model: by its full name or, if the provider is the same, without the provider. It
    is empty for a model that is not in the list.
    """
    # A list that litellm has loaded also has the prices that the project has registered.
    models: Mapping[str, ListedModel] = getattr(sys.modules.get("litellm"), "model_cost", None) or installed()
    if model in models:
        return models[model]
    found = models.get(model.partition("/")[2], ListedModel())
    return found if found.get("litellm_provider", "").startswith(provider_of(model)) else {}


@cache
def installed() -> Mapping[str, ListedModel]:
    """Return the list as it is installed; empty without litellm."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        models: Mapping[str, ListedModel] = json.loads(Path(spec.origin).with_name(PRICE_LIST).read_text())
    except (OSError, ValueError):
        return {}
    return models
