"""Choose for each model call whether to call the provider directly or through litellm.

A call goes through litellm if the table in ``direct.providers`` does not cover the call, or if the project has
configured litellm.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from threading import Lock
from types import MappingProxyType
from typing import Any

from durable_agents.agents import registry
from durable_agents.llm.direct.door import DirectDoor, answered
from durable_agents.llm.direct.request import NotDirectError, built, check
from durable_agents.llm.litellm.door import LiteLLMDoor
from durable_agents.llm.litellm.loading import library
from durable_agents.llm.types import ModelEvent, ModelRequest, ModelUsage
from durable_agents.redaction import remember

_LISTS = (
    "callbacks input_callback success_callback failure_callback service_callback _async_input_callback "
    "_async_success_callback _async_failure_callback pre_call_rules post_call_rules custom_provider_map "
    "model_alias_map custom_prompt_dict model_fallbacks"
)
_VALUES = (
    "api_base api_key openai_key anthropic_key groq_key openrouter_key togetherai_api_key headers organization cache "
    "client_session aclient_session secret_manager_client ssl_certificate ssl_security_level ssl_ecdh_curve "
    "xai_key project api_version use_litellm_proxy drop_params modify_params route_all_chat_openai_to_responses "
    "add_user_information_to_llm_headers fallbacks context_window_fallbacks content_policy_fallbacks default_fallbacks "
    "num_retries max_budget http2 force_ipv4 proxy_auth network_mock enable_anthropic_prompt_caching "
    "anthropic_prompt_caching_ttl openai_system_messages_first reasoning_auto_summary cost_discount_config "
    "cost_margin_config blocked_user_list banned_keywords_list disable_aiohttp_trust_env credential_list"
)
"""More of litellm's module-level settings. Each is empty, None or False unless the project has set it."""
_OWN_VARIABLES = frozenset(
    {
        *("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "LITELLM_LOG", "LITELLM_MODE"),
        *("LITELLM_DETAILED_TIMING", "LITELLM_DISABLE_LAZY_LOADING"),
    }
)
"""Environment variables that litellm reads, but that do not change litellm's model calls."""
_VARIABLES = ("SSL_VERIFY", "SSL_CERTIFICATE", "SSL_SECURITY_LEVEL", "SSL_ECDH_CURVE", "USE_LITELLM_PROXY")
_VARIABLE_PREFIXES = ("LITELLM_", "DEFAULT_ANTHROPIC_", "DEFAULT_REASONING_EFFORT_")
"""Prefixes of environment variables that only litellm reads."""


class AutoDoor:
    """Implements ModelDoor. Calls providers directly where it can, and through litellm otherwise."""

    def __init__(self) -> None:
        self._direct, self._litellm = DirectDoor(), LiteLLMDoor()

    def prepare(self) -> None:
        """See ModelDoor. If an agent needs litellm, import litellm now. Otherwise, the first call that needs litellm
        imports it.
        """
        self._direct.prepare()
        if any(
            reason_for_litellm(model, agent.model_settings, agent.provider_tools)
            for agent in registry.all()
            for model in agent.models
        ):
            self._litellm.prepare()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See ModelDoor."""
        remember(request.settings)
        try:
            call = None if how_litellm_is_set_up() else await built(request)
        except NotDirectError:
            call = None
        if call is None and not library.cache_info().currsize:
            await asyncio.to_thread(_load)  # in another OS thread, because the import takes seconds
        stream = self._litellm.stream(request) if call is None else answered(request, call)
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                yield event

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """See ModelDoor."""
        return self._direct.estimate(request, answered)

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """See ModelDoor."""
        return self._direct.continues(model, settings)

    async def aclose(self) -> None:
        """See ModelDoor."""
        await self._direct.aclose()
        await self._litellm.aclose()


_loading = Lock()


def _load() -> None:
    with _loading:  # without the lock, two OS threads could both set up litellm
        library()


def reason_for_litellm(model: str, settings: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the reason why calls of this model go through litellm, or an empty string if they are direct calls."""
    if reason := how_litellm_is_set_up():
        return reason
    try:
        check(model, settings, tools)
    except NotDirectError as error:
        return str(error)
    return ""


def how_litellm_is_set_up() -> str:
    """Return a description of the project's own configuration of litellm, or an empty string if there is none.

    With such a configuration, every call must go through litellm.
    """
    prefixed = {name for name in os.environ if name.startswith(_VARIABLE_PREFIXES)} - _OWN_VARIABLES
    found = [name for name in os.environ if name in _VARIABLES or name in prefixed]
    litellm = sys.modules.get("litellm")  # a project that has configured litellm has also imported it
    for name in (*_LISTS.split(), *_VALUES.split()):
        value = getattr(litellm, name, None)
        # Ignore the list ["cache"]: litellm itself adds "cache" to a list of callbacks at its first Gemini call. A
        # cache of the project is found in ``litellm.cache``.
        if value and value != ["cache"]:
            found.append(f"litellm.{name}")
    if getattr(litellm, "ssl_verify", True) is not True:
        found.append("litellm.ssl_verify")
    return f"the project has set litellm up: {', '.join(found)}" if found else ""
