"""Import litellm late, because the import is slow. Let litellm contact no server except the configured provider's."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from durable_agents.llm.model_catalog import dollars
from durable_agents.llm.time_limits import listen
from durable_agents.llm.types import provider_of
from durable_agents.redaction import Redacting

TALKATIVE = ("LiteLLM", "openai._base_client", "httpx")
"""Names of loggers that write the arguments of a model call at level DEBUG."""

SIGNS_IN_WHEN_ASKED = frozenset({"github_copilot", "chatgpt"})
"""Providers with a device login. litellm starts the login as soon as one of their models is looked up, even before a
call (litellm: ``PROVIDERS_THAT_AUTHENTICATE_ON_PROVIDER_INFO``).
"""


ModelInfo = dict[str, str | float | None]
"""litellm's data about a model."""


@cache
def library() -> Any:
    """Return litellm, configured so that it prints nothing, opens no connection at import, and looks up no models."""
    # Override these environment variables, because litellm must not contact any server except the provider's.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    litellm: Any = importlib.import_module("litellm")
    # By default, litellm downloads the tokenizers of llama-2, llama-3, command-r and replicate.
    litellm.disable_hf_tokenizer_download = True
    avoid_look_ups()
    listen()
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(Redacting())
    return litellm


def avoid_look_ups() -> None:
    """Replace litellm's functions that look up a model's data and prompt template.

    For some providers, litellm calls these functions before and after every model call. The functions make blocking
    requests to huggingface.co or to a local server. They use the local server's default address, even if another
    address is configured. Each replacement returns the value that litellm uses when the request fails.
    """

    def no_template(hf_model_name: str) -> dict[str, str]:
        return {"status": "failure"}

    async def no_template_async(hf_model_name: str) -> dict[str, str]:
        return {"status": "failure"}

    def some_size(data: str) -> tuple[int, int]:
        # If the provider reports no usage, litellm needs the size of each image to count the image's tokens. litellm's
        # own function downloads the image to find out the size. Return a fixed size instead.
        return 1024, 1024

    def no_limit(model_name: str) -> None:
        return None

    def free_of_charge(provider: str) -> Callable[..., ModelInfo]:
        def model_info(self: object, model: str, api_base: str | None = None, api_key: str | None = None) -> ModelInfo:
            unknown = dict.fromkeys(("max_tokens", "max_input_tokens", "max_output_tokens"))
            prices = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
            return {"key": model, "litellm_provider": provider, "mode": "chat", **prices, **unknown}

        return model_info

    templates = "litellm_core_utils.prompt_templates.huggingface_template_handler"
    replacements: dict[str, Callable[..., object]] = {
        f"{templates}._get_tokenizer_config": no_template,
        f"{templates}._get_chat_template_file": no_template,
        f"{templates}._aget_tokenizer_config": no_template_async,
        f"{templates}._aget_chat_template_file": no_template_async,
        "litellm_core_utils.token_counter.get_image_dimensions": some_size,
        "utils._get_max_position_embeddings": no_limit,
        "llms.ollama.common_utils.OllamaModelInfo.get_runtime_model_info": free_of_charge("ollama"),
        "llms.lemonade.chat.transformation.LemonadeChatConfig.get_model_info": free_of_charge("lemonade"),
    }
    for path, replacement in replacements.items():
        owner, _, name = path.rpartition(".")
        setattr(pkgutil.resolve_name(f"litellm.{owner}"), name, replacement)


def is_known_to(model: str, ability: str) -> bool:
    """Return whether the model has this ability in litellm's list of models; False for a model not in the list."""
    try:
        return bool(library().get_model_info(model).get(ability))
    except Exception:
        return False


def cost_of(model: str, **usage: object) -> Decimal | None:
    """Return the price in US dollars from litellm's list, or None for a model that is not in the list.

    ``usage`` can be any arguments of ``litellm.cost_per_token``.
    """
    if provider_of(model) in SIGNS_IN_WHEN_ASKED:
        return None
    try:
        prices = library().cost_per_token(model=model, **usage)
    except Exception:
        return None
    return dollars(prices[0] + prices[1])


def problem_with(model: str) -> str:
    """Return a description of a problem that prevents calls of this model, or an empty string.

    Only problems that litellm finds without a request are reported.
    """
    if provider_of(model) in SIGNS_IN_WHEN_ASKED:
        return ""
    try:
        library().get_llm_provider(model)
    except Exception as error:
        return f"litellm knows no provider for it ({type(error).__name__})"
    missing = library().validate_environment(model)["missing_keys"]
    return f"the environment has no {' and no '.join(missing)}" if missing else ""
