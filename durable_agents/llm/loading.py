"""Hides that litellm is slow to import and would like to phone home: it is loaded late, with its flags set."""

from __future__ import annotations

import importlib
import logging
import os
from decimal import Decimal
from functools import cache
from typing import Any

from durable_agents.redaction import Redacting

TALKATIVE = ("LiteLLM", "openai._base_client", "httpx")
"""Loggers that write at DEBUG what a call was made with."""


@cache
def library() -> Any:
    """litellm with its flags set: no network at import, no chatter, prices from the installed file."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(Redacting())
    return litellm


def is_known_to(model: str, ability: str) -> bool:
    """Whether litellm's list of models says this of the model; False for one that is not in it."""
    try:
        return bool(library().get_model_info(model).get(ability))
    except Exception:
        return False


def cost_of(**facts: Any) -> Decimal | None:
    """The price by litellm's table; None for a model that it does not know."""
    try:
        prices = library().cost_per_token(**facts)
    except Exception:
        return None
    total = Decimal(str(prices[0])) + Decimal(str(prices[1]))
    return total.quantize(Decimal("0.00000001")) if total else None


def problem_with(model: str) -> str:
    """What keeps this model from being called, as far as litellm knows without asking anybody; empty for nothing."""
    try:
        library().get_llm_provider(model)
    except Exception as error:
        return f"litellm knows no provider for it ({type(error).__name__})"
    missing = library().validate_environment(model)["missing_keys"]
    return f"the environment has no {' and no '.join(missing)}" if missing else ""
